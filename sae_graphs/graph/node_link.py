"""`graph.json`: networkx node-link data that opens without this package.

`networkx.node_link_graph(json.load(file), edges="edges")` gives nodes named `layer.index` with
their attributes, edges with `effect` and their anatomy, and the run's record as graph attributes.
Files from before anatomies, output tokens and pages lack those keys, and load all the same.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import networkx as nx

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.files import save_at
from sae_graphs.graph.feature_page import page_from
from sae_graphs.graph.graph import CausalGraph, edge_order
from sae_graphs.graph.records import (
    Anatomy,
    BlockAnatomy,
    BlockShare,
    Context,
    Edge,
    FeatureId,
    LayerReport,
    Node,
    OutputToken,
    RunRecord,
    TokenEffect,
)
from sae_graphs.runs import GRAPH

SCHEMA = "sae_graphs/1"
_RUN_KINDS: dict[str, Any] = {  # the others are lists
    "model": str,
    "saes": str,
    "prompt": str,
    "read_position": int,
    "settings": dict,
    "total_abs_effect": (int, float),
    "kept_abs_effect": (int, float),
}
_SUMS = ("skip", "attention", "mlp", "preactivation_effect")  # of an edge's anatomy
_ROUNDING = 1e-6  # by which stored sums may differ from their parts


def to_networkx(graph: CausalGraph) -> nx.DiGraph:
    """Nodes are named by `str(FeatureId)`; every attribute is plain JSON."""
    digraph = nx.DiGraph(**_run_attributes(graph.run))
    for node in graph.nodes:
        digraph.add_node(str(node.feature), **node_attributes(node))
    for edge in graph.edges:
        digraph.add_edge(str(edge.source), str(edge.target), **_edge_attributes(edge))
    return digraph


def from_networkx(digraph: nx.DiGraph) -> CausalGraph:
    """The inverse of `to_networkx`; raises `GraphFileError` where something is missing."""
    if not isinstance(digraph.graph, dict):
        raise GraphFileError(f"the graph's record is {digraph.graph!r:.60}; make the graph again")
    schema = digraph.graph.get("schema")
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r}, expected {SCHEMA!r}; make the graph again")
    try:
        run = _run_from(digraph.graph)
        nodes = [node_from(name, attributes) for name, attributes in digraph.nodes(data=True)]
        edges = [
            _edge_from(source, target, attributes)
            for source, target, attributes in digraph.edges(data=True)
        ]
        edges.sort(key=lambda edge: edge_order(edge, run.depths))
        return CausalGraph(run, tuple(nodes), tuple(edges))
    except KeyError as missing:
        raise GraphFileError(f"{missing} is missing; make the graph again") from missing
    except (TypeError, ValueError, AttributeError) as damage:
        raise GraphFileError(f"a value is of the wrong kind ({damage})") from damage


def to_bytes(graph: CausalGraph) -> bytes:
    """The contents of `graph.json`: ASCII, so that no token can spoil it."""
    data = nx.node_link_data(to_networkx(graph), edges="edges")
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode("ascii")


def save(graph: CausalGraph, path: str | Path) -> Path:
    """Write the graph in one step: a reader finds the old file or the new one, nothing else."""
    return save_at(path, GRAPH, to_bytes(graph))


def load(path: str | Path) -> CausalGraph:
    """Read a graph from a file, or from the folder that a run wrote.

    Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
    """
    file = Path(path)
    if file.is_dir():
        file = file / GRAPH
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except OSError as problem:
        reason = problem.strerror or "unreadable"
        raise GraphFileError(
            f"cannot read {file}: {reason}; give a folder that `sae-graphs graph` wrote"
        ) from problem
    except ValueError as problem:
        raise GraphFileError(f"{file} is not JSON ({problem}); make the graph again") from problem
    except RecursionError as problem:
        raise GraphFileError(f"{file} is nested too deeply; make the graph again") from problem
    try:
        return from_networkx(_digraph_from(data))
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file} is not a saved graph: {problem}") from problem
    except RecursionError as problem:
        raise GraphFileError(f"{file} is nested too deeply; make the graph again") from problem


# -- one direction and the other -------------------------------------------------------------------


def _run_attributes(run: RunRecord) -> dict[str, Any]:
    attributes = {"schema": SCHEMA, **_plain(run)}
    attributes["next_tokens"] = [
        {"token": token, "probability": probability} for token, probability in run.next_tokens
    ]
    return attributes


def _run_from(attributes: Mapping[str, Any]) -> RunRecord:
    attributes = {"outputs": [], **attributes}
    values = {
        field.name: _of_kind(attributes[field.name], _RUN_KINDS.get(field.name, list))
        for field in dataclasses.fields(RunRecord)
    }
    values["outputs"] = tuple(_output_from(output) for output in values["outputs"])
    values["layers"] = tuple(_layer_from(layer) for layer in values["layers"])
    values["next_tokens"] = tuple(
        (_of_kind(item["token"], str), float(item["probability"])) for item in values["next_tokens"]
    )
    for name in ("tokens", "warnings"):
        values[name] = tuple(_of_kind(item, str) for item in values[name])
    values["settings"] = _plain(values["settings"])  # what nests too deeply fails now, not later
    for name in ("pin", "layers"):
        _of_kind(values["settings"].get(name) or [], list)
    return RunRecord(**values)


def _layer_from(values: Mapping[str, Any]) -> LayerReport:
    layer: LayerReport = _dataclass_from(LayerReport, {"no_anatomy": None, **values})
    for name, value in vars(layer).items():
        if name in ("label", "hook_point"):
            _of_kind(value, str)
        elif name == "no_anatomy":
            _of_kind(value, str, NoneType)
        elif value is not None or name in ("active_features", "l0", "fvu"):
            _of_kind(value, int, float)
    return layer


def _output_from(values: Mapping[str, Any]) -> OutputToken:
    output: OutputToken = _dataclass_from(OutputToken, values)
    for number in (output.logit, output.probability):
        _of_kind(number, int, float)
    return output


def _of_kind(value: Any, *kinds: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"got {value!r:.60}")
    return value


def node_attributes(node: Node) -> dict[str, Any]:
    """A node's attributes as plain JSON."""
    attributes = _plain(node)
    del attributes["feature"]
    feature = node.feature
    placed = {} if feature.position is None else {"position": feature.position}
    attributes["explanation"] = node.explanation  # once more, where other programs look for it
    return {"layer": feature.layer, "index": feature.index, **placed, **attributes}


