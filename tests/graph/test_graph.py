"""`CausalGraph`: what it refuses to hold, its queries, its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from sae_graphs.errors import GraphFileError, SaeGraphsError, UnknownFeatureError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Context, Edge, Node
from tests.support.graphs import edge, example, graph_of, node, run_record

# -- features and edges ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["5.10600", "5.10603@2", "e.0", "11-pre.7", "0.0@0"])
def test_feature_text_round_trip(text: str) -> None:
    assert str(FeatureId.parse(text)) == text
    assert FeatureId.parse(FeatureId.parse(text)) == FeatureId.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "5.",
        ".5",
        "5.x",
        "5.1.2",
        "5.1@",
        "5.1@x",
        "5.-1",
        "5 .1",
        "5.1\n6.2",
        "5." + 40 * "9",
    ],
)
def test_malformed_features(text: str) -> None:
    with pytest.raises(SaeGraphsError, match="not a feature"):
        FeatureId.parse(text)


def test_a_number_is_no_feature() -> None:
    with pytest.raises(SaeGraphsError, match="last zeros"):
        FeatureId.parse(5.10600)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts", [(5, 1, None), ("5", "1", None), ("5", True, None), ("5", 1, "2"), ("5", -1, None)]
)
def test_features_check_their_parts(parts: tuple[Any, Any, Any]) -> None:
    with pytest.raises(SaeGraphsError, match="not a feature"):
        FeatureId(*parts)


@pytest.mark.parametrize("effect", [float("nan"), float("inf"), -float("inf")])
def test_edges_are_finite(effect: float) -> None:
    with pytest.raises(SaeGraphsError, match="not finite"):
        edge("0.1", "1.1", effect)


def test_sign() -> None:
    assert edge("0.1", "1.1", -1).sign == "promotes"
    assert edge("0.1", "1.1", 1).sign == "suppresses"


def test_a_context_has_one_activation_per_token() -> None:
    with pytest.raises(SaeGraphsError, match="one activation per token"):
        Context(("a", "b"), (1.0,))


# -- what a graph refuses --------------------------------------------------------------------------


def nodes(*names: str) -> tuple[Node, ...]:
    return tuple(node(FeatureId.parse(name)) for name in names)


@pytest.mark.parametrize(
    ("held", "edges", "message"),
    [
        (nodes("0.1", "0.1"), (), "a feature twice"),
        (nodes("7.1"), (), "layers 7 are not among"),
        (nodes("0.1"), (edge("0.1", "1.1", 1),), "not a node"),
        (nodes("0.1", "1.1"), (edge("1.1", "0.1", 1),), "does not point forward"),
        (nodes("0.1", "0.2"), (edge("0.1", "0.2", 1),), "does not point forward"),
        (nodes("0.1", "1.1"), (edge("0.1", "1.1", 1), edge("0.1", "1.1", 2)), "an edge twice"),
    ],
)
def test_bad_graphs(held: tuple[Node, ...], edges: tuple[Edge, ...], message: str) -> None:
    with pytest.raises(SaeGraphsError, match=message):
        CausalGraph(run_record(), held, edges)


@pytest.mark.parametrize("position", [-1, 4])
def test_the_read_position_lies_in_the_prompt(position: int) -> None:
    with pytest.raises(SaeGraphsError, match="outside"):
        run_record(read_position=position)


# -- queries ---------------------------------------------------------------------------------------


def test_order_components_and_totals() -> None:
    graph = example()
    assert [str(n.feature) for n in graph.nodes] == [
        "0.1", "0.9", "1.1", "1.2", "1.9", "2.10600", "3.5",
    ]  # fmt: skip
    assert [abs(e.effect) for e in graph.edges] == [4, 3, 2, 1.5, 1, 0.5]
    assert graph.n_components == 2
    assert graph["1.9"].component == 2
    assert graph.run.kept_abs_effect == 12
    assert [len(part) for part in graph.components()] == [5, 2]
    assert graph.component(2).run.kept_abs_effect == 0.5
    assert len(graph) == 7
    assert "12" not in repr(graph)
    assert "7 features, 6 edges, 2 components, 40% of the effect" in repr(graph)


def test_ties_go_to_the_smaller_layer_then_source_then_target() -> None:
    graph = graph_of(
        {("1.2", "2.1"): 1, ("0.10", "1.3"): -1, ("0.2", "1.4"): 1, ("0.2", "1.3"): -1}
    )
    assert [f"{e.source} {e.target}" for e in graph.edges] == [
        "0.2 1.3",
        "0.2 1.4",
        "0.10 1.3",
        "1.2 2.1",
    ]


def test_neighbours() -> None:
    graph = example()

    def names(features: tuple[FeatureId, ...]) -> list[str]:
        return [str(feature) for feature in features]

    assert names(graph.successors("0.1")) == ["1.1", "1.2"]
    assert names(graph.predecessors("2.10600")) == ["1.1", "1.2"]
    assert names(graph.ancestors("3.5")) == ["0.1", "1.1", "1.2", "2.10600"]
    assert names(graph.descendants("1.2")) == ["2.10600", "3.5"]
    assert names(graph.predecessors("0.1")) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"source": "0.1"}, ["0.1 1.1", "0.1 1.2"]),
        ({"target": "2.10600"}, ["1.2 2.10600", "1.1 2.10600"]),
        ({"layer": 1}, ["1.2 2.10600", "1.1 2.10600"]),
        ({"layer": "2"}, ["2.10600 3.5"]),
        ({"sign": "suppresses"}, ["1.2 2.10600", "0.1 1.2", "0.9 1.9"]),
        ({"min_abs_effect": 2}, ["0.1 1.1", "1.2 2.10600", "1.1 2.10600"]),
        ({"component": 2}, ["0.9 1.9"]),
        ({"source": "0.1", "sign": "promotes"}, ["0.1 1.1"]),
        ({"source": "0.1", "target": "3.5"}, []),
        ({"layer": "3"}, []),
    ],
)
def test_find_edges(query: dict[str, Any], expected: list[str]) -> None:
    found = example().find_edges(**query)
    assert [f"{e.source} {e.target}" for e in found] == expected


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda g: g["0.2"], "feature 0.2 is not in this graph; layer 0 has 0.1, 0.9"),
        (lambda g: g["9.1"], "no SAE layer '9'"),
        (lambda g: g["2.106"], "feature 2.106 is not"),
        (lambda g: g.successors("3.6"), "not in this graph"),
        (lambda g: g.ancestors("0.2"), "not in this graph"),
        (lambda g: g.edge("0.1", "3.5"), "no edge 0.1 -> 3.5"),
        (lambda g: g.edge("3.5", "0.1"), "leads to nothing"),
        (lambda g: g.find_edges(source="0.2"), "not in this graph"),
        (lambda g: g.find_edges(layer=9), "no SAE layer '9'"),
        (lambda g: g.find_edges(sign="positive"), "neither 'promotes' nor 'suppresses'"),
        (lambda g: g.find_edges(component=3), "no component 3"),
        (lambda g: g.component(0), "no component 0"),
        (lambda g: g.paths("0.1", "0.2"), "not in this graph"),
        (lambda g: g.paths(limit=0), "at least 1"),
    ],
)
def test_unknown_things_raise(ask: Callable[[CausalGraph], Any], message: str) -> None:
    with pytest.raises(SaeGraphsError, match=message):
        ask(example())


def test_contains() -> None:
    graph = example()
    assert "0.1" in graph
    assert FeatureId("2", 10600) in graph
    assert "2.10601" not in graph
    assert 2.106 not in graph


# -- views -----------------------------------------------------------------------------------------


def test_networkx_view() -> None:
    digraph = example().to_networkx()
    assert isinstance(digraph, nx.DiGraph)
    assert digraph.edges["0.1", "1.1"]["effect"] == -4
    assert digraph.nodes["2.10600"]["index"] == 10600
    assert digraph.graph["next_tokens"][0] == {"token": ")", "probability": 0.75}


def test_pandas_view() -> None:
    table = example().to_pandas()
    assert list(table.columns) == [
        "source", "target", "source_layer", "target_layer", "source_position", "target_position",
        "target_token", "effect", "component", "source_explanation", "target_explanation",
        "skip", "attention", "mlp", "preactivation_effect",
    ]  # fmt: skip
    first = table.iloc[0]
    assert first[["source", "target", "source_layer", "target_layer"]].tolist() == [
        "0.1", "1.1", "0", "1",
    ]  # fmt: skip
    assert (first.effect, first.component) == (-4.0, 1)
    assert first[["source_position", "target_position", "target_token", "skip"]].isna().all()
    assert len(table) == 6
    assert "2.10600" in set(table.target)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "graph",
    [
        example(),
        graph_of({}),
        graph_of({("0.1", "1.1"): -1e-30}),
        graph_of({(f"0.{i}", f"1.{i}"): 1.0 + i for i in range(50)}),
        graph_of({(f"0.{i}", f"1.{j}"): i - j / 7 for i in range(60) for j in range(60)}),
        graph_of({("0.1@2", "1.1@3"): 1.0}),
    ],
    ids=["example", "nothing", "one edge", "disconnected", "large", "positions"],
)
def test_save_and_load(tmp_path: Path, graph: CausalGraph) -> None:
    file = graph.save(tmp_path / "deep" / "run")
    assert file == tmp_path / "deep" / "run" / "graph.json"
    again = CausalGraph.load(file)
    assert again == graph
    assert CausalGraph.load(file.parent) == graph
    assert again.n_components == graph.n_components
    assert [path.name for path in file.parent.iterdir()] == ["graph.json"]


def test_the_file_opens_without_this_package(tmp_path: Path) -> None:
    data = json.loads(example().save(tmp_path / "g.json").read_text())
    digraph = nx.node_link_graph(data, edges="edges")
    assert digraph.number_of_edges() == 6
    assert digraph.nodes["3.5"]["layer"] == "3"
    assert digraph.nodes["3.5"]["component"] == 1
    about = {"schema", "model", "saes", "prompt", "tokens", "read_position", "settings", "layers"}
    about |= {"total_abs_effect", "kept_abs_effect", "next_tokens"}
    assert about <= data["graph"].keys()


def test_an_empty_graph_answers() -> None:
    graph = graph_of({})
    assert (len(graph), graph.n_components, graph.components(), graph.paths()) == (0, 0, (), ())
    assert graph.to_pandas().empty
    assert graph.find_edges() == ()
    assert "0 features" in repr(graph)


def edited(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The example's file with its data changed."""
    data = nx.node_link_data(example().to_networkx(), edges="edges")
    change(data)
    return json.dumps(data).encode()


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"<svg/>",
    "cut off": edited(lambda d: None)[:500],
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"3",
    "nothing in it": b"{}",
    "other schema": edited(lambda d: d["graph"].update(schema="sae_graphs/99")),
    "no schema": edited(lambda d: d["graph"].pop("schema")),
    "no tokens": edited(lambda d: d["graph"].pop("tokens")),
    "tokens a number": edited(lambda d: d["graph"].update(tokens=3)),
    "tokens a string": edited(lambda d: d["graph"].update(tokens="Copyright")),
    "prompt a number": edited(lambda d: d["graph"].update(prompt=3)),
    "total a string": edited(lambda d: d["graph"].update(total_abs_effect="lots")),
    "settings a number": edited(lambda d: d["graph"].update(settings=3)),
    "read outside": edited(lambda d: d["graph"].update(read_position=99)),
    "read a string": edited(lambda d: d["graph"].update(read_position="3")),
    "read a fraction": edited(lambda d: d["graph"].update(read_position=0.5)),
    "layers null": edited(lambda d: d["graph"].update(layers=None)),
    "a layer incomplete": edited(lambda d: d["graph"]["layers"][0].pop("fvu")),
    "fvu a string": edited(lambda d: d["graph"]["layers"][0].update(fvu="bad")),
    "warnings missing": edited(lambda d: d["graph"].pop("warnings")),
    "next tokens broken": edited(lambda d: d["graph"].update(next_tokens=[3])),
    "effect missing": edited(lambda d: d["edges"][0].pop("effect")),
    "effect a word": edited(lambda d: d["edges"][0].update(effect="big")),
    "effect NaN": edited(lambda d: d["edges"][0].update(effect=float("nan"))),
    "edge to nowhere": edited(lambda d: d["edges"][0].update(target="3.77")),
    "edge backward": edited(lambda d: d["edges"][0].update(source="3.5", target="0.1")),
    "node malformed": edited(lambda d: d["nodes"][0].update(id="zero")),
    "node a number": edited(lambda d: d["nodes"][0].update(id=0.1)),
    "node in no layer": edited(lambda d: d["nodes"][0].update(id="9.1")),
    "activation a list": edited(lambda d: d["nodes"][0].update(activation=[1])),
    "contexts broken": edited(lambda d: d["nodes"][0].update(contexts=[{"tokens": ["a"]}])),
    "context uneven": edited(
        lambda d: d["nodes"][0].update(contexts=[{"tokens": ["a"], "activations": []}])
    ),
    "promotes broken": edited(lambda d: d["nodes"][0].update(promotes=[3])),
    "no nodes": edited(lambda d: d.pop("nodes")),
    "undirected": edited(lambda d: d.update(directed=False)),
    "multigraph": edited(lambda d: d.update(multigraph=True)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / "graph.json"
    file.write_bytes(DAMAGED[name])
    with pytest.raises(GraphFileError) as caught:
        CausalGraph.load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [600, 100_000])
