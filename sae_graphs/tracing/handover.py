"""Where what is known of the subject leaves its last token and enters the read one. Torch-free.

Layers are fractions here: 14.4 lies between the input of block 14 and that of block 15, so that it
is block 14 whose attention moves it. Letters: `N` noise runs or prompts, `L` layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_graphs.significance import resampled

RESAMPLES = 1000
CLAIMED = 0.95  # of the resampled curves must cross
Rows = NDArray[np.float64]  # [N, L]: what restoring the state restores, 0 corrupted, 1 clean


@dataclass(frozen=True)
class Handover:
    """Layers, each with a 95 % bootstrap interval over noise runs or prompts.

    `leaves`: the subject's last token falls below half of its best, for good; `crosses`: the read
    token overtakes it, for good; `enters`: the read token rises above half of its best, for good.
    `starts` and `ends` are where it rises above a quarter and above three quarters of it: the
    transition layers. But for `crosses`, None where a row does not do it inside the model: it is
    above a quarter in the first layer already, say. Intervals stand in the same order, None where
    there are fewer than three rows, or fewer than 95 % of the resampled ones do it.
    """

    leaves: float | None
    crosses: float
    enters: float | None
    starts: float | None
    ends: float | None
    intervals: tuple[tuple[float, float] | None, ...] = (None,) * 5

    @property
    def block(self) -> int:
        """The block in which the read token overtakes the subject's."""
        return int(self.crosses)

    def interval(self, name: str) -> tuple[float, float] | None:
        """That of one of the five layers."""
        return self.intervals[NAMES.index(name)]


NAMES = ("leaves", "crosses", "enters", "starts", "ends")
_CROSSES = NAMES.index("crosses")


def handover_of(subject: Rows, read: Rows, *, seed: int) -> Handover | None:
    """The handover between the mean of the subject's rows and that of the read token's.

    None where the curves do not cross for good, or fewer than 95 % of the bootstrap's do.
    """
    found = layers_of(subject.mean(axis=0)[None], read.mean(axis=0)[None])[0]
    if not np.isfinite(found[_CROSSES]):
        return None
    count = len(subject)
    if count < 3:
        return _handover(found)
    weights = resampled(count, seed, RESAMPLES)
    drawn = layers_of(weights @ subject, weights @ read)  # [B, 5]
    intervals = tuple(map(_interval, drawn.T))
    return None if intervals[_CROSSES] is None else _handover(found, intervals)


def _interval(layers: NDArray[np.float64]) -> tuple[float, float] | None:
    """Of one layer over the resampled rows; None where too few have one."""
    there = np.isfinite(layers)
    if there.mean() < CLAIMED:
        return None
    low, high = np.quantile(layers[there], (0.025, 0.975))
    return float(low), float(high)


def _handover(
    layers: NDArray[np.float64], intervals: tuple[tuple[float, float] | None, ...] = (None,) * 5
) -> Handover:
    leaves, crosses, enters, starts, ends = (
        float(layer) if np.isfinite(layer) else None for layer in layers
    )
    assert crosses is not None
    return Handover(leaves, crosses, enters, starts, ends, intervals)


def layers_of(subject: Rows, read: Rows) -> NDArray[np.float64]:
    """`leaves`, `crosses`, `enters`, `starts` and `ends` of each pair of curves: `[N, 5]`.

    NaN where a curve does not do it: the read token never overtakes, say.
    """
    best = subject.max(axis=1, keepdims=True)
    top = read.max(axis=1, keepdims=True)
    known = (best > 0) & (top > 0)
    columns = [
        last_rise(best / 2 - subject),
        last_rise(read - subject),
        *(last_rise(read - share * top) for share in (0.5, 0.25, 0.75)),
    ]
    return np.where(known, np.stack(columns, axis=1), np.nan)


def last_rise(curves: Rows) -> NDArray[np.float64]:
    """Where each curve rises above 0 for the last time and stays, between layers; `[N]`.

    NaN for one that is at or below 0 at the end, or never was.

    >>> last_rise(np.array([[-1.0, 1.0, -2.0, 2.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
    [2.5, nan]
    """
    count, n_layers = curves.shape
    below = curves <= 0
    last = n_layers - 1 - below[:, ::-1].argmax(axis=1)  # of those at or below 0
    crossing = below.any(axis=1) & (last < n_layers - 1)
    at = np.where(crossing, last, 0)
    rows = np.arange(count)
    under, over = curves[rows, at], curves[rows, np.minimum(at + 1, n_layers - 1)]
    step = np.where(crossing, over - under, 1.0)
    return np.where(crossing, at - under / step, np.nan)
