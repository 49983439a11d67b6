"""All paths judged together: one p-value each over the deciding prompts, corrected for many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np

from sae_graphs.significance import adjusted, combined, spread
from sae_graphs.significance import p_value as p_of
from sae_graphs.validation.evidence import Null, NullKind, PromptResult, Tested, UnitReport

SIGNIFICANT = 0.05  # the largest q of a supported claim, and p beside controls of the same norm
LEAST_RATIO = 2.0  # a supported change is at least this many times the controls' median
LEAST_NATS = 0.1  # a smaller |change| of log-odds or a difference of logits is no effect
LEAST_POINTS = 0.01  # the same for a probability, 0 to 1, in reports of before
WELL_MATCHED = 0.8  # controls that remove less of the path's norm are told to be weak
# Of an outcome: yes, no, not to be said.
SIGNS: dict[bool | None, str] = {True: "✓", False: "✗", None: "?"}
NULL_NAMES: dict[NullKind, str] = {
    "matched": "matched controls",
    "scaled": "controls scaled to its norm",
    "directions": "random directions of its norm",
    "shuffles": "other features of the graph",
}
CONTRIBUTION = "what is lost with it: the clean score minus the ablated one; positive helps"
CONTROLS_TOLD = (
    "A matched control: as many other active features of the same layers and tokens, ablated in "
    "the same way. A null of equal norm: a change there of the unit's size, made of such features "
    "scaled to it, or in random directions. Where these do as much, the unit is nothing special."
)
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
    "no effect": f"the score changes by less than {LEAST_NATS} nats",
    "inactive": "none of its features is active at the ablated positions of most of these prompts",
    "no controls": "in most of these prompts no control could differ from it, so nothing can be "
    "said",
}
SAME_NORM: tuple[NullKind, ...] = ("scaled", "directions")
EQUAL_NORM = "the larger p of the nulls of exactly its norm, of those that were run"


def judged(units: Sequence[UnitReport], seed: int) -> tuple[UnitReport, ...]:
    """The units with what was found over the prompts that decide, and q-values over all units.

    Test prompts decide where there are any, else the prompt of the graph. Controls differ from
    prompt to prompt, so each prompt has a p-value of its own, and they are combined.
    """
    found = [_tested(unit, seed) for unit in units]
    q_values = adjusted([tested.p for tested in found])
    return tuple(
        replace(unit, tested=replace(tested, q=q))
        for unit, tested, q in zip(units, found, q_values, strict=True)
    )


def _tested(unit: UnitReport, seed: int) -> Tested:
    tests = [result for result in unit.results if result.role == "test"]
    deciding = tests or list(unit.results)
    sizes = [abs(result.change) for result in deciding]
    mean = spread(sizes, seed)
    controlled = [result for result in deciding if _p(result) is not None]
    own = [abs(result.change) for result in controlled]
    medians = [result.null("matched").median_change for result in controlled]  # type: ignore[union-attr]
    median = float(np.mean(medians)) if controlled else None  # type: ignore[arg-type]
    return Tested(
        role=deciding[0].role,
        n_prompts=len(deciding),
        change=float(np.mean(sizes)),
        signed=float(np.mean([result.change for result in deciding])),
        low=mean.low,
        high=mean.high,
        p=combined([p for result in controlled if (p := _p(result)) is not None]),
        q=None,
        control_median=median,
        ratio=float(np.mean(own)) / median if median else None,
        n_controlled=len(controlled),
    )


def _p(result: PromptResult) -> float | None:
    null = result.null("matched")
    return None if null is None else null.p


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


def largest(p_values: Iterable[float | None]) -> float | None:
    """The largest p that was found; None where none was."""
    return max((p for p in p_values if p is not None), default=None)


def corrected(tested: Tested) -> float:
    """q, or p where nothing was corrected; 1 where there is neither."""
    found = tested.q if tested.q is not None else tested.p
    return 1.0 if found is None else found


def is_weak(matched: PooledNull) -> bool:
    """True where the controls remove much less than the unit does."""
    return matched.match is not None and matched.match < WELL_MATCHED
