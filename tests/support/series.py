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


def three_series(
    seed: int,
    *,
    chain: bool = False,
    spikes: bool = False,
    texts: int = 40,
    tokens: int = 24,
) -> Panel:
    """`x`, `y` and `z`: `z` drives the other two; or, in a `chain`, `y` drives `z` and that `x`.

    Given `z`, neither of `x` and `y` predicts the other.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(texts):
        length = tokens + int(rng.integers(3))
        new = rng.normal(size=(BEFORE + length, 3))
        if spikes:
            new *= 3 * (rng.random(new.shape) < 0.1) * rng.exponential(size=new.shape)
        values = np.zeros_like(new)
        for t in range(1, len(values)):
            x, y, z = values[t - 1]
            values[t, 0] = 0.3 * x + 0.9 * z + 0.3 * new[t, 0]
            if chain:
                values[t, 1] = 0.5 * y + new[t, 1]
                values[t, 2] = 0.3 * z + 0.9 * y + 0.3 * new[t, 2]
            else:
                values[t, 1] = 0.3 * y + 0.9 * z + 0.5 * new[t, 1]
                values[t, 2] = 0.5 * z + new[t, 2]
        found.append(values[BEFORE:] + 3 * rng.normal(size=3))
    return panel_of(found, names=["x", "y", "z"])


def by_topic(
    seed: int, *, texts: int = 40, share: float = 0.2, spikes: bool = False, tokens: int = 24
) -> Panel:
    """`x` and `y` without an arrow, both of which vary in the same few texts: those of a topic."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(texts):
        length, loud = tokens + int(rng.integers(3)), rng.random() < share
        if spikes:
            often = 0.3 if loud else 0.01
            found.append((rng.random((length, 2)) < often) * rng.exponential(size=(length, 2)))
            continue
        values = (1.0 if loud else 0.05) * rng.normal(size=(BEFORE + length, 2))
        for t in range(1, len(values)):
            values[t] += np.array([0.5, 0.4]) * values[t - 1]
        found.append(values[BEFORE:])
    return panel_of(found, names=["x", "y"])


def same_token(seed: int, *, spikes: bool = True) -> Panel:
    """`x` stands in an earlier layer, and acts on `y` at its own token."""
    panel = two_series(seed, spikes=spikes)
    groups = tuple(np.stack([it[0], 0.8 * it[0] + it[1]]) for it in panel.groups)
    return Panel(panel.names, (0, 1), groups)


def long_and_short(seed: int) -> Panel:
    """Against an arrow of 0.6: 40 texts, and 10 of 9 tokens."""
    long = two_series(seed, there=0.6)
    short = two_series(seed + 5000, there=0.6, texts=10, tokens=9)
    return Panel(long.names, long.depths, long.groups + short.groups)


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
