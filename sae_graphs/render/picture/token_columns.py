"""Which column and which row of an answer graph's drawing everything belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_graphs.graph.feature_id import TOKEN_LAYER
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.picture.by_token import Grid, Place, grid


@dataclass(frozen=True)
class Column:
    """A token with something above it, or a run of quiet ones."""

    positions: tuple[int, ...]
    quiet: bool


def tells_a_story(graph: CausalGraph) -> bool:
    """Whether a graph is drawn by token and layer: an answer graph with a feature at a token."""
    placed_ = any(it.feature.is_feature and it.feature.position is not None for it in graph.nodes)
    return graph.run.answer is not None and graph.resolves_positions and placed_


def columns_of(graph: CausalGraph) -> tuple[Column, ...]:
    """The prompt's tokens from the left; those with nothing above them in runs."""
    run = graph.run
    busy = {node.feature.position for node in graph.nodes} | {run.read_position}
    found: list[Column] = []
    for position in range(run.read_position + 1):
        if position in busy:
            found.append(Column((position,), quiet=False))
        elif found and found[-1].quiet:
            found[-1] = Column((*found[-1].positions, position), quiet=True)
        else:
            found.append(Column((position,), quiet=True))
    return tuple(found)


def layer_rows(graph: CausalGraph) -> dict[str, int]:
    """The row of each layer with a box, the prompt's tokens being row 0."""
    held = {node.feature.layer for node in graph.nodes}
    labels = [label for label in graph.depths if label in held and label != TOKEN_LAYER]
    return {label: number for number, label in enumerate(labels, start=1)}


def axis_name(graph: CausalGraph, column: Column) -> str:
    """The name of what stands at the bottom of a column: a box of the graph, where it has one."""
    position = column.positions[-1]
    node = f"token@{position}"
    return node if not column.quiet and node in graph else f"tokens {position}"


def laid(
    graph: CausalGraph,
    columns_: Sequence[Column],
    rows: Mapping[str, int],
    sizes: Mapping[str, tuple[float, float]],
    *,
    room: float,
) -> Grid:
    """Where everything goes; `sizes` are those of boxes and of the tokens below them, by name."""
    at = {position: n for n, column in enumerate(columns_) for position in column.positions}
    places = [
        Place(axis_name(graph, column), number, 0, *sizes[axis_name(graph, column)])
        for number, column in enumerate(columns_)
    ]
    for node in graph.nodes:
        if node.feature.is_token:
            continue
        position = node.feature.position
        column = at[graph.run.read_position if position is None else position]
        name = str(node.feature)
        places.append(Place(name, column, rows[node.feature.layer], *sizes[name]))
    arrows = [(str(edge.source), str(edge.target)) for edge in graph.edges]
    return grid(places, arrows, room=room)
