"""The rows of an atlas are the graphs' own, whatever these hold."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import sae_graphs as sg
from sae_graphs.atlas import build, store
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import rows_of
from sae_graphs.effects.build import bare_graph
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge, Node
from tests.atlas.conftest import TEXTS
from tests.support.atlases import EFFECT, FACTS
from tests.support.rich_graphs import record
from tests.support.slow import examples, first


def same(found: Sequence[tuple[Any, ...]], expected: Sequence[tuple[Any, ...]]) -> bool:
    """Whether rows are equal, numbers to the rounding of float64, whatever their order."""
    order = [sorted(rows, key=lambda row: str(row[:6])) for rows in (found, expected)]
    return all(
        len(one) == len(other)
        and all(
            a == (pytest.approx(b, rel=1e-9, abs=1e-12) if isinstance(b, float) else b)
            for a, b in zip(one, other, strict=True)
        )
        for one, other in zip(*order, strict=True)
    )


def of_node(node: Node) -> tuple[Any, ...]:
    return (
        *(node.feature.layer, node.feature.index, node.feature.position, node.activation),
        *(node.effect_on_answer, node.direct_effect, node.density, node.relay),
    )


def of_edge(edge: Edge) -> tuple[Any, ...]:
    split = edge.anatomy
    parts = (
        (None,) * 4
        if split is None
        else (split.skip, split.attention, split.mlp, split.preactivation_effect)
    )
    return (
        *(edge.source.layer, edge.source.index, edge.source.position),
        *(edge.target.layer, edge.target.index, edge.target.position),
        *(edge.effect, edge.relative_effect, edge.flow, *parts),
    )


NODE = 'layer, "index", position, activation, effect_on_answer, direct_effect, density, relay'
PROMPT = (
    "prompt, tokens, nodes, edges, read_position, CASE WHEN score IS NULL THEN NULL ELSE target "
    "END, score, coverage_lost, coverage_left"
)
EDGE = (
    "source_layer, source_index, source_position, target_layer, target_index, target_position, "
    "effect, relative_effect, flow, skip, attention, mlp, preactivation_effect"
)


def test_a_difference_is_seen() -> None:
    row = ("0", 1, None, "1", 2, None, 0.5)
    assert same([row], [row])
    assert not same([row], [(*row[:6], 0.5 + 1e-8)])
    assert not same([row], [(*row[:6], None)])
    assert not same([row], [("0", 3, *row[2:])])


@pytest.mark.parametrize(
    "settings", first(1, [GraphSettings(nodes=5), EFFECT]), ids=["answer", "effect"]
)
def test_the_rows_are_the_graphs_own(model: Any, tmp_path: Path, settings: GraphSettings) -> None:
    """Of graphs that `causal_graph` makes with all that is drawn, and to the last digit of those
    that are without."""
    built = sg.build_atlas(model, TEXTS, tmp_path / "atlas", settings=settings)
    assert (built.measured, built.known, built.failed) == (len(TEXTS), 0, ())
    rows = sg.Atlas(tmp_path / "atlas")._database.rows
    fixed = build.plan_of(settings).settings
    for text in TEXTS:
        name = [Asked(text).id]
        nodes = rows(f"SELECT {NODE} FROM nodes WHERE prompt_id = ?", name)
        edges = rows(f"SELECT {EDGE} FROM edges WHERE prompt_id = ?", name)
        bare = bare_graph(model, text, fixed)
        assert sorted(nodes, key=str) == sorted(map(of_node, bare.nodes), key=str)
        assert sorted(edges, key=str) == sorted(map(of_edge, bare.edges), key=str)
        graph = sg.causal_graph(model, text, settings=fixed)
        assert len(graph.edges) > 3
        assert same(nodes, [*map(of_node, graph.nodes)])
        assert same(edges, [*map(of_edge, graph.edges)])
        (found,) = rows(f"SELECT {PROMPT} FROM prompts WHERE prompt_id = ?", name)
        assert same([found], [of_prompt(graph)])


def of_prompt(graph: sg.CausalGraph) -> tuple[Any, ...]:
    answer = graph.run.answer
    coverage = None if answer is None else answer.coverage
    return (
        *(graph.prompt, list(graph.tokens), len(graph.nodes), len(graph.edges)),
        *(graph.run.read_position, None if answer is None else graph.run.outputs[0].token),
        None if answer is None else answer.score,
        *((None, None) if coverage is None else (coverage.lost, coverage.left)),
    )


TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
NUMBER = st.floats(-1e6, 1e6)
PLACE = st.integers(0, 3)


@st.composite
def graphs(draw: st.DrawFn) -> Any:
    """What `rows_of` reads of a graph: nodes at tokens, and edges from one layer to the next."""
    tokens = tuple(draw(st.lists(TEXT, min_size=4, max_size=4)))
    spots = draw(st.lists(st.tuples(st.sampled_from("012"), PLACE, PLACE), unique=True, max_size=9))
    nodes = [
        Node(
            FeatureId(layer, index, position),
            activation=draw(NUMBER),
            effect_on_answer=draw(st.none() | NUMBER),
            density=draw(st.none() | st.floats(0, 1)),
            relay=draw(st.booleans()),
        )
        for layer, index, position in spots
    ]
    pairs = [
        (one.feature, other.feature)
        for one in nodes
        for other in nodes
        if int(other.feature.layer) == int(one.feature.layer) + 1
    ]
    edges = [
        Edge(source, target, effect=draw(NUMBER), flow=draw(st.none() | NUMBER))
        for source, target in (draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])
    ]
    return SimpleNamespace(run=record(tokens), nodes=nodes, edges=edges)


@examples(100, phases=[hypothesis.Phase.generate])
@hypothesis.given(
    st.dictionaries(TEXT.filter(bool), st.tuples(graphs(), TEXT), min_size=1, max_size=3)
)
def test_the_rows_are_those_of_any_graphs(held: dict[str, tuple[Any, str]]) -> None:
    """Written to parts, made one and read again: to the last digit, whatever the texts say."""
    asked = {text: Asked(text, None, {"kind": kind}) for text, (_, kind) in held.items()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "atlas"
        with store.writing(folder, store.Manifest(FACTS, ("kind",))) as made:
            measured = [rows_of(graph, asked[text]) for text, (graph, _) in held.items()]
            made.add(measured[:1])
            for each in measured[1:]:
                made.note(each)
            made.recover()
            made.compact()
        rows = sg.Atlas(folder)._database.rows
        for text, (graph, kind) in held.items():
            name = [asked[text].id]
            found = rows("SELECT prompt, kind, tokens FROM prompts WHERE prompt_id = ?", name)
            assert found == [(text, kind, list(graph.run.tokens))]
            nodes = rows(f"SELECT {NODE} FROM nodes WHERE prompt_id = ?", name)
            edges = rows(f"SELECT {EDGE} FROM edges WHERE prompt_id = ?", name)
            assert sorted(nodes, key=str) == sorted(map(of_node, graph.nodes), key=str)
            assert sorted(edges, key=str) == sorted(map(of_edge, graph.edges), key=str)
