"""The lag of all pairs, by BIC."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from sae_graphs.editing.granger.algebra import SMALL, inverse_of
from sae_graphs.editing.granger.panel import Array, Panel, at_lags, without_trend
from sae_graphs.editing.granger.settings import Detrend


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
        inverse, _ = inverse_of(moments[np.ix_(past, past)])
        mixed = moments[np.ix_(past, now)]
        left = (moments[np.ix_(now, now)] - mixed.T @ inverse @ mixed) / rows
        whole = np.diag(moments[np.ix_(now, now)]) / rows
        own = np.diag(left)
        size = float(np.linalg.det(left))
        if (own <= SMALL * whole).any() or size <= SMALL * own[0] * own[1]:
            return np.zeros(max_lag)  # one of the two is told whole, or tells all of the other
        found.append(rows * np.log(size) + 4 * lag * np.log(rows))
    return np.array(found)
