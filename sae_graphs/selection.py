"""From measured effects to the edges that are drawn: the strongest, on long paths.

Nothing here knows torch: effects that were saved are chosen from again exactly as in their run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sae_graphs.effects import Effects, MeasuredEdge, keep_top
from sae_graphs.graph import Edge, FeatureId
from sae_graphs.paths import longest_path_edges, on_long_paths
from sae_graphs.records import OUTPUT_LAYER
from sae_graphs.settings import Per

_NOTHING_LEFT = "no path "  # how the warnings of an empty selection begin


class Selection(NamedTuple):
    """The edges to draw, the total |effect| measured at each depth, and why nothing is left."""

    edges: tuple[Edge, ...]
    totals: dict[int, float]
    warnings: tuple[str, ...]


def select(
    blocks: Iterable[Effects],
    labels: Sequence[str],
    *,
    top_k: int,
    per: Per,
    min_path_edges: int,
) -> Selection:
    """The `top_k` strongest of each set of effects that lie on paths of `min_path_edges` edges.

    `labels` are those of the SAE layers by depth; `per` says what a set of effects is.
    """
    measured, totals = keep_top(blocks, top_k, per)
    strongest = named(measured, labels)
    edges = on_long_paths(strongest, min_path_edges)
    return Selection(edges, totals, _empty_warnings(strongest, edges, min_path_edges))


def ends_of(edges: Iterable[Edge]) -> set[FeatureId]:
    """The features that some edges touch."""
    return {end for edge in edges for end in (edge.source, edge.target)}


def named(measured: Iterable[MeasuredEdge], labels: Sequence[str]) -> list[Edge]:
    """Measured edges between features that have the names of their layers."""
    layers = [*labels, OUTPUT_LAYER]
    return [
        Edge(
            FeatureId(layers[edge.depth], edge.source, edge.source_position),
            FeatureId(layers[edge.depth + 1], edge.target, edge.target_position),
            edge.effect,
        )
        for edge in measured
    ]


def other_warnings(warnings: Iterable[str]) -> tuple[str, ...]:
    """A run's warnings without those of its selection."""
    return tuple(warning for warning in warnings if not warning.startswith(_NOTHING_LEFT))


def _empty_warnings(
    strongest: Sequence[Edge], edges: Sequence[Edge], min_path_edges: int
) -> tuple[str, ...]:
    """Why nothing is left to draw, and what would keep something."""
    if edges:
        return ()
    if not strongest:
        return (f"{_NOTHING_LEFT}is left: no ablation changed any feature of the next layer",)
    longest = longest_path_edges(strongest)
    return (
        f"{_NOTHING_LEFT}of {min_path_edges} edges is left: the {len(strongest)} strongest edges "
        f"form paths of at most {longest}; raise top_k, or lower min_path_edges to {longest}",
    )
