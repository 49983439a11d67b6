"""A report, and a response curve, as a notebook shows them."""

from __future__ import annotations

from sae_graphs.render.document.templates import filled
from sae_graphs.render.notebook import Picture, table_html
from sae_graphs.validation.evidence import Curve, ValidationReport
from sae_graphs.validation.judging import deciding
from sae_graphs.validation.report.marks import judged
from sae_graphs.words import p_value, probability, share, signed, times


def report_html(report: ValidationReport) -> str:
    """What validation found: a row for each component and path, then the verdicts in words."""
    found = judged(report)
    in_nats = report.in_nats
    head = ("", "verdict", "features", "before → after", "carried", "p", "q", "× controls' median")
    rows = []
    for unit, judgement, _ in found:
        results, tested = deciding(unit), unit.tested
        n = max(len(results), 1)
        before = sum(result.score for result in results) / n
        after = before + sum(result.change for result in results) / n
        ends = [signed(end) if in_nats else probability(end) for end in (before, after)]
        carried = unit.mediation.fraction if unit.mediation else None
        mark = "✓ " if judgement.supported else ""
        rows.append(
            (
                unit.name,
                mark + judgement.kind,
                str(len(unit.features)),
                " → ".join(ends),
                share(carried),
                p_value(tested.p if tested else None),
                p_value(tested.q if tested else None),
                times(tested.ratio if tested else None),
            )
        )
    verdicts = [
        (unit.name, judgement.words)
        for unit, judgement, _ in found
        if unit.kind == "component" or judgement.supported
    ]
    table = table_html("Components and paths, ablated", head, rows)
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
