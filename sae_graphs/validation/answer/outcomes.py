"""What the numbers of a graph or a path allow us to say: yes, no, or not to be said, and why.

Two questions that are never mixed: does the answer hang on it (*necessary*, and of a graph
*sufficient*), and of a path: does its first feature act along it (*mediates*).
"""

from __future__ import annotations

from dataclasses import replace

from sae_graphs.graph.answer import MEDIATES
from sae_graphs.significance import TIE, adjusted
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit, Null, NullKind, Outcome
from sae_graphs.validation.judging import SIGNIFICANT
from sae_graphs.words import amount, counted, p_value, probability, share, target_said

SAME_NORM: tuple[NullKind, ...] = ("scaled", "directions")
KINDS: tuple[NullKind, ...] = ("matched", *SAME_NORM)  # those that decide
NULL_NAMES: dict[NullKind, str] = {
    "matched": "matched sets",
    "scaled": "matched sets scaled to its norm",
    "directions": "random directions of its norm",
    "shuffles": "other features of the graph",
}
MEANINGS = {
    "necessary": (
        "ablating its features together lowers the answer's score, more than matched sets do "
        f"(q ≤ {SIGNIFICANT}, corrected for all units), and more than other changes of exactly its "
        f"norm at each layer and token (p ≤ {SIGNIFICANT} each)"
    ),
    "sufficient": (
        "with all other rarely-on active features ablated, the score is higher than where matched "
        f"sets are kept in its place (p ≤ {SIGNIFICANT})"
    ),
    "mediates": (
        f"{MEDIATES[0]:.0%} to {MEDIATES[1]:.0%} of what its first feature does to the answer "
        "flows along the path alone"
    ),
    "supported": "necessary and, if it is a path, mediates",
}


def judged(report: AnswerReport) -> AnswerReport:
    """The report with what can be said of each unit."""
    q_values = adjusted([_p(unit.null("matched")) for unit in report.units])
    units = [
        replace(unit, outcome=_outcome(unit, q, report))
        for unit, q in zip(report.units, q_values, strict=True)
    ]
    return replace(report, units=tuple(units))


def names_of(unit: AnswerUnit) -> str:
    """The outcomes in a few words: `necessary, not sufficient`."""
    second = (unit.sufficient, "sufficient")
    if unit.kind == "path":
        second = (unit.mediates, "mediates")
    told = []
    for outcome, name in ((unit.necessary, "necessary"), second):
        no = "does not mediate" if name == "mediates" else f"not {name}"
        told.append(name if outcome else f"{name}: ?" if outcome is None else no)
    return ", ".join(told)


# -- yes or no -------------------------------------------------------------------------------------


def _outcome(unit: AnswerUnit, q: float | None, report: AnswerReport) -> Outcome:
    necessary, because = _necessary(unit, q, report)
    found = Outcome(q, necessary, _sufficient(unit), _mediates(unit))
    second = _keep_words(unit, found, report) if unit.kind == "graph" else _path_words(unit, found)
    decides = because
    if necessary and unit.kind == "path" and not found.mediates:
        decides = _flow_words(unit)
    words = f"{_ablation_words(unit, found, because, report)}. {second}."
    return replace(found, reason=decides, words=words)


def _necessary(unit: AnswerUnit, q: float | None, report: AnswerReport) -> tuple[bool | None, str]:
    """Whether it is, and what decides that."""
    if unit.ablated.nats >= report.clean.nats:
        return False, "the answer's score does not fall"
    nulls = {kind: unit.null(kind) for kind in KINDS}
    for kind, null in nulls.items():
        if null is not None and null.refused is not None:
            return None, f"no {NULL_NAMES[kind]}: {null.refused}"
    if q is None or None in nulls.values():
        return None, "not every kind of control was run"
    p_values = {kind: null.p for kind, null in nulls.items() if null is not None}
    for kind, p in p_values.items():
        value, name = (q, "q") if kind == "matched" else (p, "p")
        if value is not None and value > SIGNIFICANT:
            often = f"{NULL_NAMES[kind]} lower the score as much too often"
            return False, f"{often} ({name} = {p_value(value)})"
    worst = max(p for kind in SAME_NORM if (p := p_values[kind]) is not None)
    return True, (
        "matched sets, and other changes of its norm, rarely lower the score as much "
        f"(q = {p_value(q)}, p = {p_value(worst)})"
    )


def _sufficient(unit: AnswerUnit) -> bool | None:
    p = None if unit.keep_only is None else unit.keep_only.null.p
    return None if p is None else p <= SIGNIFICANT


def _mediates(unit: AnswerUnit) -> bool | None:
    part = None if unit.flow is None else unit.flow.share
    return None if part is None else MEDIATES[0] - TIE <= part <= MEDIATES[1] + TIE


# -- in words --------------------------------------------------------------------------------------


def _ablation_words(unit: AnswerUnit, found: Outcome, because: str, report: AnswerReport) -> str:
    """What ablating it does, beside controls."""
    several = report.contrast is None
    what = "the log-odds" if several else "the logit difference"
    before, after = report.clean, unit.ablated
    move = _move(before.nats, after.nats, several=several)
    told = (
        f"{_opening(found.necessary, 'Necessary')}: without its "
        f"{counted(len(unit.features), 'feature')} {what} of "
        f"{target_said(report.target, report.contrast)} {move} nats "
        f"(probability {probability(before.probability)} to {probability(after.probability)})"
    )
    return told if after.nats >= before.nats else f"{told}; {because}"


def _keep_words(unit: AnswerUnit, found: Outcome, report: AnswerReport) -> str:
    """What is left where it alone is kept."""
    kept = unit.keep_only
    assert kept is not None
    told = (
        f"{_opening(found.sufficient, 'Sufficient')}: kept alone it leaves "
        f"{amount(kept.score.nats)} nats, {share(report.left(unit))} of what is lost with all"
    )
    if found.sufficient is None:
        return f"{told}; no matched sets: {kept.null.refused}"
    often = "rarely" if found.sufficient else "too often"
    return f"{told}; matched sets in its place {often} leave as much (p = {p_value(kept.null.p)})"


def _path_words(unit: AnswerUnit, found: Outcome) -> str:
    opening = (
        "Does not mediate" if found.mediates is False else _opening(found.mediates, "Mediates")
    )
    return f"{opening}: {_flow_words(unit)}"


def _flow_words(unit: AnswerUnit) -> str:
    flow = unit.flow
    if flow is None:
        return "its features do not stand one by one at the same tokens in this prompt"
    if flow.share is None:
        return f"{unit.features[0]} alone does nothing to the answer"
    return f"{share(flow.share)} of what {unit.features[0]} does to the answer flows along it"


def _opening(outcome: bool | None, name: str) -> str:
    if outcome is None:
        return f"{name} or not cannot be said"
    return name if outcome else f"Not {name.lower()}"


def _move(before: float, after: float, *, several: bool) -> str:
    first, last, ending = amount(before), amount(after), "" if several else "s"
    if first == last:
        return f"stay{ending} at {first}"
    return f"{'fall' if after < before else 'rise'}{ending} from {first} to {last}"


def _p(null: Null | None) -> float | None:
    return None if null is None else null.p
