"""The heat maps of a trace, as in the sources: its sweeps, noise levels, differences.

Tokens run down, layers across, corrupted tokens are starred. A colour's strength is a cell's
distance from the corrupted run, on one scale to either side: what harms has a hue of its own, and
nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from sae_graphs.render.document.plot import bare_figure, label_rows, look
from sae_graphs.render.style import INK, SOFT
from sae_graphs.text import shortened, visible
from sae_graphs.tracing.difference import Difference
from sae_graphs.tracing.drawn import (
    MEASURES,
    Measure,
    Values,
    corruption_words,
    ends_words,
    measure_words,
    sweep_words,
    target_words,
    token_words,
    values,
)
from sae_graphs.tracing.records import Sweep, Trace
from sae_graphs.words import MINUS

WIDE = 9.375  # inches: 900 pixels of a screen
ROW = 0.205  # inches of a token's row
ABREAST = 3  # panels beside each other
ROWS = 40  # tokens that are drawn at most
SMALL = 7.5  # points: ten pixels
_LEVELS = 48  # steps of a colour scale: from 50 on, matplotlib draws its bar as an image
_MARK = "#222222"  # on colours that are the same in the dark
_PALE = (0.975, 0.97, 0.98)  # never white itself: pages turn that with their theme


class Hues(NamedTuple):
    """The colours of a sweep: what restoring brings back, what it takes further away, and of a
    line, which is read on a light page and on a dark one."""

    helps: str
    harms: str
    line: str


HUES = {
    "state": Hues("#4a1486", "#c2670f", "#8a5cd0"),
    "mlp": Hues("#005a32", "#1d4fa3", "#2c9658"),
    "attention": Hues("#99000d", "#1d4fa3", "#d8473f"),
    "state-mlp-severed": Hues("#7a4a9e", "#c2670f", "#a57bc4"),
    "state-attention-severed": Hues("#7a4a9e", "#c2670f", "#a57bc4"),
}
BOTH = Hues("#4a1486", "#0f6b5c", "#8a5cd0")  # of a difference: more here, more there


# -- heat maps -------------------------------------------------------------------------------------


def heat_maps(
    trace: Trace, measure: Measure = "probability", *, sweeps: Sequence[str] | None = None
) -> Figure:
    """One panel a sweep, in the sources' colours: purple state, green MLP, red attention."""
    shown = [trace.sweep(name) for name in sweeps] if sweeps else list(trace.sweeps)
    rows, words = rows_drawn(trace), measure_words(trace, measure)
    panels = [
        Panel(sweep_words(it), values(trace, it, measure), HUES[it.name], across(it), words)
        for it in shown
    ]
    left_out = len(trace.tokens) - len(rows)
    told = f"{ends_words(trace)}; * {corruption_words(trace)}"
    told += f"; {left_out} tokens that restore least are not drawn" if left_out else ""
    labels = [token_words(trace, at) for at in rows]
    return maps(panels, rows, labels, title_of(trace), told, measure=measure)


def noise_levels(
    traces: Sequence[Trace], measure: Measure = "probability", *, sweep: str | None = None
) -> Figure:
    """One sweep, by default the first, of the same prompt at several strengths, side by side."""
    first = traces[0]
    sweep = sweep or first.sweeps[0].name
    rows, words = rows_drawn(first), measure_words(first, measure)
    panels = []
    for trace in traces:
        found = trace.sweep(sweep)
        title = f"{corruption_words(trace).partition(',')[0]}\n{ends_words(trace)}"
        drawn = values(trace, found, measure)
        panels.append(Panel(title, drawn, HUES[found.name], across(found), words))
    labels = [token_words(first, at) for at in rows]
    told = f"{sweep_words(first.sweep(sweep))}; tokens with a star are corrupted"
    return maps(panels, rows, labels, title_of(first), told, measure=measure)


def difference_maps(found: Difference) -> Figure:
    """Two traces, aligned, and the one minus the other: shares of what was lost, in log-odds."""
    rows = list(range(len(found.rows)))
    scale = max(float(np.abs([found.left, found.right]).max()), 1.0)
    shown = (
        (shortened(found.names[0], 30), found.left, HUES["state"], MEASURES["share"]),
        (shortened(found.names[1], 30), found.right, HUES["state"], MEASURES["share"]),
        ("the first minus the second", found.change, BOTH, "difference of the two"),
    )
    panels = [
        Panel(name, Values(shares, None, 1.0, 0.0), hues, "layer", words)
        for name, shares, hues, words in shown
    ]
    title = "Two traces: what restoring the state restores of the answer"
    return maps(panels, rows, list(found.rows), title, found.words, measure="share", scale=scale)


class Panel(NamedTuple):
    """One heat map: its title, what is drawn, its colours, and the words below it."""

    title: str
    drawn: Values
    hues: Hues
    across: str
    words: str


