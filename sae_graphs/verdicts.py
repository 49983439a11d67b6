"""What the numbers of a component or a path allow us to say, as one of six kinds and in words.

A claim is supported only where three things hold: the change is large enough to matter, it is
rarer among matched controls than chance explains (after correcting for the number of paths), and
controls of the same size do not explain it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

from sae_graphs.evidence import Null, NullKind, PromptResult, Tested, UnitReport, ValidationReport
from sae_graphs.evidence_words import (
    interval,
    norm,
    p_value,
    relative,
    relative_to,
    score,
    score_change,
    score_size,
    share,
    target_said,
    times,
)
from sae_graphs.render.text import counted
from sae_graphs.significance import combined
from sae_graphs.significance import p_value as p_of

SIGNIFICANT = 0.05  # the largest q of a supported claim, and p beside controls of the same norm
LEAST_RATIO = 2.0  # a supported change is at least this many times the controls' median
LEAST_POINTS = 0.01  # a smaller |change| of a probability (0 to 1) is no effect: one point
LEAST_NATS = 0.1  # the same for a difference of logits
WELL_MATCHED = 0.8  # controls that remove less of the path's norm cannot speak for its size

VerdictKind = Literal[
    "supported", "norm only", "not distinguishable", "no effect", "inactive", "no controls"
]
MEANINGS: dict[VerdictKind, str] = {
    "supported": (
        f"q ≤ {SIGNIFICANT} after correcting for all units tested, the change is at least "
        f"{LEAST_RATIO:.0f} times the matched controls' median, and its size alone does not "
        "explain it"
    ),
    "norm only": (
        f"beats its matched controls, which remove less than {WELL_MATCHED} of its norm, but not "
        "controls of the same norm: the size of what it removes explains the change"
    ),
    "not distinguishable": (
        f"controls change the target as much too often (q > {SIGNIFICANT}), or their median change "
        f"is more than 1/{LEAST_RATIO:.0f} of it"
    ),
    "no effect": f"the target changes by less than {100 * LEAST_POINTS:.0f} point "
    f"({LEAST_NATS} nats with a contrast)",
    "inactive": "none of its features is active at the ablated positions of most of these prompts",
    "no controls": "in most of these prompts no control could differ from it, so nothing can be "
    "said",
}
_OPENINGS: dict[VerdictKind, str] = {
    "norm only": "Explained by its size",
    "not distinguishable": "Not distinguishable from controls",
    "no effect": "No effect",
    "no controls": "Without controls",
}
_SAME_NORM: dict[NullKind, str] = {
    "scaled": "controls scaled to its norm",
    "directions": "random directions of its norm",
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


class PooledNull(NamedTuple):
    """One kind of null over the deciding prompts that have it: how many these are, the controls in
    each, the norm they remove (a mean over prompts), p (combined), and whether the poorest layer
    allows so few sets that it alone could not earn that p: then their number."""

    n_prompts: int
    n: int
    p: float
    match: float | None
    narrowest: int | None


def verdict(unit: UnitReport, report: ValidationReport) -> Verdict:
    """The verdict on one component or path, from the prompts that decide."""
    kind = _kind(unit, in_nats=report.contrast is not None)
    if kind == "inactive":
        return Verdict(kind, _inactive_words(unit))
    sentences = [_change_words(unit, report, kind), *_control_words(unit, report)]
    if kind == "norm only":
        sentences.append("The size of what it removes explains the change.")
    if kind == "not distinguishable" and unit.tested and _corrected(unit.tested) <= SIGNIFICANT:
        told = f"Its change is less than {LEAST_RATIO:.0f} times theirs, too little to claim it."
        sentences.insert(2, told)
    found = unit.mediation
    if found is not None and found.fraction is not None and len(unit.features) > 1:
        sentences.append(_flow_words(found.fraction, unit))
    return Verdict(kind, " ".join(sentences))


def deciding(unit: UnitReport) -> tuple[PromptResult, ...]:
    """The results in the prompts that decide: the test prompts where there are any."""
    roles = {result.role for result in unit.results}
    role = unit.tested.role if unit.tested else "test" if "test" in roles else "discovery"
    return tuple(result for result in unit.results if result.role == role)


def pooled(unit: UnitReport, kind: NullKind) -> PooledNull | None:
    """A null over the deciding prompts; None where none was drawn in any of them."""
    pairs = _with_null(unit, kind)
    p = combined([_p_of(result, null) for result, null in pairs])
    if p is None:
        return None
    matches = [null.match.middle for _, null in pairs if null.match]
    narrow = [null.narrowest for _, null in pairs if null.narrowest is not None]
    least = min(narrow, default=None)
    return PooledNull(
        n_prompts=len(pairs),
        n=min(len(null.changes) for _, null in pairs),
        p=p,
        match=fmean(matches) if matches else None,
        narrowest=least if least is not None and p < 1 / (1 + least) else None,
    )


def control_sizes(unit: UnitReport, kind: NullKind) -> tuple[float, ...]:
    """The |change| of every control of that kind in the deciding prompts."""
    sizes = (abs(change) for _, null in _with_null(unit, kind) for change in null.changes)
    return tuple(size for size in sizes if math.isfinite(size))


def _with_null(unit: UnitReport, kind: NullKind) -> list[tuple[PromptResult, Null]]:
    return [
        (result, null)
        for result in deciding(unit)
        if (null := result.null(kind)) is not None and null.changes
    ]


def _p_of(result: PromptResult, null: Null) -> float:
    if null.p is not None:
        return null.p
    return p_of(abs(result.change), [abs(change) for change in null.changes])


def short_words(unit: UnitReport, found: Verdict) -> str:
    """The verdict as a caption: `supported, p = 0.005`."""
    p = unit.tested.p if unit.tested else None
    shown = "" if p is None or found.kind in ("inactive", "no controls") else f", p = {p_value(p)}"
    if found.kind == "not distinguishable" and unit.tested and unit.tested.ratio is not None:
        shown += f", {times(unit.tested.ratio)} × their median"
    names: dict[VerdictKind, str] = {
        "norm only": "explained by its size",
        "not distinguishable": "not distinguishable from controls",
        "no effect": "no effect on the target",
        "inactive": "inactive in the deciding prompts",
        "no controls": "no fair controls",
    }
    return names.get(found.kind, found.kind) + shown


# -- the kind --------------------------------------------------------------------------------------


def _kind(unit: UnitReport, *, in_nats: bool) -> VerdictKind:
    results, tested = deciding(unit), unit.tested
    if 2 * sum(result.active > 0 for result in results) < len(results) or not any(
        result.active for result in results
    ):
        return "inactive"
    size = tested.change if tested else fmean(abs(result.change) for result in results)
    if size < (LEAST_NATS if in_nats else LEAST_POINTS):
        return "no effect"
    matched = pooled(unit, "matched")
    if matched is None or tested is None or tested.p is None or tested.ratio is None:
        return "no controls"
    if 2 * matched.n_prompts < len(results):
        return "no controls"
    if _corrected(tested) > SIGNIFICANT or tested.ratio < LEAST_RATIO:
        return "not distinguishable"
    if _is_weak(matched):
        same_norm = [pooled(unit, kind) for kind in _SAME_NORM]
        if any(null is not None and null.p > SIGNIFICANT for null in same_norm):
            return "norm only"
    return "supported"


def _corrected(tested: Tested) -> float:
    """q, or p where nothing was corrected; 1 where there is neither."""
    found = tested.q if tested.q is not None else tested.p
    return 1.0 if found is None else found


def _is_weak(matched: PooledNull) -> bool:
    return matched.match is not None and matched.match < WELL_MATCHED


# -- in words --------------------------------------------------------------------------------------


def _inactive_words(unit: UnitReport) -> str:
    results = deciding(unit)
    off = sum(result.active == 0 for result in results)
    where = "the prompt that decides" if len(results) == 1 else f"the {len(results)} that decide"
    where = where if off == len(results) else f"{off} of {where}"
    subject = counted(len(unit.features), "feature")
    return f"Inactive: none of its {subject} is active at the ablated positions of {where}."


def _change_words(unit: UnitReport, report: ValidationReport, kind: VerdictKind) -> str:
    results, in_nats = deciding(unit), report.contrast is not None
    before = fmean(result.score for result in results)
    change = fmean(result.change for result in results)
    several = len(results) > 1
    opening = _OPENINGS.get(kind, "Needed" if change < 0 else "Holds it back")
    where = f"in {len(results)} {results[0].role} prompts" if several else "here"
    subject = target_said(report.target, report.contrast)
    moves = "falls" if change < 0 else "rises" if change > 0 else "moves"
    told = [score_change(change, in_nats=in_nats)]
    if before > 0:
        share_of = f"{relative(change / before)} of {score(before, in_nats=in_nats)}"
        told[0] += f", {share_of if in_nats else relative_to(change / before, before)}"
    if several:
        tested = unit.tested
        spread = interval(tested.low, tested.high, in_nats=in_nats) if tested else ""
        told += [f"95 % interval of |change| {spread}"] if spread else []
        signs = {result.change > 0 for result in results if result.change}
        told += ["its sign differs between them"] if len(signs) > 1 else []
    else:
        ranks = results[0].rank_before, results[0].rank_after
        told.append(f"rank {ranks[0]} to {ranks[1]}" if len({*ranks}) > 1 else f"rank {ranks[0]}")
    return (
        f"{opening} {where}: without its {counted(len(unit.features), 'feature')} {subject} "
        f"{moves} from {score(before, in_nats=in_nats)} to "
        f"{score(before + change, in_nats=in_nats)}{' on average' if several else ''} "
        f"({'; '.join(told)})."
    )


def _control_words(unit: UnitReport, report: ValidationReport) -> list[str]:
    """What the matched controls say; where they are weak, those of the same norm, too."""
    tested, matched = unit.tested, pooled(unit, "matched")
    if matched is None or tested is None or tested.p is None:
        refusals = [
            null.refused
            for result in deciding(unit)
            if (null := result.null("matched")) and null.refused
        ]
        return [f"No matched controls: {refusals[0]}." if refusals else "No matched controls."]
    only = "only " if _is_weak(matched) else ""
    norms = "" if matched.match is None else f" (removing {only}{norm(matched.match)} of its norm)"
    q = "" if tested.q is None else f", q = {p_value(tested.q)}"
    if matched.n_prompts > 1:
        each = [_p_of(result, null) for result, null in _with_null(unit, "matched")]
        span = " to ".join(dict.fromkeys(p_value(p) for p in (min(each), max(each))))
        words = (
            f"Beside {matched.n} matched control sets{norms} in each of {matched.n_prompts} "
            f"prompts, p is {span}; together {p_value(tested.p)} (twice the mean){q}"
        )
    else:
        n_larger = max(round(tested.p * (1 + matched.n)) - 1, 0)
        verb = "changes" if n_larger == 1 else "change"
        here = "" if len(deciding(unit)) == 1 else " in the one prompt that has them"
        words = (
            f"Of {matched.n} matched control sets{norms}{here} {n_larger} {verb} it as much: "
            f"p = {p_value(tested.p)}{q}"
        )
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
    if _is_weak(matched):
        found = [(name, pooled(unit, kind)) for kind, name in _SAME_NORM.items()]
        told = [f"{name}: p = {p_value(null.p)}" for name, null in found if null]
        text = "; ".join(told) or "no controls of its norm were run"
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    return sentences


def _flow_words(fraction: float, unit: UnitReport) -> str:
    """How much of what the first features do comes along the unit's own features."""
    path = unit.kind == "path"
    where = "along the path" if path else "through its features"
    first = "first feature does" if path else "sources do"
    if fraction < 0:
        told = f"what flows {where} alone would go the other way"
        return f"{told[0].upper()}{told[1:]} ({share(fraction)} of what its {first})."
    against = "; the rest works against it" if round(fraction, 2) > 1 else ""
    return f"{share(fraction)} of what its {first} flows {where}{against}."


def _ratio_words(ratio: float | None) -> str:
    if not ratio:
        return ""
    if ratio >= 1:
        return f", {times(ratio)} times smaller"
    return f", {times(1 / ratio)} times larger than its own"
