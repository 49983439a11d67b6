"""Where things go before Graphviz places them: components in rows, boxes as wide as fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, product
from typing import TYPE_CHECKING

from sae_graphs.graph.feature_id import ANSWER_LAYER, TOKEN_LAYER
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import place_words
from sae_graphs.graph.records import LayerReport, Node
from sae_graphs.render.picture.markup import cell, in_tooltip, row, table, words
from sae_graphs.render.picture.supernodes import Supernode
from sae_graphs.render.style import LINE, SOFT
from sae_graphs.text import visible
from sae_graphs.words import counted, plain

if TYPE_CHECKING:
    from graphviz import Digraph


WIDE_BOX, NARROW_BOX = 36, 26  # characters in a line of a box
BOXES_AT_FULL_WIDTH = 5  # with more boxes side by side, each is narrower
HEIGHT_TO_WIDTH = 1.2  # a picture may be this much taller than wide before it is made wider


@dataclass(frozen=True)
class Rank:
    """The boxes of one component in one layer; or the output tokens, the answer or the prompt's
    tokens (`layer` is None then).

    Features are ordered by token position, where they have one, and then by index. Folded groups
    stand among them; `left_out` features have no box.
    """

    label: str
    layer: LayerReport | None
    nodes: tuple[Node, ...]
    folded: tuple[Supernode, ...] = ()
    left_out: int = 0

    @property
    def by_position(self) -> tuple[tuple[Node, ...], ...]:
        """The nodes at each token, from the first token to the last; all together without."""
        groups = groupby(self.nodes, key=lambda node: node.feature.position)
        return tuple(tuple(nodes) for _, nodes in groups)

    @property
    def places(self) -> tuple[tuple[str, ...], ...]:
        """As `by_position`, folded groups too: the names of the boxes in the DOT source."""
        placed = [(node.feature.position or 0, str(node.feature)) for node in self.nodes]
        placed += [(each.position or 0, each.key) for each in self.folded]
        placed.sort(key=lambda box: box[0])
        groups = groupby(placed, key=lambda box: box[0])
        return tuple(tuple(key for _, key in boxes) for _, boxes in groups)

    @property
    def boxes(self) -> tuple[str, ...]:
        """The names of its boxes in the DOT source, in their order."""
        return tuple(key for keys in self.places for key in keys)

    @property
    def width(self) -> int:
        """How many boxes wide it is."""
        return len(self.nodes) + len(self.folded)


@dataclass(frozen=True)
class Group:
    """One component: its number, and its boxes by layer, the last layer first."""

    number: int
    ranks: tuple[Rank, ...]

    @property
    def widest(self) -> int:
        """The largest number of boxes in one layer."""
        return max(1, *(rank.width for rank in self.ranks))

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All features with a box of their own."""
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


def groups_of(
    graph: CausalGraph,
    *,
    folded: Sequence[Supernode] = (),
    left_out: Mapping[tuple[int, str], int] | None = None,
) -> tuple[Group, ...]:
    """The components by number; `left_out` counts features without a box by component and layer."""
    numbers = graph.component_numbers
    groups = (Group(number, _ranks(graph, number, folded, left_out or {})) for number in numbers)
    return tuple(group for group in groups if group.ranks)


def _ranks(
    graph: CausalGraph,
    number: int,
    folded: Sequence[Supernode],
    left_out: Mapping[tuple[int, str], int],
) -> tuple[Rank, ...]:
    reports = {layer.label: layer for layer in graph.run.layers}
    hidden = {node.feature for each in folded for node in each.nodes}
    nodes = [n for n in graph.nodes if n.component == number and n.feature not in hidden]
    mine = [each for each in folded if each.component == number]
    ranks = []
    for label in reversed(tuple(graph.depths)):
        rank = Rank(
            label,
            reports.get(label),
            tuple(sorted((n for n in nodes if n.feature.layer == label), key=_place)),
            tuple(each for each in mine if each.layer == label),
            left_out.get((number, label), 0),
        )
        ranks += [rank] if rank.nodes or rank.folded or rank.left_out else []
    return tuple(ranks)


def _place(node: Node) -> tuple[int, int]:
    return node.feature.position or 0, node.feature.index


