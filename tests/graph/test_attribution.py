"""Attribution-graph JSON: what it holds, and the rules of the viewers that it is held against."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.annotations import Annotations, Group
from sae_graphs.graph.export import formats as exports
from sae_graphs.graph.export.attribution import attribution, cantor
from sae_graphs.graph.export.attribution_nodes import logit_words, plain_text, safe
from sae_graphs.graph.export.attribution_rules import broken_rules
from sae_graphs.graph.export.formats import exported
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Context, Edge, LayerReport, Node, OutputToken
from tests.support.rich_graphs import (
    graph_of,
    hostile,
    large,
    record,
    resolved,
    two_components,
    two_edges,
)

F = FeatureId.parse
OUTPUTS = (
    OutputToken(340, ")", 14.0, 0.8234),
    OutputToken(11, ",", 3.5, 0.0625, contrast=" and"),
)


def written(graph: CausalGraph, said: Annotations | None = None) -> dict[str, Any]:
    """The exported file, which meets every rule."""
    data = exported(graph, "attribution", annotations=said or Annotations())
    [file] = data.values()
    made: dict[str, Any] = json.loads(file)
    assert broken_rules(made, size=len(file)) == ()
    return made


def nodes_of(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["node_id"]: node for node in of_graph(data)}


def of_graph(data: Any) -> list[dict[str, Any]]:
    """Those that the graph has, without the tokens and the logit that viewers need beside them."""
    ends = {end for link in data["links"] for end in (link["source"], link["target"])}
    return [node for node in data["nodes"] if node["node_id"] in ends]


def labelled(*labels: str, **changes: Any) -> Any:
    layers = tuple(LayerReport(label, "hook", 1, 1.0, 0.1) for label in labels)
    return record(layers=layers, **changes)


def with_outputs() -> CausalGraph:
    run = record(outputs=OUTPUTS)
    edges = graph_of(("2.3", "3.4", -1.0), run=run)
    ends = [F("out.340"), F("out.11")]
    nodes = [Node(end, 1.0, token=run.output(end).token) for end in ends]
    more = [Edge(F("3.4"), end, effect) for end, effect in zip(ends, (-2.0, 0.5), strict=True)]
    return assemble(run, [*edges.nodes, *nodes], [*edges.edges, *more])


def on_neuronpedia(
    *sources: str, model: str = "gpt2-small", labels: Sequence[str] = ()
) -> CausalGraph:
    """A chain of one feature a layer, each with the address of its SAE, called as that is."""
    labels = labels or [source.partition("-")[0] for source in sources]
    names = [f"{label}.{number}" for number, label in enumerate(labels)]
    pairs = [(a, b, -1.0) for a, b in pairwise(names)]
    graph = graph_of(*pairs, run=labelled(*labels))
    nodes = [
        replace(
            node,
            neuronpedia=f"https://www.neuronpedia.org/{model}/{source}/{node.feature.index}",
        )
        for node, source in zip(graph.nodes, sources, strict=True)
    ]
    return assemble(graph.run, nodes, graph.edges)


# -- what is exported meets every rule -------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        two_edges,
        two_components,
        hostile,
        resolved,
        lambda: resolved(hostile_text=True),
        lambda: resolved(400, seed=7),
        large,
        with_outputs,
        lambda: on_neuronpedia("0-res-jb", "1-res-jb", "2-res-jb"),
        lambda: on_neuronpedia("e-res-sm", "0-res-sm", "1-res-sm"),
        lambda: resolved().summed(),
        lambda: resolved().summed("all"),
    ],
)
def test_exports_meet_every_rule(made: Callable[[], CausalGraph]) -> None:
    graph = made()
    data = written(graph)
    assert len(data["links"]) == len(graph.edges)
    assert len(of_graph(data)) == len(graph.nodes)
    others = [node for node in data["nodes"] if node not in of_graph(data)]
    tokens = [node["ctx_idx"] for node in others if node["feature_type"] == "embedding"]
    assert tokens == list(range(graph.run.read_position + 1))
    assert len(others) - len(tokens) == (not graph.run.outputs)  # a logit, where there is none
    assert {node["clerp"].strip() for node in data["nodes"]} - {""}


def test_a_link_weighs_minus_the_effect() -> None:
    """By hand: cantor(0, 1) = 2, cantor(1, 2) = 8, cantor(2, 3) = 18; token 3 is read."""
    data = written(two_edges())
    assert data["links"] == [
        {"source": "0_1_3", "target": "1_2_3", "weight": 8.0},
        {"source": "1_2_3", "target": "2_3_3", "weight": -2.0},
    ]
    assert [(n["node_id"], n["feature"], n["layer"], n["ctx_idx"]) for n in of_graph(data)] == [
        ("0_1_3", 2, "0", 3),
        ("1_2_3", 8, "1", 3),
        ("2_3_3", 18, "2", 3),
    ]
    first = data["nodes"][0]
    assert first["feature_type"] == "cross layer transcoder"
    assert (first["jsNodeId"], first["activation"]) == ("0_1-3", 2.5)
    assert "minus the effect" in data["metadata"]["generation_settings"]["link_weight"]
    assert "minus the effect" in data["metadata"]["info"]["description"]
    assert "node_threshold" not in data["metadata"]
    assert data["metadata"]["schema_version"] == 1


@given(st.integers(0, 60), st.integers(0, 200_000))
def test_cantor_numbers_can_be_undone(layer: int, index: int) -> None:
    """As the viewers do it, in double precision."""
    number = cantor(layer, index)
    total = math.floor((math.sqrt(8.0 * number + 1) - 1) / 2)
    second = number - total * (total + 1) // 2
    assert (total - second, second) == (layer, index)


# -- positions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activations", "settings", "place", "activation"),
    [
        ((9.0, 1.0, 5.0, 0.5), {}, 3, 0.5),  # active where effects are read
        ((0.0, 0.0, 0.0, 0.0), {}, 3, 0.0),  # nowhere
        ((9.0, 1.0, 5.0, 0.0), {}, 2, 5.0),  # elsewhere: not on the first token
        ((9.0, 0.0, 0.0, 0.0), {}, 3, 0.0),
        ((9.0, 1.0, 5.0, 0.0), {"ablate_first": True}, 0, 9.0),
        ((9.0, 4.0, -5.0, 0.0), {}, 2, -5.0),
        ((), {}, 3, 2.5),
    ],
)
def test_where_a_feature_without_position_stands(
    activations: tuple[float, ...], settings: dict[str, Any], place: int, activation: float
) -> None:
    graph = graph_of(("0.1", "1.2", -1.0), run=record(settings=settings), activations=activations)
    [node, _] = of_graph(written(graph))
    assert (node["node_id"], node["ctx_idx"]) == (f"0_1_{place}", place)
    assert node["activation"] == activation


def test_what_comes_after_the_position_read_does_not_count() -> None:
    graph = graph_of(
        ("0.1", "1.2", -1.0), run=record(read_position=2), activations=(0.0, 1.0, 0.0, 9.0)
    )
    assert list(nodes_of(written(graph))) == ["0_1_1", "1_2_1"]


def test_features_with_positions_stand_there() -> None:
    graph = graph_of(("0.1@1", "1.2@2", -1.0), ("0.1@2", "1.2@2", 3.0))
    data = written(graph)
    assert set(nodes_of(data)) == {"0_1_1", "0_1_2", "1_2_2"}
    assert "without a position" not in data["metadata"]["info"]["description"]


def test_of_a_feature_almost_everywhere_the_weakest_position_is_left_out() -> None:
    """Viewers drop what is at 3 of 4 tokens: then it is at 2, and a line says so."""
    graph = graph_of(*((f"0.1@{at}", "1.2@3", -float(at)) for at in (1, 2, 3)))
    told: list[str] = []
    [file] = exported(graph, "attribution", told=told.append).values()
    data = json.loads(file)
    assert set(nodes_of(data)) == {"0_1_2", "0_1_3", "1_2_3"}
    assert [link["weight"] for link in data["links"]] == [3.0, 2.0]
    assert len(told) == 1
    assert told[0].startswith("left out of the attribution graph: 0.1@1; viewers drop")


def test_a_prompt_of_one_token_is_refused() -> None:
    run = record(("C",))
    graph = graph_of(("0.1", "1.2", -1.0), run=run, activations=(1.0,))
    with pytest.raises(SaeGraphsError, match=r"one token.*write another format"):
        exported(graph, "attribution")
    assert exported(graph, "csv")  # which other programs do show


def test_a_graph_without_edges_is_refused() -> None:
    with pytest.raises(SaeGraphsError, match="no edges"):
        exported(assemble(record(), [], []), "attribution")


def test_of_positions_that_are_as_strong_the_later_is_kept() -> None:
    run = record(("a", "b"), settings={"ablate_first": True})
    pairs = (("0.1@0", "1.2@0", -1.0), ("0.1@1", "1.2@1", -1.0))
    graph = graph_of(*pairs, run=run, activations=(1.0, 1.0))
    assert set(nodes_of(written(graph))) == {"0_1_1", "1_2_1"}


@given(st.data())
def test_however_many_positions_are_left_out_something_is_shown(data: st.DataObject) -> None:
    tokens = data.draw(st.integers(2, 4))
    places = st.integers(0, tokens - 1)
    ends = st.tuples(st.sampled_from("1234"), places, st.sampled_from("1234"), places)
    pairs = data.draw(st.dictionaries(ends, st.integers(1, 3), min_size=1))
    edges = [
        (f"0.{source}@{p}", f"1.{target}@{q}", -float(size))
        for (source, p, target, q), size in pairs.items()
        if p <= q
    ]
    if edges:
        graph = graph_of(*edges, run=record(("a",) * tokens), activations=(1.0,) * tokens)
        assert written(graph)["links"]


# -- layers and Neuronpedia ------------------------------------------------------------------------


def test_saes_on_neuronpedia_are_found_there() -> None:
    data = written(on_neuronpedia("5-res-jb", "6-res-jb", "7-res-jb"))
    metadata = data["metadata"]
    assert metadata["scan"] == "gpt2-small"
    assert metadata["feature_details"] == {"neuronpedia_source_set": "res-jb"}
    assert metadata["info"]["neuronpedia_source_set"] == "res-jb"
    assert metadata["info"]["source_urls"] == ["https://www.neuronpedia.org/gpt2-small/res-jb"]
    assert set(nodes_of(data)) == {"5_0_3", "6_1_3", "7_2_3"}


@pytest.mark.parametrize(
    ("sources", "ids", "told"),
    [
        (("e-res-sm", "0-res-sm", "1-res-sm"), {"0_0_3", "1_1_3", "2_2_3"}, "numbered by depth"),
        (("0-res-sm", "1-att-sm"), {"0_0_3", "1_1_3"}, "not of one set"),
        (("0", "1"), {"0_0_3", "1_1_3"}, "not of one set"),
    ],
)
def test_where_pages_would_be_other_features(
    sources: tuple[str, ...], ids: set[str], told: str
) -> None:
    """No details at all are better than those of another SAE."""
    graph = on_neuronpedia(*sources, model="pythia-70m-deduped")
    made = attribution(graph)
    assert "feature_details" not in made.data["metadata"]
    assert "neuronpedia_source_set" not in made.data["metadata"]["info"]
    assert made.data["metadata"]["scan"] == "pythia-70m-deduped"
    assert set(nodes_of(made.data)) == ids
    assert told in made.warnings[0]


def test_layers_called_otherwise_than_their_saes_have_no_pages_there() -> None:
    """`{label}-{set}` would be another SAE's page."""
    made = attribution(on_neuronpedia("4-res-jb", "5-res-jb", labels=("5", "6")))
    assert "feature_details" not in made.data["metadata"]
    assert "not of one set" in made.warnings[0]


