"""Layers in the DOT source: their names, and what keeps their boxes level and in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import TYPE_CHECKING

from sae_graphs.graph import LayerReport
from sae_graphs.render.arrange import Group, Rank, Shelf
from sae_graphs.render.markup import cell, row, table, words
from sae_graphs.render.names import place_words
from sae_graphs.render.style import LINE, SOFT
from sae_graphs.render.text import counted, in_tooltip, plain, visible

if TYPE_CHECKING:
    from graphviz import Digraph

_REST_TIP = "not on the strongest paths: see graph.html or graph.json"


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
                        for key in (_layer_name(group, rank), *_keys(group, rank)):
                            same.node(key)
        for left, right in pairwise(shelf.groups):
            ends = _layer_name(left, left.ranks[0]), _layer_name(right, right.ranks[0])
            drawing.edge(*ends, key="order", style="invis", weight="1")
    for upper, lower in pairwise(shelf.tallest for shelf in shelved):
        ends = _layer_name(lower, lower.ranks[0]), _layer_name(upper, upper.ranks[-1])
        drawing.edge(*ends, key="order", style="invis", weight="0")


def _keys(group: Group, rank: Rank) -> Iterator[str]:
    """The boxes of a rank, that of the features that are not drawn last."""
    for keys in rank.places:
        yield from keys
    if rank.left_out:
        yield _rest_name(group, rank)


def add_layer_names(cluster: Digraph, group: Group) -> None:
    for rank in group.ranks:
        name = _layer_name(group, rank)
        cluster.node(name, label=f"<{_layer_label(rank.layer)}>", tooltip=_layer_tip(rank.layer))
        places = [(name,), *rank.places]
        if rank.left_out:
            rest = _rest_name(group, rank)
            cluster.node(rest, label=f"<{_rest_box(rank.left_out)}>", tooltip=_REST_TIP)
            places.append((rest,))
        for before, here in pairwise(places):
            for left, right in product(before, here):
                cluster.edge(left, right, key="order", style="invis", weight="1")
    for above, below in pairwise(group.ranks):
        ends = _layer_name(group, below), _layer_name(group, above)
        cluster.edge(*ends, key="order", style="invis", weight="300")


def _rest_name(group: Group, rank: Rank) -> str:
    return f"rest of {rank.label} of {group.number}"


def _rest_box(left_out: int) -> str:
    """Quiet: how many more features there are."""
    return table(
        row(cell(words(f"+ {left_out:,} more", size=10, colour=SOFT, bold=True))),
        row(cell(words("feature" if left_out == 1 else "features", size=9, colour=SOFT))),
        border=1,
        color=LINE,
        style="ROUNDED,DASHED",
        cellpadding=3,
    )


def _layer_name(group: Group, rank: Rank) -> str:
    return f"layer {rank.label} of {group.number}"


def _layer_label(layer: LayerReport | None) -> str:
    if layer is None:
        return table(row(cell(words("next token", size=9, colour=SOFT))))
    return table(
        row(cell(words("layer", size=9, colour=SOFT))),
        row(cell(words(layer.label, size=20, colour=SOFT, bold=True))),
        row(cell(words(place_words(layer.hook_point), size=8, colour=SOFT))),
        cellpadding=1,
    )


def _layer_tip(layer: LayerReport | None) -> str:
    if layer is None:
        return "output tokens: the effect on one is the change of its logit"
    return in_tooltip(
        f"layer {layer.label}: {visible(layer.hook_point)}\n"
        f"{counted(layer.active_features, 'active feature')}, {plain(layer.l0)} a token\n"
        f"{layer.fvu:.1%} of the variance unexplained"
    )
