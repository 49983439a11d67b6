"""Layers in the DOT source: their names, and what keeps their boxes level and in order."""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING

from sae_graphs.graph.names import place_words
from sae_graphs.render.arrange import Group, Rank, Shelf
from sae_graphs.render.markup import cell, row, table, words
from sae_graphs.render.style import LINE, SOFT
from sae_graphs.text import in_tooltip, visible
from sae_graphs.words import counted, plain

if TYPE_CHECKING:
    from graphviz import Digraph


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
        rows = [row(cell(words("next token", size=9, colour=SOFT)))]
    else:
        rows = [
            row(cell(words("layer", size=9, colour=SOFT))),
            row(cell(words(layer.label, size=20, colour=SOFT, bold=True))),
            row(cell(words(place_words(layer.hook_point), size=8, colour=SOFT))),
        ]
    if rank.left_out:
        rows += [row(cell(words(" ", size=3))), row(cell(_rest(rank)))]
    return table(*rows, cellpadding=1)


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
        return "output tokens: the effect on one is the change of its logit"
    lines = [
        f"layer {layer.label}: {visible(layer.hook_point)}",
        f"{counted(layer.active_features, 'active feature')}, {plain(layer.l0)} a token",
        f"{layer.fvu:.1%} of the variance unexplained",
    ]
    if rank.left_out:
        lines.append(f"{counted(rank.left_out, 'more feature')} of the graph not drawn: {where}")
    return in_tooltip("\n".join(lines))
