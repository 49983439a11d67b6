"""Causal traces, of one prompt or of many, in the gallery: card, page and small picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sae_graphs.gallery.runs import Run, Summary, record_in
from sae_graphs.gallery.small import HEIGHT, MARGIN, WIDTH, picture
from sae_graphs.runs import TRACE, TRACES
from sae_graphs.tracing import many, record_json
from sae_graphs.tracing.many import Traces, averaged
from sae_graphs.tracing.reading import differences, loss, read
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.sentences import in_short
from sae_graphs.words import counted, listed


def trace_summary(run: Run) -> Summary:
    """A trace's prompt, and its sites and handover in words."""
    trace = _trace(run)
    return Summary(
        trace.prompt,
        trace.model,
        in_short(read(trace)),
        trace.tokens,
        trace.read,
        trace.next_tokens,
        trace.warnings,
    )


def trace_page(run: Run) -> str:
    """A trace's report, drawn from its record."""
    from sae_graphs.tracing import report  # matplotlib, where there is one

    return report.trace_page(_trace(run))


def trace_picture(run: Run) -> str:
    """A small heat map."""
    return cells(_trace(run))


def traces_summary(run: Run) -> Summary:
    """How many prompts, and in which block each category hands over."""
    traces = _traces(run)
    means = [averaged(traces, name) for name in traces.categories] if traces.traced else []
    told = [
        f"{it.category}: block {it.handover.block}"
        for it in means
        if it is not None and it.handover is not None
    ]
    count = len(traces.traced) + len(traces.left_out)
    prompt = f"{len(traces.traced)} of {counted(count, 'prompt')}"
    return Summary(prompt, traces.model, listed(told) if told else "no category hands over")


def traces_page(run: Run) -> str:
    """The report of many prompts, drawn from their record."""
    from sae_graphs.tracing.many_report import PAGE, many_files  # matplotlib, where there is one

    return many_files(_traces(run), ("html",))[PAGE].decode()


def traces_picture(run: Run) -> str:
    """Small lines, two a category."""
    return rows(_traces(run))


def rows(traces: Traces) -> str:
    """A small picture of many prompts: each category's mean rows over the layers.

    That of the corrupted token falls, that of the read one, dashed, rises.
    """
    lines = []
    for name in traces.categories if traces.traced else ():
        found = averaged(traces, name, traces.sweeps[0])
        if found is not None:
            lines += [_line(found.subject[1], "subject"), _line(found.read[1], "read")]
    return picture("".join(lines))


def cells(trace: Trace) -> str:
    """A small heat map of the first sweep, each cell's share of what the corruption took."""
    lost = loss(trace)
    mean = differences(trace, trace.sweeps[0]).mean(axis=0)
    shares = mean / lost if lost > 0 else 0 * mean
    rows, layers = shares.shape
    wide, high = WIDTH / layers, HEIGHT / rows
    drawn = "".join(
        f'<rect class="{"feature" if share >= 0 else "harms"}" x="{layer * wide:.1f}" '
        f'y="{row * high:.1f}" width="{wide:.1f}" height="{high:.1f}" '
        f'opacity="{min(abs(share), 1):.2f}"/>'
        for (row, layer), share in np.ndenumerate(shares)
        if abs(share) >= 0.01
    )
    return picture(drawn)


# -- inside ----------------------------------------------------------------------------------------


def _trace(run: Run) -> Trace:
    return record_in(run, TRACE, record_json.load)


def _traces(run: Run) -> Traces:
    return record_in(run, TRACES, many.load)


def _line(shares: NDArray[np.float64], kind: str) -> str:
    across = np.linspace(MARGIN, WIDTH - MARGIN, len(shares))
    up = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * np.clip(shares, 0, 1)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'
