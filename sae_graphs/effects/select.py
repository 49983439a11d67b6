"""From measured effects to the edges that are drawn: the strongest, on long paths.

Nothing here knows torch: effects that were saved are chosen from again exactly as in their run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sae_graphs.effects.arrays import Effects, MeasuredEdge, keep_top
from sae_graphs.effects.settings import Per
from sae_graphs.graph.feature_id import OUTPUT_LAYER, FeatureId
from sae_graphs.graph.paths import longest_path_edges, on_long_paths
from sae_graphs.graph.records import Edge

FEW = 0.25  # a smaller share of the strongest edges on long paths is warned of

_NOTHING_LEFT = "no path "  # how the warnings of an empty selection begin
_OF_SELECTION = re.compile(
    rf"{_NOTHING_LEFT}|only \d+ of the \d+ strongest edges |\d+ of \d+ output tokens? "
)  # how all of a selection's warnings begin


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
    n_outputs: int = 0,
) -> Selection:
    """The `top_k` strongest of each set of effects that lie on paths of `min_path_edges` edges.

    `labels` are those of the SAE layers by depth; `per` says what a set of effects is; of
    `n_outputs` output tokens asked for, those that the edges miss are warned of.
    """
    measured, totals = keep_top(blocks, top_k, per)
    strongest = named(measured, labels)
    edges = on_long_paths(strongest, min_path_edges)
    if not edges:
        return Selection(edges, totals, _empty_warnings(strongest, min_path_edges))
    warnings = (
        *_thin_warnings(strongest, edges, min_path_edges),
        *_output_warnings(edges, n_outputs, labels, totals, min_path_edges),
    )
    return Selection(edges, totals, warnings)


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
    return tuple(warning for warning in warnings if not _OF_SELECTION.match(warning))


def _empty_warnings(strongest: Sequence[Edge], min_path_edges: int) -> tuple[str, ...]:
    """Why nothing is left to draw, and what would keep something."""
    if not strongest:
        return (f"{_NOTHING_LEFT}is left: no ablation changed any feature of the next layer",)
    longest = longest_path_edges(strongest)
    return (
        f"{_NOTHING_LEFT}of {min_path_edges} edges is left: the {len(strongest)} strongest edges "
        f"form paths of at most {longest}; raise top_k, or lower min_path_edges to {longest}",
    )


def _thin_warnings(
    strongest: Sequence[Edge], edges: Sequence[Edge], min_path_edges: int
) -> tuple[str, ...]:
    """That few edges join into paths, where each has its positions."""
    resolved = strongest[0].source.position is not None
    if not resolved or min_path_edges == 1 or len(edges) >= FEW * len(strongest):
        return ()
    everywhere = len({edge.target.position for edge in strongest}) > 1
    other = "read at one position" if everywhere else "ablate at all positions together"
    return (
        f"only {len(edges)} of the {len(strongest)} strongest edges lie on paths of "
        f"{min_path_edges} edges: positions spread effects thin; raise top_k, lower "
        f"min_path_edges, or {other}",
    )


def _output_warnings(
    edges: Sequence[Edge],
    n_outputs: int,
    labels: Sequence[str],
    totals: Mapping[int, float],
    min_path_edges: int,
) -> tuple[str, ...]:
    """That some output tokens are not in the graph, and what would put them there."""
    missing = n_outputs - len({edge.target.index for edge in edges if edge.target.is_output})
    if missing <= 0:
        return ()
    what = f"{missing} of {n_outputs} output tokens {'has' if missing == 1 else 'have'} no edge"
    if not totals.get(len(labels) - 1):
        return (f"{what}: no ablation in layer {labels[-1]} changed their logits",)
    remedy = "raise top_k, or lower min_path_edges" if min_path_edges > 1 else "raise top_k"
    return (f"{what} on a kept path; {remedy}",)
