"""Where things go before Graphviz places them: components in rows, boxes as wide as fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sae_graphs.graph import CausalGraph, LayerReport, Node

WIDE_BOX, NARROW_BOX = 36, 26  # characters in a line of a box
BOXES_AT_FULL_WIDTH = 5  # with more boxes side by side, each is narrower
HEIGHT_TO_WIDTH = 1.2  # a picture may be this much taller than wide before it is made wider


@dataclass(frozen=True)
class Rank:
    """The features of one component in one layer, or its output tokens (`layer` is None then).

    They are ordered by token position, where they have one, and then by index.
    """

    layer: LayerReport | None
    nodes: tuple[Node, ...]

    @property
    def label(self) -> str:
        """The layer's label; `out` for output tokens."""
        return self.nodes[0].feature.layer

    @property
    def by_position(self) -> tuple[tuple[Node, ...], ...]:
        """The nodes at each token, from the first token to the last; all together without."""
        groups = groupby(self.nodes, key=lambda node: node.feature.position)
        return tuple(tuple(nodes) for _, nodes in groups)


@dataclass(frozen=True)
class Group:
    """One component: its number, and its features by layer, the last layer first."""

    number: int
    ranks: tuple[Rank, ...]

    @property
    def widest(self) -> int:
        """The largest number of features in one layer."""
        return max(len(rank.nodes) for rank in self.ranks)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All its features."""
        return tuple(node for rank in self.ranks for node in rank.nodes)


@dataclass(frozen=True)
class Shelf:
    """Components side by side, their last layers level."""

    groups: tuple[Group, ...]

    @property
    def boxes(self) -> int:
        """About how many boxes wide it is."""
        return sum(group.widest for group in self.groups)

    @property
    def tallest(self) -> Group:
        """The component with the most layers."""
        return max(self.groups, key=lambda group: len(group.ranks))


def groups_of(graph: CausalGraph) -> tuple[Group, ...]:
    """The components by number."""
    ordered = sorted(graph.nodes, key=lambda node: node.component)
    return tuple(
        Group(number, _ranks(graph, tuple(nodes)))
        for number, nodes in groupby(ordered, key=lambda node: node.component)
    )


def _ranks(graph: CausalGraph, nodes: Sequence[Node]) -> tuple[Rank, ...]:
    reports = {layer.label: layer for layer in graph.run.layers}
    members = [
        (reports.get(label), tuple(node for node in nodes if node.feature.layer == label))
        for label in reversed(tuple(graph.depths))
    ]
    return tuple(
        Rank(layer, tuple(sorted(inside, key=_place))) for layer, inside in members if inside
    )


def _place(node: Node) -> tuple[int, int]:
    return node.feature.position or 0, node.feature.index


def shelves(graph: CausalGraph) -> tuple[Shelf, ...]:
    """The components in reading order, broken into rows so that the picture stays legible.

    A picture is looked at scaled to the width of a screen, so width costs size of type and height
    costs scrolling: of all row widths the one with the best balance is taken.
    """
    groups = groups_of(graph)
    if not groups:
        return ()
    least = max(group.widest for group in groups)
    total = sum(group.widest for group in groups)
    choices = [_filled(groups, room) for room in range(least, total + 1)]
    return min(choices, key=lambda shelved: (_size(shelved), len(shelved)))


def _filled(groups: Sequence[Group], room: int) -> tuple[Shelf, ...]:
    """Rows of at most `room` boxes, filled in order."""
    rows: list[list[Group]] = [[]]
    for group in groups:
        if rows[-1] and sum(other.widest for other in rows[-1]) + group.widest > room:
            rows.append([])
        rows[-1].append(group)
    return tuple(Shelf(tuple(row)) for row in rows)


def _size(shelved: Sequence[Shelf]) -> float:
    width = max(shelf.boxes for shelf in shelved)
    height = sum(len(shelf.tallest.ranks) for shelf in shelved)
    return max(width, height / HEIGHT_TO_WIDTH)


def box_columns(shelved: Sequence[Shelf]) -> int:
    """Characters in a line of each box: fewer where many boxes stand side by side."""
    widest = max((shelf.boxes for shelf in shelved), default=0)
    return max(WIDE_BOX - 2 * max(widest - BOXES_AT_FULL_WIDTH, 0), NARROW_BOX)


def context_lines(graph: CausalGraph) -> int:
    """How many contexts each box shows: three in a graph that is read, fewer in a map of many."""
    return 3 if len(graph) <= 60 else 2 if len(graph) <= 120 else 1
