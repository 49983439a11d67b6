"""Do categories differ in where they hand over, once distance and confidence are taken out?

Least squares of each prompt's crossing layer on its category, on the distance of the corrupted
token from the read one, and on the clean log-odds of the answer. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.tracing.handover import RESAMPLES
from sae_graphs.tracing.many import FEWEST, Traces, crossings

COVARIATES = ("distance, tokens", "clean confidence, nats of log-odds")
Numbers = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval over prompts, drawn within each category."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Adjusted:
    """One category: its mean crossing layer, as it is and at all prompts' mean covariates."""

    category: str
    n: int
    plain: Estimate
    adjusted: Estimate
    distance: float
    confidence: float


@dataclass(frozen=True)
class Confounds:
    """What is left of the categories' differences.

    `p_plain` and `p_adjusted` are F tests of the categories, without the covariates and with them;
    `slopes` layers for a token more, and for a nat more; `explained` the share of variance that the
    covariates alone explain, `explained_all` with the categories. `left_out` prompts never cross.
    """

    categories: tuple[Adjusted, ...]
    slopes: tuple[Estimate, ...]
    p_plain: float | None
    p_adjusted: float | None
    explained: float
    explained_all: float
    left_out: int


def confounds(traces: Traces) -> Confounds | None:
    """None where fewer than two categories have three prompts that cross."""
    layer = crossings(traces)
    known = np.isfinite(layer)
    names = np.array([it.case.category for it in traces.traced])
    kept = [name for name in traces.categories if int((known & (names == name)).sum()) >= FEWEST]
    used = known & np.isin(names, kept)
    if len(kept) < 2:
        return None
    y, who = layer[used], names[used]
    cases = [it for it, is_used in zip(traces.traced, used, strict=True) if is_used]
    covariates = np.array([[it.distance, it.clean_log_odds] for it in cases], dtype=float)
    mine = np.array([[name == each for name in kept] for each in who], dtype=float)  # [N, C]
    drawn = _bootstrap(y, mine, covariates, traces.seed)
    value = _fitted(y, mine, covariates)
    size = len(kept)
    rows = []
    for place, name in enumerate(kept):
        inside = who == name
        rows.append(
            Adjusted(
                name,
                int(inside.sum()),
                estimate(value[place], drawn[:, place]),
                estimate(value[size + place], drawn[:, size + place]),
                *(float(it) for it in covariates[inside].mean(axis=0)),
            )
        )
    slopes = tuple(
        estimate(value[at], drawn[:, at]) for at in range(2 * size, 2 * size + len(COVARIATES))
    )
    one = np.ones((len(y), 1))
    centred = covariates - covariates.mean(axis=0)
    alone, both = np.hstack([one, centred]), np.hstack([mine, centred])
    return Confounds(
        tuple(rows),
        slopes,
        _f_test(y, one, mine),
        _f_test(y, alone, both),
        _explained(y, alone),
        _explained(y, both),
        len(traces.traced) - int(used.sum()),
    )


def _fitted(y: Numbers, mine: Numbers, covariates: Numbers) -> Numbers:
    """Plain means, adjusted means, slopes: `[2 C + 2]`."""
    means = mine.T @ y / mine.sum(axis=0)
    centred = covariates - covariates.mean(axis=0)
    found = np.linalg.lstsq(np.hstack([mine, centred]), y, rcond=None)[0]
    return np.concatenate([means, found])


def _bootstrap(y: Numbers, mine: Numbers, covariates: Numbers, seed: int) -> Numbers:
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(column) for column in mine.T]
    drawn = []
    for _ in range(RESAMPLES):
        at = np.concatenate([rng.choice(group, len(group)) for group in groups])
        drawn.append(_fitted(y[at], mine[at], covariates[at]))
    return np.array(drawn)


def estimate(value: float, drawn: Numbers) -> Estimate:
    """A number beside its bootstrap draws."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))


def _residual(y: Numbers, design: Numbers) -> float:
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum())


def _explained(y: Numbers, design: Numbers) -> float:
    whole = float(((y - y.mean()) ** 2).sum())
    return 1 - _residual(y, design) / whole if whole else 0.0


def _f_test(y: Numbers, small: Numbers, large: Numbers) -> float | None:
    """p of the larger of two nested designs; None where nothing is left to test against."""
    from scipy.stats import f

    ranks = [int(np.linalg.matrix_rank(design)) for design in (small, large)]
    more, left = ranks[1] - ranks[0], len(y) - ranks[1]
    without, within = _residual(y, small), _residual(y, large)
    if more < 1 or left < 1 or within <= 0:
        return None
    return float(f.sf((without - within) / more / (within / left), more, left))
