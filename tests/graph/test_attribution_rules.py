"""The rules of attribution-graph JSON, each broken by hand once."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from sae_graphs.graph.export.attribution_rules import EXACT, broken_rules


def by_hand() -> dict[str, Any]:
    """A file as the reference describes it, with a node of every type."""

    def node(**values: Any) -> dict[str, Any]:
        return {"jsNodeId": values["node_id"], "clerp": "words", "influence": 0.5, **values}

    feature = "cross layer transcoder"
    return {
        "metadata": {
            "slug": "my-graph.1",
            "scan": "gemma-2-2b",
            "schema_version": 1,
            "node_threshold": 0.8,
            "transcoder_list": ["a"],
            "prompt_tokens": ["<bos>", "a", "b", "c"],
            "prompt": "abc",
            "feature_details": {"neuronpedia_source_set": "set"},
            "info": {
                "description": "d",
                "source_urls": ["u"],
                "generator": {"name": "n"},
                "create_time_ms": 1,
                "neuronpedia_source_set": "set",
            },
        },
        "qParams": {
            "pinnedIds": ["1_2_3"],
            "supernodes": [["s", "0_1_1"]],
            "linkType": "both",
            "clickedId": "1_2_3",
            "sg_pos": "",
        },
        "nodes": [
            node(node_id="E_77_1", feature=1, layer="E", ctx_idx=1, feature_type="embedding"),
            node(node_id="0_1_1", feature=2, layer="0", ctx_idx=1, feature_type=feature),
            node(node_id="1_2_3", feature=8, layer=1, ctx_idx=3, feature_type=feature),
            node(
                node_id="1_-1_2",
                feature=-1,
                layer="1",
                ctx_idx=2,
                feature_type="mlp reconstruction error",
            ),
            node(
                node_id="3_9_3",
                feature=9,
                layer="2",
                ctx_idx=3,
                feature_type="logit",
                clerp='Output ")" (p=0.823)',
                token_prob=0.823,
                is_target_logit=True,
            ),
        ],
        "links": [
            {"source": "E_77_1", "target": "0_1_1", "weight": 1},
            {"source": "1_2_3", "target": "3_9_3", "weight": -0.5},
        ],
    }


def test_the_file_by_hand_breaks_no_rule() -> None:
    assert broken_rules(by_hand(), size=5_000) == ()
    smallest = by_hand()
    smallest["qParams"] = {}
    smallest["metadata"] = {
        name: smallest["metadata"][name] for name in ("slug", "scan", "prompt_tokens", "prompt")
    }
    for node in smallest["nodes"]:
        del node["influence"]
    assert broken_rules(smallest) == ()


BREAK: list[tuple[str, Any, str]] = [
    # where, what is put there (... takes it away), what is found
    ("metadata", ..., "the file has no metadata"),
    ("qParams", ..., "the file has no qParams"),
    ("nodes", ..., "the file has no nodes"),
    ("links", ..., "the file has no links"),
    ("nodes", {}, "nodes of the file is {}, not a list"),
    ("metadata.slug", "a b", "slug is 'a b'"),
    ("metadata.slug", "", "slug is ''"),
    ("metadata.slug", "a\n", "slug is"),
    ("metadata.scan", "org/model", "scan is 'org/model'"),
    ("metadata.scan", ..., "scan is None"),
    ("metadata.prompt", ..., "metadata has no prompt"),
    ("metadata.prompt", 5, "prompt of metadata is 5, not a text"),
    ("metadata.prompt_tokens", ..., "metadata has no prompt_tokens"),
    ("metadata.prompt_tokens", [], "prompt_tokens are not texts"),
    ("metadata.prompt_tokens.0", 5, "prompt_tokens are not texts"),
    ("metadata.schema_version", "1", "schema_version of metadata"),
    ("metadata.node_threshold", "0.8", "node_threshold of metadata"),
    ("metadata.transcoder_list", [1], "transcoder_list holds"),
    ("metadata.info", [], "info of metadata"),
    ("metadata.info.description", None, "description of info"),
    ("metadata.info.source_urls", [1], "source_urls hold"),
    ("metadata.info.create_time_ms", "now", "create_time_ms of info"),
    ("metadata.info.generator.version", 1, "version of generator"),
    ("metadata.info.neuronpedia_source_set", ..., "both places are read"),
    ("metadata.feature_details.neuronpedia_source_set", ..., "both places are read"),
    ("metadata.feature_details.neuronpedia_source_set", "other", "both places are read"),
    ("metadata.feature_details.feature_json_base_url", "http://x", "turns feature_json_base_url"),
    ("metadata.generation_settings", 1, "generation_settings of metadata"),
    ("metadata.pruning_settings", [], "pruning_settings of metadata"),
    ("nodes.1", 5, "node 1 is 5, not an object"),
    *(
        (f"nodes.1.{name}", ..., f"node 1 has no {name}")
        for name in (
            "node_id",
            "feature",
            "layer",
            "ctx_idx",
            "feature_type",
            "jsNodeId",
            "clerp",
        )
    ),
    ("nodes.1.feature", "2", "feature of node 1"),
    ("nodes.1.feature", 2.0, "feature of node 1"),
    ("nodes.1.layer", 0.0, "layer of node 1"),
    ("nodes.1.ctx_idx", True, "ctx_idx of node 1"),
    ("nodes.1.clerp", None, "clerp of node 1"),
    ("nodes.1.influence", "high", "influence of node 1"),
    ("nodes.1.activation", math.inf, "activation of node 1 is inf"),
    ("nodes.4.token_prob", "p", "token_prob of node 4"),
    ("nodes.4.is_target_logit", 1, "is_target_logit of node 4"),
    ("nodes.1.run_idx", 0.5, "run_idx of node 1"),
    ("nodes.1.feature", 3, "not cantor, 2"),
    ("nodes.1.feature", None, "not cantor, 2"),
    ("nodes.1.node_id", "0-1-1", "is not layer_number_position"),
    ("nodes.1.node_id", "0_1_2", "says another position than its ctx_idx"),
    ("nodes.1.node_id", "1_1_1", "says another layer than its own"),
    ("nodes.1.node_id", "1_2_3", "node_id 1_2_3 is there twice"),
    ("nodes.1.layer", "e", "says another layer than its own"),
    ("nodes.1.ctx_idx", 4, "outside the 4 tokens"),
    ("nodes.1.feature_type", "sae", "viewers know"),
    ("nodes.0.layer", "0", "its layer is E"),
    ("nodes.0.feature", 77, "its feature its position"),
    ("nodes.3.feature", 1, "its number and its feature are -1"),
    ("nodes.4.clerp", 'Output ")"', "without the likes of"),
    ("nodes.4.clerp", "(p=high)", "without the likes of"),
    ("nodes.4.clerp", 'Output "(p=x" (p=0.5)', "without the likes of"),
    ("nodes.4.feature", 10, "its feature is the token's id"),
    ("nodes.4.layer", "3", "not in the one on top, 2"),
    ("nodes.4.node_id", "1_9_3", "a layer above all others"),
    ("nodes.1.influence", None, "node_threshold hides 0_1_1"),
    ("links.0", [], "link 0 is [], not an object"),
    ("links.0.source", "0_1_2", "source of link 0 is '0_1_2', which is no node"),
    ("links.0.target", ..., "target of link 0"),
    ("links.0.weight", ..., "link 0 has no weight"),
    ("links.0.weight", "1", "weight of link 0"),
    ("links.0.weight", math.nan, "which JSON cannot hold"),
    ("qParams.pinnedIds.0", "9_9_9", "pinnedIds hold '9_9_9'"),
    ("qParams.pinnedIds", "all", "pinnedIds of qParams"),
    ("qParams.supernodes.0", ["s"], "a supernode is ['s']"),
    ("qParams.supernodes.0.1", "9_9_9", "supernode 's' holds '9_9_9'"),
    ("qParams.linkType", "input", "linkType is 'input'"),
    ("qParams.clickedId", "9_9_9", "clickedId is '9_9_9'"),
    ("qParams.sg_pos", None, "sg_pos of qParams"),
]


@pytest.mark.parametrize(("where", "value", "found"), BREAK)
def test_each_rule_is_found_broken(where: str, value: Any, found: str) -> None:
    data = by_hand()
    at: Any = data
    *way, last = (int(step) if step.isdigit() else step for step in where.split("."))
    for step in way:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    assert [line for line in broken_rules(data, size=5_000) if found in line], broken_rules(data)


def test_no_feature_above_layer_0() -> None:
    data = by_hand()
    del data["nodes"][2:4]
    assert any("layer of 1 or more" in line for line in broken_rules(data))


def test_a_feature_at_more_than_two_thirds_of_the_tokens() -> None:
    data = by_hand()
    kind = data["nodes"][1]
    for at, broken in ((0, False), (2, True)):  # at 2 of 4 tokens, then at 3
        data["nodes"].append({**kind, "node_id": f"0_1_{at}", "ctx_idx": at})
        found = any("two thirds" in line for line in broken_rules(data))
        assert found is broken


def test_one_token_shows_nothing() -> None:
    data = by_hand()
    data["metadata"]["prompt_tokens"] = ["a"]
    for node in data["nodes"]:
        node["ctx_idx"] = 0
    assert sum("two thirds" in line for line in broken_rules(data)) == 4  # all but the error


def test_numbers_that_javascript_rounds() -> None:
    data = by_hand()
    index = 10**9
    number = (index + 1) * index // 2 + index
    assert number > EXACT
    data["nodes"][1] |= {"node_id": f"0_{index}_1", "feature": number}
    assert any("JavaScript rounds" in line for line in broken_rules(data))


@pytest.mark.parametrize(("size", "fits"), [(999, False), (1_000, True), (100_000_001, False)])
def test_sizes_that_neuronpedia_takes(size: int, fits: bool) -> None:
    assert (broken_rules(by_hand(), size=size) == ()) is fits


def test_a_folder_is_a_scan_for_the_viewer_alone() -> None:
    data = by_hand()
    data["metadata"]["scan"] = "./data/features/one"
    assert broken_rules(data) == ()
    (broken,) = broken_rules(data, size=5_000)
    assert broken.startswith("scan is './data/features/one'")


@pytest.mark.parametrize("data", [None, [], "x", 5, {"metadata": 1}])
def test_what_is_no_graph_at_all_is_said(data: Any) -> None:
    assert broken_rules(data)


def test_checking_changes_nothing() -> None:
    data = by_hand()
    before = copy.deepcopy(data)
    broken_rules(data)
    assert data == before
