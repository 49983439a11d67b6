"""A trace with the answer graph's features upon it, and beside it what features contribute."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sae_graphs.tracing.drawn import (
    Measure,
    Values,
    ends_words,
    measure_words,
    sweep_words,
    token_words,
    values,
)
from sae_graphs.tracing.overlay import Overlay
from sae_graphs.tracing.plots import HUES as SWEEPS
from sae_graphs.tracing.plots import ROW, Hues, Panel, across, maps, rows_drawn, title_of
from sae_graphs.tracing.records import Trace

HUES = Hues("#0b5d57", "#c2670f", "#0f8a80")  # of what features contribute
SUPPORTS, OPPOSES, EDGE = "#27c4b4", "#fff7e8", "#102a2a"
_LARGEST = (72 * ROW * 0.8) ** 2  # points², of the largest dot: it fits into its row


def overlay_maps(trace: Trace, overlay: Overlay, measure: Measure = "share") -> Figure:
    """What restoring the state does, a dot where the graph has features; what features contribute.

    A dot's area is what the graph's features in its cell contribute, pale where they oppose the
    answer, in sum. Layers without an SAE are empty in the second panel.
    """
    rows, state = rows_drawn(trace), trace.sweep("state")
    panels = [
        Panel(
            f"{sweep_words(state)}, the graph's features as dots",
            values(trace, state, measure),
            SWEEPS["state"],
            across(state),
            measure_words(trace, measure),
        ),
        Panel(
            f"What {overlay.about} contribute",
            Values(overlay.contributed, None, 0.0, 0.0),
            HUES,
            "layer whose input the SAE stands on",
            "sum of |contribution|, nats",
        ),
    ]
    told = f"{ends_words(trace)}; {_number(overlay)}; dots: area by contribution, pale opposes"
    labels = [token_words(trace, at) for at in rows]
    figure = maps(panels, rows, labels, title_of(trace), told, measure=measure)
    _dots(figure.axes[0], overlay, rows)
    return figure


def _number(overlay: Overlay) -> str:
    return overlay.words.partition(";")[0].partition(". ")[0].partition(" against")[0]


def _dots(axes: Any, overlay: Overlay, rows: list[int]) -> None:
    cells: dict[tuple[int, int], float] = {}
    for each in overlay.kept:
        if each.token in rows:
            at = rows.index(each.token), each.layer
            cells[at] = cells.get(at, 0.0) + each.contribution
    if not cells:
        return
    y, x = np.array(list(cells), dtype=float).T + 0.5
    sums = np.array(list(cells.values()))
    size = np.abs(sums)
    axes.scatter(
        x,
        y,
        s=_LARGEST * np.maximum(size / max(size.max(), 1e-12), 0.04),
        c=[SUPPORTS if value >= 0 else OPPOSES for value in sums],
        edgecolors=EDGE,
        linewidths=0.8,
        zorder=3,
    )
