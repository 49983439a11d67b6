"""`graph.json`: networkx node-link data that opens without this package.

`networkx.node_link_graph(json.load(file), edges="edges")` gives nodes named `layer.index` with
their attributes, edges with `effect` and their anatomy, and the run's record as graph attributes.
Files from before anatomies, output tokens and pages lack those keys, and load all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy
from sae_graphs.graph.checks import check_graph
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge, GraphParts, Node, RunRecord, edge_order
from sae_graphs.runs import GRAPH
from sae_graphs.schema import plain, read_json, rebuilt

SCHEMA = "sae_graphs/1"
_REMEDY = "make the graph again"
_SUMS = ("skip", "attention", "mlp", "preactivation_effect")  # of an edge's anatomy
_ROUNDING = 1e-6  # by which stored sums may differ from their parts
_OLDER_LACK = frozenset(  # what files from before output tokens, anatomies and pages do not have
    ("outputs", "no_anatomy", "written_by", "scrubbed_by", "token", "page")
) | {*_SUMS, "blocks"}
_OF_ANSWERS = ("effect_on_answer", "direct_effect", "density", "relay")  # of a node
_OF_FLOWS = ("relative_effect", "flow")  # of an edge
_MAY_LACK = _OLDER_LACK | {"answer", "what_if", *_OF_ANSWERS, *_OF_FLOWS}


def to_networkx(graph: GraphParts) -> nx.DiGraph:
    """Nodes are named by `str(FeatureId)`; every attribute is plain JSON."""
    digraph = nx.DiGraph(**_run_attributes(graph.run))
    for node in graph.nodes:
        digraph.add_node(str(node.feature), **node_attributes(node))
    for edge in graph.edges:
        digraph.add_edge(str(edge.source), str(edge.target), **_edge_attributes(edge))
    return digraph


def from_networkx(digraph: nx.DiGraph) -> GraphParts:
    """The inverse of `to_networkx`; raises `SaeGraphsError` where something is missing or wrong."""
    if not isinstance(digraph.graph, dict):
        raise GraphFileError(f"the graph's record is {digraph.graph!r:.60}; {_REMEDY}")
    schema = digraph.graph.get("schema")
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    run = _run_from(digraph.graph)
    nodes = [node_from(name, attributes) for name, attributes in digraph.nodes(data=True)]
    edges = [_edge_from(*ends_and_attributes) for ends_and_attributes in digraph.edges(data=True)]
    check_graph(run, nodes, edges)
    edges.sort(key=lambda edge: edge_order(edge, run.depths))
    return GraphParts(run, tuple(nodes), tuple(edges))


def to_bytes(graph: GraphParts) -> bytes:
    """The contents of `graph.json`: ASCII, so that no token can spoil it."""
    data = nx.node_link_data(to_networkx(graph), edges="edges")
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode("ascii")


def load(path: str | Path) -> GraphParts:
    """Read a graph's parts from a file, or from the folder that a run wrote.

    Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
    """
    file = Path(path)
    if file.is_dir():
        file = file / GRAPH
    data = read_json(file, give="a folder that `sae-graphs graph` wrote", remedy=_REMEDY)
    try:
        return from_networkx(_digraph_from(data))
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file} is not a saved graph: {problem}") from problem
    except RecursionError as problem:
        raise GraphFileError(f"{file} is nested too deeply; {_REMEDY}") from problem


# -- one direction and the other -------------------------------------------------------------------


@dataclass(frozen=True)
class _NextToken:
    token: str
    probability: float


@dataclass(frozen=True)
class _Measured:
    """An edge's attributes: its effect; of its anatomy, where it has one, sums and blocks."""

    effect: float
    skip: float | None = None
    attention: float | None = None
    mlp: float | None = None
    preactivation_effect: float | None = None
    blocks: tuple[BlockAnatomy, ...] | None = None
    relative_effect: float | None = None
    flow: float | None = None


def _run_attributes(run: RunRecord) -> dict[str, Any]:
    attributes = {"schema": SCHEMA, **plain(run)}
    if run.answer is None:
        del attributes["answer"]
    attributes["next_tokens"] = [
        plain(_NextToken(token, probability)) for token, probability in run.next_tokens
    ]
    return attributes


