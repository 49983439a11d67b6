"""A trace as lines: the rows of the corrupted token and of the read one, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sae_graphs.render.document.plot import bare_figure, look
from sae_graphs.render.style import FAINT, INK, LINE, SOFT
from sae_graphs.text import shortened
from sae_graphs.tracing.drawn import (
    Measure,
    ends_words,
    measure_words,
    sweep_words,
    token_words,
    values,
)
from sae_graphs.tracing.plots import ABREAST, HUES, SMALL, WIDE, across, head, powers, title_of
from sae_graphs.tracing.reading import Reading
from sae_graphs.tracing.records import Sweep, Trace


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
        head(figure, title_of(trace), f"{ends_words(trace)}; bands: one standard error")
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
        axes.yaxis.set_major_formatter(FuncFormatter(powers))
    axes.set_title(sweep_words(sweep), fontsize=9)
    axes.set_xlabel(across(sweep), fontsize=SMALL)
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
