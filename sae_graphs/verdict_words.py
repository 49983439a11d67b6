"""A verdict's sentences: what the ablation does, and what controls do in its place."""

from __future__ import annotations

from statistics import fmean

from sae_graphs.evidence import PromptResult, UnitReport, ValidationReport
from sae_graphs.verdict_kinds import (
    PooledNull,
    VerdictKind,
    deciding,
    is_weak,
    p_in,
    pooled,
    with_null,
)
from sae_graphs.words import (
    change_range,
    counted,
    interval,
    norm,
    p_value,
    relative,
    relative_to,
    score,
    score_change,
    score_size,
    target_said,
    times,
)

NEEDED = 0.5  # features without which so much of the score is lost are called needed
_OPENINGS: dict[VerdictKind, str] = {
    "norm only": "Not more than other changes of its norm",
    "not distinguishable": "Not distinguishable from controls",
    "no effect": "No effect",
    "no controls": "Without controls",
}


def inactive_words(unit: UnitReport) -> str:
    """Where none of the features is active."""
    results = deciding(unit)
    off = sum(result.active == 0 for result in results)
    where = "the prompt that decides" if len(results) == 1 else f"the {len(results)} that decide"
    where = where if off == len(results) else f"{off} of {where}"
    subject = counted(len(unit.features), "feature")
    return f"Inactive: none of its {subject} is active at the ablated positions of {where}."


def change_words(unit: UnitReport, report: ValidationReport, kind: VerdictKind) -> str:
    """What happens to the target, opened by the verdict."""
    results, in_nats = deciding(unit), report.contrast is not None
    before = fmean(result.score for result in results)
    change = fmean(result.change for result in results)
    opening = _OPENINGS.get(kind) or _claim(before, change)
    several = len(results) > 1
    where = f"in {len(results)} {results[0].role} prompts" if several else "here"
    subject = target_said(report.target, report.contrast)
    first, last = (score(value, in_nats=in_nats) for value in (before, before + change))
    moves = f"{'falls' if change < 0 else 'rises'} from {first} to {last}"
    if first == last:
        moves = f"hardly moves from {first}"
    told = _size_words(before, change, in_nats=in_nats)
    told += _spread_words(unit, in_nats=in_nats) if several else []
    told += [] if several or in_nats else [_rank_words(results[0])]
    return (
        f"{opening} {where}: without its {counted(len(unit.features), 'feature')} {subject} "
        f"{moves}{' on average' if several else ''} ({'; '.join(told)})."
    )


def _claim(before: float, change: float) -> str:
    """What a supported change shows: that the features are needed, or only that they matter."""
    if change > 0:
        return "Holds it back"
    return "Needed" if before > 0 and change <= -NEEDED * before else "Its features matter"


def _size_words(before: float, change: float, *, in_nats: bool) -> list[str]:
    size = score_change(change, in_nats=in_nats)
    if before <= 0 or relative(change / before) == "0 %":
        return [size]
    if in_nats:
        return [f"{size}, {relative(change / before)} of {score(before, in_nats=True)}"]
    return [f"{size}, {relative_to(change / before, before)}"]


def _spread_words(unit: UnitReport, *, in_nats: bool) -> list[str]:
    """How the change differs between prompts."""
    changes = [result.change for result in deciding(unit)]
    told = [f"{change_range(changes, in_nats=in_nats)} in single prompts"]
    spread = interval(unit.tested.low, unit.tested.high, in_nats=in_nats) if unit.tested else ""
    told += [f"95 % interval of |change| {spread}"] if spread else []
    signs = {change > 0 for change in changes if change}
    return [*told, "its sign differs between them"] if len(signs) > 1 else told


def _rank_words(result: PromptResult) -> str:
    before, after = result.rank_before, result.rank_after
    return f"rank {before}" if before == after else f"rank {before} to {after}"


# -- controls --------------------------------------------------------------------------------------


def control_words(unit: UnitReport, report: ValidationReport) -> list[str]:
    """What the matched controls do in its place, and other changes of its norm."""
    tested, matched = unit.tested, pooled(unit, "matched")
    if matched is None or tested is None or tested.p is None:
        nulls = [result.null("matched") for result in deciding(unit)]
        refusals = [null.refused for null in nulls if null and null.refused]
        return [f"No matched controls: {refusals[0]}." if refusals else "No matched controls."]
    words = _matched_words(unit, matched)
    if tested.control_median is not None:
        median = score_size(tested.control_median, in_nats=report.contrast is not None)
        words += f"; the controls' median change is {median}{_ratio_words(tested.ratio)}"
    sentences = [f"{words}."]
    if matched.narrowest is not None:
        least = p_value(1 / (1 + matched.narrowest))
        sentences.append(
            f"One layer allows only {counted(matched.narrowest, 'set')}: if it alone does it, p is "
            f"not below {least}."
        )
    return [*sentences, *_same_norm_words(unit, matched)]


def _matched_words(unit: UnitReport, matched: PooledNull) -> str:
    """How many matched controls do as much; over several prompts, how rare that is in each."""
    tested = unit.tested
    p, q = (tested.p, tested.q) if tested else (matched.p, None)
    corrected = "" if q is None else f", q = {p_value(q)}"
    only = "only " if is_weak(matched) else ""
    norms = "" if matched.match is None else f" (removing {only}{norm(matched.match)} of its norm)"
    if matched.n_prompts > 1:
        each = [p_in(result, null) for result, null in with_null(unit, "matched")]
        span = " to ".join(dict.fromkeys(p_value(value) for value in (min(each), max(each))))
        return (
            f"Beside {matched.n} matched control sets{norms} in each of {matched.n_prompts} "
            f"prompts, p is {span}; together {p_value(p)} (twice the mean){corrected}"
        )
    p = matched.p if p is None else p
    n_larger = max(round(p * (1 + matched.n)) - 1, 0)
    verb = "changes" if n_larger == 1 else "change"
    here = "" if len(deciding(unit)) == 1 else " in the one prompt that has them"
    return (
        f"Of {matched.n} matched control sets{norms}{here} {n_larger} {verb} it as much: "
        f"p = {p_value(p)}{corrected}"
    )


def _same_norm_words(unit: UnitReport, matched: PooledNull) -> list[str]:
    """What controls of the unit's own norm do, and the norm that the scaled ones really had."""
    told = []
    if (scaled := pooled(unit, "scaled")) is not None:
        real = "" if scaled.match is None else f" ({norm(scaled.match)} of it)"
        told.append(f"controls scaled to its norm{real}: p = {p_value(scaled.p)}")
    if (directions := pooled(unit, "directions")) is not None:
        told.append(f"random directions of its norm: p = {p_value(directions.p)}")
    if not told:
        return ["No controls of its norm were run."] if is_weak(matched) else []
    text = "; ".join(told)
    return [f"{text[0].upper()}{text[1:]}."]


def _ratio_words(ratio: float | None) -> str:
    if not ratio:
        return ""
    if ratio >= 1:
        return f", {times(ratio)} times smaller"
    return f", {times(1 / ratio)} times larger than its own"
