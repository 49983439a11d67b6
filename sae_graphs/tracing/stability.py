"""How far crossing layers move with the strength of the noise, by category. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_graphs.tracing.confounds import Estimate, estimate
from sae_graphs.tracing.handover import RESAMPLES
from sae_graphs.tracing.many import FEWEST, TracedCase, Traces, crossings_of

ALL = "all categories"
Layers = NDArray[np.float64]  # [N, 2]: crossing at the trace's own strength, at the other


@dataclass(frozen=True)
class Stability:
    """The prompts of a category that cross at both strengths: `n` of `of`.

    `here` and `there` are their mean crossing layers at the first strength and at the other,
    `moved` the mean of the differences; `rank` the Spearman correlation over prompts. Intervals
    are bootstraps over prompts; None where there are too few prompts.
    """

    strength: str
    category: str
    n: int
    of: int
    here: float | None
    there: float | None
    moved: Estimate | None
    rank: Estimate | None


def strengths(traces: Traces) -> tuple[str, ...]:
    """The other strengths, in order: those asked for, of which some may take nothing anywhere."""
    asked = str(traces.settings.get("strength", "")).split(", ")[1:]
    return tuple(dict.fromkeys([*asked, *(name for it in traces.traced for name in it.others)]))


def stability(traces: Traces) -> Iterator[Stability]:
    """By other strength and category, then of all categories together."""
    for strength in strengths(traces):
        for category in traces.categories:
            yield _of(traces.of(category), strength, category, traces.seed)
        if len(traces.categories) > 1:
            yield _of(traces.traced, strength, ALL, traces.seed)


def _of(cases: tuple[TracedCase, ...], strength: str, category: str, seed: int) -> Stability:
    both = [it for it in cases if strength in it.others]
    here = crossings_of([it.rows["state"] for it in both])
    there = crossings_of([it.others[strength] for it in both])
    known = np.isfinite(here) & np.isfinite(there)
    layers = np.stack([here[known], there[known]], axis=1)
    count = len(layers)
    means = layers.mean(axis=0).tolist() if count else [None, None]
    moved = rank = None
    if count >= FEWEST:
        rng = np.random.default_rng(seed)
        draws = rng.integers(count, size=(RESAMPLES, count))
        change = layers[:, 1] - layers[:, 0]
        moved = estimate(change.mean(), change[draws].mean(axis=1))
        if count > FEWEST:  # one more for a correlation
            rank = _rank(layers, draws)
    return Stability(strength, category, count, len(cases), means[0], means[1], moved, rank)


def _rank(layers: Layers, draws: NDArray[np.int64]) -> Estimate | None:
    value = _correlation(layers[None])[0]
    if not np.isfinite(value):
        return None
    drawn = _correlation(layers[draws])
    return estimate(value, drawn[np.isfinite(drawn)])


def _correlation(layers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's of each of some draws `[B, N, 2]`; NaN where a column is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(layers, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    one, other = ranks[..., 0], ranks[..., 1]
    size = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    found: NDArray[np.float64] = np.where(
        size > 0, (one * other).sum(axis=1) / np.where(size > 0, size, 1), np.nan
    )
    return found
