"""Graphs in the formats of other programs, read back by those programs' libraries."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations, Group
from sae_graphs.graph.annotations import save as save_annotations
from sae_graphs.graph.export.formats import FORMATS, SUFFIXES, export, exported
from sae_graphs.graph.export.tables import context_text
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Context
from sae_graphs.render.style import LOWERS, RAISES
from tests.support.rich_graphs import (
    HOSTILE,
    graph_of,
    hostile,
    large,
    record,
    resolved,
    two_components,
    two_edges,
)

F = FeatureId.parse
GRAPHS = {
    "plain": two_components,
    "resolved": resolved,
    "hostile": hostile,
    "hostile and resolved": lambda: resolved(hostile_text=True),
    "large": large,
}
XML = {"graphml": nx.read_graphml, "gexf": nx.read_gexf}
SAID = Annotations(
    pins=(F("1.2"),),
    groups=(Group("the \x00 brackets", (F("0.1"), F("1.2"))),),
    labels={F("0.1"): "a <label>"},
    notes={F("2.3"): "a\nnote"},
)


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> CausalGraph:
    made: CausalGraph = GRAPHS[request.param]()
    return made


def empty() -> CausalGraph:
    return assemble(record(), [], [])


def read_xml(graph: CausalGraph, kind: str, said: Annotations | None = None) -> nx.DiGraph:
    files = exported(graph, kind, annotations=said or NO_ANNOTATIONS)
    assert list(files) == [f"graph.{kind}"]
    return XML[kind](io.BytesIO(files[f"graph.{kind}"]))


def tables(
    graph: CausalGraph, kind: str, said: Annotations | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The edges and the nodes, as pandas reads them."""
    files = exported(graph, kind, annotations=said or NO_ANNOTATIONS)
    assert list(files) == [f"graph.{kind}", f"graph.nodes.{kind}"]
    if kind == "parquet":
        edges, nodes = (pd.read_parquet(io.BytesIO(data)) for data in files.values())
        return edges, nodes
    as_written: dict[str, Any] = {"dtype": dict.fromkeys(("source", "target", "feature"), str)}
    edges, nodes = (
        pd.read_csv(io.BytesIO(data), float_precision="round_trip", **as_written)
        for data in files.values()
    )
    return edges, nodes


# -- GraphML and GEXF ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", XML)
def test_networkx_reads_the_same_graph_back(graph: CausalGraph, kind: str) -> None:
    found = read_xml(graph, kind)
    assert found.is_directed()
    assert list(found) == [str(node.feature) for node in graph.nodes]
    assert {(s, t): data["effect"] for s, t, data in found.edges(data=True)} == {
        (str(edge.source), str(edge.target)): edge.effect for edge in graph.edges
    }
    for edge in graph.edges:
        data = found.edges[str(edge.source), str(edge.target)]
        assert data["weight"] == abs(edge.effect)
        assert data["sign"] == edge.sign
        for name in ("skip", "attention", "mlp", "preactivation_effect"):
            assert data.get(name) == getattr(edge.anatomy, name, None)
    for node in graph.nodes:
        data = found.nodes[str(node.feature)]
        assert data["activation"] == node.activation
        assert data["layer"] == node.feature.layer
        assert data.get("position") == node.feature.position


@pytest.mark.parametrize("kind", XML)
def test_what_a_reader_says_goes_along(kind: str) -> None:
    found = read_xml(two_edges(), kind, SAID)
    assert found.nodes["0.1"]["label"] == "a <label>"
    assert found.nodes["1.2"]["label"] == "1.2"  # no label of its own: its name
    assert found.nodes["1.2"]["group"] == r"the \x00 brackets"
    assert [found.nodes[name]["pinned"] for name in found] == [False, True, False]
    assert found.nodes["2.3"]["note"] == "a↵note"
    assert "note" not in found.nodes["0.1"]


@pytest.mark.parametrize("kind", XML)
def test_output_tokens_are_nodes_with_their_text(kind: str) -> None:
    found = read_xml(resolved(), kind)
    data = found.nodes["out.11@10"]
    assert (data["token"], data["contrast"], data["probability"]) == (",", " and", 0.0625)
    assert data["label"] == 'out.11@10 "," - " and"'
    assert data["is_output"] is True


