"""A report, and a response curve, as a notebook shows them."""

from __future__ import annotations

from sae_graphs.render.document.templates import filled
from sae_graphs.render.notebook import Picture, table_html
from sae_graphs.validation.evidence import Curve, ValidationReport
from sae_graphs.validation.report.marks import judged
from sae_graphs.validation.report.rows import row_head, unit_row


def report_html(report: ValidationReport) -> str:
    """What validation found: a row for each component and path, then two sentences each."""
    found = judged(report)
    rows = [unit_row(unit, judgement, report) for unit, judgement, _ in found]
    verdicts = [
        (f"{unit.name}: {judgement.kind}", judgement.sentences)
        for unit, judgement, _ in found
        if unit.kind == "component" or judgement.supported
    ]
    table = table_html("Components and paths, ablated", row_head(report), rows)
    name = "validation/report/notebook.html.j2"
    return str(filled(name, warnings=report.warnings, table=table, verdicts=verdicts))


def curve_svg(curve: Curve) -> str:
    """A response curve as a plot."""
    from sae_graphs.validation.report.plots import curve_plot  # a report's table needs no plots

    clean = [r for c, r in zip(curve.coefficients, curve.responses, strict=True) if c == 1.0]
    return curve_plot(curve, clean[0] if clean else None)


def curve_picture(curve: Curve) -> Picture:
    """The same, for where it is not the last line of a cell."""
    return Picture(curve_svg(curve))