def test_a_file_that_is_nested_too_deeply(tmp_path: Path, depth: int) -> None:
    """As a whole, where Python's own reader gives up, and in the settings, which it reads."""
    file = tmp_path / "graph.json"
    nested = "[" * depth + "]" * depth
    whole = edited(lambda d: d["graph"]["settings"].update(odd="HERE")).decode()
    for text in (nested, whole.replace('"HERE"', nested)):
        file.write_text(text)
        with pytest.raises(GraphFileError) as caught:
            CausalGraph.load(file)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("is nested too deeply; make the graph again")


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.json", tmp_path / "no" / "folder"):
        with pytest.raises(GraphFileError, match="cannot read"):
            CausalGraph.load(path)


def test_unwritable_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaeGraphsError, match="cannot write"):
        example().save(tmp_path / "file" / "graph.json")


def test_nodes_without_edges_are_left_out() -> None:
    graph = assemble(run_record(), nodes("0.1", "1.1", "2.2"), [edge("0.1", "1.1", 1)])
    assert [str(n.feature) for n in graph.nodes] == ["0.1", "1.1"]


def test_unknown_feature_error_is_a_user_error() -> None:
    assert issubclass(UnknownFeatureError, SaeGraphsError)
    assert issubclass(GraphFileError, SaeGraphsError)