def test_an_explanation_is_part_of_the_label() -> None:
    graph = graph_of(("0.1", "1.2", -1.0), page=FeaturePage("found", "copyright signs"))
    assert read_xml(graph, "gexf").nodes["0.1"]["label"] == "0.1: copyright signs"


def test_gephi_finds_colours_by_sign_and_layers_as_rows() -> None:
    """Red where the source promotes its target; the first layer at the bottom."""
    root = ET.fromstring(exported(two_edges(), "gexf")["graph.gexf"])
    spaces = {"g": "http://www.gexf.net/1.2draft", "v": "http://www.gexf.net/1.2draft/viz"}
    colours = {}
    for edge in root.iterfind(".//g:edge", spaces):
        found = edge.find("v:color", spaces)
        assert found is not None
        code = "#" + "".join(f"{int(found.attrib[name]):02x}" for name in "rgb")
        colours[edge.attrib["source"]] = code, edge.attrib["label"], edge.attrib["weight"]
    assert colours == {"0.1": (LOWERS, "-8", "8.0"), "1.2": (RAISES, "+2", "2.0")}
    places = [float(place.attrib["y"]) for place in root.iterfind(".//v:position", spaces)]
    assert places == sorted(set(places))


def test_graphml_says_what_an_effect_means() -> None:
    found = read_xml(two_edges(), "graphml")
    assert found.graph["prompt"] == "<bos>Copyright (C"
    assert found.graph["effect_means"].startswith("ablated minus clean")


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_hold_every_number_of_the_edges(graph: CausalGraph, kind: str) -> None:
    edges, nodes = tables(graph, kind)
    assert list(nodes["feature"]) == [str(node.feature) for node in graph.nodes]
    assert list(nodes["activation"]) == [node.activation for node in graph.nodes]
    assert len(edges) == len(graph.edges)
    for row, edge in zip(edges.to_dict("records"), graph.edges, strict=True):
        assert (row["source"], row["target"]) == (str(edge.source), str(edge.target))
        assert row["effect"] == edge.effect
        if edge.anatomy is None:
            assert pd.isna(row["skip"])
            continue
        assert row["skip"] == edge.anatomy.skip
        assert row["preactivation_effect"] == edge.anatomy.preactivation_effect
        for block in edge.anatomy.blocks:
            assert row[f"attention_{block.block}"] == block.attention
            assert row[f"mlp_{block.block}"] == block.mlp
            for head, value in enumerate(block.heads):
                assert row[f"attention_{block.block}_head_{head}"] == value


NAMES = {"source": str, "target": str, "feature": str}  # as the docstring and the help say


def test_pandas_does_not_take_one_feature_for_another(tmp_path: Path) -> None:
    """2.720 and 2.72 are two features, and one number."""
    graph = graph_of(("1.1", "2.720", -8.0), ("1.1", "2.72", 3.0), ("2.720", "3.10", -1.0))
    files = graph.export(tmp_path / "graph.csv")
    edges, nodes = (pd.read_csv(file, dtype=NAMES) for file in files)
    joined = edges.merge(nodes, left_on="target", right_on="feature")
    assert list(zip(joined["target"], joined["index"], joined["effect"], strict=True)) == [
        ("2.720", 720, -8.0),
        ("2.72", 72, 3.0),
        ("3.10", 10, -1.0),
    ]
    edges, nodes = (pd.read_csv(file) for file in files)  # as a newcomer would
    ends = edges.merge(nodes, left_on=["target_layer", "target_index"], right_on=["layer", "index"])
    assert list(ends["index"]) == [720, 72, 10] == list(edges["target_index"])
    assert list(edges["source_index"]) == [1, 1, 720]
    assert f"dtype={_spelt(NAMES)}" in str(export.__doc__)


def _spelt(kinds: Mapping[str, type]) -> str:
    return "{" + ", ".join(f'"{name}": {kind.__name__}' for name, kind in kinds.items()) + "}"


