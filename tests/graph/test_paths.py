"""Paths: the filter, the ranking, joins of graphs; random cases are in `test_properties`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.combine import union
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.paths import FeaturePath, longest_path_edges, on_long_paths, strongest_paths
from sae_graphs.graph.records import RunRecord
from tests.support.graphs import edge, example, graph_of, run_record

CHAIN = [edge("0.1", "1.1", -1), edge("1.1", "2.1", 2), edge("2.1", "3.1", -3)]
SIDE = edge("0.2", "1.2", 9)  # strong, but on no long path
LATE = edge("1.3", "2.1", 0.5)  # joins the chain half way
DEAD_END = edge("1.1", "2.9", 4)


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (1, [*CHAIN, SIDE, LATE, DEAD_END]),
        (2, [*CHAIN, LATE, DEAD_END]),
        (3, CHAIN),
        (4, []),
    ],
)
def test_filter(least: int, expected: list[Any]) -> None:
    assert on_long_paths([*CHAIN, SIDE, LATE, DEAD_END], least) == tuple(expected)


def test_filter_keeps_the_order() -> None:
    shuffled = [CHAIN[2], CHAIN[0], CHAIN[1]]
    assert on_long_paths(shuffled, 3) == tuple(shuffled)
    assert on_long_paths([], 3) == ()


@pytest.mark.parametrize("least", [0, -1])
def test_filter_refuses(least: int) -> None:
    with pytest.raises(SaeGraphsError, match="at least 1 edge"):
        on_long_paths(CHAIN, least)


def test_longest() -> None:
    assert longest_path_edges([]) == 0
    assert longest_path_edges([SIDE]) == 1
    assert longest_path_edges([*CHAIN, DEAD_END]) == 3


def test_strongest_paths_by_hand() -> None:
    graph = example()
    found = [
        ([str(f) for f in path.features], path.total_abs_effect) for path in graph.paths(limit=9)
    ]
    assert found == [
        (["0.1", "1.1", "2.10600", "3.5"], 7.5),
        (["0.1", "1.2", "2.10600", "3.5"], 5.5),
        (["0.9", "1.9"], 0.5),
    ]
    assert len(graph.paths(limit=1)) == 1
    between = graph.paths("0.1", "2.10600")
    assert [path.total_abs_effect for path in between] == [6, 4]
    assert [str(path.features[0]) for path in graph.paths("1.2")] == ["1.2"]
    assert [str(path.features[-1]) for path in graph.paths(target="1.2")] == ["1.2"]
    assert graph.paths("0.9", "3.5") == ()
    assert graph.paths("0.1", "0.1") == ()


def test_path_in_words() -> None:
    (path,) = strongest_paths(CHAIN)
    assert str(path) == (
        "0.1 promotes 1.1 (-1), which suppresses 2.1 (+2), which promotes 3.1 (-3)"
    )


def test_paths_check_themselves() -> None:
    with pytest.raises(SaeGraphsError, match="at least one edge"):
        FeaturePath(())
    with pytest.raises(SaeGraphsError, match="is followed by"):
        FeaturePath((CHAIN[0], CHAIN[2]))
    with pytest.raises(SaeGraphsError, match="at least 1 path"):
        strongest_paths(CHAIN, limit=0)


def test_many_paths_stay_fast() -> None:
    """8 features in each of 20 layers: 8^20 paths, and still only the strongest are kept."""
    edges = [
        edge(f"{layer}.{i}", f"{layer + 1}.{j}", 1 + i / 8 + j / 64 + layer / 1024)
        for layer in range(19)
        for i in range(8)
        for j in range(8)
    ]
    paths = strongest_paths(edges, limit=5)
    assert len(paths) == 5
    assert [f.index for f in paths[0].features] == [7] * 20


# -- joining graphs --------------------------------------------------------------------------------


def pinned(pin: list[str], edges: dict[tuple[str, str], float], **changes: Any) -> CausalGraph:
    settings = {"top_k": 8, "pin": pin, "layers": None}
    return graph_of(edges, run_record(settings=settings, **changes))


LEFT = pinned(["0.1"], {("0.1", "1.1"): -1.0, ("0.1", "1.2"): 2.0})
RIGHT = pinned(["0.2"], {("0.2", "1.1"): 4.0})


def test_union_of_different_pins() -> None:
    joined = union(LEFT, RIGHT)
    assert [str(e) for e in joined.edges] == [
        "0.2 -> 1.1 (+4)",
        "0.1 -> 1.2 (+2)",
        "0.1 -> 1.1 (-1)",
    ]
    assert joined.n_components == 1
    assert joined.run.settings["pin"] == ["0.1", "0.2"]
    assert joined.run.total_abs_effect == 60
    assert joined.run.kept_abs_effect == 7
    assert [layer.total_abs_effect for layer in joined.run.layers] == [20, 20, 20, None]
    assert union(RIGHT, LEFT).edges == joined.edges
    assert LEFT.run.settings["pin"] == ["0.1"]  # neither is changed
    assert len(LEFT.edges) == 2


def test_union_with_itself_and_with_parts() -> None:
    graph = example()
    assert union(graph, graph) == graph
    parts = graph.components()
    assert union(parts[0], parts[1]).edges == graph.edges
    assert union(parts[1], parts[0]).nodes == graph.nodes


def other_run(**changes: Any) -> CausalGraph:
    return replace(RIGHT, run=replace(RIGHT.run, **changes))


@pytest.mark.parametrize(
    ("right", "message"),
    [
        (other_run(model="other"), "model is 'tiny' and 'other'"),
        (other_run(saes="other"), "saes is"),
        (other_run(tokens=("a", "b", "c", "d")), "tokens is"),
        (other_run(read_position=2), "read_position is 3 and 2"),
        (other_run(settings={"top_k": 9, "pin": ["0.2"], "layers": None}), "top_k is 8 and 9"),
        (other_run(settings={"top_k": 8, "pin": ["0.2"]} | {"extra": 1}), "extra is None and 1"),
        (pinned(["0.1", "0.2"], {("0.2", "1.1"): 4.0}), "measured in both"),
        (pinned([], {("0.2", "1.1"): 4.0}), "measured in both"),
        (pinned(["0.1"], {("0.1", "1.1"): -1.5}), "disagree"),
        (pinned(["0.1"], {("0.1", "1.1"): 1.0}), "disagree"),
    ],
)
def test_unions_that_make_no_sense(right: CausalGraph, message: str) -> None:
    for left, other in ((LEFT, right), (right, LEFT)):
        with pytest.raises(SaeGraphsError) as caught:
            union(left, other)
        assert "\n" not in str(caught.value)
    with pytest.raises(SaeGraphsError, match=message):
        union(LEFT, right)


def test_equal_effects_up_to_rounding_join() -> None:
    twin = pinned(["0.1"], {("0.1", "1.1"): -1.0 - 1e-7})
    assert union(LEFT, twin).edge("0.1", "1.1").effect == -1.0


def test_the_record_is_that_of_the_run() -> None:
    assert isinstance(union(LEFT, RIGHT).run, RunRecord)
    assert FeatureId("0", 2) in union(LEFT, RIGHT)


def test_the_same_graph_under_another_seed_joins_without_counting_twice() -> None:
    from dataclasses import replace

    from sae_graphs.graph.combine import union
    from tests.support.graphs import example

    left = example()
    settings = {**left.run.settings, "seed": 7}
    right = replace(left, run=replace(left.run, settings=settings))
    assert union(left, right).run.total_abs_effect == left.run.total_abs_effect
