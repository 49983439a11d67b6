"""What is tested of a graph: its components, and the strongest paths of each."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.evidence import UnitKind
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge, FeatureId
from sae_graphs.validation_settings import ValidationSettings


class Unit(NamedTuple):
    """A component or a path: its features by depth, the edges between them."""

    name: str
    kind: UnitKind
    component: int
    features: tuple[FeatureId, ...]
    edges: tuple[Edge, ...]


def units_of(graph: CausalGraph, settings: ValidationSettings) -> tuple[Unit, ...]:
    """Each component followed by its strongest paths, or the paths that the settings name.

    A component that is one path is tested once. Raises `SaeGraphsError` for a graph without
    edges, and for a path that is not in the graph.
    """
    if not graph.edges:
        raise SaeGraphsError(
            "the graph has no edges, so there is nothing to validate; make one with a larger "
            "--top-k or a smaller --min-path-edges"
        )
    if settings.path:
        return tuple(_given(graph, path) for path in dict.fromkeys(settings.path))
    found: list[Unit] = []
    for number in graph.component_numbers:
        part = graph.component(number)
        name = f"Graph {number}"
        features = tuple(node.feature for node in part.nodes)
        found.append(Unit(name, "component", number, features, part.edges))
        if settings.paths == 0:
            continue
        for count, path in enumerate(part.paths(limit=settings.paths), start=1):
            if set(path.features) != set(features):
                name_of = f"{name}, path {count}"
                found.append(Unit(name_of, "path", number, path.features, path.edges))
    return tuple(found)


def _given(graph: CausalGraph, path: tuple[FeatureId, ...]) -> Unit:
    for feature in path:
        graph[feature]  # raises where it is not in the graph
    edges = []
    for source, target in itertools.pairwise(path):
        if target not in graph.successors(source):
            raise SaeGraphsError(
                f"{source} > {target} is no edge of this graph; {source} has edges to "
                f"{quoted([str(feature) for feature in graph.successors(source)], 12) or 'nothing'}"
            )
        edges.append(graph.edge(source, target))
    if all(feature.is_output for feature in path):
        raise SaeGraphsError(f"{path[0]} is an output token, which cannot be ablated")
    name = " > ".join(map(str, path))
    return Unit(name, "path", graph[path[0]].component, path, tuple(edges))
