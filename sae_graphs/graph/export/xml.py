"""GraphML and GEXF, through networkx: for Gephi, Cytoscape, yEd, igraph."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import networkx as nx

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.export.tables import Value, edge_rows, node_rows, readable
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import name_of, number_of
from sae_graphs.text import shortened

_RED, _BLUE = "#d92626", "#1d5fd6"  # of edges whose source promotes, or suppresses, the target
_STEP = 100.0  # between the places of neighbours, in Gephi's units
_LONGEST = 80  # characters of a label


def graphml(graph: CausalGraph, annotations: Annotations) -> bytes:
    """The graph as GraphML; see `sae_graphs.graph.export.formats.export` for what is lost."""
    file = io.BytesIO()
    digraph = _digraph(graph, annotations)
    run = graph.run
    digraph.graph = {
        "model": readable(run.model),
        "saes": readable(run.saes),
        "prompt": readable(run.prompt),
        "read_position": run.read_position,
        "kept_abs_effect": float(run.kept_abs_effect),
        "total_abs_effect": float(run.total_abs_effect),
        "effect_means": "ablated minus clean: below 0, the source promotes the target",
    }
    nx.write_graphml_xml(digraph, file)
    return file.getvalue()


def gexf(graph: CausalGraph, annotations: Annotations) -> bytes:
    """The graph as GEXF, each layer a row, arrows red where the source promotes, else blue."""
    file = io.BytesIO()
    digraph = _digraph(graph, annotations)
    placed: Counter[str] = Counter()
    for node in graph.nodes:
        layer = node.feature.layer
        place = {"x": _STEP * placed[layer], "y": _STEP * graph.depths[layer], "z": 0.0}
        placed[layer] += 1
        digraph.nodes[str(node.feature)]["viz"] = {"position": place}
    for edge in graph.edges:
        colour = _RED if edge.effect < 0 else _BLUE
        values = digraph.edges[str(edge.source), str(edge.target)]
        values["viz"] = {"color": _colour(colour)}
        values["label"] = f"{number_of(edge):+.3g}"
    nx.write_gexf(digraph, file)
    return file.getvalue()


def _digraph(graph: CausalGraph, annotations: Annotations) -> nx.DiGraph:
    """Nodes named as in `graph.json`; every attribute a scalar, those that are not known absent."""
    digraph = nx.DiGraph()
    for node, values in zip(graph.nodes, node_rows(graph, annotations), strict=True):
        label = values["label"] or _label(graph, node.feature)
        digraph.add_node(values.pop("feature"), **_known({**values, "label": label}))
    for values in edge_rows(graph, blocks=False):
        ends = values.pop("source"), values.pop("target")
        effect = values["effect"]
        assert isinstance(effect, float)
        flow = values.get("flow")
        weight = abs(flow if isinstance(flow, float) else effect)
        digraph.add_edge(*ends, **_known({"weight": weight, **values}))
    return digraph


def _label(graph: CausalGraph, feature: FeatureId) -> str:
    """The feature's name, with its explanation where there is one."""
    explanation = graph[feature].explanation
    words = name_of(graph.run, feature) + (f": {readable(explanation)}" if explanation else "")
    return shortened(words, _LONGEST)


def _known(values: dict[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def _colour(code: str) -> dict[str, Any]:
    red, green, blue = bytes.fromhex(code.removeprefix("#"))
    return {"r": red, "g": green, "b": blue, "a": 1.0}