def test_a_component_is_a_graph_of_one_component() -> None:
    whole = example()
    for number, part in zip(whole.component_numbers, whole.components(), strict=True):
        assert part.n_components == 1
        assert part.component_numbers == (number,)
        assert part.components() == (part,)


def test_a_number_of_a_component_from_nowhere_costs_nothing() -> None:
    from dataclasses import replace

    whole = example()
    odd = tuple(replace(node, component=99_999_999) for node in whole.nodes)
    assert len(replace(whole, nodes=odd).components()) == 1
    with pytest.raises(SaeGraphsError, match="below 0"):
        replace(whole.nodes[0], component=-1)


def test_odd_things_are_not_in_a_graph() -> None:
    assert "foo" not in example()
    assert 5 not in example()


@pytest.mark.parametrize(
    "damage",
    [
        {"graph": 5},
        {"graph": None},
        {"graph": []},
    ],
)
def test_a_record_that_is_no_object(tmp_path: Path, damage: dict[str, object]) -> None:
    file = example().save(tmp_path / "graph.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    with pytest.raises(SaeGraphsError, match="graph"):
        CausalGraph.load(file)


def test_a_number_beyond_all_numbers(tmp_path: Path) -> None:
    file = example().save(tmp_path / "graph.json")
    data = json.loads(file.read_text())
    data["graph"]["total_abs_effect"] = "HUGE"
    file.write_text(json.dumps(data).replace('"HUGE"', "1e999"))
    with pytest.raises(SaeGraphsError, match="not a number"):
        CausalGraph.load(file)
