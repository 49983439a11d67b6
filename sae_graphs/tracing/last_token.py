"""What the token that is read looks at in the clean run, and how its state moves. Torch-free.

Letters: `N` prompts, `L` layers, `H` heads, `P` stretches of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sae_graphs.words import listed

ByHead = tuple[tuple[float, ...], ...]  # [L][H]
Looked = Literal["first", "corrupted", "own", "entropy"]
Moved = Literal["norm", "cosine", "velocity"]
LOOKED: dict[Looked, str] = {
    "first": "to the first token",
    "corrupted": "to the corrupted token",
    "own": "to itself",
    "entropy": "entropy of its attention",
}
MOVED: dict[Moved, str] = {
    "norm": "norm of its state",
    "cosine": "cosine to the state before",
    "velocity": "norm of the change",
}
DIFFUSE = 0.5  # of the most that the entropy could be: from there on a layer counts as diffuse


@dataclass(frozen=True)
class LastToken:
    """One prompt's read token, undisturbed.

    `first`, `corrupted` and `own` are the shares of each head's attention that go to the prompt's
    first token, to the corrupted one and to the read token itself; `entropy` is that of the
    head's attention, as a share of the most it could be, the logarithm of the tokens it sees.
    Of the state before each block and after the last: its `norm` `[L + 1]`, the `cosine` between
    it and the one before `[L]`, and the `velocity` `[L]`, the norm of what the block changes.
    """

    first: ByHead
    corrupted: ByHead
    own: ByHead
    entropy: ByHead
    norm: tuple[float, ...]
    cosine: tuple[float, ...]
    velocity: tuple[float, ...]


@dataclass(frozen=True)
class FirstToken:
    """Attention to the first token of a long text, by stretch of its positions and by layer.

    `shares` `[P][L]` are means over heads and over the positions from `starts` on, up to the next
    start; the last stretch ends with the text, of `tokens` tokens.
    """

    tokens: int
    starts: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]

    @property
    def stretches(self) -> tuple[str, ...]:
        """The positions of each, in words."""
        ends = [*(start - 1 for start in self.starts[1:]), self.tokens - 1]
        return tuple(
            f"{start}" if start == end else f"{start} to {end}"
            for start, end in zip(self.starts, ends, strict=True)
        )


def starts_of(tokens: int) -> tuple[int, ...]:
    """Where stretches begin that grow by doubling, the first token left out.

    >>> starts_of(20), starts_of(1)
    ((1, 2, 4, 8, 16), ())
    """
    return tuple(2**power for power in range(max(0, tokens - 1).bit_length()))


def by_head(tokens: Sequence[LastToken], name: Looked) -> NDArray[np.float64]:
    """The mean over prompts, `[L, H]`."""
    mean: NDArray[np.float64] = np.mean([getattr(it, name) for it in tokens], axis=0)
    return mean


def by_layer(tokens: Sequence[LastToken], name: Looked | Moved) -> NDArray[np.float64]:
    """Each prompt's curve, heads averaged: `[N, L]`, or `[N, L + 1]` of norms."""
    values = np.array([getattr(it, name) for it in tokens])
    curves: NDArray[np.float64] = values.mean(axis=2) if values.ndim == 3 else values
    return curves


def diffuse_layers(entropy: NDArray[np.float64]) -> str:
    """The layers of a mean curve `[L]` that count as diffuse, in words; empty where none does.

    >>> diffuse_layers(np.array([0.9, 0.8, 0.1, 0.6]))
    '0 to 1 and 3'
    """
    at = np.flatnonzero(entropy >= DIFFUSE)
    if not len(at):
        return ""
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    return listed([f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs])
