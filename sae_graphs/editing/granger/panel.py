"""`Panel`: series over the tokens of many texts, and the columns that regressions make of them.

Texts are gathered into groups of nearly one length and cut to the shortest of their group: so a
series can change texts, and no lag crosses from one text into another.

Letters: `S` series, `M` texts of a group, `T` tokens, `R` rows of a text (`T` less the largest
lag), `C` columns of a regression.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.editing.granger.settings import Detrend

Array = NDArray[np.float64]
Parts = tuple[Array, ...]  # [M, R, C] of each group
WAVES = 8  # frequencies of the nonlinear test, each a cosine and a sine
REACH = 8  # tokens over which what a series drives is taken to die away
LEFT = 4  # rows of a text that this leaves
_TRENDS: dict[Detrend, int] = {"constant": 1, "linear": 2}


class Together(NamedTuple):
    """Texts of a group: their numbers, and how many tokens of each are kept."""

    texts: tuple[int, ...]
    length: int


@dataclass(frozen=True, eq=False)
class Panel:
    """Series of many texts: `groups` holds `[S, M, T]` each, first tokens left out.

    `depths` orders the series: what has a smaller one may act on another at the same token.
    """

    names: tuple[str, ...]
    depths: tuple[int, ...]
    groups: Parts

    @property
    def n_texts(self) -> int:
        """Texts in all groups."""
        return sum(group.shape[1] for group in self.groups)

    @property
    def n_tokens(self) -> int:
        """Tokens in all texts."""
        return sum(group.shape[1] * group.shape[2] for group in self.groups)

    def n_rows(self, most: int) -> int:
        """Rows of a regression whose largest lag is `most`."""
        return sum(group.shape[1] * (group.shape[2] - most) for group in self.groups)

    def on(self, series: int) -> tuple[int, int]:
        """At how many tokens, and in how many texts, a series is not 0."""
        where = [group[series] != 0 for group in self.groups]
        return sum(int(it.sum()) for it in where), sum(int(it.any(axis=1).sum()) for it in where)

    def centred(self) -> Panel:
        """The same, each text's own mean taken out of each series."""
        groups = tuple(it - it.mean(axis=2, keepdims=True) for it in self.groups)
        return Panel(self.names, self.depths, groups)

    def scale(self, series: int) -> float:
        """The standard deviation of a series over all tokens; 1 where it does not vary."""
        values = np.concatenate([group[series].ravel() for group in self.groups])
        return float(values.std()) or 1.0


def panel_of(
    texts: Sequence[Array],
    *,
    names: Sequence[str],
    depths: Sequence[int] | None = None,
    together: int = 24,
    least: int = 8,
) -> Panel:
    """A panel of texts `[T, S]`, their first tokens left out already; those that are shorter than
    `least` tokens are left out.

    Without `depths`, no series stands before another.
    """
    groups = gathered([len(text) for text in texts], together=together, least=least)
    found = tuple(
        np.stack(
            [np.asarray(texts[number], dtype=np.float64)[: it.length].T for number in it.texts]
        )
        .transpose(1, 0, 2)
        .copy()
        for it in groups
    )
    return Panel(tuple(names), tuple(depths or [0] * len(names)), found)


