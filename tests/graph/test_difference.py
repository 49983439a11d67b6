"""What two graphs have in common: by hand, and as laws."""

from __future__ import annotations

import doctest
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph import difference as differing
from sae_graphs.graph.difference import SharedEdge, SharedFeature, difference, merged
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import LayerReport, OutputToken
from tests.support import graphs as simple
from tests.support.rich_graphs import graph_of, hostile, large, record, resolved, two_edges


def left() -> CausalGraph:
    return graph_of(("0.1", "1.2", -8.0), ("1.2", "2.3", 2.0), ("0.4", "1.2", 1.0))


def right() -> CausalGraph:
    return graph_of(("0.1", "1.2", -3.0), ("1.2", "2.3", -1.0), ("1.5", "2.3", 4.0))


def named(edges: Any) -> list[str]:
    return [f"{edge.source} {edge.target}" for edge in edges]


def test_shared_lost_and_new_by_hand() -> None:
    found = difference(left(), right())
    a, b, c = (FeatureId.parse(name) for name in ("0.1", "1.2", "2.3"))
    assert found.shared == (SharedEdge(a, b, -8.0, -3.0), SharedEdge(b, c, 2.0, -1.0))
    assert [edge.difference for edge in found.shared] == [5.0, -3.0]
    assert [edge.flips for edge in found.shared] == [False, True]
    assert named(found.lost) == ["0.4 1.2"]
    assert named(found.new) == ["1.5 2.3"]
    assert [str(each.feature) for each in found.shared_features] == ["0.1", "1.2", "2.3"]
    assert [str(node.feature) for node in found.lost_features] == ["0.4"]
    assert [str(node.feature) for node in found.new_features] == ["1.5"]
    assert found.warnings == ()
    assert found.words == (
        "2 edges are in both graphs (1 of them with the other sign), 1 only in the left one and 1 "
        "only in the right one; 3 features are in both, 1 only left and 1 only right."
    )


@pytest.mark.parametrize("other", ["outputs/copyright-c", None, 3, two_edges().edges])
def test_what_is_no_graph_is_refused_in_one_line(other: Any) -> None:
    with pytest.raises(SaeGraphsError, match=r"the right graph is .*CausalGraph\.load") as caught:
        difference(left(), other)
    assert "\n" not in str(caught.value)
    with pytest.raises(SaeGraphsError, match="the left graph is"):
        difference(other, left())


def test_sorted_by_size_not_by_value() -> None:
    small = graph_of(("0.1", "1.1", 1.0))
    many = graph_of(("0.1", "1.1", -9.5), ("0.2", "1.1", 2.0), ("0.3", "1.1", -7.0))
    assert named(difference(small, many).new) == ["0.3 1.1", "0.2 1.1"]
    assert named(difference(many, small).lost) == ["0.3 1.1", "0.2 1.1"]
    halves = graph_of(("0.1", "1.1", -9.0), ("0.2", "1.1", 9.0), ("0.3", "1.1", -7.0))
    assert named(difference(many, halves).shared) == ["0.2 1.1", "0.1 1.1", "0.3 1.1"]


def test_activations_of_shared_features_are_compared() -> None:
    louder = graph_of(("0.1", "1.2", -8.0), activation=4.0)
    found = difference(graph_of(("0.1", "1.2", -8.0)), louder)
    assert found.shared_features[0] == SharedFeature(FeatureId("0", 1), 2.5, 4.0)
    assert found.shared_features[0].difference == 1.5


def test_as_a_table() -> None:
    table = difference(left(), right()).to_pandas()
    assert list(table.columns) == [
        "source",
        "target",
        "source_layer",
        "target_layer",
        "kind",
        "left",
        "right",
        "difference",
    ]
    assert list(table["kind"]) == ["shared", "shared", "lost", "new"]
    assert list(table["difference"][:2]) == [5.0, -3.0]
    assert math.isnan(table["right"][2])  # not kept there, which is not 0
    assert math.isnan(table["difference"][2])
    assert list(table.loc[3, ["source", "target", "right"]]) == ["1.5", "2.3", 4.0]
    assert str(table["left"].dtype) == "float64"
    empty = graph_of()
    assert len(difference(empty, empty).to_pandas()) == 0
    assert str(difference(empty, empty).to_pandas()["left"].dtype) == "float64"


def test_shows_itself_in_a_notebook() -> None:
    html = difference(left(), right())._repr_html_()
    assert "<td>0.1</td><td>1.2</td><td>shared</td><td>−8.00</td><td>−3.00</td>" in html
    assert "<td>+5.00</td>" in html
    assert "4 of" not in html
    assert "of 540 edges" in difference(large(), large())._repr_html_()
    assert repr(difference(left(), right())).startswith("GraphDifference(2 edges are")


def test_hostile_settings_and_texts_are_escaped() -> None:
    graph = hostile()
    other = replace(graph, run=replace(graph.run, settings={"ablate": "<script>alert(1)</script>"}))
    html = difference(graph, other)._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script" not in html


def test_another_model_or_other_saes_are_refused() -> None:
    for name in ("model", "saes"):
        other = graph_of(("0.1", "1.2", 1.0), run=record(**{name: "another"}))
        with pytest.raises(SaeGraphsError, match=r"different .*'another'.*compare graphs of one"):
            difference(left(), other)
    moved = tuple(LayerReport(str(depth), "elsewhere", 40, 14.0, 0.02) for depth in range(4))
    with pytest.raises(SaeGraphsError, match=r"layer 0 is 'blocks\.0\.hook_resid_pre' in the left"):
        difference(left(), graph_of(("0.1", "1.2", 1.0), run=record(layers=moved)))


