"""What users reach for first: lists of nodes, labels, parts, summaries, pictures by suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Context, Node
from tests.graph.test_answer_views import answer_graph
from tests.graph.test_graph import example

STARTS = {
    "json": b"{",
    "svg": b"<svg",
    "png": b"\x89PNG",
    "html": b"<!",
    "dot": b"digraph",
    "pdf": b"%PDF",
}


def names(graph: CausalGraph) -> list[str]:
    return [str(node.feature) for node in graph]


# -- nodes -----------------------------------------------------------------------------------------


def test_a_graph_is_a_collection_of_nodes() -> None:
    graph = example()
    assert list(graph) == list(graph.nodes) and len(graph) == len(graph.nodes)
    assert all(str(node.feature) in graph for node in graph)
    assert (graph.prompt, graph.tokens) == (graph.run.prompt, graph.run.tokens)


def test_labels() -> None:
    node = Node(FeatureId("5", 7, 2), 1.5)
    assert (node.label, str(node)) == ("5.7@2", "5.7@2; activation 1.5")
    seen = Node(FeatureId("5", 7), 1.5, contexts=(Context(("a", " b\n", "c"), (0.0, 2.0, 1.0)),))
    assert seen.label == '5.7: on " b↵"'
    assert Node(FeatureId("5", 7), 1.0, contexts=(Context((), ()),)).label == "5.7"
    output = Node(FeatureId("out", 3), 2.25, token=" )")
    assert (output.label, str(output)) == ('out.3 " )"', 'out.3 " )"; logit 2.25')
    token = Node(FeatureId("token", 0, 2), 0.0, token=" (")
    assert str(token) == 'token@2 " ("'
    helps = Node(FeatureId("5", 7, 2), 1.5, effect_on_answer=-2.0)
    assert str(helps) == "5.7@2; activation 1.5, supports the answer +2 nats"


def test_every_node_reads_in_one_line() -> None:
    for node in (*example(), *answer_graph()):
        assert "\n" not in str(node) and str(node).startswith(str(node.feature))
        assert str(node).startswith(node.label)


# -- parts -----------------------------------------------------------------------------------------


def test_some_features_and_what_is_between_them() -> None:
    graph = example()
    part = graph.subgraph([edge.source for edge in graph.edges[:1]] + [graph.edges[0].target])
    assert part.edges == graph.edges[:1] and part.n_components == 1
    whole = graph.subgraph(names(graph))
    assert (whole.nodes, whole.edges) == (graph.nodes, graph.edges)
    alone = graph.subgraph(names(graph)[0])
    assert names(alone) == names(graph)[:1] and alone.edges == ()
    with pytest.raises(UnknownFeatureError):
        graph.subgraph(["0.12345"])


def test_a_part_of_an_answer_graph() -> None:
    graph = answer_graph()
    features = [node.feature for node in graph if node.feature.is_feature]
    part = graph.subgraph([features[0], "answer"])
    assert set(names(part)) == {str(features[0]), "answer"}
    assert part.run.answer is not None and part.run.answer.coverage is None
    assert "was not measured" in part.summary()
    assert CausalGraph(*part.parts) == part


def test_filters_of_effects() -> None:
    graph = example()
    least = sorted(abs(edge.effect) for edge in graph.edges)[1]
    found = graph.filter(min_abs_effect=least)
    assert {abs(edge.effect) >= least for edge in found.edges} == {True}
    assert len(found.edges) == len(graph.edges) - 1
    only = graph.filter(sign="promotes")
    assert only.edges and {edge.sign for edge in only.edges} == {"promotes"}
    assert {node.feature for node in only} == {
        end for edge in only.edges for end in (edge.source, edge.target)
    }
    layer = graph.filter(layers=[0, "1"])
    assert {node.feature.layer for node in layer if node.feature.is_feature} <= {"0", "1"}
    with pytest.raises(UnknownFeatureError, match="no SAE layer 9"):
        graph.filter(layers=9)
    with pytest.raises(SaeGraphsError, match="no token positions"):
        graph.filter(tokens=1)
    with pytest.raises(SaeGraphsError, match="sign 'supports'; expected promotes or suppresses"):
        graph.filter(sign="supports")


def test_filters_of_an_answer() -> None:
    graph = answer_graph()
    effects = {n.feature: n.effect_on_answer for n in graph if n.effect_on_answer is not None}
    least = max(abs(effect) for effect in effects.values())
    strongest = graph.filter(min_abs_effect=least)
    kept = [node.feature for node in strongest if node.feature.is_feature]
    assert kept and all(abs(effects[it]) >= least for it in kept) and "answer" in strongest
    for sign, below in (("supports", True), ("opposes", False)):
        part = graph.filter(sign=sign)
        assert {effects[n.feature] < 0 for n in part if n.feature.is_feature} <= {below}
    place = next(node.feature.position for node in graph if node.feature.is_feature)
    assert place is not None
    text = graph.tokens[place]
    for given in (place, place - len(graph.tokens), text, [text]):
        assert {n.feature.position for n in graph.filter(tokens=given)} <= {
            None,
            *(p for p, t in enumerate(graph.tokens) if t == text or p == place),
        }
    with pytest.raises(SaeGraphsError, match="no token 'nowhere' in this prompt"):
        graph.filter(tokens="nowhere")
    with pytest.raises(SaeGraphsError, match="sign 'promotes'; expected supports or opposes"):
        graph.filter(sign="promotes")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"tokens": True}, "no token True in this prompt"),
        ({"tokens": 1.5}, "no token 1.5 in this prompt"),
        ({"min_abs_effect": float("nan")}, "min_abs_effect is nan; expected 0 or more"),
        ({"min_abs_effect": "2"}, "min_abs_effect is '2'"),
        ({"layers": "answer"}, "no SAE layer answer in this graph; it has 0, 1, 2, 3"),
        ({"layers": 2.5}, "no SAE layer 2.5 in this graph"),
    ],
)
def test_filters_that_are_none_are_one_line(wanted: Any, words: str) -> None:
    with pytest.raises(SaeGraphsError, match=words):
        answer_graph().filter(**wanted)


def test_numbers_of_numpy_are_numbers() -> None:
    graph = answer_graph()
    assert graph.filter(layers=np.int64(1)) == graph.filter(layers=1)  # type: ignore[arg-type]
    wanted: Any = [np.int64(1), np.float32(0.5)]
    assert graph.filter(tokens=wanted[:1], min_abs_effect=wanted[1]) == graph.filter(
        tokens=1, min_abs_effect=0.5
    )
    with pytest.raises(SaeGraphsError, match="not a feature: 5"):
        graph.subgraph(5)  # type: ignore[arg-type]


def test_summaries_say_how_much_is_in_it() -> None:
    told = example().summary()
    assert "of the total |effect|" in told and "Strongest path: " in told
    told = answer_graph().summary()
    assert told.startswith("What ") and "log-odds of " in told and "Strongest, in nats: " in told
    empty = example().subgraph([])
    assert len(empty) == 0 and "Strongest: none." in empty.summary()


# -- pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STARTS)
def test_the_suffix_says_what_is_written(tmp_path: Path, kind: str) -> None:
    for name in (f"x.{kind}", f"X.{kind.upper()}"):
        file = example().save(tmp_path / "deep" / name)
        assert file.name == name and file.read_bytes().lstrip().startswith(STARTS[kind])


@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x.attribution.json", "x.gexf"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SaeGraphsError, match=rf"cannot save '{name}'; expected \.json or one of"):
        example().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_drawing_in_a_notebook() -> None:
    for shown in (example().draw(), example().plot(), example().subgraph([]).draw()):
        assert shown._repr_svg_() == str(shown) and str(shown).startswith("<svg")
        assert "SVG" in repr(shown)