def test_layers_numbered_by_depth_are_named() -> None:
    data = written(on_neuronpedia("e-res-sm", "0-res-sm", "1-res-sm"))
    assert "e is 0, 0 is 1, 1 is 2" in data["metadata"]["info"]["description"]
    assert data["nodes"][0]["clerp"].startswith("e.0: active on")


def test_a_feature_without_a_page_leaves_them_all_out() -> None:
    graph = on_neuronpedia("0-res-jb", "1-res-jb")
    nodes = (replace(graph.nodes[0], neuronpedia=None), graph.nodes[1])
    made = attribution(CausalGraph(graph.run, nodes, graph.edges))
    assert made.data["metadata"]["scan"] == "demo"
    assert "not all features" in made.warnings[0]
    assert attribution(two_edges()).warnings == ()  # on no site at all: nothing is missing


def test_one_layer_is_counted_from_one() -> None:
    """Neuronpedia fails where no feature is above layer 0."""
    run = labelled("0", outputs=OUTPUTS[:1])
    nodes = [*graph_of(("0.1", "1.2", -1.0)).nodes[:1], Node(F("out.340"), 1.0, token=")")]
    data = written(assemble(run, nodes, [Edge(F("0.1"), F("out.340"), -1.0)]))
    assert set(nodes_of(data)) == {"1_1_3", "2_340_3"}


