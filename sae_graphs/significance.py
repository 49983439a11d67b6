"""The statistics of reports: p-values from controls, many tests at once, intervals, fits.

Functions of plain numbers; scipy does what it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.errors import SaeGraphsError

Numbers = Sequence[float] | NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
TIE = 1e-9  # of the larger value, or of 1: what differs by less is rounding, and counts as equal


def p_value(observed: float, controls: Numbers) -> float:
    """`(1 + number of controls at least as large) / (1 + K)`; ties count against the path.

    Phipson and Smyth, "Permutation p-values should never be zero" (2010).

    >>> p_value(3.0, [1.0, 2.0, 3.0])
    0.5
    """
    values = np.asarray(controls, dtype=float)
    if values.size == 0:
        raise SaeGraphsError("no controls; a p-value needs at least 1")
    margin = TIE * np.maximum(np.maximum(np.abs(values), abs(observed)), 1.0)
    with np.errstate(invalid="ignore"):
        smaller = values < observed - margin  # not so where one of them is no number
    return (1 + int((~smaller).sum())) / (1 + values.size)


def combined(p_values: Sequence[float]) -> float | None:
    """One p-value of several prompts: twice their mean, at most 1; that of a single one is its own.

    Valid however the prompts depend on each other; None where there are none. Vovk and Wang,
    "Combining p-values via averaging" (2020).

    >>> combined([0.01, 0.02]), combined([0.2])
    (0.03, 0.2)
    """
    if not p_values:
        return None
    if len(p_values) == 1:
        return p_values[0]
    return min(1.0, 2.0 * math.fsum(p_values) / len(p_values))


def adjusted(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Benjamini-Hochberg q-values of those that are there, each in its place.

    >>> adjusted([0.01, None, 0.04])
    (0.02, None, 0.04)
    """
    from scipy.stats import false_discovery_control

    there = [p for p in p_values if p is not None]
    if not there:
        return tuple(p_values)
    found = iter(false_discovery_control(there).tolist())
    return tuple(None if p is None else next(found) for p in p_values)


def exceeding(
    counts: NDArray[Any], drawn: NDArray[Any], special: NDArray[Any] | int, total: int
) -> NDArray[np.float64]:
    """p of at least so many special ones among those `drawn` at random of `total` (hypergeometric).

    One-sided, Fisher's exact test; arrays of any shapes that go together.

    >>> exceeding(np.array([2]), np.array([2]), 2, 4).round(4).tolist()  # 1 of the 6 pairs
    [0.1667]
    """
    together = np.broadcast_arrays(counts, drawn, special)
    cases = np.stack([each.ravel() for each in together])  # many are alike
    distinct, at = np.unique(cases, axis=1, return_inverse=True)
    k, n, special_ones = distinct.astype(np.float64)
    found = _upper_tails(k, n, special_ones, float(total))
    return found[at.ravel()].reshape(together[0].shape)


def _upper_tails(
    k: NDArray[np.float64], n: NDArray[np.float64], special: NDArray[np.float64], total: float
) -> NDArray[np.float64]:
    """P(X >= k) of hypergeometric X: the terms from `k` upwards, or 1 less those below it.

    Each term is the one before it times a ratio, until they no longer count; scipy's own loops
    over the cases, at 50,000 of which it takes seconds.
    """
    from scipy.special import gammaln

    def log_choose(a: Any, b: Any) -> Any:
        return gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)

    upwards = k > n * special / total
    x = np.where(upwards, k, k - 1)
    other = total - special - n  # of those that are not special, those not drawn: `other + x`
    there = (x >= np.maximum(0, -other)) & (x <= np.minimum(n, special))
    at = np.where(there, x, np.maximum(0, -other))
    logs = log_choose(special, at) + log_choose(total - special, n - at) - log_choose(total, n)
    sums = np.where(there, np.exp(logs), 0.0)
    some = np.flatnonzero(sums)
    term, x = sums[some], x[some]
    while len(some):
        up, m, s, o = upwards[some], n[some], special[some], other[some]
        term = term * np.where(
            up,
            (s - x) * (m - x) / ((x + 1) * np.maximum(o + x + 1, 1)),
            x * (o + x) / ((s - x + 1) * (m - x + 1)),
        )
        sums[some] += term
        kept = term > 1e-17 * sums[some]
        x = (x + np.where(up, 1, -1))[kept]
        some, term = some[kept], term[kept]
    return np.clip(np.where(upwards, sums, 1.0 - sums), 0.0, 1.0)