def test_positions_on_one_side_alone_are_refused() -> None:
    both = resolved(), graph_of(("0.1", "1.2", 1.0))
    with pytest.raises(SaeGraphsError, match=r"only the left graph.*left\.summed\(\)"):
        difference(*both)
    with pytest.raises(SaeGraphsError, match=r"only the right graph.*right\.summed\(\)"):
        difference(both[1], both[0])


def test_positions_of_another_prompt_are_warned_about() -> None:
    graph = resolved()
    assert difference(graph, resolved(seed=2)).warnings == ()  # the same tokens
    tokens = ("<bos>", *graph.run.tokens[1:-1], "another")
    other = replace(graph, run=replace(graph.run, tokens=tokens))
    (warning,) = difference(graph, other).warnings
    assert "graph.summed()" in warning
    assert difference(graph.summed(), other.summed()).warnings == ()


def test_other_settings_are_named() -> None:
    settings = {"top_k": 12, "per": "layer", "min_path_edges": 2, "ablate": "read"}
    (warning,) = difference(
        left(), graph_of(("0.1", "1.2", -8.0), run=record(settings=settings))
    ).warnings
    assert "top_k (8 and 12), ablate ('all' and 'read')" in warning
    assert "min_path_edges" not in warning
    assert "fewer were kept" in warning


def test_settings_that_an_older_file_lacks_are_the_defaults() -> None:
    later = {
        **record().settings,
        "ablate_first": False,
        "outputs": 0,
        "method": "exact",
        "pin": [],
        "contrast": None,
    }
    assert not difference(
        left(), graph_of(("0.1", "1.2", 1.0), run=record(settings=later))
    ).warnings
    gradient = {**later, "method": "gradient"}
    (warning,) = difference(
        left(), graph_of(("0.1", "1.2", 1.0), run=record(settings=gradient))
    ).warnings
    assert "method ('exact' and 'gradient')" in warning


def test_an_output_against_another_token_is_another_quantity() -> None:
    def against(contrast: str | None) -> CausalGraph:
        output = OutputToken(340, ")", 2.0, 0.5, contrast=contrast)
        graph = graph_of(("0.1", "1.2", 1.0))
        return replace(graph, run=replace(graph.run, outputs=(output,)))

    assert not difference(against("a"), against("a")).warnings
    (warning,) = difference(against("a"), against(None)).warnings
    assert warning.startswith("out.340 is set against another token")


def test_layers_of_both_keep_their_order() -> None:
    assert merged(["0", "2", "out"], ["0", "1", "2", "3"]) == ("0", "1", "2", "3", "out")
    assert merged([], ["0", "1"]) == ("0", "1")
    assert merged(["2"], ["0", "1", "2"]) == ("0", "1", "2")
    part = replace(record(), layers=record().layers[2:])
    found = difference(graph_of(("2.1", "3.1", 1.0), run=part), left())
    assert (len(found.lost), len(found.new)) == (1, 3)


def test_the_function_is_public_even_after_its_module_was_imported() -> None:
    assert sg.difference is difference
    assert sg.difference(left(), left()).words == difference(left(), left()).words


def test_examples() -> None:
    result = doctest.testmod(differing, extraglobs={"graph": simple.example()})
    assert result.attempted >= 3
    assert not result.failed


# -- laws ------------------------------------------------------------------------------------------

_LAYER = st.integers(0, 2)
_EDGES = st.dictionaries(
    st.tuples(_LAYER, st.integers(0, 3), st.integers(0, 3)),
    st.floats(-9, 9, allow_nan=False).filter(bool),
    max_size=12,
)


def made(edges: dict[tuple[int, int, int], float]) -> CausalGraph:
    return graph_of(*((f"{d}.{i}", f"{d + 1}.{j}", effect) for (d, i, j), effect in edges.items()))


@given(_EDGES)
def test_a_graph_does_not_differ_from_itself(edges: dict[tuple[int, int, int], float]) -> None:
    graph = made(edges)
    found = difference(graph, graph)
    assert found.lost == found.new == found.lost_features == found.new_features == ()
    assert len(found.shared) == len(graph.edges)
    assert all(edge.difference == 0 and not edge.flips for edge in found.shared)
    assert not found.warnings


@given(_EDGES, _EDGES)
def test_swapping_swaps(
    first: dict[tuple[int, int, int], float], second: dict[tuple[int, int, int], float]
) -> None:
    found, back = (difference(made(a), made(b)) for a, b in ((first, second), (second, first)))
    assert (found.lost, found.new) == (back.new, back.lost)
    assert (found.lost_features, found.new_features) == (back.new_features, back.lost_features)
    assert {(e.source, e.target, e.left, e.right) for e in found.shared} == {
        (e.source, e.target, e.right, e.left) for e in back.shared
    }


@given(_EDGES, _EDGES)
def test_counts_add_up_and_orders_hold(
    first: dict[tuple[int, int, int], float], second: dict[tuple[int, int, int], float]
) -> None:
    a, b = made(first), made(second)
    found = difference(a, b)
    assert len(found.shared) + len(found.lost) == len(a.edges)
    assert len(found.shared) + len(found.new) == len(b.edges)
    assert len(found.shared_features) + len(found.lost_features) == len(a.nodes)
    assert len(found.shared_features) + len(found.new_features) == len(b.nodes)
    assert len(found.to_pandas()) == len(first.keys() | second.keys())
    for edges in (found.lost, found.new):
        sizes = [abs(edge.effect) for edge in edges]
        assert sizes == sorted(sizes, reverse=True)
    sizes = [abs(edge.difference) for edge in found.shared]
    assert sizes == sorted(sizes, reverse=True)


def test_the_laws_can_fail() -> None:
    found = difference(two_edges(), graph_of(("0.1", "1.2", -8.0)))
    assert len(found.shared) + len(found.lost) == 2
    assert len(found.lost) == 1