@pytest.mark.parametrize("labels", [("1", "0"), ("00", "01"), ("0", "12345"), ("0-pre", "0-post")])
def test_labels_that_are_no_rising_whole_numbers(labels: tuple[str, str]) -> None:
    graph = graph_of((f"{labels[0]}.1", f"{labels[1]}.2", -1.0), run=labelled(*labels))
    assert set(nodes_of(written(graph))) == {"0_1_3", "1_2_3"}


# -- output tokens ---------------------------------------------------------------------------------


def test_output_tokens_are_logits_above_all_layers() -> None:
    nodes = nodes_of(written(with_outputs()))
    first, second = nodes["4_340_3"], nodes["4_11_3"]
    assert first["clerp"] == 'Output ")" (p=0.823)'
    assert second["clerp"] == 'Output "," - " and" (p=0.062)'
    assert (first["layer"], first["feature"], first["feature_type"]) == ("4", 340, "logit")
    assert (first["is_target_logit"], second["is_target_logit"]) == (True, False)
    assert first["token_prob"] == 0.8234


@pytest.mark.parametrize("labels", [("2", "3", "4"), ("2", "3", "12")])
def test_on_a_part_of_the_stack_logits_are_above_the_highest_feature(
    labels: tuple[str, ...],
) -> None:
    """The model's depth is in no saved graph: `--layers 2:4` of twelve gives 5, not 13."""
    first, second, last = labels
    run = labelled(*labels, outputs=OUTPUTS[:1])
    edges = [Edge(F(f"{first}.1"), F(f"{second}.2"), -1.0)]
    edges += [Edge(F(f"{second}.2"), F(f"{last}.3"), -2.0), Edge(F(f"{last}.3"), F("out.340"), 1.0)]
    names = (f"{first}.1", f"{second}.2", f"{last}.3")
    nodes = [*(Node(F(name), 1.0) for name in names), Node(F("out.340"), 1.0, token=")")]
    data = written(assemble(run, nodes, edges))
    row = int(last) + 1
    logit = nodes_of(data)[f"{row}_340_3"]
    assert (logit["feature_type"], logit["layer"]) == ("logit", str(row))
    assert set(nodes_of(data)) == {f"{first}_1_3", f"{second}_2_3", f"{last}_3_3", f"{row}_340_3"}


