"""Files of graphs with anatomies, output tokens and positions: round trips, old files, damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import GraphFileError
from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy, BlockShare
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.node_link import from_networkx
from sae_graphs.graph.records import Edge, OutputToken
from tests.support.graphs import example, resolved, rich_graph, run_record, with_outputs
from tests.support.slow import examples


def data_of(graph: CausalGraph) -> Any:
    """The graph as JSON makes it."""
    return json.loads(json.dumps(nx.node_link_data(graph.to_networkx(), edges="edges")))


def graph_from(data: Any) -> CausalGraph:
    return CausalGraph(*from_networkx(nx.node_link_graph(data, edges="edges")))


@pytest.mark.parametrize(
    "graph", [with_outputs(), resolved(), resolved().summed(), resolved().summed("all")]
)
def test_save_and_load(graph: CausalGraph, tmp_path: Path) -> None:
    assert CausalGraph.load(graph.save(tmp_path)) == graph


def test_what_the_file_holds() -> None:
    graph = with_outputs()
    layers = (*graph.run.layers[:3], replace(graph.run.layers[3], no_anatomy="encoder with a gate"))
    data = data_of(replace(graph, run=replace(graph.run, layers=layers)))
    first, second, third = data["edges"]
    assert first == {
        "source": "2.5",
        "target": "3.6",
        "effect": -2.0,
        "skip": -1.0,
        "attention": -0.75,
        "mlp": -0.25,
        "preactivation_effect": -2.0,
        "blocks": [{"block": 2, "attention": -0.75, "mlp": -0.25, "heads": [-1.0, 0.25]}],
    }
    assert second["blocks"] == [{"block": 3, "attention": 0.0, "mlp": 0.5, "heads": []}]
    missing = ("skip", "attention", "mlp", "preactivation_effect", "blocks")
    assert [third[name] for name in missing] == [None] * 5
    nodes = {node["id"]: node for node in data["nodes"]}
    assert nodes["2.5"]["written_by"][0] == {"part": "attention", "block": 3, "share": 0.625}
    assert nodes["2.5"]["written_by"][1] == {"part": "embedding", "block": None, "share": 0.25}
    assert nodes["2.5"]["scrubbed_by"] == [{"part": "mlp", "block": 5, "share": 0.375}]
    assert nodes["2.5"]["token"] is None
    assert (nodes["out.340"]["token"], nodes["out.340"]["activation"]) == (" )", 12.5)
    assert data["graph"]["outputs"][1] == {
        "token_id": 7,
        "token": "\n",
        "logit": 9.0,
        "probability": 0.125,
        "contrast": "C",
    }
    assert [layer["no_anatomy"] for layer in data["graph"]["layers"]][2:] == [
        None,
        "encoder with a gate",
    ]
    assert {node["id"]: node["position"] for node in data_of(resolved())["nodes"]}["1.2@3"] == 3


def test_a_file_from_before_still_loads() -> None:
    data = data_of(example())
    del data["graph"]["outputs"]
    for layer in data["graph"]["layers"]:
        del layer["no_anatomy"]
    for node in data["nodes"]:
        for name in ("written_by", "scrubbed_by", "token", "page", "explanation"):
            del node[name]
    for edge in data["edges"]:
        for name in ("skip", "attention", "mlp", "preactivation_effect", "blocks"):
            del edge[name]
    assert graph_from(data) == example()


def test_sums_may_differ_by_rounding() -> None:
    data = data_of(with_outputs())
    data["edges"][0]["attention"] += 1e-8
    assert graph_from(data) == with_outputs()


def edges_0(**changes: Any) -> Callable[[Any], None]:
    return lambda data: data["edges"][0].update(changes)


def block_0(**changes: Any) -> Callable[[Any], None]:
    return lambda data: data["edges"][0]["blocks"][0].update(changes)


def output_0(**changes: Any) -> Callable[[Any], None]:
    return lambda data: data["graph"]["outputs"][0].update(changes)


def share_0(**changes: Any) -> Callable[[Any], None]:
    return lambda data: data["nodes"][0]["written_by"][0].update(changes)


DAMAGE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "skip wrong": (
        edges_0(skip=-1.5),
        "preactivation_effect of the edge 2.5 -> 3.6 is not the sum of its parts",
    ),
    "attention wrong": (
        edges_0(attention=-0.5),
        "attention of the edge 2.5 -> 3.6 is not the sum of its parts",
    ),
    "mlp wrong": (edges_0(mlp=0.25), "mlp of the edge 2.5 -> 3.6 is not the sum of its parts"),
    "whole wrong": (
        edges_0(preactivation_effect=2.0),
        "preactivation_effect of the edge 2.5 -> 3.6 is not the sum of its parts",
    ),
    "skip missing": (lambda d: d["edges"][0].pop("skip"), "skip of the edge 2.5 -> 3.6 is missing"),
    "skip null": (edges_0(skip=None), "skip of the edge 2.5 -> 3.6 is missing"),
    "blocks missing": (
        lambda d: d["edges"][0].pop("blocks"),
        "blocks of the edge 2.5 -> 3.6 is missing",
    ),
    "blocks a number": (edges_0(blocks=3), "blocks is 3, expected a list"),
    "sums without blocks": (edges_0(blocks=None), "blocks of the edge 2.5 -> 3.6 is missing"),
    "skip a text": (edges_0(skip="-1"), "skip is '-1', expected a number"),
    "skip true": (edges_0(skip=True), "skip is True, expected a number"),
    "block a text": (block_0(block="2"), "block is '2', expected a whole number"),
    "block below 0": (block_0(block=-2), "not a block"),
    "block a fraction": (block_0(block=2.0), "block is 2.0, expected a whole number"),
    "heads missing": (
        lambda d: d["edges"][0]["blocks"][0].pop("heads"),
        "heads of blocks is missing",
    ),
    "heads a text": (block_0(heads="12"), "heads is '12', expected a list"),
    "head null": (block_0(heads=[None]), "not the anatomy of an edge"),
    "block part infinite": (block_0(mlp=float("inf")), "not the anatomy"),
    "outputs an object": (
        lambda d: d["graph"].update(outputs={}),
        "outputs is {}, expected a list",
    ),
    "outputs gone": (lambda d: d["graph"].pop("outputs"), "layers out are not among 0, 1, 2, 3"),
    "output without id": (
        lambda d: d["graph"]["outputs"][0].pop("token_id"),
        "token_id of outputs is missing",
    ),
    "output id a text": (output_0(token_id="340"), "token_id is '340', expected a whole number"),
    "output text a number": (output_0(token=3), "token is 3, expected a text"),
    "logit a text": (output_0(logit="3"), "logit is '3', expected a number"),
    "probability above 1": (output_0(probability=1.25), "probability 1.25"),
    "contrast a number": (output_0(contrast=3), "contrast is 3, expected a text"),
    "another output": (output_0(token_id=341), "out.340 is not an output token of this run"),
    "reason a number": (
        lambda d: d["graph"]["layers"][0].update(no_anatomy=3),
        "no_anatomy is 3, expected a text",
    ),
    "node of an output without text": (lambda d: d["nodes"][2].update(token=None), "name their"),
    "node with a text": (lambda d: d["nodes"][0].update(token="a"), "name their token"),
    "node text a number": (lambda d: d["nodes"][2].update(token=3), "token is 3, expected a text"),
    "shares a number": (
        lambda d: d["nodes"][0].update(written_by=3),
        "written_by is 3, expected a list",
    ),
    "scrubbed null": (
        lambda d: d["nodes"][0].update(scrubbed_by=None),
        "scrubbed_by is None, expected a list",
    ),
    "share a text": (share_0(share="1"), "share is '1', expected a number"),
    "part unknown": (
        share_0(part="router"),
        "part is 'router', expected one of embedding, attention, mlp",
    ),
    "part a list": (
        share_0(part=["mlp"]),
        "part is ['mlp'], expected one of embedding, attention, mlp",
    ),
    "block of the embedding": (share_0(part="embedding"), "not a part of the model"),
    "share block a text": (share_0(block="3"), "block is '3', expected a whole number"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    change, message = DAMAGE[name]
    data = data_of(with_outputs())
    change(data)
    file = tmp_path / "graph.json"
    file.write_text(json.dumps(data).replace("Infinity", "1e999"))
    with pytest.raises(GraphFileError) as caught:
        CausalGraph.load(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert message in str(caught.value) or "is not a number" in str(caught.value)


def test_a_position_that_disagrees_with_the_name() -> None:
    data = data_of(resolved())
    data["nodes"][0]["position"] = 3
    with pytest.raises(GraphFileError, match="said to be another feature"):
        graph_from(data)


# -- any graph -------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100)
text = st.text(st.characters(), max_size=6) | st.sampled_from(["\x00", "\ud83d", "\u202e", "<b>"])
parts = st.builds(BlockShare, st.sampled_from(["attention", "mlp"]), st.integers(0, 99), finite)
shares = st.lists(parts | st.builds(BlockShare, st.just("embedding"), st.none(), finite))


@st.composite
def anatomies(draw: st.DrawFn) -> Anatomy | None:
    numbers = sorted(draw(st.sets(st.integers(0, 60), max_size=4)))
    heads = st.lists(finite, max_size=3).map(tuple)
    blocks = tuple(BlockAnatomy(n, draw(finite), draw(finite), draw(heads)) for n in numbers)
    return draw(st.none() | st.just(Anatomy(draw(finite), blocks)))


@examples(80, cheap=True)
@given(
    st.data(),
    st.none() | st.integers(0, 3),
    st.builds(OutputToken, st.integers(0, 10**6), text, finite, st.floats(0, 1), st.none() | text),
    shares,
)
def test_files_round_trip(
    data: st.DataObject, position: int | None, output: OutputToken, written: list[BlockShare]
) -> None:
    ends = [
        *(FeatureId(str(depth), 7, position) for depth in range(3)),
        FeatureId("out", output.token_id, position),
    ]
    edges = [
        Edge(source, target, data.draw(finite), data.draw(anatomies()))
        for source, target in pairwise(ends)
    ]
    graph = rich_graph(edges, run_record(outputs=(output,)), written_by=tuple(written))
    assert graph_from(data_of(graph)) == graph


@examples(40, cheap=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-8, 8).filter(bool)),
        unique_by=lambda each: each[:2],
        min_size=1,
    )
)
def test_sums_are_those_of_all_positions(found: list[tuple[int, int, int]]) -> None:
    edges = [
        Edge(FeatureId("0", 1, min(p, q)), FeatureId("1", 2, max(p, q)), effect / 4)
        for p, q, effect in {(min(p, q), max(p, q)): (p, q, e) for p, q, e in found}.values()
    ]
    graph = rich_graph(edges, run_record())
    for at in (0, 1, 2, 3, "all"):
        wanted = sum(e.effect for e in edges if at in ("all", e.target.position))
        assert sum(e.effect for e in graph.summed(at).edges) == wanted
