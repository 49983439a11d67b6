"""What was found of a component or path as a row of words, for a page and a notebook."""

from __future__ import annotations

from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.judging import SAME_NORM, SIGNS, largest, pooled
from sae_graphs.validation.sentences import mean_change
from sae_graphs.validation.verdicts import Verdict
from sae_graphs.words import p_value, score_change, share


def row_head(report: ValidationReport) -> tuple[str, ...]:
    """The heads of the columns of `unit_row`."""
    names = ("Features", f"Contribution, {'nats' if report.in_nats else 'points'}", "q")
    return "", *names, "p, equal norm", "Necessary", "Mediates", "Verdict"


def unit_row(unit: UnitReport, found: Verdict, report: ValidationReport) -> tuple[str, ...]:
    """The same columns as those of an answer graph's units."""
    size = score_change(-mean_change(unit), in_nats=report.in_nats) if unit.results else "–"
    fraction = unit.mediation.fraction if unit.mediation else None
    along = SIGNS[found.mediates] + ("" if fraction is None else f" {share(fraction)}")
    return (
        unit.name,
        str(len(unit.features)),
        size.split(" ")[0],
        p_value(unit.tested.q if unit.tested else None),
        p_value(worst_equal_norm(unit)),
        SIGNS[found.necessary] + {True: " yes", False: " no", None: ""}[found.necessary],
        along,
        found.kind,
    )


def worst_equal_norm(unit: UnitReport) -> float | None:
    """The larger p of the nulls of exactly its norm that were run; None where none was."""
    return largest(null.p for kind in SAME_NORM if (null := pooled(unit, kind)) is not None)