def test_logits_of_other_positions_do_not_claim_a_probability() -> None:
    graph = with_outputs()
    places = {node.feature: replace(node.feature, position=2) for node in graph.nodes}
    nodes = [replace(node, feature=places[node.feature]) for node in graph.nodes]
    edges = [replace(e, source=places[e.source], target=places[e.target]) for e in graph.edges]
    node = nodes_of(written(assemble(graph.run, nodes, edges)))["4_340_2"]
    assert "token_prob" not in node
    assert node["clerp"] == 'Output ")" (p=0.823) where effects are read; here 2'


@pytest.mark.parametrize("token", ['"', "(p=x)", "(p=", '" (p=9)', "\n", "", "<b>", "\ud83d"])
def test_no_token_hides_the_probability(token: str) -> None:
    """As the viewers take them apart."""
    words = logit_words(OutputToken(1, token, 1.0, 0.5, contrast=token))
    assert float(words.split("(p=")[1].split(")")[0]) == 0.5
    assert "<" not in words and words.isprintable()


# -- names, texts, annotations ---------------------------------------------------------------------


def test_features_are_called_by_label_explanation_or_context() -> None:
    page = FeaturePage("found", "copyright <signs>")
    explained = graph_of(("0.1", "1.2", -1.0), page=page)
    said = Annotations(labels={F("0.1"): "mine"})
    clerps = [node["clerp"] for node in of_graph(written(explained, said))]
    assert clerps == ["mine", "copyright ‹signs›"]
    [hint, _] = [node["clerp"] for node in of_graph(written(graph_of(("0.1", "1.2", -1.0))))]
    assert hint == 'active on " rights" in "All rights reserved"'


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contexts": ()}, 'active on "C" of the prompt'),
        ({"contexts": (Context((), ()),)}, 'active on "C" of the prompt'),
        ({"contexts": (), "activations": ()}, 'promotes " )"'),
        ({"contexts": (), "activations": (), "promotes": ()}, "feature 0.1"),
        ({"page": FeaturePage("found", " ")}, 'active on " rights" in "All rights reserved"'),
    ],
)
def test_no_feature_is_without_words(changes: dict[str, Any], words: str) -> None:
    graph = graph_of(("0.1", "1.2", -1.0), **changes)
    assert written(graph)["nodes"][0]["clerp"] == words


