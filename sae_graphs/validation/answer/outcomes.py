"""What the numbers of a graph or a path allow us to say: yes, no, or not to be said, and why.

Two questions that are never mixed: does the answer hang on it (*necessary*, and of a graph
*sufficient*), and of a path: does its first feature act along it (*mediates*).
"""

from __future__ import annotations

from dataclasses import replace

from sae_graphs.graph.answer import MEDIATES
from sae_graphs.significance import TIE, adjusted
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit, Null, NullKind, Outcome
from sae_graphs.validation.judging import NULL_NAMES, SAME_NORM, SIGNIFICANT, SIGNS
from sae_graphs.words import amount, counted, p_value, probability, share, target_said

HALF = 0.5  # of the way from none kept to all: with less it is said to be only that
KINDS: tuple[NullKind, ...] = ("matched", *SAME_NORM)  # those that decide
MEANINGS = {
    "necessary": (
        "ablating its features together lowers the answer's score, more than matched controls do "
        f"(q ≤ {SIGNIFICANT}, corrected for all units), and more than nulls of exactly its norm at "
        f"each layer and token (p ≤ {SIGNIFICANT} for each kind)"
    ),
    "sufficient": (
        "kept alone, with all other rarely-on active features ablated, it leaves a higher score "
        f"than matched controls kept in its place (p ≤ {SIGNIFICANT}): more than others, which "
        "need not be much"
    ),
    "mediates": (
        f"{share(MEDIATES[0])} to {share(MEDIATES[1])} of what its first feature does to the "
        "answer flows along the path alone"
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
    decides = because
    if necessary and unit.kind == "path" and not found.mediates:
        decides = _flow_words(unit)
    words = " ".join(sentences(replace(unit, outcome=found), report))
    return replace(found, reason=decides, words=words)


def _necessary(unit: AnswerUnit, q: float | None, report: AnswerReport) -> tuple[bool | None, str]:
    """Whether it is, and what decides that."""
    if unit.ablated.nats >= report.clean.nats:
        return False, "the answer's score does not fall"
    nulls = {kind: unit.null(kind) for kind in KINDS}
    for kind, null in nulls.items():
        if null is not None and null.refused is not None:
            return None, f"there are no {NULL_NAMES[kind]}: {null.refused}"
    if q is None or None in nulls.values():
        return None, "not every kind of control was run"
    p_values = {kind: null.p for kind, null in nulls.items() if null is not None}
    for kind, p in p_values.items():
        value, name = (q, "q") if kind == "matched" else (p, "p")
        if value is not None and value > SIGNIFICANT:
            return False, f"{as_many(nulls[kind], kind)} ({name} = {p_value(value)})"
    worst = max((nulls[kind] for kind in SAME_NORM), key=lambda null: (null and null.p) or 0.0)
    assert worst is not None
    return True, (
        f"{as_many(nulls['matched'], 'matched')} (q = {p_value(q)}), and "
        f"{as_many(worst, worst.kind, '')} (p = {p_value(worst.p)})"
    )


def _sufficient(unit: AnswerUnit) -> bool | None:
    p = None if unit.keep_only is None else unit.keep_only.null.p
    return None if p is None else p <= SIGNIFICANT


def _mediates(unit: AnswerUnit) -> bool | None:
    part = None if unit.flow is None else unit.flow.share
    return None if part is None else MEDIATES[0] - TIE <= part <= MEDIATES[1] + TIE


# -- in words --------------------------------------------------------------------------------------


def sentences(unit: AnswerUnit, report: AnswerReport) -> tuple[str, str]:
    """What ablating it does; then what it does kept alone or, of a path, what flows along it.

    Each begins with the sign of its outcome (`SIGNS`). Where a report of before says the same in
    other words, these are the ones that are shown.
    """
    second = _kept_words(unit, report) if unit.kind == "graph" else _path_words(unit)
    return f"{_ablation_words(unit, report)}.", f"{second}."


def score_words(report: AnswerReport) -> str:
    """What the score is: `the log-odds of " Mary"`."""
    what = "the log-odds" if report.contrast is None else "the logit difference"
    return f"{what} of {target_said(report.target, report.contrast)}"


def as_many(null: Null | None, kind: NullKind, does: str = "as much") -> str:
    """How many of the controls do as much: `none of 200 matched controls does as much`; without a
    verb where what it `does` is nothing."""
    if null is None or null.p is None:
        return f"no {NULL_NAMES[kind]} were drawn"
    n, of = beaten_by(null), f"of {len(null.scores)} {NULL_NAMES[kind]}"
    return f"{n or 'none'} {of}" + (f" {'do' if n > 1 else 'does'} {does}" if does else "")


def beaten_by(null: Null) -> int:
    """How many of its controls do at least as much as the unit."""
    return max(round((null.p or 0.0) * (1 + len(null.scores))) - 1, 0)


def _ablation_words(unit: AnswerUnit, report: AnswerReport) -> str:
    """What ablating it does, beside controls."""
    found, before, after = unit.outcome, report.clean, unit.ablated
    _, because = _necessary(unit, found.q, report)
    opening = f"{_opening(found.necessary, 'Necessary')}: ablating its "
    opening += f"{counted(len(unit.features), 'feature')} together"
    ends = (
        f"({amount(before.nats)} to {amount(after.nats)}; probability "
        f"{probability(before.probability)} to {probability(after.probability)})"
    )
    if after.nats >= before.nats:
        return f"{opening} does not lower {score_words(report)} {ends}"
    moves = f"lowers {score_words(report)} by {amount(before.nats - after.nats)} nats {ends}"
    return f"{opening} {moves}{'; ' if found.necessary else ', but '}{because}"


def _kept_words(unit: AnswerUnit, report: AnswerReport) -> str:
    """What is left where it alone is kept."""
    kept, found, left = unit.keep_only, unit.outcome.sufficient, report.left(unit)
    assert kept is not None
    only = "only " if left is not None and left < HALF else ""
    told = (
        f"{_opening(found, 'Sufficient')}{' beyond controls' if found else ''}: kept alone, with "
        f"all other rarely-on features ablated, it leaves {only}{amount(kept.score.nats)} nats, "
        f"{share(left)} of the way from none kept ({amount(report.without_any.nats)}) to all "
        f"({amount(report.clean.nats)})"
    )
    if found is None:
        return f"{told}, but there are no matched controls: {kept.null.refused}"
    lost = kept.score.nats <= 0 < report.clean.nats
    beside = as_many(kept.null, "matched", "as well in its place")
    joint = ", too little for the answer, but " if found and lost else "; " if found else ", and "
    return f"{told}{joint}{beside} (p = {p_value(kept.null.p)})"


def _path_words(unit: AnswerUnit) -> str:
    opening = {True: "Path mediates", False: "Path does not mediate"}
    found = unit.outcome.mediates
    told = "Whether the path mediates cannot be said" if found is None else opening[found]
    asked = (
        "" if found is None else f"; {share(MEDIATES[0])} to {share(MEDIATES[1])} would show a path"
    )
    return f"{SIGNS[found]} {told}: {_flow_words(unit)}{'' if found else asked}"


def _flow_words(unit: AnswerUnit) -> str:
    flow = unit.flow
    if flow is None:
        return "its features do not stand one by one at the same tokens in this prompt"
    first = f"its first feature, {unit.features[0]},"
    if flow.share is None:
        return f"{first} alone does nothing to the answer"
    return f"{share(flow.share)} of what {first} does to the answer flows along it"


def _opening(outcome: bool | None, name: str) -> str:
    if outcome is None:
        return f"{SIGNS[None]} {name} or not cannot be said"
    return f"{SIGNS[outcome]} {name if outcome else f'Not {name.lower()}'}"


def _p(null: Null | None) -> float | None:
    return None if null is None else null.p
