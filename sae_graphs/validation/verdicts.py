"""What the numbers of a component or a path allow us to say: one of six kinds, and in words.

Two questions have answers of their own: whether its features matter, beyond controls (the kind,
from the prompts that decide), and whether it is a path, along whose edges the effect flows (a
sentence, from the graph's own prompt).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sae_graphs.graph.answer import MEDIATES
from sae_graphs.validation.evidence import Mediation, PromptResult, UnitReport, ValidationReport
from sae_graphs.validation.judging import (
    LEAST_RATIO,
    SAME_NORM,
    SIGNIFICANT,
    PooledNull,
    VerdictKind,
    corrected,
    deciding,
    is_weak,
    kind_of,
    p_in,
    pooled,
    with_null,
)
from sae_graphs.words import (
    change_range,
    counted,
    interval,
    nats,
    norm,
    p_value,
    probability,
    relative,
    relative_to,
    score,
    score_change,
    score_size,
    share,
    target_said,
    times,
)

ALONE = 0.5  # a feature that accounts for so much of the joint change is named


NEEDED = 0.5  # features without which so much of the score is lost are called needed
_OPENINGS: dict[VerdictKind, str] = {
    "norm only": "Not more than other changes of its norm",
    "not distinguishable": "Not distinguishable from controls",
    "no effect": "No effect",
    "no controls": "Without controls",
}


@dataclass(frozen=True)
class Verdict:
    """What can be said of a unit: the kind, and sentences with the numbers it rests on."""

    kind: VerdictKind
    words: str

    @property
    def supported(self) -> bool:
        """True where the claim that the unit matters is supported."""
        return self.kind == "supported"


def verdict(unit: UnitReport, report: ValidationReport) -> Verdict:
    """The verdict on one component or path, from the prompts that decide."""
    kind = kind_of(unit, in_nats=report.in_nats)
    if kind == "inactive":
        return Verdict(kind, inactive_words(unit))
    sentences = [change_words(unit, report, kind), *control_words(unit, report)]
    if kind == "not distinguishable" and unit.tested and corrected(unit.tested) <= SIGNIFICANT:
        told = f"Its change is less than {LEAST_RATIO:.0f} times theirs, too little to claim it."
        sentences.insert(2, told)
    if kind == "supported":
        sentences += shuffle_words(unit)
    if kind != "no effect":
        sentences += own_prompt_words(unit, supported=kind == "supported")
    return Verdict(kind, " ".join(sentences))


def kind_in(unit: UnitReport) -> VerdictKind:
    """The kind alone; whether its score is a difference of logits, the results tell."""
    return kind_of(unit, in_nats=any(result.contrast is not None for result in unit.results))


def reason(unit: UnitReport) -> str:
    """What decides the verdict, in one line."""
    return short_words(unit, Verdict(kind_in(unit), ""))


def short_words(unit: UnitReport, found: Verdict) -> str:
    """The verdict as a caption: `supported, p = 0.005`."""
    tested, kind = unit.tested, found.kind
    p = tested.p if tested else None
    shown = "" if p is None else f"p = {p_value(p)}"
    if kind == "norm only":
        nulls = [null for each in SAME_NORM if (null := pooled(unit, each))]
        worst = max((null.p for null in nulls), default=None)
        beaten = f" ({shown})" if shown else ""
        return (
            f"beats its matched controls{beaten}, but not other changes of its norm "
            f"(p = {p_value(worst)})"
        )
    if kind == "not distinguishable" and tested:
        if p is not None and p <= SIGNIFICANT and corrected(tested) > SIGNIFICANT:
            shown += f", q = {p_value(tested.q)}"
        if tested.ratio is not None:
            shown += f", {times(tested.ratio)} × their median"
    names: dict[VerdictKind, str] = {
        "supported": "supported: its features matter",
        "not distinguishable": "not distinguishable from controls",
        "no effect": "no effect on the target",
        "inactive": "inactive in the deciding prompts",
        "no controls": "no fair controls",
    }
    silent = not shown or kind in ("inactive", "no controls")
    return names.get(kind, kind) + ("" if silent else f", {shown}")


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
    results, in_nats = deciding(unit), report.in_nats
    before = fmean(result.score for result in results)
    change = fmean(result.change for result in results)
    opening = _OPENINGS.get(kind) or _claim(before, change)
    several = len(results) > 1
    where = f"in {len(results)} {results[0].role} prompts" if several else "here"
    subject = target_said(report.target, report.contrast)
    subject = f"the score of {subject}" if report.log_odds else subject
    first, last = (score(value, in_nats=in_nats) for value in (before, before + change))
    moves = f"{'falls' if change < 0 else 'rises'} from {first} to {last}"
    if first == last:
        moves = f"hardly moves from {first}"
    told = _size_words(before, change, in_nats=in_nats) if report.contrast or not in_nats else []
    told += [_probability_words(results)] if report.log_odds else []
    told += _spread_words(unit, in_nats=in_nats) if several else []
    told += [] if several or report.contrast is not None else [_rank_words(results[0])]
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


def control_words(unit: UnitReport, report: ValidationReport) -> list[str]:
    """What the matched controls do in its place, and other changes of its norm."""
    tested, matched = unit.tested, pooled(unit, "matched")
    if matched is None or tested is None or tested.p is None:
        nulls = [result.null("matched") for result in deciding(unit)]
        refusals = [null.refused for null in nulls if null and null.refused]
        return [f"No matched controls: {refusals[0]}." if refusals else "No matched controls."]
    words = _matched_words(unit, matched)
    if tested.control_median is not None:
        median = score_size(tested.control_median, in_nats=report.in_nats)
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


def shuffle_words(unit: UnitReport) -> list[str]:
    """Whether other nodes of the graph do as much in a path's place; nothing for components."""
    found = pooled(unit, "shuffles") if unit.kind == "path" else None
    if found is None:
        return []
    verb = "do less" if found.p <= SIGNIFICANT else "do as much"
    return [f"Other nodes of the graph in its place {verb} (p = {p_value(found.p)})."]


