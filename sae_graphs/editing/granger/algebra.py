"""One Granger test: least squares by moments, and scores of texts beside swaps of the source.

A target is regressed on its own past (and on what is given): the restricted model. What that leaves
is multiplied by the source's past, which gives each text a *score*: without an arrow, its mean is
0. The statistic is the sum of scores, squared, over the sum of their squares (Wald's form; a score
test with standard errors clustered by text). Features fire by topic, so that a few texts hold most
of a sum; they hold most of the sum of squares, too, and F, which takes all tokens for alike, would
reject far too often. F and the partial R squared are descriptions alone.

How large the statistic gets by chance is told by swaps of the source between texts, and by turning
the signs of whole texts' scores, which keeps loud texts together: the larger p of the two. Kline
and Santos, "A score based approach to wild bootstrap inference" (2012).

Letters: `M` texts of a group, `N` of all groups, `R` rows of a text, `K` swaps, `Z` columns of the
restricted model, `Q` columns of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.editing.granger.panel import Array, Parts, freed, without_trend
from sae_graphs.editing.granger.settings import Detrend
from sae_graphs.significance import p_value

SMALL = 1e-10  # of a column's square: what is less is rounding
RANK = 1e-8  # of a source's column, beside what the restricted model's tell of it
AT_ONCE = 4_000_000  # numbers of scores that are held
Swaps = tuple[NDArray[np.int64], ...]  # [K, M] of each group


class Filtered(NamedTuple):
    """Columns `[M, R, C]` of each group, each text's mean (and slope) taken out: of all tokens
    alike, and without the bias of that."""

    within: Parts
    freed: Parts


class Found(NamedTuple):
    """A test: F and the partial R squared, the statistic of scores, and p-values.

    `weights` are the source's coefficients, one a column, in the full model.
    """

    f: float
    share: float
    wald: float
    p: float
    p_parametric: float
    weights: Array


def swaps_of(sizes: Sequence[int], *, count: int, seed: int) -> Swaps:
    """Which text's source each text gets: `count` random orders within each group, of so many texts
    each."""
    rng = np.random.default_rng(seed)
    return tuple(rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1) for size in sizes)


def filtered(parts: Parts, kind: Detrend) -> Filtered:
    """Columns without means and slopes of texts."""
    return Filtered(
        tuple(without_trend(part, kind) for part in parts),
        tuple(freed(part, kind) for part in parts),
    )


def compared(
    target: Filtered, own: Filtered, source: Filtered, swaps: Swaps, *, trends: int, seed: int
) -> Found | None:
    """Whether a source's columns add to the restricted model of a target.

    `target` has one column, `own` the `Z` of the restricted model, `source` its `Q`. Means and
    slopes took `trends` parameters. F = (gain / Q) / (what is left / degrees of freedom). None
    where there is nothing to test: no degree of freedom, or a side that does not vary.
    """
    y, w = _flat(target.within)[:, 0], _flat(own.within)
    x, sizes = _of_unit_size(_flat(source.within))
    inverse, rank = inverse_of(w.T @ w)
    total = float(y @ y)
    rest = y - w @ (inverse @ (w.T @ y))
    left = float(rest @ rest)
    if left <= SMALL * total or total <= 0:  # it does not vary, or its own past tells all of it
        return None
    beyond = x - w @ (inverse @ (w.T @ x))
    values, vectors = np.linalg.eigh(beyond.T @ beyond)
    known = values > RANK
    count = int(known.sum())
    freedom = len(y) - trends - rank - count
    if not count or freedom < 1:
        return None
    turn = vectors[:, known] / np.sqrt(values[known])  # [Q, count]: to orthonormal columns
    gains = turn.T @ (beyond.T @ rest)
    share = min(float(gains @ gains) / left, 1.0)
    f = share / count / max(1 - share, SMALL) * freedom
    onto = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    new = tuple(part @ (onto[:, None] * turn) for part in source.within)
    wald, p = _tested(_products(target, own, new), swaps, seed)
    return Found(f, share, wald, p, _parametric(f, count, freedom), onto * (turn @ gains))


def _products(target: Filtered, own: Filtered, source: Parts) -> Parts:
    """What the restricted model leaves of each text's target, times each text's source:
    `[M, M, Q]` of each group. On the diagonal stand the scores."""
    w, freed_w, x = _flat(own.within), _flat(own.freed), _flat(source)
    inverse = _mixed_inverse(w.T @ freed_w)  # [Z, Z]
    slopes = inverse @ (w.T @ _flat(target.freed))  # [Z, 1]
    told = inverse.T @ (freed_w.T @ x)  # [Z, Q]: so the error of the slopes is nothing to the sum
    found = []
    for now, past, before, new in zip(target.freed, own.freed, own.within, source, strict=True):
        left = (now - past @ slopes)[..., 0]  # [M, R]
        found.append(np.tensordot(left, new - before @ told, axes=(1, 1)))
    return tuple(found)


def _tested(products: Parts, swaps: Swaps, seed: int) -> tuple[float, float]:
    """The statistic of the scores, and its p."""
    own = np.concatenate([np.einsum("mmq->mq", table) for table in products])  # [N, Q]
    observed = float(wald(own[None])[0])
    count = len(swaps[0])
    step = max(1, AT_ONCE // own.size)
    swapped = [
        wald(
            np.concatenate(
                [
                    table[np.arange(len(table)), order[start : start + step]]
                    for table, order in zip(products, swaps, strict=True)
                ],
                axis=1,
            )
        )
        for start in range(0, count, step)
    ]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (count, len(own)))
    turned = _over(signs @ own, own.T @ own)
    return observed, max(p_value(observed, each) for each in (np.concatenate(swapped), turned))


def wald(scores: Array) -> Array:
    """`S' V^-1 S` of scores `[K, N, Q]`: `S` their sum over texts, `V` the sum of `s s'`: `[K]`.

    >>> wald(np.array([[[1.0], [2.0], [3.0]]]))  # 6 squared, over 1 + 4 + 9
    array([2.57142857])
    """
    return _over(scores.sum(axis=1), np.swapaxes(scores, 1, 2) @ scores)


def _over(sums: Array, squares: Array) -> Array:
    """`S' V^-1 S` of sums `[K, Q]` and squares, `[K, Q, Q]` or `[Q, Q]`; 0 where all are 0."""
    count = sums.shape[1]
    size = np.trace(squares, axis1=-2, axis2=-1)
    floor = SMALL * np.where(size > 0, size, 1.0)
    squares = squares + floor[..., None, None] * np.eye(count)
    found: Array = (np.linalg.solve(squares, sums[..., None])[..., 0] * sums).sum(axis=1)
    return found


def _parametric(f: float, count: int, freedom: int) -> float:
    from scipy.special import fdtrc

    return float(fdtrc(count, freedom, f))


def _flat(parts: Parts) -> Array:
    return np.concatenate(
        [part.reshape(part.shape[0] * part.shape[1], part.shape[2]) for part in parts]
    )


def _of_unit_size(columns: Array) -> tuple[Array, Array]:
    """Columns divided by their norms, those without left as they are; and the norms."""
    sizes = np.linalg.norm(columns, axis=0)
    return columns / np.where(sizes > 0, sizes, 1.0), sizes


def _mixed_inverse(moments: Array) -> Array:
    """The inverse of moments of one set of columns with another, as far as they have one."""
    if not len(moments):
        return moments
    sizes = np.sqrt(np.abs(np.diag(moments)))
    by = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    inverse = np.linalg.pinv(moments * by[:, None] * by, rcond=RANK)
    return np.asarray(inverse * by[:, None] * by, dtype=np.float64)


def inverse_of(moments: Array) -> tuple[Array, int]:
    """The inverse of moments as far as they have one, and their rank."""
    if not len(moments):
        return moments, 0
    sizes = np.sqrt(np.diag(moments))
    by = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    values, vectors = np.linalg.eigh(moments * by[:, None] * by)
    known = values > SMALL
    inverse = (vectors[:, known] / values[known]) @ vectors[:, known].T
    return inverse * by[:, None] * by, int(known.sum())
