"""The figures of a trace: heat maps as in the sources, lines, noise levels, differences.

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
from sae_graphs.render.style import FAINT, INK, LINE, SOFT
from sae_graphs.text import shortened, visible
from sae_graphs.tracing.difference import Difference
from sae_graphs.tracing.drawn import (
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
from sae_graphs.tracing.reading import Reading
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
    rows = rows_drawn(trace)
    panels = [
        _Panel(sweep_words(it), values(trace, it, measure), HUES[it.name], _across(it))
        for it in shown
    ]
    left_out = len(trace.tokens) - len(rows)
    told = f"{ends_words(trace)}; * {corruption_words(trace)}"
    told += f"; {left_out} tokens that restore least are not drawn" if left_out else ""
    labels = [token_words(trace, at) for at in rows]
    return _maps(panels, rows, labels, _title(trace), told, measure_words(trace, measure), measure)


def noise_levels(
    traces: Sequence[Trace], measure: Measure = "probability", *, sweep: str = "state"
) -> Figure:
    """One sweep of the same prompt at several strengths of the corruption, side by side."""
    first = traces[0]
    rows = rows_drawn(first)
    panels = []
    for trace in traces:
        found = trace.sweep(sweep)
        title = f"{corruption_words(trace).partition(',')[0]}\n{ends_words(trace)}"
        drawn = values(trace, found, measure)
        panels.append(_Panel(title, drawn, HUES[found.name], _across(found)))
    labels = [token_words(first, at) for at in rows]
    told = f"{sweep_words(first.sweep(sweep))}; tokens with a star are corrupted"
    words = measure_words(first, measure)
    return _maps(panels, rows, labels, _title(first), told, words, measure)


def difference_maps(found: Difference) -> Figure:
    """Two traces, aligned, and the one minus the other: shares of what was lost, in log-odds."""
    rows = list(range(len(found.rows)))
    ends = (1.0, 0.0)
    scale = max(float(np.abs([found.left, found.right]).max()), 1.0)
    panels = [
        _Panel(
            shortened(found.names[0], 30), Values(found.left, None, *ends), HUES["state"], "layer"
        ),
        _Panel(
            shortened(found.names[1], 30), Values(found.right, None, *ends), HUES["state"], "layer"
        ),
        _Panel("the first minus the second", Values(found.change, None, *ends), BOTH, "layer"),
    ]
    labels = list(found.rows)
    told = found.words
    title = "Two traces: what restoring the state restores of the answer"
    return _maps(
        panels, rows, labels, title, told, "log-odds, 0 corrupted, 1 clean", "share", scale
    )


class _Panel(NamedTuple):
    title: str
    drawn: Values
    hues: Hues
    across: str


def _maps(
    panels: Sequence[_Panel],
    rows: Sequence[int],
    labels: Sequence[str],
    title: str,
    told: str,
    words: str,
    measure: Measure,
    scale: float | None = None,
) -> Figure:
    """Panels of these rows beside and below each other, a colour bar under each."""
    abreast = min(len(panels), ABREAST)
    lines = -(-len(panels) // abreast)
    lines_of_title = max(panel.title.count("\n") for panel in panels)
    high = 0.62 + lines * (1.25 + 0.17 * lines_of_title + ROW * len(rows))
    with look():
        figure = bare_figure(high, width=WIDE)
        axes = figure.subplots(lines, abreast, sharey=True, squeeze=False)
        _head(figure, title, told)
        for number, (panel, each) in enumerate(zip(panels, axes.flat, strict=False)):
            _map(figure, each, panel, rows, words, measure, scale)
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
    panel: _Panel,
    rows: Sequence[int],
    words: str,
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
    bar.ax.xaxis.set_major_formatter(FuncFormatter(_powers if measure == "log" else _number))
    bar.set_label(shortened(words, 44), fontsize=SMALL, color=SOFT)
    if low < drawn.corrupted < high:
        bar.ax.axvline(drawn.corrupted, color=_MARK, linewidth=0.9)


def _limits(drawn: Values, cells: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of a colour scale: those of the cells, and the corrupted run's value."""
    low, high = min(float(cells.min()), drawn.corrupted), max(float(cells.max()), drawn.corrupted)
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


