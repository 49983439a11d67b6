"""The six kinds of verdict: what decides between them, and the numbers they rest on.

A claim is supported only where three things hold: the change is large enough to matter, it is
rarer among matched controls than chance explains (after correcting for the number of paths), and
no other change of the same norm does as much.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import Literal, NamedTuple

from sae_graphs.evidence import Null, NullKind, PromptResult, Tested, UnitReport
from sae_graphs.significance import combined
from sae_graphs.significance import p_value as p_of

SIGNIFICANT = 0.05  # the largest q of a supported claim, and p beside controls of the same norm
LEAST_RATIO = 2.0  # a supported change is at least this many times the controls' median
LEAST_POINTS = 0.01  # a smaller |change| of a probability (0 to 1) is no effect: one point
LEAST_NATS = 0.1  # the same for a difference of logits
WELL_MATCHED = 0.8  # controls that remove less of the path's norm are told to be weak

VerdictKind = Literal[
    "supported", "norm only", "not distinguishable", "no effect", "inactive", "no controls"
]
MEANINGS: dict[VerdictKind, str] = {
    "supported": (
        f"its features matter: q ≤ {SIGNIFICANT} after correcting for all units tested, the change "
        f"is at least {LEAST_RATIO:.0f} times the matched controls' median, and other changes of "
        f"its norm rarely do as much (p ≤ {SIGNIFICANT} of each kind)"
    ),
    "norm only": (
        "beats its matched controls, but not other changes of its norm: the size of what it "
        "removes may explain the change"
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
SAME_NORM: tuple[NullKind, ...] = ("scaled", "directions")


class PooledNull(NamedTuple):
    """One kind of null over the deciding prompts that have it: how many these are, the controls in
    each, the norm they remove (a mean over prompts), p (combined), and whether one layer allows so
    few sets that it alone could not earn that p: then their number."""

    n_prompts: int
    n: int
    p: float
    match: float | None
    narrowest: int | None


def deciding(unit: UnitReport) -> tuple[PromptResult, ...]:
    """The results in the prompts that decide: the test prompts where there are any."""
    roles = {result.role for result in unit.results}
    role = unit.tested.role if unit.tested else "test" if "test" in roles else "discovery"
    return tuple(result for result in unit.results if result.role == role)


def pooled(unit: UnitReport, kind: NullKind) -> PooledNull | None:
    """A null over the deciding prompts; None where none was drawn in any of them."""
    pairs = with_null(unit, kind)
    p = combined([p_in(result, null) for result, null in pairs])
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
    sizes = (abs(change) for _, null in with_null(unit, kind) for change in null.changes)
    return tuple(size for size in sizes if math.isfinite(size))


def with_null(unit: UnitReport, kind: NullKind) -> list[tuple[PromptResult, Null]]:
    """The deciding prompts where controls of that kind were drawn, and these."""
    return [
        (result, null)
        for result in deciding(unit)
        if (null := result.null(kind)) is not None and null.changes
    ]


def p_in(result: PromptResult, null: Null) -> float:
    """The p-value of one null in one prompt."""
    if null.p is not None:
        return null.p
    return p_of(abs(result.change), [abs(change) for change in null.changes])


def kind_of(unit: UnitReport, *, in_nats: bool) -> VerdictKind:
    """The kind of verdict that the numbers allow."""
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
    if corrected(tested) > SIGNIFICANT or tested.ratio < LEAST_RATIO:
        return "not distinguishable"
    same_norm = [pooled(unit, kind) for kind in SAME_NORM]
    if any(null is not None and null.p > SIGNIFICANT for null in same_norm):
        return "norm only"
    return "supported"


def corrected(tested: Tested) -> float:
    """q, or p where nothing was corrected; 1 where there is neither."""
    found = tested.q if tested.q is not None else tested.p
    return 1.0 if found is None else found


def is_weak(matched: PooledNull) -> bool:
    """True where the controls remove much less than the unit does."""
    return matched.match is not None and matched.match < WELL_MATCHED
