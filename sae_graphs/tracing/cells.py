"""Which copies of the corrupted run a trace needs, and where each of them leaves it. Torch-free.

A cell restores something at a token `t` and a layer `l`. Its copy is the corrupted run below the
block at whose input it first differs, its *birth*; cells that differ nowhere that the answer could
notice are the corrupted run, and have no copy.

- `state`: the input of block `l` is the clean run's. Birth `l`. At layer 0, where only corrupted
  rows differ from the clean run's, others have no copy.
- `mlp`, `attention`: what these write in the blocks of the window around `l`. In the window's first
  block they are put in what that block writes: birth at the next one, and held until the window
  ends. A window that begins in the last block is noticed at the read token alone.
- severed: a state whose MLP, or attention, is held as corrupted in every block from `l` on.

Nothing after the read token, or before the first corrupted one, has a copy.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from sae_graphs.tracing.settings import SweepName

Part = Literal["attention", "mlp"]
PARTS: tuple[Part, ...] = ("attention", "mlp")


@dataclass(frozen=True)
class Copy:
    """One cell's copy: from the input of block `birth` on it is not the corrupted run.

    Before its birth it took over the clean `part` of block `birth - 1`, or the clean state where
    that is None. In the blocks of `held`, `holds` is kept: clean, or corrupted where `severed`.
    """

    sweep: SweepName
    layer: int
    birth: int
    part: Part | None = None
    holds: Part | None = None
    held: range = range(0)
    severed: bool = False

    @property
    def parts(self) -> set[Part]:
        """The parts of blocks that it asks for."""
        return {part for part in (self.part, self.holds) if part}


@dataclass(frozen=True)
class Group:
    """The copies of all cells at one token, by birth."""

    token: int
    copies: tuple[Copy, ...]

    def born_by(self, block: int) -> int:
        """How many of them differ at the input of a block."""
        return sum(copy.birth <= block for copy in self.copies)


def window(layer: int, size: int, n_blocks: int) -> range:
    """The blocks that are restored together around a layer, cut at the model's ends.

    >>> window(5, 10, 48), window(5, 3, 6), window(0, 1, 6)
    (range(0, 10), range(4, 6), range(0, 1))
    """
    return range(max(0, layer - size // 2), min(n_blocks, layer + (size + 1) // 2))


def groups(
    sweeps: Sequence[SweepName],
    changed: Sequence[bool],
    read: int,
    n_blocks: int,
    window_size: int,
    tokens: Container[int] | None = None,
) -> tuple[Group, ...]:
    """The copies of a trace by token; `changed` tells which tokens' embeddings are corrupted.

    Given `tokens`, those of these alone.
    """
    if True not in changed[: read + 1]:
        return ()
    found = []
    for token in range(list(changed).index(True), read + 1):
        if tokens is not None and token not in tokens:
            continue
        copies = [
            copy
            for name in sweeps
            for layer in range(n_blocks)
            for copy in _copy(name, layer, n_blocks, window_size)
            if (copy.birth or changed[token]) and (copy.birth < n_blocks or token == read)
        ]
        if copies:
            found.append(Group(token, tuple(sorted(copies, key=lambda copy: copy.birth))))
    return tuple(found)


def _copy(name: SweepName, layer: int, n_blocks: int, size: int) -> list[Copy]:
    match name:
        case "state":
            return [Copy(name, layer, layer)]
        case "mlp" | "attention":
            part: Part = name
            blocks = window(layer, size, n_blocks)
            first = blocks.start
            return [Copy(name, layer, first + 1, part, part, blocks[1:])]
        case "state-mlp-severed" | "state-attention-severed":
            held: Part = "mlp" if name == "state-mlp-severed" else "attention"
            blocks = range(layer, n_blocks)
            return [Copy(name, layer, layer, None, held, blocks, severed=True)]