# -- lines -----------------------------------------------------------------------------------------


def lines(
    trace: Trace, measure: Measure = "probability", *, reading: Reading | None = None
) -> Figure:
    """The rows of the subject's last token and of the read token over layers, one panel a sweep.

    With a `reading`, of the token that hands over in place of the last, should that be another.
    Bands are one standard error to either side; the dashed lines the clean and the corrupted run.
    A handover of the `reading` is shaded over its interval, in the panel of states.
    """
    source = None if reading is None else reading.source
    source = trace.subject[-1] if source is None else source
    abreast = min(len(trace.sweeps), ABREAST)
    down = -(-len(trace.sweeps) // abreast)
    with look():
        figure = bare_figure(0.95 + 2.25 * down, width=WIDE)
        axes = figure.subplots(down, abreast, sharey=True, squeeze=False)
        _head(figure, _title(trace), f"{ends_words(trace)}; bands: one standard error")
        for number, (sweep, each) in enumerate(zip(trace.sweeps, axes.flat, strict=False)):
            _lines_of(each, trace, sweep, measure, source)
            if sweep.name == "state" and reading is not None:
                _handover_of(each, reading)
            if number % abreast == 0:
                each.set_ylabel(shortened(measure_words(trace, measure), 40), fontsize=SMALL)
        for spare in axes.flat[len(trace.sweeps) :]:
            spare.set_visible(False)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL
        )
        return figure


def _lines_of(axes: Any, trace: Trace, sweep: Sweep, measure: Measure, source: int) -> None:
    drawn = values(trace, sweep, measure)
    layers = np.arange(trace.n_layers)
    kinds = {source: (HUES[sweep.name].line, "-", "o"), trace.read: (INK, "--", "s")}
    for at, (colour, style, marker) in kinds.items():
        row = drawn.mean[at]
        name = "last corrupted token" if at == trace.subject[-1] else "corrupted token"
        name = "token that is read" if at == trace.read else name
        if drawn.error is not None:
            band = row - drawn.error[at], row + drawn.error[at]
            axes.fill_between(layers, *band, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            layers,
            row,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=2.5,
            linewidth=1.5,
            label=f"{name}, {token_words(trace, at)}",
        )
    for end, style, name in ((drawn.clean, "-", "clean"), (drawn.corrupted, ":", "corrupted")):
        axes.axhline(end, color=FAINT, linewidth=1, linestyle=style, label=name, zorder=0)
    if measure == "log":
        axes.yaxis.set_major_formatter(FuncFormatter(_powers))
    axes.set_title(sweep_words(sweep), fontsize=9)
    axes.set_xlabel(_across(sweep), fontsize=SMALL)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.grid(axis="y")


def _handover_of(axes: Any, reading: Reading) -> None:
    found = reading.handover
    if found is None:
        return
    low, high = found.interval("crosses") or (found.crosses, found.crosses)
    axes.axvspan(low, high, color=LINE, alpha=0.7, linewidth=0, zorder=0)
    axes.axvline(found.crosses, color=SOFT, linewidth=1, zorder=0, label="handover")


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


def _title(trace: Trace) -> str:
    prompt = shortened(visible(trace.prompt, space=" "), 84)
    return f"{prompt} → {target_words(trace)}"


def _head(figure: Figure, title: str, told: str) -> None:
    figure.suptitle(f"{title}\n{told}", x=0.005, ha="left", fontsize=9, color=INK, linespacing=1.5)


def _across(sweep: Sweep) -> str:
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


def _powers(value: float, _: Any = None) -> str:
    """A probability from its logarithm: `0.1`, `3e-5`."""
    return f"{10**value:.1g}"
