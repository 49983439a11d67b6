"""Graphs with token positions: what they refuse, how they are asked, their sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.select import Selection, other_warnings, select
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Edge
from tests.support.graphs import (
    anatomy,
    edge,
    example,
    graph_of,
    node,
    resolved,
    run_record,
    with_outputs,
)

# -- what a graph refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([edge("0.1@2", "1.2@1", 1.0)], "points back to an earlier token"),
        ([edge("0.1@2", "1.2", 1.0)], "all features have a position or none has"),
        ([edge("0.1", "1.2", 1.0), edge("0.1@2", "1.2@3", 1.0)], "or none has"),
        ([edge("0.1@2", "1.2@4", 1.0)], "1.2@4 is outside the 4 tokens"),
    ],
)
def test_bad_positions(edges: list[Edge], message: str) -> None:
    with pytest.raises(SaeGraphsError, match=message):
        graph_of(edges)


def test_output_nodes_belong_to_the_run() -> None:
    graph = with_outputs()
    other = replace(graph.run, outputs=graph.run.outputs[1:])
    with pytest.raises(SaeGraphsError, match=r"out\.340 is not an output token"):
        CausalGraph(other, graph.nodes, graph.edges)
    with pytest.raises(SaeGraphsError, match="layers out are not among"):
        CausalGraph(replace(graph.run, outputs=()), graph.nodes, graph.edges)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: replace(run, outputs=run.outputs * 2), "got one twice"),
        (lambda run: replace(run, layers=(replace(run.layers[0], label="out"),)), "called 'out'"),
        (lambda run: replace(run.outputs[0], probability=1.5), "probability 1.5"),
        (lambda run: replace(run.outputs[0], logit=float("nan")), "logit nan"),
        (lambda run: replace(run.outputs[0], token=3), "not an output token"),
        (lambda run: replace(run.outputs[0], token_id=-3), "not an output token"),
        (lambda run: anatomy(float("inf")), "not the anatomy of an edge"),
        (lambda run: anatomy(1.0, (3, 0.0, 0.0), (3, 0.0, 0.0)), "blocks \\[3, 3\\]"),
        (lambda run: anatomy(1.0, (-1, 0.0, 0.0)), "not a block"),
        (lambda run: node(FeatureId("0", 1), token="a"), "only they, name their token"),
        (lambda run: node(FeatureId("out", 1)), "only they, name their token"),
    ],
)
def test_records_check_themselves(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(SaeGraphsError, match=message):
        make(with_outputs().run)


def test_whether_a_graph_has_positions() -> None:
    assert resolved().resolves_positions
    assert not example().resolves_positions
    settings: dict[str, Any] = {"ablate": "each", "pin": [], "layers": None}
    assert graph_of({}, run_record(settings=settings)).resolves_positions
    assert not graph_of(
        {}, run_record(settings={**settings, "summed_at": "all"})
    ).resolves_positions


# -- questions -------------------------------------------------------------------------------------


def names(found: Any) -> list[str]:
    return [str(each) for each in found]


def test_features_at_positions() -> None:
    graph = resolved()
    assert names(graph.at_positions("0.1")) == ["0.1@1", "0.1@2"]
    assert names(graph.at_positions("0.1@2")) == ["0.1@2"]
    assert names(example().at_positions("0.1")) == ["0.1"]
    assert "0.1@2" in graph
    assert "0.1" not in graph
    assert names(graph.successors("0.1@2")) == ["1.2@2", "1.2@3", "1.3@3"]
    assert names(graph.ancestors("1.2@1")) == ["0.1@1"]
    assert graph["0.1@1"].activation == 0.5
    assert graph.edge("0.1@2", "1.3@3").effect == -1.0


def test_edges_of_a_feature_at_all_its_positions() -> None:
    graph = resolved()
    assert names(graph.find_edges(source="1.2")) == [
        "1.2@2 -> 2.4@2 (+4)",
        "1.2@3 -> 2.4@3 (-3)",
        "1.2@1 -> 2.4@3 (+0.5)",
    ]
    assert names(graph.find_edges(source="1.2@1")) == ["1.2@1 -> 2.4@3 (+0.5)"]
    assert len(graph.find_edges(target="1.3")) == 2
    assert names(graph.find_edges(target="out.340")) == ["2.4@3 -> out.340@3 (-1.5)"]


def test_paths_of_a_feature_at_all_its_positions() -> None:
    graph = resolved()
    assert [str(path.features[0]) for path in graph.paths("0.1", "2.4")] == [
        *("0.1@2", "0.1@1", "0.1@2", "0.1@1"),  # 4.25 to 2.4@2; then 4, 3.5 and 2.5 to 2.4@3
    ]
    assert [path.total_abs_effect for path in graph.paths("0.1", "2.4")] == [4.25, 4.0, 3.5, 2.5]
    assert [str(path.features[0]) for path in graph.paths("0.1@2", "2.4")] == ["0.1@2", "0.1@2"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda g: g["1.2"], "1.2 is here at positions 1, 2, 3, got 1.2; name one, such as 1.2@1"),
        (lambda g: g["0.1@3"], "0.1 is here only at positions 1, 2, got 0.1@3"),
        (lambda g: g.successors("0.1"), "is here at positions 1, 2"),
        (lambda g: g.paths("0.1@3"), "only at positions 1, 2"),
        (lambda g: g.paths(target="9.1"), "no SAE layer '9'"),
        (lambda g: g.find_edges(source="0.1@3"), "only at positions 1, 2"),
        (lambda g: g.find_edges(source="0.7"), "feature 0.7 is not in this graph; layer 0 has"),
        (lambda g: g.edge("0.1@1", "2.4"), "at positions 2, 3"),
    ],
)
def test_a_position_that_is_missing(ask: Callable[[CausalGraph], Any], message: str) -> None:
    with pytest.raises(UnknownFeatureError, match=message):
        ask(resolved())


def test_a_position_too_many() -> None:
    with pytest.raises(UnknownFeatureError, match=r"has no token positions; ask for 0\.1$"):
        example()["0.1@2"]


def test_a_table_with_positions_outputs_and_anatomies() -> None:
    table: Any = resolved().to_pandas().set_index(["source", "target"])
    row = table.loc["0.1@2", "1.2@3"]
    assert (row.source_position, row.target_position) == (2, 3)
    assert (row.skip, row.attention, row.mlp, row.preactivation_effect) == (-1.0, 0.25, 0.25, -0.5)
    last = table.loc["2.4@3", "out.340@3"]
    assert last.target_token == " )"
    assert table["skip"].isna().sum() == 5


# -- summed ----------------------------------------------------------------------------------------


def test_summed_at_the_read_position() -> None:
    graph = resolved()
    flat = graph.summed()
    assert names(flat.edges) == [
        "1.2 -> 2.4 (-2.5)",  # -3 + 0.5; what acts on 2.4@2 is left out
        "0.1 -> 1.2 (-1.5)",  # -1 - 0.5
        "2.4 -> out.340 (-1.5)",
    ]  # 0.1 -> 1.3 cancels: 1 - 1
    assert not flat.resolves_positions
    assert flat.run.settings["summed_at"] == 3
    assert flat.run.summed_at == 3
    assert flat.run.settings["ablate"] == "each"
    assert flat.run.total_abs_effect == graph.run.total_abs_effect
    assert flat.run.kept_abs_effect == 5.5
    assert [layer.kept_abs_effect for layer in flat.run.layers] == [1.5, 2.5, 1.5, None]
    assert flat.component_numbers == (1,)
    assert flat["out.340"].token == " )"
    assert flat["out.340"].activation == 12.5


def test_summed_over_targets_too() -> None:
    flat = resolved().summed(at="all")
    assert names(flat.edges) == [
        "0.1 -> 1.2 (-3.25)",  # -1 - 0.5 - 2 + 0.25
        "1.2 -> 2.4 (+1.5)",  # -3 + 0.5 + 4
        "2.4 -> out.340 (-1.5)",
    ]
    assert flat.run.settings["summed_at"] == "all"


def test_summed_elsewhere() -> None:
    flat = resolved().summed(at=2)
    assert names(flat.edges) == ["1.2 -> 2.4 (+4)", "0.1 -> 1.2 (+0.25)"]
    assert flat["2.4"].activation == 0.0  # at token 2


def test_summed_anatomies() -> None:
    flat = resolved().summed()
    assert flat.edge("0.1", "1.2").anatomy == anatomy(-1.5, (0, -0.25, 0.25, (-0.25, 0.0)))
    assert flat.edge("1.2", "2.4").anatomy is None  # one of its two edges has none
    everywhere = resolved().summed(at="all").edge("0.1", "1.2").anatomy
    assert everywhere == anatomy(-3.25, (0, -0.25, 0.25, (-0.25, 0.0)))


def test_what_is_known_of_a_summed_feature() -> None:
    graph = resolved()
    marked = [
        node if node.feature.is_output else replace(node, neuronpedia=f"https://x/{node.feature}")
        for node in graph.nodes
    ]
    graph = assemble(graph.run, marked, graph.edges)
    flat = graph.summed()
    assert flat["0.1"].activation == 1.5  # at the read position
    assert flat["0.1"].neuronpedia == "https://x/0.1@1"  # 2 against 1.5, edges into token 3 only
    assert flat["1.2"].neuronpedia == "https://x/1.2@3"
    assert graph.summed("all")["1.2"].neuronpedia == "https://x/1.2@3"  # 4.5 against 4.25 and 2.5
    assert graph.summed("all")["2.4"].neuronpedia == "https://x/2.4@3"


def test_summing_changes_nothing_in_the_graph() -> None:
    graph = resolved()
    graph.summed()
    assert graph == resolved()
    assert "summed_at" not in graph.run.settings


def test_a_graph_of_one_position_sums_to_itself() -> None:
    placed = {("0.1@3", "1.2@3"): -2.0, ("1.2@3", "2.3@3"): 1.0}
    flat = graph_of(placed).summed()
    assert names(flat.edges) == ["0.1 -> 1.2 (-2)", "1.2 -> 2.3 (+1)"]


@pytest.mark.parametrize("at", [-1, 4, "read", 1.0, True])
def test_sums_at_no_position(at: Any) -> None:
    with pytest.raises(SaeGraphsError, match="give a position from 0 to 3, or 'all'"):
        resolved().summed(at=at)


def test_only_positions_are_summed() -> None:
    for graph in (example(), resolved().summed()):
        with pytest.raises(SaeGraphsError, match="this one has none: make it with --ablate each"):
            graph.summed()


def test_a_sum_needs_an_activation_at_its_position() -> None:
    edges = [edge("0.1@1", "1.2@3", 1.0)]
    bare = [node(end, activations=()) for end in (edges[0].source, edges[0].target)]
    with pytest.raises(SaeGraphsError, match=r"0\.1@1 has no activation at position 3"):
        assemble(run_record(), bare, edges).summed()


# -- what a choice of edges says -------------------------------------------------------------------


def chosen(values: list[tuple[int, int, int, int]], **options: Any) -> Selection:
    """Of effects of 1 between features 0: depth, source position, target position, output id."""
    blocks = []
    for depth, *ends in values:
        at, read, target = (np.array([one], dtype=np.int32) for one in ends)
        source = np.zeros(1, dtype=np.int32)
        blocks.append(Effects(depth, source, at, target, read, np.ones(1)))
    settings: dict[str, Any] = {"top_k": 99, "per": "layer", "min_path_edges": 2}
    return select(blocks, ["0", "1", "2"], **{**settings, **options})


CHAIN = [(0, 1, 1, 0), (1, 1, 1, 0)]


def test_few_edges_on_paths_are_told_of() -> None:
    scattered = [(0, at, at, 9) for at in range(2, 9)]
    (said,) = chosen(CHAIN + scattered).warnings
    assert said == (
        "only 2 of the 9 strongest edges lie on paths of 2 edges: positions spread effects thin; "
        "raise top_k, lower min_path_edges, or read at one position"
    )
    assert chosen(CHAIN + scattered[:6]).warnings == ()  # a quarter
    assert chosen(CHAIN + scattered, min_path_edges=1).warnings == ()
    at_one = [(0, at, 8, 9) for at in range(8)]
    (said,) = chosen([(0, 8, 8, 0), (1, 8, 8, 0), *at_one]).warnings
    assert said.endswith("or ablate at all positions together")
    assert other_warnings(["x", said, "1 of 3 output tokens has no edge"]) == ("x",)
    flat = [(depth, -1, -1, target) for depth, _, _, target in CHAIN]
    assert chosen(flat + [(0, -1, -1, target) for target in range(1, 9)]).warnings == ()


def test_output_tokens_that_are_missing_are_told_of() -> None:
    ends = [*CHAIN, (2, 1, 1, 0), (2, 5, 5, 7)]
    assert chosen(ends, n_outputs=1).warnings == ()
    assert chosen(ends, n_outputs=3).warnings == (
        "2 of 3 output tokens have no edge on a kept path; raise top_k, or lower min_path_edges",
    )
    assert chosen(ends, n_outputs=3, min_path_edges=1).warnings == (
        "1 of 3 output tokens has no edge on a kept path; raise top_k",
    )
    assert chosen(CHAIN, n_outputs=2).warnings == (
        "2 of 2 output tokens have no edge: no ablation in layer 2 changed their logits",
    )
