"""One Granger test, and the lag: least squares on moments, all swaps of the texts at once.

A target is regressed on its own past (and on what is given), then on the source's past as well.
Swapping the source's series between texts changes only the moments between the two sides: these
are summed from a table of all pairs of texts, so that a thousand swaps cost about as much as one.

What the source has from a target that drives it stays where it is, and only the rest is swapped.
For texts are short, each with a mean of its own: that biases a regression on what the target has
driven (Nickell, "Biases in dynamic models with fixed effects", 1981), and a null without that
would take the bias for an arrow back.

Letters: `M` texts of a group, `R` rows of a text, `K` swaps, `Z` columns of the target's side
beside itself, `Q` columns of the source's side.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_graphs.editing.granger.panel import Array, Panel, Parts, at_lags, beside, without_trend
from sae_graphs.editing.granger.settings import Detrend
from sae_graphs.significance import p_value

SMALL = 1e-10  # of a column's square: what is less is rounding
RANK = 1e-8  # of a source's column, beside what the target's side tells of it
SURE = 1e-6  # of columns that what follows is made of: what is less could blow up
HALVED = 12  # rows of a text, of which each half has enough
FADING = 0.98  # a token: what own lags carry on must lose so much


class Found(NamedTuple):
    """A test: F, the share of what the target's side leaves that the source explains, p-values.

    `weights` are the source's coefficients, one a column, in the full model.
    """

    f: float
    share: float
    p: float
    p_parametric: float
    weights: Array


class Swaps(NamedTuple):
    """Which text's source each text gets, `K` times, after once its own.

    `matrix` is sparse, `[K + 1, sum of M * M]`: a 1 at text `n` with the source of text `m`.
    """

    matrix: Any


def swaps_of(sizes: Sequence[int], *, count: int, seed: int) -> Swaps:
    """`count` random orders of the texts within each group, of so many texts each."""
    from scipy.sparse import csr_array

    rng = np.random.default_rng(seed)
    starts = np.cumsum([0, *(size * size for size in sizes)])
    columns = []
    for size, start in zip(sizes, starts[:-1], strict=True):
        own = np.arange(size)
        orders = np.vstack([own, rng.permuted(np.tile(own, (count, 1)), axis=1)])  # [K + 1, M]
        columns.append(start + own * size + orders)
    indices = np.concatenate(columns, axis=1)  # [K + 1, texts]
    rows = np.arange(0, indices.size + 1, indices.shape[1])
    shape = (count + 1, int(starts[-1]))
    return Swaps(csr_array((np.ones(indices.size), indices.ravel(), rows), shape=shape))


def compared(own: Parts, fixed: Parts, moved: Parts, swaps: Swaps, *, trends: int) -> Found | None:
    """Whether a source's columns add to a target's side, beside all swaps of them.

    `own` `[M, R, 1 + Z]` is the target and what its model has. The source's columns are the sum of
    `fixed`, which stays with its text, and `moved`, which is swapped between texts, `[M, R, Q]`
    each. All are detrended, which took `trends` parameters.
    F = (gain / Q) / (what is left / degrees of freedom). None where there is nothing to test: no
    degree of freedom, or a side that does not vary.
    """
    n_rows = sum(part.shape[0] * part.shape[1] for part in own)
    fixed, moved, sizes = _of_unit_size(fixed, moved)
    kept = _moments(own, own)  # [1 + Z, 1 + Z]
    if not sizes.any() or kept[0, 0] <= 0:
        return None
    inverse, rank = _inverse(kept[1:, 1:])
    onto = inverse @ kept[1:, 0]  # [Z]
    left = float(kept[0, 0] - kept[0, 1:] @ onto)
    if left <= SMALL * kept[0, 0]:  # its own past tells all of it
        return None
    cross, squares = _swapped(own, fixed, moved, swaps)
    sides = cross[:, 1:]  # [K + 1, Z, Q]
    squares = squares - np.swapaxes(sides, 1, 2) @ (inverse @ sides)
    products = cross[:, 0] - np.einsum("z,kzq->kq", onto, sides)  # [K + 1, Q]
    count = int((np.linalg.eigvalsh(squares[0]) > RANK).sum())
    freedom = n_rows - trends - rank - count
    if not count or freedom < 1:
        return None
    solved = np.linalg.solve(squares + SMALL * np.eye(squares.shape[1]), products[..., None])
    gains = np.clip((solved[..., 0] * products).sum(axis=1), 0.0, left)  # [K + 1]
    f = _f(gains, left, count, freedom)
    weights = np.zeros(len(sizes))
    weights[sizes > 0] = solved[0, :, 0] / sizes[sizes > 0]
    return Found(
        float(f[0]),
        float(gains[0] / left),
        p_value(float(f[0]), f[1:]),
        _parametric(float(f[0]), count, freedom),
        weights,
    )


def _swapped(own: Parts, fixed: Parts, moved: Parts, swaps: Swaps) -> tuple[Array, Array]:
    """Moments of the target's side with the source, `[K + 1, 1 + Z, Q]`, and of the source with
    itself, `[K + 1, Q, Q]`, in every swap."""
    width, count = own[0].shape[2], fixed[0].shape[2]
    both = beside(own, fixed)
    table = np.concatenate([_table(*each) for each in zip(both, moved, strict=True)])
    found = (swaps.matrix @ table).reshape(-1, width + count, count)
    cross = found[:, :width] + _moments(own, fixed)
    mixed = found[:, width:]
    squares = _moments(fixed, fixed) + _moments(moved, moved) + mixed + np.swapaxes(mixed, 1, 2)
    return cross, squares


def follows(past: Parts, other: Parts, detrend: Detrend) -> Parts:
    """What of a series follows another one, by least squares: `[M, T]` of each group.

    `past` `[M, R, 1 + P]` is the series and its own lags, `other` `[M, R, C]` the other one's
    columns, both detrended. What they bring is carried on by the series' own lags, as far as these
    fade. Least squares on short texts is biased, too: what halves of the texts show of that is
    taken off (Dhaene and Jochmans, "Split-panel jackknife estimation of fixed-effect models",
    2015).
    """
    from scipy.signal import lfilter

    lags = past[0].shape[2] - 1
    weights = _slopes(past, other)
    if min(part.shape[1] for part in past) >= HALVED:
        both = beside(past, other)
        halves = [
            tuple(without_trend(half, detrend) for half in each)
            for each in zip(*(np.array_split(part, 2, axis=1) for part in both), strict=True)
        ]
        split = [_slopes(*_parted(half, lags + 1)) for half in halves]
        weights = 2 * weights - (split[0] + split[1]) / 2
    carried = weights[:lags] if _fades(weights[:lags]) else np.zeros(lags)
    denominator = np.concatenate([[1.0], -carried])
    found = []
    for part in other:
        brought = np.pad(part @ weights[lags:], ((0, 0), (lags, 0)))  # [M, T]
        found.append(lfilter([1.0], denominator, brought, axis=1))
    return tuple(found)


def _slopes(past: Parts, other: Parts) -> Array:
    """Coefficients of the first column of `past` on its others, and on `other`."""
    side = tuple(part[..., 1:] for part in beside(past, other))
    inverse, _ = _inverse(_moments(side, side), least=SURE)
    return inverse @ _moments(side, tuple(part[..., :1] for part in past))[:, 0]


def _parted(parts: Parts, at: int) -> tuple[Parts, Parts]:
    return tuple(part[..., :at] for part in parts), tuple(part[..., at:] for part in parts)


def _fades(weights: Array) -> bool:
    """Whether what such lags carry on dies away."""
    roots = np.roots(np.concatenate([[1.0], -weights]))
    return not len(roots) or float(np.abs(roots).max()) < FADING


def _f(gains: Array, left: float, count: int, freedom: int) -> Array:
    rest = np.maximum(left - gains, SMALL * left)
    found: Array = (gains / count) / (rest / freedom)
    return found


def _parametric(f: float, count: int, freedom: int) -> float:
    from scipy.special import fdtrc

    return float(fdtrc(count, freedom, f))


def _of_unit_size(fixed: Parts, moved: Parts) -> tuple[Parts, Parts, Array]:
    """Columns whose sum is not 0, divided by the norm of that over all texts, and all norms."""
    sizes = np.sqrt(
        sum(((one + other) ** 2).sum(axis=(0, 1)) for one, other in zip(fixed, moved, strict=True))
    )
    varies = sizes > 0
    one, other = (
        tuple(part[..., varies] / sizes[varies] for part in parts) for parts in (fixed, moved)
    )
    return one, other, np.asarray(sizes)


def _moments(left: Parts, right: Parts) -> Array:
    return sum(  # type: ignore[return-value]
        one.reshape(-1, one.shape[2]).T @ other.reshape(-1, other.shape[2])
        for one, other in zip(left, right, strict=True)
    )


def _table(own: Array, source: Array) -> Array:
    """Moments of every text's side with every text's source: `[M * M, (1 + Z) * Q]`."""
    found = np.tensordot(own, source, axes=(1, 1))  # [M, 1 + Z, M, Q]
    return found.transpose(0, 2, 1, 3).reshape(len(own) ** 2, -1)


def _inverse(moments: Array, *, least: float = SMALL) -> tuple[Array, int]:
    """The inverse of moments as far as they have one, and their rank."""
    if not len(moments):
        return moments, 0
    sizes = np.sqrt(np.diag(moments))
    by = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    values, vectors = np.linalg.eigh(moments * by[:, None] * by)
    known = values > least
    inverse = (vectors[:, known] / values[known]) @ vectors[:, known].T
    return inverse * by[:, None] * by, int(known.sum())


# -- the lag ---------------------------------------------------------------------------------------


def criteria(
    panel: Panel, pairs: Sequence[tuple[int, int]], *, max_lag: int, detrend: Detrend
) -> Array:
    """BIC of both series' vector autoregression at each lag from 1 on, summed over pairs.

    All lags have the same rows: those that the largest has. `n log det S + 4 lag log n`, with `S`
    the covariance `[2, 2]` of what is left, and `n` rows.
    """
    series = sorted(set(itertools.chain.from_iterable(pairs)))
    lags = range(max_lag + 1)
    moments: Array = np.zeros((len(series) * (max_lag + 1),) * 2)
    for group in panel.groups:
        columns = [without_trend(at_lags(group[it], lags, max_lag), detrend) for it in series]
        flat = np.concatenate(columns, axis=-1).reshape(-1, len(moments))
        moments += flat.T @ flat
    at = {it: number * (max_lag + 1) for number, it in enumerate(series)}
    rows = panel.n_rows(max_lag)
    found = np.zeros(max_lag)
    for pair in pairs:
        found += _bic(moments, [at[it] for it in pair], max_lag, rows)
    return found


def _bic(moments: Array, starts: Sequence[int], max_lag: int, rows: int) -> Array:
    found = []
    now = list(starts)
    for lag in range(1, max_lag + 1):
        past = [start + back for start in starts for back in range(1, lag + 1)]
        inverse, _ = _inverse(moments[np.ix_(past, past)])
        mixed = moments[np.ix_(past, now)]
        left = (moments[np.ix_(now, now)] - mixed.T @ inverse @ mixed) / rows
        sign, size = np.linalg.slogdet(left)
        if sign <= 0:  # one of the two does not vary: no lag is better than another
            return np.zeros(max_lag)
        found.append(rows * size + 4 * lag * np.log(rows))
    return np.array(found)