def shelves(groups: Sequence[Group]) -> tuple[Shelf, ...]:
    """The components in reading order, broken into rows so that the picture stays legible.

    A picture is looked at scaled to the width of a screen, so width costs size of type and height
    costs scrolling: of all row widths the one with the best balance is taken.
    """
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


def context_lines(boxes: int) -> int:
    """How many contexts each box shows: three in a graph that is read, fewer in a map of many."""
    return 3 if boxes <= 60 else 2 if boxes <= 120 else 1


def add_ranks(drawing: Digraph, shelved: tuple[Shelf, ...]) -> None:
    """What holds the layers in place, all of it invisible.

    Within a shelf the components' last layers are level, and so on downwards; the name of a layer
    comes before its features, and components come in order. Shelves follow one another. (Edges
    within a rank keep its order only where they have a weight.)
    """
    for shelf in shelved:
        for level in range(len(shelf.tallest.ranks)):
            with drawing.subgraph() as same:
                same.attr(rank="same")
                for group in shelf.groups:
                    for rank in group.ranks[level : level + 1]:
                        same.node(_layer_name(group, rank))
                        for key in rank.boxes:
                            same.node(key)
        for left, right in pairwise(shelf.groups):
            ends = _layer_name(left, left.ranks[0]), _layer_name(right, right.ranks[0])
            drawing.edge(*ends, key="order", style="invis", weight="1")
    for upper, lower in pairwise(shelf.tallest for shelf in shelved):
        ends = _layer_name(lower, lower.ranks[0]), _layer_name(upper, upper.ranks[-1])
        drawing.edge(*ends, key="order", style="invis", weight="0")


def add_layer_names(cluster: Digraph, group: Group, *, where: str) -> None:
    """The names of the layers, before their boxes; `where` says what holds those left out."""
    for rank in group.ranks:
        name = _layer_name(group, rank)
        cluster.node(name, label=f"<{_layer_label(rank)}>", tooltip=_layer_tip(rank, where))
        for before, here in pairwise([(name,), *rank.places]):
            for left, right in product(before, here):
                cluster.edge(left, right, key="order", style="invis", weight="1")
    for above, below in pairwise(group.ranks):
        ends = _layer_name(group, below), _layer_name(group, above)
        cluster.edge(*ends, key="order", style="invis", weight="300")


def _layer_name(group: Group, rank: Rank) -> str:
    return f"layer {rank.label} of {group.number}"


def _layer_label(rank: Rank) -> str:
    layer = rank.layer
    if layer is None:
        rows = [row(cell(words(own_layer_words(rank.label), size=9, colour=SOFT)))]
    else:
        rows = [
            row(cell(words("layer", size=9, colour=SOFT))),
            row(cell(words(layer.label, size=20, colour=SOFT, bold=True))),
            row(cell(words(place_words(layer.hook_point), size=8, colour=SOFT))),
        ]
    if rank.left_out:
        rows += [row(cell(words(" ", size=3))), row(cell(_rest(rank)))]
    return table(*rows, cellpadding=1)


def own_layer_words(label: str) -> str:
    """The name of a row that is no SAE layer's."""
    return {ANSWER_LAYER: "answer", TOKEN_LAYER: "prompt"}.get(label, "next token")


def _rest(rank: Rank) -> str:
    """A quiet box: how many more features the layer has."""
    what = "feature" if rank.left_out == 1 else "features"
    return table(
        row(cell(words(f"+ {rank.left_out:,} more", size=9, colour=SOFT, bold=True))),
        row(cell(words(what, size=8, colour=SOFT))),
        border=1,
        color=LINE,
        style="ROUNDED",
        cellpadding=3,
    )


def _layer_tip(rank: Rank, where: str) -> str:
    layer = rank.layer
    if layer is None:
        told = "output tokens: the effect on one is the change of its logit"
        return {
            ANSWER_LAYER: "the answer: the effect on it is the change of its score, in nats",
            TOKEN_LAYER: "the prompt's tokens that the features of the first layer stand at",
        }.get(rank.label, told)
    lines = [
        f"layer {layer.label}: {visible(layer.hook_point)}",
        f"{counted(layer.active_features, 'active feature')}, {plain(layer.l0)} a token",
        f"{layer.fvu:.1%} of the variance unexplained",
    ]
    if rank.left_out:
        lines.append(f"{counted(rank.left_out, 'more feature')} of the graph not drawn: {where}")
    return in_tooltip("\n".join(lines))