def maps(
    panels: Sequence[Panel],
    rows: Sequence[int],
    labels: Sequence[str],
    title: str,
    told: str,
    *,
    measure: Measure,
    scale: float | None = None,
) -> Figure:
    """Panels of these rows beside and below each other, a colour bar under each.

    Cells that are no number are left empty.
    """
    abreast = min(len(panels), ABREAST)
    lines = -(-len(panels) // abreast)
    lines_of_title = max(panel.title.count("\n") for panel in panels)
    high = 0.62 + lines * (1.25 + 0.17 * lines_of_title + ROW * len(rows))
    with look():
        figure = bare_figure(high, width=WIDE)
        axes = figure.subplots(lines, abreast, sharey=True, squeeze=False)
        head(figure, title, told)
        for number, (panel, each) in enumerate(zip(panels, axes.flat, strict=False)):
            _map(figure, each, panel, rows, measure, scale)
            if number % abreast == 0:
                _row_labels(each, labels)
            else:
                each.tick_params(axis="y", length=0, labelleft=False)
        for spare in axes.flat[len(panels) :]:
            spare.set_visible(False)
        return figure


def _map(
    figure: Figure,
    axes: Any,
    panel: Panel,
    rows: Sequence[int],
    measure: Measure,
    scale: float | None,
) -> None:
    drawn = panel.drawn
    cells = drawn.mean[list(rows)]
    low, high = _limits(drawn, cells)
    reach = scale or max(high - drawn.corrupted, drawn.corrupted - low)
    colours = _colours(panel.hues, low, high, drawn, reach)
    mesh = axes.pcolormesh(
        cells, cmap=colours, vmin=low, vmax=high, edgecolors="face", linewidth=0.8
    )
    axes.set_ylim(len(rows), 0)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xlabel(panel.across, fontsize=SMALL)
    _layer_ticks(axes, cells.shape[1], middle=0.5)
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, location="bottom", aspect=26, pad=0.02, shrink=0.96)
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set(edgecolor="face", linewidth=0.2)
    bar.ax.tick_params(labelsize=SMALL, length=2.5, width=0.5, labelcolor=SOFT)
    bar.ax.xaxis.set_major_locator(MaxNLocator(4))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(powers if measure == "log" else _number))
    bar.set_label(shortened(panel.words, 44), fontsize=SMALL, color=SOFT)
    if low < drawn.corrupted < high:
        bar.ax.axvline(drawn.corrupted, color=_MARK, linewidth=0.9)


def _limits(drawn: Values, cells: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of a colour scale: those of the cells, and the corrupted run's value."""
    known = np.append(cells[np.isfinite(cells)], drawn.corrupted)
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low, low + 1e-9)


def _colours(hues: Hues, low: float, high: float, drawn: Values, reach: float) -> ListedColormap:
    """Pale at the corrupted run's value, darker by distance from it on one scale both ways."""
    found = []
    for value in np.linspace(low, high, _LEVELS):
        helps = drawn.sign * (value - drawn.corrupted)
        dark = np.array(to_rgb(hues.helps if helps >= 0 else hues.harms))
        share = min(abs(helps) / reach, 1.0) if reach else 0.0
        found.append(_blend(np.array(_PALE), dark, share))
    return ListedColormap(found)


def _blend(pale: NDArray[np.float64], dark: NDArray[np.float64], share: float) -> Any:
    """From pale to dark by way of a clear middle, which a plain mixture would turn grey."""
    middle = pale + (np.clip(dark * 1.35 + 0.14, 0, 1) - pale) * 0.62
    if share < 0.5:
        return pale + (middle - pale) * 2 * share
    return middle + (dark - middle) * (2 * share - 1)


# -- what they share -------------------------------------------------------------------------------


def rows_drawn(trace: Trace, limit: int = ROWS) -> list[int]:
    """The tokens to draw: all, or the subject's, the read one and those that restore most."""
    count = len(trace.tokens)
    if count <= limit:
        return list(range(count))
    size = np.max(
        [np.abs(values(trace, it, "log-odds").helps).max(axis=1) for it in trace.sweeps], 0
    )
    size[[*trace.subject, trace.read]] = np.inf
    return sorted(np.argsort(-size, kind="stable")[:limit].tolist())


def title_of(trace: Trace) -> str:
    """The prompt and its answer."""
    prompt = shortened(visible(trace.prompt, space=" "), 84)
    return f"{prompt} → {target_words(trace)}"


def head(figure: Figure, title: str, told: str) -> None:
    """Two lines above all panels."""
    figure.suptitle(f"{title}\n{told}", x=0.005, ha="left", fontsize=9, color=INK, linespacing=1.5)


def across(sweep: Sweep) -> str:
    """What layers are counted by, below a panel."""
    if sweep.name.startswith("state"):
        return "layer whose input is restored"
    return "middle of the restored window" if sweep.window > 1 else "layer that is restored"


def _row_labels(axes: Any, labels: Sequence[str]) -> None:
    label_rows(axes, [row + 0.5 for row in range(len(labels))], labels, 8.5)
    for tick, words in zip(axes.yaxis.get_major_ticks(), labels, strict=True):
        tick.label1.set_fontweight("bold" if words.endswith(" *") else "normal")


def _layer_ticks(axes: Any, n_layers: int, *, middle: float) -> None:
    step = max(1, -(-n_layers // 8))
    at = list(range(0, n_layers, step))
    axes.set_xticks([layer + middle for layer in at], [str(layer) for layer in at])
    axes.tick_params(axis="x", labelsize=SMALL, length=2.5, width=0.5)


def _number(value: float, _: Any = None) -> str:
    return f"{value:.3g}".replace("-", MINUS)


def powers(value: float, _: Any = None) -> str:
    """A probability from its logarithm: `0.1`, `3e-5`."""
    return f"{10**value:.1g}"
