"""A verdict on a component or path of a graph of effects, in words: what decides, and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sae_graphs.graph.answer import MEDIATES
from sae_graphs.validation.evidence import Mediation, PromptResult, UnitReport, ValidationReport
from sae_graphs.validation.judging import (
    LEAST_RATIO,
    NULL_NAMES,
    SAME_NORM,
    SIGNIFICANT,
    SIGNS,
    PooledNull,
    VerdictKind,
    corrected,
    deciding,
    is_weak,
    p_in,
    pooled,
    with_null,
)
from sae_graphs.words import (
    amount,
    change_range,
    counted,
    interval,
    nats,
    norm,
    p_value,
    probability,
    relative,
    score_change,
    score_size,
    share,
    target_said,
    times,
)

ALONE = 0.5  # a feature that accounts for so much of the joint change is named
OUTCOMES: dict[VerdictKind, bool | None] = {
    "supported": True,
    "no controls": None,
    "inactive": None,
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
    """What ablating it does to the target, opened by the verdict, and closed by what decides."""
    results, in_nats = deciding(unit), report.in_nats
    before, change = fmean(result.score for result in results), mean_change(unit)
    several = len(results) > 1
    where = f" in {len(results)} {results[0].role} prompts" if several else ""
    subject = target_said(report.target, report.contrast)
    subject = f"the log-odds of {subject}" if report.log_odds else subject
    show = amount if in_nats else probability
    first, last = show(before), show(before + change)
    size = score_size(change, in_nats=in_nats)
    moves = f"{'lowers' if change < 0 else 'raises'} {subject} by {size}"
    ends = f"{first} to {last}"
    if first == last:
        moves, ends = f"hardly moves {subject}", f"{first}, {score_change(change, in_nats=in_nats)}"
    told = [ends]
    told += _relative_words(before, change) if report.contrast or not in_nats else []
    told += [_probability_words(results)] if report.log_odds else []
    told += _spread_words(unit, in_nats=in_nats) if several else []
    told += [] if several or report.contrast is not None else [_rank_words(results[0])]
    return (
        f"{_opening(kind, change)}{where}: ablating its {counted(len(unit.features), 'feature')} "
        f"together {moves}{' on average' if several else ''} ({'; '.join(told)})"
        f"{_decides(unit, kind)}."
    )


def _opening(kind: VerdictKind, change: float) -> str:
    """What the claim is: that the target hangs on it, or that it is held back."""
    outcome = OUTCOMES.get(kind, False)
    if outcome is None:
        return f"{SIGNS[None]} Necessary or not cannot be said"
    if outcome:
        if change > 0:
            return f"{SIGNS[False]} Not necessary, but holds it back"
        return f"{SIGNS[True]} Necessary"
    return f"{SIGNS[False]} Not necessary"


def _decides(unit: UnitReport, kind: VerdictKind) -> str:
    """What decides the kind, at the end of a sentence."""
    matched = pooled(unit, "matched")
    if kind == "no effect":
        return ", which is next to nothing"
    if matched is None or unit.tested is None or unit.tested.p is None:
        return f", but there are {_no_controls(unit)}"
    told = matched_words(unit, matched)
    if kind == "supported":
        return f"; {told}"
    if kind == "norm only":
        return f", but {same_norm_words(unit, least=SIGNIFICANT)}"
    if kind == "not distinguishable" and corrected(unit.tested) <= SIGNIFICANT:
        return f", which is less than {LEAST_RATIO:.0f} times what matched controls do; {told}"
    return f", but {told}"


def _relative_words(before: float, change: float) -> list[str]:
    if before <= 0 or relative(change / before) == "0 %":
        return []
    return [relative(change / before)]


def _probability_words(results: Sequence[PromptResult]) -> str:
    """The target's probability, which the log-odds are of; a mean over the prompts."""
    ends = [fmean(r.target.before for r in results), fmean(r.target.after for r in results)]
    first, last = (probability(end) for end in ends)
    return f"probability {first}" + ("" if first == last else f" to {last}")


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


def _no_controls(unit: UnitReport) -> str:
    nulls = [result.null("matched") for result in deciding(unit)]
    refusals = [null.refused for null in nulls if null and null.refused]
    return f"no matched controls: {refusals[0]}" if refusals else "no matched controls"


def control_words(unit: UnitReport, report: ValidationReport) -> list[str]:
    """How much matched controls, and nulls of its norm, do in its place."""
    tested, matched = unit.tested, pooled(unit, "matched")
    if matched is None or tested is None or tested.p is None:
        return []
    sentences = []
    if tested.control_median is not None:
        median = score_size(tested.control_median, in_nats=report.in_nats)
        only = "only " if is_weak(matched) else ""
        removed = "" if matched.match is None else f", removing {only}{norm(matched.match)} of "
        removed += "its norm" if removed else ""
        told = f"The matched controls' median change is {median}{_ratio_words(tested.ratio)}"
        sentences.append(f"{told}{removed}.")
    if matched.narrowest is not None:
        least = p_value(1 / (1 + matched.narrowest))
        sentences.append(
            f"One layer allows only {counted(matched.narrowest, 'set')}: if it alone does it, p is "
            f"not below {least}."
        )
    if told := same_norm_words(unit):
        sentences.append(f"{told[0].upper()}{told[1:]}.")
    elif is_weak(matched):
        sentences.append("No nulls of its norm were run.")
    return sentences