def _run_from(attributes: Mapping[str, Any]) -> RunRecord:
    values = dict(attributes)
    if "next_tokens" in values:
        likely = _rebuilt(tuple[_NextToken, ...], values["next_tokens"], "next_tokens")
        values["next_tokens"] = [[item.token, item.probability] for item in likely]
    run: RunRecord = _rebuilt(RunRecord, values, "the graph's record")
    plain(run.settings)  # what nests too deeply fails now, not later
    for name in ("pin", "layers"):
        _rebuilt(tuple[Any, ...], run.settings.get(name) or [], name)
    return run


def node_attributes(node: Node) -> dict[str, Any]:
    """A node's attributes as plain JSON."""
    attributes = plain(node)
    del attributes["feature"]
    feature = node.feature
    placed = {} if feature.position is None else {"position": feature.position}
    for name in _OF_ANSWERS:
        if attributes[name] is None:
            del attributes[name]
    attributes["explanation"] = node.explanation  # once more, where other programs look for it
    return {"layer": feature.layer, "index": feature.index, **placed, **attributes}


def node_from(name: str, attributes: Mapping[str, Any]) -> Node:
    """The inverse of `node_attributes`; `SaeGraphsError` where something is missing or wrong."""
    node: Node = _rebuilt(Node, {**attributes, "feature": name}, f"the node {name}")
    said = rebuilt(
        FeatureId,
        dict(attributes),
        f"the node {name}",
        remedy=_REMEDY,
        may_lack=frozenset(["position"]),
        skips_unknown=True,
    )
    if node.feature != said:
        raise GraphFileError(f"{name} is said to be another feature, {said}; {_REMEDY}")
    return node


def _edge_attributes(edge: Edge) -> dict[str, Any]:
    anatomy = edge.anatomy
    sums = {name: getattr(anatomy, name, None) for name in _SUMS}
    blocks = None if anatomy is None else plain(anatomy.blocks)
    flows = {name: value for name in _OF_FLOWS if (value := getattr(edge, name)) is not None}
    return {"effect": edge.effect, **flows, **sums, "blocks": blocks}


def _edge_from(source: str, target: str, attributes: Mapping[str, Any]) -> Edge:
    ends = FeatureId.parse(source), FeatureId.parse(target)
    where = f"the edge {source} -> {target}"
    held: _Measured = _rebuilt(_Measured, attributes, where)
    anatomy = _anatomy_from(held, where)
    return Edge(*ends, held.effect, anatomy, held.relative_effect, held.flow)


def _anatomy_from(held: _Measured, where: str) -> Anatomy | None:
    """The anatomy of an edge: all of it, or nothing; its parts agree with the stored sums."""
    sums = {name: getattr(held, name) for name in _SUMS}
    lacking = [name for name, value in {**sums, "blocks": held.blocks}.items() if value is None]
    if len(lacking) > len(_SUMS):
        return None
    if lacking or held.skip is None or held.blocks is None:
        raise GraphFileError(f"{lacking[0]} of {where} is missing; {_REMEDY}")
    anatomy = Anatomy(held.skip, held.blocks)
    parts = [part for block in held.blocks for part in (block.attention, block.mlp)]
    room = _ROUNDING * math.fsum(abs(part) for part in (held.skip, *parts))
    for name, value in sums.items():
        if abs(value - getattr(anatomy, name)) > room:
            raise GraphFileError(f"{name} of {where} is not the sum of its parts; {_REMEDY}")
    return anatomy


def _rebuilt(kind: Any, value: Any, where: str) -> Any:
    own = {FeatureId: FeatureId.parse}
    return rebuilt(kind, value, where, own, remedy=_REMEDY, may_lack=_MAY_LACK, skips_unknown=True)


def _digraph_from(data: Any) -> nx.DiGraph:
    try:
        digraph = nx.node_link_graph(data, edges="edges")
    except (KeyError, TypeError, AttributeError, ValueError, nx.NetworkXException) as problem:
        raise GraphFileError(f"no networkx node-link data ({problem!r})") from problem
    if not isinstance(digraph, nx.DiGraph) or digraph.is_multigraph():
        raise GraphFileError("expected a directed graph without parallel edges")
    return digraph
