"""The pictures of Granger tests: shares both ways, pair by pair, and BIC by lag."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sae_graphs.editing.granger.records import GrangerReport, GrangerTest, Pair
from sae_graphs.render.document.plot import bare_figure, label_rows, look
from sae_graphs.render.style import FAINT, INK, LINE, SOFT, WHITE
from sae_graphs.text import shortened, visible
from sae_graphs.words import percent

ROWS = 30  # pairs that are drawn at most
WIDE = 8.4  # inches
THERE, BACK = "#1f6f8b", "#b4631c"  # read on a light page and on a dark one


def shares(report: GrangerReport) -> Figure:
    """The strongest pairs: right, what the source explains of the target; left, the way back.

    Filled where q is at most the level.
    """
    shown = [pair for pair in report.pairs if pair.forward or pair.backward][:ROWS]
    height = 1.1 + 0.22 * max(len(shown), 3)
    with look():
        figure = bare_figure(height, width=WIDE)
        axes = figure.add_subplot()
        axes.axvline(0, color=LINE, linewidth=0.8)
        for place, pair in enumerate(shown):
            _bar(axes, place, pair.forward, report.settings.level, 1, THERE)
            _bar(axes, place, pair.backward, report.settings.level, -1, BACK)
        label_rows(axes, range(len(shown)), [_label(pair, report) for pair in shown], 8)
        axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(abs(value))))
        axes.tick_params(axis="x", labelsize=8, length=3, width=0.5)
        axes.set_xlabel(
            "← target to source    partial R² beside the own past    source to target →",
            fontsize=8,
        )
        left_out = len(report.pairs) - len(shown)
        told = f"filled: q at most {report.settings.level:g}"
        told += f"; {left_out} weaker or untested pairs are not drawn" if left_out else ""
        axes.set_title(told, fontsize=8.5, color=SOFT)
        return figure


def _bar(
    axes: Any, place: int, test: GrangerTest | None, level: float, sign: int, colour: str
) -> None:
    if test is None:
        return
    end, told = sign * test.share, test.q <= level
    axes.plot([0, end], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    inside = colour if told else WHITE
    axes.plot([end], [place], "o", markersize=5, markerfacecolor=inside, markeredgecolor=colour)


def _label(pair: Pair, report: GrangerReport) -> str:
    meaning = {it.name: it.meaning for it in report.series}
    ends = [
        visible(f"{name} {shortened(meaning.get(name, ''), 18)}".strip(), space=" ")
        for name in (pair.source, pair.target)
    ]
    return shortened(" → ".join(ends), 64)


def bic(report: GrangerReport) -> Figure:
    """BIC at each lag, less the least."""
    with look():
        figure = bare_figure(2.2, width=4.2)
        axes = figure.add_subplot()
        lags = range(1, len(report.criteria) + 1)
        above = [value - min(report.criteria) for value in report.criteria]
        axes.plot(lags, above, color=INK, linewidth=1.2, marker="o", markersize=4)
        axes.plot([report.lag], [above[report.lag - 1]], "o", markersize=8, color=THERE)
        axes.set_xticks(list(lags))
        axes.tick_params(labelsize=8, length=3, width=0.5, color=FAINT)
        axes.set_xlabel("lag", fontsize=8)
        axes.set_ylabel("BIC above the least", fontsize=8)
        return figure