def matched_words(unit: UnitReport, matched: PooledNull) -> str:
    """How many matched controls do as much; over several prompts, how rare that is in each."""
    tested = unit.tested
    p, q = (tested.p, tested.q) if tested else (matched.p, None)
    corrected = "" if q is None else f", q = {p_value(q)}"
    if matched.n_prompts > 1:
        each = [p_in(result, null) for result, null in with_null(unit, "matched")]
        span = " to ".join(dict.fromkeys(p_value(value) for value in (min(each), max(each))))
        return (
            f"beside {matched.n} matched controls in each of {matched.n_prompts} prompts p is "
            f"{span}, together {p_value(p)} (twice the mean){corrected}"
        )
    p = matched.p if p is None else p
    n_larger = max(round(p * (1 + matched.n)) - 1, 0)
    verb = "do" if n_larger > 1 else "does"
    here = "" if len(deciding(unit)) == 1 else " in the one prompt that has them"
    return (
        f"{n_larger or 'none'} of {matched.n} matched controls{here} {verb} as much "
        f"(p = {p_value(p)}{corrected})"
    )


def same_norm_words(unit: UnitReport, *, least: float = 0.0) -> str:
    """What nulls of the unit's own norm do, those of a p above `least`; and the norm that scaled
    ones really had."""
    told = []
    for kind in SAME_NORM:
        if (null := pooled(unit, kind)) is not None and null.p > least:
            real = "" if kind != "scaled" or null.match is None else f" ({norm(null.match)} of it)"
            if null.n_prompts > 1:
                told.append(f"beside {NULL_NAMES[kind]}{real} p is {p_value(null.p)}")
                continue
            n = max(round(null.p * (1 + null.n)) - 1, 0)
            verb = "do" if n > 1 else "does"
            named = f"{n or 'none'} of {null.n} {NULL_NAMES[kind]}{real}"
            told.append(f"{named} {verb} as much (p = {p_value(null.p)})")
    return ", ".join(told)


def _ratio_words(ratio: float | None) -> str:
    if not ratio:
        return ""
    if ratio >= 1:
        return f", {times(ratio)} times smaller"
    return f", {times(1 / ratio)} times larger than its own"


def shuffle_words(unit: UnitReport) -> list[str]:
    """Whether other nodes of the graph do as much in a path's place; nothing for components."""
    found = pooled(unit, "shuffles") if unit.kind == "path" else None
    if found is None:
        return []
    verb = "do less" if found.p <= SIGNIFICANT else "do as much"
    return [f"Other nodes of the graph in its place {verb} (p = {p_value(found.p)})."]


def is_carried(found: Mediation) -> bool:
    """True where most of what the sources do, and not much more, comes along the features."""
    return found.fraction is not None and MEDIATES[0] <= found.fraction <= MEDIATES[1]


def flow_words(unit: UnitReport) -> str:
    """Whether what the sources do comes along the unit's own features, in the graph's prompt."""
    found = unit.mediation if len(unit.features) > 1 else None
    path = unit.kind == "path"
    what = "the path mediates" if path else "its features act on each other"
    if found is None:
        return f"{SIGNS[None]} Whether {what} was not measured."
    first = "its first feature" if path else "its sources"
    does, where = ("does", "along its edges") if path else ("do", "through its features")
    if found.fraction is None:
        alone = "alone does next to nothing" if path else "alone do next to nothing"
        return f"{SIGNS[None]} Whether {what} cannot be said: {first} {alone}."
    carried = is_carried(found)
    names = ("Path mediates", "Path does not mediate") if path else ("Mediates", "Does not mediate")
    elsewhere = any(result.role == "test" for result in deciding(unit))
    where_found = " in the graph's own prompt" if elsewhere else ""
    opening = f"{SIGNS[carried]} {names[not carried]}{where_found}"
    size = f"{share(found.fraction)} of what {first} {does}"
    if found.fraction < 0:
        told = f"what flows {where} goes the other way ({size})"
    else:
        against = ", and the rest works against it" if found.fraction > MEDIATES[1] else ""
        told = f"{size} to the target flows {where}{against}"
    asked = "" if carried else f"; {share(MEDIATES[0])} to {share(MEDIATES[1])} would show a path"
    return f"{opening}: {told}{asked if path else ''}."


def alone_words(unit: UnitReport) -> list[str]:
    """The features without which half of the joint change or more is gone, in the graph's prompt"""
    found = unit.mediation if len(unit.features) > 1 else None
    told = [] if found is None else _alone_words(found)
    return [f"In the graph's own prompt {each}." for each in told]


def _alone_words(found: Mediation) -> list[str]:
    """The features without which half of the joint change or more is gone."""
    shares = {feature: found.needed(feature) for feature in found.without}
    large = {name: part for name, part in shares.items() if part is not None and part >= ALONE}
    if not large:
        return []
    if len(large) == 1:
        ((name, part),) = large.items()
        return [f"{name} alone accounts for {share(part)} of the change"]
    if len(large) > 3:
        return [f"each of {len(large)} features is needed for half of the change or more"]
    named = [f"{name} ({share(part)})" for name, part in large.items()]
    return [
        f"{', '.join(named[:-1])} and {named[-1]} are each needed for half of the change or more"
    ]


def kind_words(unit: UnitReport) -> list[str]:
    """The change under other kinds of ablation beside that under zero, in the graph's prompt."""
    kinds = unit.kinds or {}
    if "zero" not in kinds:
        return []
    others = [
        f"{kind} ablation by {nats(kinds[kind])}" for kind in ("mean", "resample") if kind in kinds
    ]
    zero = f"In it, zero ablation changes the logit difference by {nats(kinds['zero'])} nats"
    return [f"{zero}, {' and '.join(others)}."] if others else []


def mean_change(unit: UnitReport) -> float:
    """The mean change over the prompts that decide, ablated minus clean; 0 where none was run."""
    return fmean([result.change for result in deciding(unit)] or [0.0])