def mean_interval(
    means: NDArray[np.float64], deviations: NDArray[np.float64], counts: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the 95 % intervals of many means, by Student's t; NaN for fewer than 3 values.

    >>> low, high = mean_interval(np.array([1.0]), np.array([2.0]), np.array([4]))
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([-2.182], [4.182])
    """
    from scipy.stats import t

    sizes = np.where(np.asarray(counts) < 3, np.nan, np.asarray(counts, dtype=np.float64))
    half = t.ppf((1 + LEVEL) / 2, sizes - 1) * deviations / np.sqrt(sizes)
    return means - half, means + half


def spread(values: Numbers, seed: int) -> Spread:
    """The mean and its 95 % percentile bootstrap interval; no interval for fewer than 3 values."""
    numbers = np.asarray(values, dtype=float)
    if numbers.size == 0:
        return Spread(0, None, None, None)
    mean = float(numbers.mean())
    if numbers.size < 3:
        return Spread(numbers.size, mean, None, None)
    if numbers.min() == numbers.max():
        return Spread(numbers.size, mean, mean, mean)
    from scipy.stats import bootstrap

    found = bootstrap(
        (numbers,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Spread(numbers.size, mean, float(found.low), float(found.high))


class Line(NamedTuple):
    """A least-squares line through a response curve, and its largest step.

    `r_squared` is None where the responses do not vary. `largest_jump` is the largest step between
    neighbours over the whole range, 0 where there is none; `jump_at` the coefficient halfway.
    """

    slope: float
    r_squared: float | None
    largest_jump: float
    jump_at: float


def fit_line(coefficients: Sequence[float], responses: Sequence[float]) -> Line:
    """How linear a response curve is; coefficients ascend.

    >>> fit_line([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    Line(slope=2.0, r_squared=1.0, largest_jump=0.5, jump_at=0.5)
    """
    from scipy.stats import linregress

    x, y = np.asarray(coefficients, dtype=float), np.asarray(responses, dtype=float)
    steps, extent = np.abs(np.diff(y)), float(y.max() - y.min())
    at = int(steps.argmax())
    flat = extent <= TIE * max(float(np.abs(y).max()), math.ulp(1.0))
    fitted = linregress(x, y)
    return Line(
        float(fitted.slope),
        None if flat else float(fitted.rvalue) ** 2,
        0.0 if flat else float(steps[at]) / extent,
        float(x[at] + x[at + 1]) / 2,
    )


class Signed(NamedTuple):
    """What `signed_differences` finds: mean, standard error and t of each cell, and the |t| that
    the largest of all cells exceeds by chance alone in a share `level` of cases."""

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    t: NDArray[np.float64]
    critical: float


def resampled(count: int, seed: int, times: int = RESAMPLES) -> NDArray[np.float64]:
    """Weights of `count` values in so many bootstrap samples, `[times, count]`; each sums to 1."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=times) / count


def signed_differences(values: NDArray[np.float64], *, seed: int, level: float = 0.05) -> Signed:
    """Which of many cells differ from 0 over runs, all cells at once: `[R, C]` differences.

    The signs of whole runs are turned, in all ways where there are at most `RESAMPLES`, else in so
    many drawn ones (their own among them): where differences are symmetric about 0, |t| of the
    largest cell exceeds `critical` with probability `level` at most, however cells hang together.
    Nichols and Holmes, "Nonparametric permutation tests for functional neuroimaging" (2002). What
    is 0 in every run has t 0. Nothing exceeds an infinite `critical`: so it is for under 6 runs.

    >>> found = signed_differences(np.array([[1.0, 0.1], [1.2, -0.2]] * 4), seed=0)
    >>> bool(found.t[0] > found.critical), bool(abs(found.t[1]) > found.critical)
    (True, False)
    """
    runs = len(values)
    squares = (values**2).sum(axis=0)

    def t_of(means: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        spread = np.maximum(squares - runs * means**2, 0.0) / max(runs - 1, 1)
        error = np.sqrt(np.maximum(spread, TIE**2 * squares / runs) / runs)
        return np.divide(means, error, out=np.zeros_like(means), where=error > 0), error

    ways = _turned(runs, seed)
    t, error = t_of(ways[0] @ values / runs)  # to the last digit as among the ways
    largest = np.array([np.abs(t_of(way @ values / runs)[0]).max(initial=0.0) for way in ways])
    rank = math.ceil((1 - level) * len(largest)) - 1  # so many of the ways are at or below it
    beyond = len(largest) * level < 1  # not even the whole of what was found is rare enough
    critical = math.inf if beyond else float(np.sort(largest)[rank])
    return Signed(values.mean(axis=0), error, t, critical)


def _turned(runs: int, seed: int) -> NDArray[np.float64]:
    """Signs of the runs, the first way as they are; turning all of them changes no |t|."""
    if 2 ** (runs - 1) <= RESAMPLES:
        bits = np.arange(2 ** (runs - 1))[:, None] >> np.arange(runs) & 1
        return (1 - 2 * bits).astype(np.float64)
    drawn: NDArray[np.float64]
    drawn = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), (RESAMPLES, runs))
    drawn[0] = 1.0
    return drawn


def rank_correlation(left: Numbers, right: Numbers, *, fewest: int = 3) -> float | None:
    """Spearman's, equal values sharing their mean rank; None where it is undefined: for fewer than
    `fewest` pairs, or where one side does not vary.

    >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 15.0])
    0.5
    """
    if len(left) < fewest or any(np.min(side) == np.max(side) for side in (left, right)):
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic)


def unit_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks along the last axis, centred, of length 1; all 0 where the values do not vary.

    The dot product of two is Spearman's correlation: many correlations are one matrix product.

    >>> one, other = unit_ranks(np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 15.0]]))
    >>> round(float(one @ other), 9)
    0.5
    """
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2
    length = np.linalg.norm(ranks, axis=-1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


@dataclass(frozen=True)
class Spread:
    """A mean over snippets with its 95 % bootstrap interval; None where there are none."""

    n: int
    mean: float | None
    low: float | None
    high: float | None
