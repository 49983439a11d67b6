"""The strip plots of an answer graph's report: a unit beside its controls, ablated, and kept."""

from __future__ import annotations

from sae_graphs.validation.answer.outcomes import beaten_by, score_words
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit, Null
from sae_graphs.validation.judging import NULL_NAMES, SIGNIFICANT
from sae_graphs.validation.report.strip import Row, Strip, allowed, allowed_corrected, needed_for
from sae_graphs.words import p_value


def contribution_of(unit: AnswerUnit, report: AnswerReport) -> float:
    """What the unit contributes to the answer's score, in nats: clean minus ablated."""
    return report.clean.nats - unit.ablated.nats


def strip_of(unit: AnswerUnit, report: AnswerReport) -> Strip:
    """The unit's contribution, and what as much ablation of controls takes from the score."""
    rows = [
        Row(
            NULL_NAMES[null.kind],
            _note(null, unit, "as much"),
            tuple(report.clean.nats - score for score in null.scores),
            _needed(null, unit, report),
        )
        for null in unit.nulls
        if null.scores
    ]
    axis = f"contribution to {score_words(report)}, nats"
    return Strip(unit.name, contribution_of(unit, report), axis, tuple(rows))


def kept_strip_of(unit: AnswerUnit, report: AnswerReport) -> Strip | None:
    """The score that is left with the unit alone, above that with nothing kept, beside controls."""
    kept, none = unit.keep_only, report.without_any.nats
    if kept is None or not kept.null.scores:
        return None
    values = tuple(score - none for score in kept.null.scores)
    row = Row("matched controls, kept", _note(kept.null, None, "as well"), values)
    own = kept.score.nats - none
    return Strip(f"{unit.name}, kept alone", own, "score above none kept, nats", (row,))


def _note(null: Null, unit: AnswerUnit | None, does: str) -> str:
    """How many do as much, and the number that decides: q of matched controls, else p."""
    is_corrected = unit is not None and null.kind == "matched"
    decides = f"p = {p_value(null.p)}"
    if unit is not None and is_corrected:
        decides = f"q = {p_value(unit.outcome.q)}"
    return f"{beaten_by(null)} of {len(null.scores)} {does}, {decides}"


def _needed(null: Null, unit: AnswerUnit, report: AnswerReport) -> float | None:
    """The contribution beyond which the unit would beat these controls, all else as it is."""
    values = [report.clean.nats - score for score in null.scores]
    if null.kind == "shuffles":
        return None
    most = allowed(len(values), SIGNIFICANT)
    if null.kind == "matched":
        matched = [each.null("matched") for each in report.units]
        p = [None if found is None else found.p for found in matched]
        most = allowed_corrected(len(values), SIGNIFICANT, p, report.units.index(unit))
    return needed_for(values, most)