def gathered(lengths: Sequence[int], *, together: int, least: int) -> list[Together]:
    """Texts of at least `least` tokens, the longest first, in groups of about `together`.

    >>> gathered([9, 3, 8, 12, 9], together=2, least=4)
    [Together(texts=(3, 0), length=9), Together(texts=(4, 2), length=8)]
    """
    kept = sorted((n for n, size in enumerate(lengths) if size >= least), key=lambda n: -lengths[n])
    groups = [kept[start : start + together] for start in range(0, len(kept), together)]
    if len(groups) > 1 and len(groups[-1]) < max(2, together // 2):
        groups[-2:] = [groups[-2] + groups[-1]]
    return [Together(tuple(it), lengths[it[-1]]) for it in groups]


# -- columns ---------------------------------------------------------------------------------------


def lagged(panel: Panel, series: int, lags: Sequence[int], most: int) -> Parts:
    """A series at each of the `lags`, `[M, R, C]` a group; the first `most` tokens have no row."""
    return tuple(at_lags(group[series], lags, most) for group in panel.groups)


def at_lags(values: Array, lags: Sequence[int], most: int) -> Array:
    """Values `[M, T]` at each of the lags: `[M, R, C]`."""
    length = values.shape[1]
    return np.stack([values[:, most - lag : length - lag] for lag in lags], axis=-1)


def waves(parts: Parts, *, scale: float, seed: int) -> Parts:
    """Random Fourier features of columns taken together: `WAVES` cosines and as many sines.

    Least squares on many of them is regression with a Gaussian kernel, here as wide as points
    differ that lie a `scale` apart in every column. Rahimi and Recht, "Random features for
    large-scale kernel machines" (2007).
    """
    count = parts[0].shape[2]
    frequencies = np.random.default_rng(seed).normal(size=(count, WAVES)) / np.sqrt(count)
    angles = [part @ (frequencies / scale) for part in parts]
    return tuple(np.concatenate([np.cos(it), np.sin(it)], axis=-1) for it in angles)


def beside(*those: Parts) -> Parts:
    """Columns of several parts beside each other."""
    return tuple(np.concatenate(each, axis=-1) for each in zip(*those, strict=True))


def trends(panel: Panel, kind: Detrend) -> int:
    """How many parameters each text's own mean, and slope, take in all texts."""
    return panel.n_texts * _TRENDS[kind]


def without_trend(part: Array, kind: Detrend) -> Array:
    """Each text's own mean, and slope over its tokens, taken out of every column `[M, R, C]`.

    Exactly what regressing on these as well would do (Frisch, Waugh and Lovell).
    """
    basis, _ = np.linalg.qr(_basis(part.shape[1], kind))
    return part - np.matmul(basis, np.matmul(basis.T, part))


def freed(part: Array, kind: Detrend) -> Array:
    """`without_trend`, with a correction: a sum over tokens of `without_trend(x) * freed(e)` is 0
    on average where `x` depends on no `e` of its own token or a later one. `[M, R, C]`.

    Without it, taking a text's mean out of all tokens alike would mix the later ones into the
    earlier, and `x` that `e` drives would seem to drive it back (Nickell, "Biases in dynamic models
    with fixed effects", 1981). So much of the products of `x` with `e` of 1 to `REACH` tokens
    before is taken off as leaves of each such product nothing, whatever its size: exact where what
    `e` drives has died away by then.
    """
    return np.matmul(_freeing(part.shape[1], kind), part)


def behind(part: Array) -> Array:
    """Each row less the mean of its text up to it, `[M, R, C]`: nothing of a later one is in it."""
    seen = np.arange(1, part.shape[1] + 1)[:, None]
    return part - np.cumsum(part, axis=1) / seen


@functools.lru_cache(maxsize=256)
def _freeing(rows: int, kind: Detrend) -> Array:
    """The matrix of `freed`: the sums of its first `REACH` diagonals below the main one are 0."""
    basis, _ = np.linalg.qr(_basis(rows, kind))
    without = np.eye(rows) - basis @ basis.T
    reach = range(1, min(REACH, rows - LEFT) + 1)
    shifted = [without @ np.eye(rows, k=-back) @ without for back in reach]
    sums = np.array([[np.trace(it, offset=-back) for it in shifted] for back in reach])
    wanted = [-np.trace(without, offset=-back) for back in reach]
    weights = np.linalg.lstsq(sums, wanted)[0] if shifted else []
    return sum((a * it for a, it in zip(weights, shifted, strict=True)), without)


def _basis(rows: int, kind: Detrend) -> Array:
    found: Array = np.vander(np.linspace(-1, 1, rows), _TRENDS[kind], increasing=True)
    return found