def test_pins_and_groups_are_the_saved_view() -> None:
    """Viewers show groups of pinned features alone, so those of groups are pinned, too."""
    said = Annotations(
        title="A <title>",
        pins=(F("2.3"),),
        groups=(Group("<b>rackets", (F("0.1"), F("1.2"))),),
    )
    data = written(two_edges(), said)
    assert data["qParams"] == {
        "pinnedIds": ["2_3_3", "0_1_3", "1_2_3"],
        "supernodes": [["‹b›rackets", "0_1_3", "1_2_3"]],
        "linkType": "both",
        "clickedId": "",
        "sg_pos": "",
    }
    assert data["metadata"]["info"]["description"].startswith("A ‹title› ")


def test_what_is_left_out_is_in_no_group_and_is_named() -> None:
    graph = graph_of(*((f"0.1@{at}", "1.2@3", -float(at)) for at in (1, 2, 3)))
    said = Annotations(pins=(F("0.1@1"),), groups=(Group("g", (F("0.1@1"),)),))
    assert written(graph, said)["qParams"]["supernodes"] == []
    assert attribution(graph, annotations=said).warnings[1:] == (
        "left out with them, of what you marked: the pins 0.1@1, all of the group 'g'",
    )
    said = Annotations(pins=(F("0.1@2"),), groups=(Group("<g>", (F("0.1@1"), F("0.1@3"))),))
    assert attribution(graph, annotations=said).warnings[1:] == (
        "left out with them, of what you marked: 0.1@1 of the group '‹g›'",
    )
    said = Annotations(pins=(F("0.1@2"),), groups=(Group("g", (F("0.1@3"), F("1.2@3"))),))
    assert attribution(graph, annotations=said).warnings[1:] == ()


def test_texts_are_no_markup_where_viewers_make_html_of_them() -> None:
    data = written(hostile(), Annotations(labels={F("0.1"): "<img src=x onerror=alert(1)>"}))
    for node in data["nodes"]:
        assert "<" not in node["clerp"] and node["clerp"].isprintable()
    assert "<" not in json.dumps({**data, "metadata": data["metadata"]["info"]})


def test_tokens_stay_as_they_are_but_for_what_no_database_takes() -> None:
    data = written(hostile())
    assert data["metadata"]["prompt_tokens"][0] == "<script>alert(1)</script>"
    assert data["metadata"]["prompt_tokens"][3:5] == [r"\x00\x07\x1b", r"\ud83d"]
    assert plain_text("a\n\u00e9😀") == "a\n\u00e9😀"
    assert safe("a <b>\n") == "a ‹b›↵"


@pytest.mark.parametrize(
    ("prompt", "model", "slug", "scan"),
    [
        ("Copyright (C", "/home/me/a model", "copyright-c-", "a-model"),
        ("שלום", "..", "graph-", "model"),
        ("../../etc", "org/name", "etc-", "name"),
        ("x" * 999, "a", "x" * 40 + "-", "a"),
    ],
)
def test_names_hold_what_names_may(prompt: str, model: str, slug: str, scan: str) -> None:
    graph = graph_of(("0.1", "1.2", -1.0), run=record(prompt=prompt, model=model))
    metadata = written(graph)["metadata"]
    assert metadata["slug"][:-6] == slug
    assert metadata["scan"] == scan


def test_two_graphs_of_a_prompt_have_two_names() -> None:
    slugs = {written(graph)["metadata"]["slug"] for graph in (two_edges(), two_components())}
    assert len(slugs) == 2
    assert slugs == {
        written(graph)["metadata"]["slug"] for graph in (two_components(), two_edges())
    }


def test_a_file_that_breaks_a_rule_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of((f"0.{10**14}", "1.2", -1.0))  # which JavaScript would round
    with pytest.raises(SaeGraphsError, match=r"viewers would not show this.*JavaScript rounds"):
        exported(graph, "attribution")
    monkeypatch.setattr(exports, "broken_rules", lambda data, size: ("a rule",))
    with pytest.raises(SaeGraphsError, match="a rule; write another format"):
        exported(two_edges(), "attribution")
