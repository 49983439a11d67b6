"""Figures of what the read token looks at, how its state moves, and of a long text's first token.

Letters: `N` prompts, `L` layers, `H` heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from sae_graphs.render.document.plot import bare_figure, label_rows, look
from sae_graphs.render.style import INK, LINE
from sae_graphs.tracing.drawn import category_words
from sae_graphs.tracing.last_token import (
    DIFFUSE,
    LOOKED,
    MOVED,
    FirstToken,
    LastToken,
    Looked,
    Moved,
    by_head,
    by_layer,
)
from sae_graphs.tracing.many import band
from sae_graphs.tracing.plots import HUES, SMALL, WIDE

Tokens = Mapping[str, Sequence[LastToken]]
"""Those of each category."""

_STYLES = ("-", "--", ":", "-.")
_COLOURS = (HUES["state"].line, INK, HUES["mlp"].line, HUES["attention"].line)
_SHADES = LinearSegmentedColormap.from_list(
    "shares", ["#f9f7fa", HUES["attention"].line, HUES["attention"].helps], N=48
)


def attention_maps(tokens: Tokens) -> Figure:
    """A row of maps a category, heads down and layers across: where the read token looks."""
    names: tuple[Looked, ...] = ("first", "corrupted", "own")
    with look():
        figure = bare_figure(0.95 + 1.35 * len(tokens), width=WIDE)
        axes = figure.subplots(len(tokens), len(names), sharex=True, sharey=True, squeeze=False)
        mesh = None
        for row, (category, those) in enumerate(tokens.items()):
            for panel, name in zip(axes[row], names, strict=True):
                mesh = _map(panel, by_head(those, name).T)
                if row == 0:
                    panel.set_title(LOOKED[name], fontsize=9)
            axes[row][0].set_ylabel(f"{category_words(category, 22)}\nhead", fontsize=SMALL)
        for panel in axes[-1]:
            panel.set_xlabel("layer", fontsize=SMALL)
        _bar(figure, axes, mesh, "share of the read token's attention, mean over prompts")
        return figure


def motion(tokens: Tokens) -> Figure:
    """Four panels, a line a category with its 95 % interval: entropy, norm, cosine, velocity."""
    names: tuple[Looked | Moved, ...] = ("entropy", "norm", "cosine", "velocity")
    titles = dict[str, str]([*LOOKED.items(), *MOVED.items()])
    titles["entropy"] += ", 1 for even"
    with look():
        figure = bare_figure(4.9, width=WIDE)
        axes = figure.subplots(2, 2)
        for panel, name in zip(axes.flat, names, strict=True):
            lines = [
                _line(panel, by_layer(those, name), number)
                for number, those in enumerate(tokens.values())
            ]
            panel.set_title(titles[name], fontsize=9)
            panel.set_xlabel("layer", fontsize=SMALL)
            panel.tick_params(labelsize=SMALL, length=2.5, width=0.5)
            panel.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            panel.grid(axis="y")
        axes.flat[0].axhline(DIFFUSE, color=LINE, linewidth=0.8, zorder=0)
        axes.flat[0].set_ylim(0, 1)
        for panel in (axes.flat[1], axes.flat[3]):
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
        figure.legend(
            lines,
            [category_words(name, 22) for name in tokens],
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=SMALL,
        )
        return figure


def first_token_map(found: FirstToken) -> Figure:
    """Layers across, stretches of positions down: attention to the first token of a long text."""
    shares = np.array(found.shares)
    with look():
        figure = bare_figure(1.3 + 0.2 * len(shares), width=WIDE)
        axes = figure.subplots()
        mesh = _map(axes, shares)
        label_rows(axes, [at + 0.5 for at in range(len(shares))], found.stretches, SMALL)
        axes.set_ylabel("position of the token that looks", fontsize=SMALL)
        axes.set_xlabel("layer", fontsize=SMALL)
        _bar(figure, axes, mesh, "share of attention that goes to the first token, mean over heads")
        return figure


def _map(axes: Any, values: NDArray[np.float64]) -> Any:
    mesh = axes.pcolormesh(values, cmap=_SHADES, vmin=0, vmax=1, edgecolors="face", linewidth=0.6)
    axes.set_ylim(len(values), 0)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.5)
    for axis, count in ((axes.xaxis, values.shape[1]), (axes.yaxis, values.shape[0])):
        step = max(1, count // 8)
        at = np.arange(0, count, step)
        axis.set_ticks(at + 0.5, [str(each) for each in at])
    for side in axes.spines.values():
        side.set_visible(False)
    return mesh


def _bar(figure: Figure, axes: Any, mesh: Any, words: str) -> None:
    bar = figure.colorbar(mesh, ax=axes, location="bottom", aspect=60, shrink=0.5)
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set(edgecolor="face", linewidth=0.2)
    bar.ax.tick_params(labelsize=SMALL, length=2.5, width=0.5)
    bar.set_label(words, fontsize=SMALL)


def _line(axes: Any, curves: NDArray[np.float64], number: int) -> Any:
    low, mean, high = band(curves, 0)
    colour = _COLOURS[number % len(_COLOURS)]
    style = _STYLES[number // len(_COLOURS) % len(_STYLES)]
    layers = np.arange(len(mean))
    axes.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)
    return axes.plot(layers, mean, color=colour, linestyle=style, linewidth=1.4)[0]
