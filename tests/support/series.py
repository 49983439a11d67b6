"""Series with known arrows: autoregressions over many short texts, seeded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sae_graphs.editing.granger.panel import Array, Panel, panel_of

BEFORE = 20  # tokens that are run before a text begins
Arrow = Callable[[Array], Array]


def straight(values: Array) -> Array:
    return values


def bent(values: Array) -> Array:
    """What no line tells of symmetric values: their square, about its mean."""
    return values**2 - 1.3


def two_series(
    seed: int,
    *,
    there: float = 0.0,
    back: float = 0.0,
    texts: int = 40,
    tokens: int = 24,
    arrow: Arrow = straight,
    spikes: bool = False,
) -> Panel:
    """`x` and `y`, each with a past; `x` drives `y` by `there`, `y` drives `x` by `back`.

    Texts differ in length by a few tokens and in their means. With `spikes` what is new is 0 at
    nine of ten tokens, and large at the others, as features are.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(texts):
        length = tokens + int(rng.integers(3))
        new = rng.normal(size=(BEFORE + length, 2))
        if spikes:
            new *= 3 * (rng.random(new.shape) < 0.1) * rng.exponential(size=new.shape)
        values = np.zeros_like(new)
        for t in range(1, len(values)):
            x, y = values[t - 1]
            values[t, 0] = 0.5 * x + back * y + new[t, 0]
            values[t, 1] = 0.4 * y + there * arrow(x) + new[t, 1]
        found.append(values[BEFORE:] + 3 * rng.normal(size=2))
    return panel_of(found, names=["x", "y"])


def one_long(seed: int, *, tokens: int = 400) -> NDArray[np.float64]:
    """Three series `[T, 3]` in one text: the first drives the second two tokens later, and the
    second the third."""
    rng = np.random.default_rng(seed)
    new = rng.normal(size=(tokens, 3))
    values = np.zeros_like(new)
    for t in range(2, tokens):
        x, y, z = values[t - 1]
        values[t, 0] = 0.5 * x + new[t, 0]
        values[t, 1] = 0.3 * y + 0.4 * values[t - 2, 0] + new[t, 1]
        values[t, 2] = 0.2 * z + 0.3 * y + new[t, 2]
    return values