def own_prompt_words(unit: UnitReport, *, supported: bool) -> list[str]:
    """Whether the effect flows along the edges, and whether the kind of ablation matters."""
    found = unit.mediation
    told = []
    if found is not None and len(unit.features) > 1:
        told.append("; ".join([_flow_words(found, unit), *_alone_words(found)]))
    if supported and (kinds := _kind_words(unit)):
        told.append(kinds)
    where = "In the graph's own prompt", "There,"  # said once in full
    return [f"{place} {each}." for place, each in zip(where, told, strict=False)]


def _is_carried(found: Mediation) -> bool:
    """True where most of what the sources do, and not much more, comes along the features."""
    return found.fraction is not None and MEDIATES[0] <= found.fraction <= MEDIATES[1]


def _flow_words(found: Mediation, unit: UnitReport) -> str:
    """Whether what the sources do comes along the unit's own features."""
    path = unit.kind == "path"
    first = "its first feature" if path else "its sources"
    does, where = ("does", "along its edges") if path else ("do", "through its features")
    if found.fraction is None:
        whether = "whether it is a path" if path else "whether its features work together"
        alone = "alone does next to nothing" if path else "alone do next to nothing"
        return f"{whether} cannot be said: {first} {alone}"
    if _is_carried(found):
        opening = f"it is carried {'along the path' if path else 'through its features'}"
    else:
        what = "a path" if path else "that its features work together"
        opening = f"that does not show {what}"
    size = f"{share(found.fraction)} of what {first} {does}"
    if found.fraction < 0:
        return f"{opening}: what flows {where} goes the other way ({size})"
    along = where if path or not _is_carried(found) else "through them"
    against = "; the rest works against it" if found.fraction > MEDIATES[1] else ""
    return f"{opening}: {size} flows {along}{against}"


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


def _kind_words(unit: UnitReport) -> str | None:
    """The change under other kinds of ablation beside that under zero."""
    kinds = unit.kinds or {}
    if "zero" not in kinds:
        return None
    others = [
        f"{kind} ablation by {nats(kinds[kind])}" for kind in ("mean", "resample") if kind in kinds
    ]
    zero = f"zero ablation changes the logit difference by {nats(kinds['zero'])} nats"
    return f"{zero}, {' and '.join(others)}" if others else None