def node_from(name: str, attributes: Mapping[str, Any]) -> Node:
    """The inverse of `node_attributes`; `KeyError`, `TypeError` or `ValueError` where damaged."""
    feature = FeatureId.parse(name)
    place = feature.layer, feature.index, feature.position
    if place != (attributes["layer"], attributes["index"], attributes.get("position")):
        raise ValueError(f"{name} is said to be another feature")
    return Node(
        feature=feature,
        activation=float(attributes["activation"]),
        component=_of_kind(attributes["component"], int),
        neuronpedia=attributes["neuronpedia"],
        activations=tuple(float(value) for value in attributes["activations"]),
        contexts=tuple(
            Context(tuple(item["tokens"]), tuple(float(value) for value in item["activations"]))
            for item in attributes["contexts"]
        ),
        promotes=tuple(_dataclass_from(TokenEffect, item) for item in attributes["promotes"]),
        suppresses=tuple(_dataclass_from(TokenEffect, item) for item in attributes["suppresses"]),
        written_by=_shares_from(attributes.get("written_by", [])),
        scrubbed_by=_shares_from(attributes.get("scrubbed_by", [])),
        token=attributes.get("token"),
        page=page_from(attributes.get("page")),
    )


def _shares_from(values: Any) -> tuple[BlockShare, ...]:
    return tuple(
        BlockShare(item["part"], item["block"], _number(item["share"]))
        for item in _of_kind(values, list)
    )


def _edge_attributes(edge: Edge) -> dict[str, Any]:
    anatomy = edge.anatomy
    sums = {name: getattr(anatomy, name, None) for name in _SUMS}
    blocks = None if anatomy is None else _plain(anatomy.blocks)
    return {"effect": edge.effect, **sums, "blocks": blocks}


def _edge_from(source: str, target: str, attributes: Mapping[str, Any]) -> Edge:
    ends = FeatureId.parse(source), FeatureId.parse(target)
    return Edge(*ends, float(attributes["effect"]), _anatomy_from(attributes))


def _anatomy_from(attributes: Mapping[str, Any]) -> Anatomy | None:
    """The anatomy of an edge: all of it, or nothing; its parts agree with the stored sums."""
    names = (*_SUMS, "blocks")
    if all(attributes.get(name) is None for name in names):
        return None
    blocks = tuple(
        BlockAnatomy(
            _of_kind(item["block"], int),
            _number(item["attention"]),
            _number(item["mlp"]),
            tuple(_number(head) for head in _of_kind(item["heads"], list)),
        )
        for item in _of_kind(attributes["blocks"], list)
    )
    anatomy = Anatomy(_number(attributes["skip"]), blocks)
    parts = [anatomy.skip, *(part for block in blocks for part in (block.attention, block.mlp))]
    room = _ROUNDING * math.fsum(abs(part) for part in parts)
    for name in _SUMS:
        if abs(_number(attributes[name]) - getattr(anatomy, name)) > room:
            raise ValueError(f"{name} is not the sum of its parts")
    return anatomy


def _number(value: Any) -> float:
    return float(_of_kind(value, int, float))


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _digraph_from(data: Any) -> nx.DiGraph:
    try:
        digraph = nx.node_link_graph(data, edges="edges")
    except (KeyError, TypeError, AttributeError, ValueError, nx.NetworkXException) as problem:
        raise GraphFileError(f"no networkx node-link data ({problem!r})") from problem
    if not isinstance(digraph, nx.DiGraph) or digraph.is_multigraph():
        raise GraphFileError("expected a directed graph without parallel edges")
    return digraph


def _dataclass_from(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})


def _plain(value: Any) -> Any:
    """A dataclass as JSON: dictionaries and lists of plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