def test_output_tokens_join_by_name(tmp_path: Path) -> None:
    files = resolved().export(tmp_path / "graph.csv")
    edges, nodes = (pd.read_csv(file, dtype=NAMES) for file in files)
    joined = edges.merge(nodes, left_on="target", right_on="feature")
    assert len(joined) == len(edges)
    assert joined["is_output"].any()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_join_and_hold_what_a_reader_says(kind: str) -> None:
    edges, nodes = tables(two_edges(), kind, SAID)
    joined = edges.merge(nodes, left_on="source", right_on="feature", suffixes=("", "_of_node"))
    assert list(joined["effect"]) == [-8.0, 2.0]
    assert list(joined["label"].fillna("")) == ["a <label>", ""]
    assert list(joined["group"]) == [r"the \x00 brackets"] * 2
    assert list(joined["pinned"]) == [False, True]
    assert list(nodes["note"].fillna("")) == ["", "", "a↵note"]
    assert list(nodes["top_token"]) == [" rights"] * 3
    assert list(nodes["promotes"]) == ['" )" -3.25'] * 3


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_graph_without_edges_has_all_columns(kind: str) -> None:
    edges, nodes = tables(empty(), kind)
    full_edges, full_nodes = tables(two_edges(), kind)
    assert list(edges) == list(full_edges)
    assert list(nodes) == list(full_nodes)
    assert len(edges) == len(nodes) == 0


def test_addresses_that_are_no_web_pages_are_left_out() -> None:
    graph = graph_of(("0.1", "1.2", -1.0), neuronpedia="javascript:alert(1)")
    _, nodes = tables(graph, "csv")
    assert nodes["neuronpedia"].isna().all()
    graph = graph_of(("0.1", "1.2", -1.0), neuronpedia="https://www.neuronpedia.org/m/0-s/1")
    assert tables(graph, "csv")[1]["neuronpedia"][0] == "https://www.neuronpedia.org/m/0-s/1"


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_the_suffix_names_the_format(tmp_path: Path, kind: str) -> None:
    files = large().export(tmp_path / "deep" / f"my.own{SUFFIXES[kind]}")
    tabular = kind in ("csv", "parquet")
    names = [f"my.own{SUFFIXES[kind]}"] + [f"my.own.nodes.{kind}"] * tabular
    assert [file.name for file in files] == names
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == sorted(names)
    assert files[0].read_bytes() == exported(large(), kind)[f"graph{SUFFIXES[kind]}"]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("a.CSV", ["a.CSV", "a.nodes.CSV"]),
        ("b.GraphML", ["b.GraphML"]),
        ("c.Attribution.JSON", ["c.Attribution.JSON"]),
    ],
)
def test_a_file_is_called_what_the_user_called_it(
    tmp_path: Path, name: str, names: list[str]
) -> None:
    written = two_edges().export(tmp_path / name)
    assert [file.name for file in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_annotations_may_be_a_file(tmp_path: Path) -> None:
    file = save_annotations(SAID, tmp_path / "said.json")
    [written] = two_edges().export(tmp_path / "a.graphml", annotations=file)
    assert nx.read_graphml(written).nodes["1.2"]["pinned"] is True


def test_what_is_annotated_elsewhere_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    said = Annotations(pins=(F("0.1"), F("3.99")))
    export(two_edges(), tmp_path / "a.csv", annotations=said, told=told.append)
    assert told == ["annotated, but not in this graph, and left out: 3.99"]


@pytest.mark.parametrize("name", ["graph.json", "graph", "graph.xlsx", ".csv", "x.attribution"])
def test_other_names_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(SaeGraphsError, match=r"cannot tell a format.*ends in \.graphml.*such as"):
        two_edges().export(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(SaeGraphsError, match="is a folder; give a file"):
        two_edges().export(tmp_path / "x.csv")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaeGraphsError, match=r"cannot write .*give another folder"):
        two_edges().export(tmp_path / "file" / "x.csv")
    assert (tmp_path / "file").read_text() == "mine"


def test_parquet_without_pyarrow_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", missing)
    with pytest.raises(SaeGraphsError, match="needs pyarrow"):
        exported(two_edges(), "parquet")


def test_a_context_is_cut_around_its_peak() -> None:
    words = tuple(f" word{number}" for number in range(100))
    peak = tuple(float(number == 50) for number in range(100))
    text = context_text(Context(words, peak), 40)
    assert text is not None
    assert " word50" in text and text[0] == text[-1] == "…" and len(text) <= 42
    assert context_text(Context((), ())) is None


def test_no_control_code_is_left_in_any_text_file() -> None:
    for kind in ("graphml", "gexf", "csv"):
        for data in exported(hostile(), kind).values():
            text = data.decode()
            assert not set(text) & set("\x00\x07\x1b\u202e\u200b\r")
            assert HOSTILE[0] in text or "&lt;script&gt;" in text
