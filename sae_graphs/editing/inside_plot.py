"""What an edit does inside, as one figure: the features that carry, without it and with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from sae_graphs.render.document.plot import bare_figure, label_rows, look
from sae_graphs.render.style import FAINT, INK, LINE, SOFT
from sae_graphs.text import shortened, visible
from sae_graphs.words import said

if TYPE_CHECKING:
    from sae_graphs.editing.inside import Inside, Moved

ROW, AROUND = 0.19, 1.15  # inches: a feature, and all else
SIZE = 7.5
WIDE = 10.0


def activations(found: Inside) -> Figure:
    """Features of one graph alone, by layer: activation without the edit (open), with it (full)."""
    sides = (
        ("carried the old object", found.carried, found.before),
        ("carry the new object", found.carries, found.after),
    )
    with look():
        most = max(len(moved) for _, moved, _ in sides)
        figure = bare_figure(AROUND + ROW * max(most, 3), width=WIDE)
        for axes, (what, moved, graph) in zip(
            figure.subplots(1, 2, sharex=True), sides, strict=True
        ):
            answer = shortened(visible(said(graph.run.outputs[0].token)), 30)
            axes.set_title(f"{what}, {answer}: {len(moved)}", fontsize=9)
            depths = {layer.label: depth for depth, layer in enumerate(graph.run.layers)}
            _panel(axes, sorted(moved, key=lambda it: _place(it, depths)), graph.run.tokens)
        handles = [
            axes.plot([], [], "o", color=INK, markerfacecolor=face, label=name)[0]
            for face, name in (("none", "without the edit"), (INK, "with it"))
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=SIZE
        )
        return figure


def _place(each: Moved, depths: Mapping[str, int]) -> tuple[int, int, int]:
    at = each.feature.position
    return depths[each.feature.layer], -1 if at is None else at, each.feature.index


def _panel(axes: Any, moved: Sequence[Moved], tokens: Sequence[str]) -> None:
    rows = list(range(len(moved)))
    befores, afters = ([getattr(it, side) for it in moved] for side in ("before", "after"))
    axes.hlines(rows, befores, afters, color=FAINT, linewidth=1.2)
    axes.plot(befores, rows, "o", color=INK, markerfacecolor="none", markersize=4.5)
    axes.plot(afters, rows, "o", color=INK, markersize=4.5)
    label_rows(axes, rows, [_label(it, tokens) for it in moved], SIZE)
    axes.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axes.axvline(0, color=LINE, linewidth=1, zorder=0)
    axes.set_xlabel("activation", fontsize=SIZE, color=SOFT)
    axes.tick_params(axis="x", labelsize=SIZE)
    axes.grid(axis="x")


def _label(each: Moved, tokens: Sequence[str]) -> str:
    at = each.feature.position
    where = "" if at is None else f" at {visible(said(tokens[at]))}"
    return shortened(f"{visible(each.label)}{where}", 40)
