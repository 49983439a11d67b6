"""The strip plot of a component or a path: its contribution beside those of its controls."""

from __future__ import annotations

import math

from sae_graphs.validation.evidence import NullKind, UnitReport, ValidationReport
from sae_graphs.validation.judging import NULL_NAMES, SIGNIFICANT, deciding, pooled, with_null
from sae_graphs.validation.report.strip import Row, Strip, allowed, allowed_corrected, needed_for
from sae_graphs.validation.sentences import mean_change
from sae_graphs.words import p_value, target_said


def strip_of(unit: UnitReport, report: ValidationReport) -> Strip:
    """Contributions to the score, in nats, in the prompts that decide, a dot a control.

    Over several prompts the dots are those of all, and the unit's own is the mean. In reports of
    before, of probabilities, they are in percentage points.
    """
    factor = -1.0 if report.in_nats else -100.0
    own = factor * mean_change(unit)
    rows = []
    for kind in NULL_NAMES:
        changes = [change for _, null in with_null(unit, kind) for change in null.changes]
        values = tuple(factor * change for change in changes if math.isfinite(change))
        if values:
            needed = _needed(kind, unit, report, values)
            needed = None if needed is None else math.copysign(needed, own)
            rows.append(Row(NULL_NAMES[kind], _note(kind, unit), values, needed))
    subject = target_said(report.target, report.contrast)
    what = "log-odds of " if report.log_odds else ""
    unit_of = "nats" if report.in_nats else "percentage points"
    return Strip(unit.name, own, f"contribution to {what}{subject}, {unit_of}", tuple(rows))


def _note(kind: NullKind, unit: UnitReport) -> str:
    """How many do as much, and the number that decides: q of matched controls, else p."""
    found = pooled(unit, kind)
    assert found is not None
    q = unit.tested.q if unit.tested and kind == "matched" else None
    decides = f"p = {p_value(found.p)}" if q is None else f"q = {p_value(q)}"
    if found.n_prompts > 1:
        return f"{found.n} in each of {found.n_prompts} prompts, {decides}"
    return f"{max(round(found.p * (1 + found.n)) - 1, 0)} of {found.n} as much, {decides}"


def _needed(
    kind: NullKind, unit: UnitReport, report: ValidationReport, values: tuple[float, ...]
) -> float | None:
    """The size beyond which the unit would beat these controls; None over several prompts."""
    if kind == "shuffles" or len(deciding(unit)) > 1:
        return None
    most = allowed(len(values), SIGNIFICANT)
    if kind == "matched" and unit.tested is not None and unit.tested.q is not None:
        p = [each.tested.p if each.tested else None for each in report.units]
        most = allowed_corrected(len(values), SIGNIFICANT, p, report.units.index(unit))
    return needed_for([abs(value) for value in values], most)
