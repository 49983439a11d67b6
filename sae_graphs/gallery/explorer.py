"""A run's explorer as the gallery serves it: made from the saved graph, with a bar above."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sae_graphs.gallery.library import Run, annotations_of, graph_of, has_report, report_of
from sae_graphs.gallery.skeleton import Page, compare_address, sheet, shown
from sae_graphs.render.explorer.page import page, policy, script
from sae_graphs.runs import REPORT, VALIDATION
from sae_graphs.text import in_page, shortened, visible
from sae_graphs.validation.report.marks import findings_of

LISTED = 200  # other runs in the bar's list
_BODY = re.compile(r"<body\b[^>]*>")


def explorer(run: Run, others: Iterable[Run]) -> Page:
    """The page; raises `SaeGraphsError` where the graph cannot be read."""
    graph = graph_of(run)
    said, left_out = annotations_of(run, graph)
    report, unread = report_of(run, graph)
    html = page(
        graph,
        annotations=said,
        findings=() if report is None else findings_of(report),
        report=f"{VALIDATION}/{REPORT}" if has_report(run) else None,
    )
    bar = _bar(run, others, [text for text in (left_out, unread) if text])
    found = _BODY.search(html)
    assert found is not None, "the explorer is a page with a body"
    html = f"{html[: found.end()]}{bar}{html[found.end() :]}"
    return Page(html, f"{policy(script())}; frame-ancestors 'none'")


def _bar(run: Run, others: Iterable[Run], told: Iterable[str]) -> str:
    """The way back, what was left out, and the other runs to compare with."""
    links = "".join(
        f'<li><a href="{in_page(compare_address(run.name, other.name))}">'
        f"{in_page(shortened(visible(other.name, space=' '), 60))}</a></li>"
        for other in list(others)[:LISTED]
    )
    choice = f"<details><summary>compare with …</summary><ul>{links}</ul></details>"
    report = ""
    if has_report(run):
        report = f'<a href="{VALIDATION}/{REPORT}">validation report</a>'
    notes = "".join(f"<span>⚠ {shown(text)}</span>" for text in told)
    return (
        f'<nav class="gallery-bar" aria-label="gallery"><style>{sheet("bar")}</style>'
        f'<a href="/">← all runs</a>'
        f"<span>{in_page(shortened(visible(run.name, space=' '), 80))}</span>{report}{notes}"
        f"{choice if links else ''}</nav>"
    )
