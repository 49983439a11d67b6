"""The figures of many prompts: mean rows by category, and where each hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sae_graphs.render.document.plot import bare_figure, label_rows, look
from sae_graphs.render.style import FAINT, INK, LINE, SOFT
from sae_graphs.tracing.drawn import NAMES, category_words
from sae_graphs.tracing.many import Averaged, Traces, averaged, crossings
from sae_graphs.tracing.plots import HUES, SMALL, WIDE
from sae_graphs.words import counted

ABREAST = 3


def mean_rows(traces: Traces, sweep: str = "state") -> Figure | None:
    """A panel a category: the corrupted token's row and the read token's, with 95 % intervals.

    None where no prompt is left. The handover is shaded over its interval.
    """
    found = [averaged(traces, name, sweep) for name in traces.categories]
    shown = [it for it in found if it is not None]
    if not shown:
        return None
    abreast = min(len(shown), ABREAST)
    down = -(-len(shown) // abreast)
    with look():
        figure = bare_figure(0.75 + 2.4 * down, width=WIDE)
        axes = figure.subplots(down, abreast, sharey=True, squeeze=False)
        for number, (each, panel) in enumerate(zip(shown, axes.flat, strict=False)):
            _rows_of(panel, each)
            if number % abreast == 0:
                panel.set_ylabel("log-odds, 0 corrupted, 1 clean", fontsize=SMALL)
        for spare in axes.flat[len(shown) :]:
            spare.set_visible(False)
        found_in = [panel.get_legend_handles_labels() for panel in axes.flat[: len(shown)]]
        entries = {name: line for both in found_in for line, name in zip(*both, strict=True)}
        figure.suptitle(
            f"{NAMES[sweep]}: what restoring it brings back, means over prompts",
            x=0.005,
            ha="left",
            fontsize=9,
        )
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=SMALL,
        )
        return figure


def _rows_of(axes: Any, found: Averaged) -> None:
    layers = np.arange(found.subject.shape[1])
    lines = (
        (found.subject, HUES[found.sweep].line, "-", "o", "corrupted token"),
        (found.read, INK, "--", "s", "token that is read"),
    )
    for (low, mean, high), colour, style, marker, name in lines:
        axes.fill_between(layers, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            layers, mean, color=colour, linestyle=style, marker=marker, markersize=2.5, label=name
        )
    if found.handover is not None:
        low, high = found.handover.interval("crosses") or (found.handover.crosses,) * 2
        axes.axvspan(low, high, color=LINE, alpha=0.7, linewidth=0, zorder=0)
        axes.axvline(found.handover.crosses, color=SOFT, linewidth=1, zorder=0, label="handover")
    for end in (0.0, 1.0):
        axes.axhline(end, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_title(f"{category_words(found.category)} ({counted(found.n, 'prompt')})", fontsize=9)
    axes.set_xlabel("layer", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.grid(axis="y")


def transitions(traces: Traces) -> Figure | None:
    """A line a category: transition layers as a bar, the crossing with its interval, and each
    prompt's own crossing as a dot. None where no category has a handover."""
    found = [averaged(traces, name) for name in traces.categories] if traces.traced else []
    shown = [it for it in found if it is not None and it.handover is not None]
    if not shown:
        return None
    own = crossings(traces)
    names = [it.case.category for it in traces.traced]
    with look():
        figure = bare_figure(0.85 + 0.42 * len(shown), width=WIDE)
        axes = figure.subplots()
        for row, each in enumerate(shown):
            _transition(
                axes, row, each, [own[at] for at, it in enumerate(names) if it == each.category]
            )
        label_rows(axes, range(len(shown)), [category_words(it.category) for it in shown], 8.5)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(-0.5, traces.n_layers - 0.5)
        axes.tick_params(axis="x", labelsize=SMALL, length=2.5, width=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.set_xlabel(
            "layer: bar, the read token rises from a quarter to three quarters of its best; "
            "diamond, it overtakes; dots, single prompts",
            fontsize=SMALL,
        )
        axes.grid(axis="x")
        return figure


def _transition(axes: Any, row: int, found: Averaged, own: Sequence[float]) -> None:
    handover = found.handover
    assert handover is not None
    colour = HUES["state"].line
    first, last = handover.starts, handover.ends
    if first is not None and last is not None:
        axes.barh(row, last - first, left=first, height=0.3, color=colour, alpha=0.3)
    low, high = handover.interval("crosses") or (handover.crosses,) * 2
    axes.plot([low, high], [row, row], color=INK, linewidth=1.6)
    axes.plot([handover.crosses], [row], "D", color=INK, markersize=5)
    known = [it for it in own if np.isfinite(it)]
    shifts = 0.27 + 0.05 * (np.arange(len(known)) % 3)
    axes.plot(known, row + shifts, ".", color=SOFT, markersize=3, alpha=0.8)
