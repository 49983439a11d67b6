"""Where an effect came through, and what wrote a feature: parts of the model, and their shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from sae_graphs.errors import SaeGraphsError

Part = Literal["embedding", "attention", "mlp"]


@dataclass(frozen=True)
class BlockShare:
    """What one part of the model contributes to a feature.

    `block` is None for the embedding; `share` is a fraction, 1 being all of it (see `Node`).
    """

    part: Part
    block: int | None
    share: float

    def __post_init__(self) -> None:
        fits = is_count(self.block) if self.part != "embedding" else self.block is None
        if self.part not in ("embedding", "attention", "mlp") or not fits:
            raise SaeGraphsError(f"not a part of the model: {self.part!r} of block {self.block!r}")
        if not math.isfinite(self.share):
            raise SaeGraphsError(f"the share of {self.part} {self.block} is not finite")


def is_count(value: Any) -> bool:
    """Whether it is a number that counts: whole, and not below 0."""
    return type(value) is int and value >= 0


@dataclass(frozen=True)
class BlockAnatomy:
    """What came through one block: the parts of `Anatomy`, and attention's by head if asked."""

    block: int
    attention: float
    mlp: float
    heads: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not is_count(self.block):
            raise SaeGraphsError(f"not a block: {self.block!r}; blocks are counted from 0")


@dataclass(frozen=True)
class Anatomy:
    """How an edge's effect reached its target: changes of the target's pre-activation.

    Ablated minus clean, in the pre-activation's units; `skip` came through the skip connection,
    the rest through the attention and the MLP of each block in between. They add up.
    """

    skip: float
    blocks: tuple[BlockAnatomy, ...]

    def __post_init__(self) -> None:
        values = [self.skip]
        for block in self.blocks:
            values += [block.attention, block.mlp, *block.heads]
        numbers = [block.block for block in self.blocks]
        if not all(math.isfinite(value) for value in values) or numbers != sorted(set(numbers)):
            raise SaeGraphsError(f"not the anatomy of an edge: blocks {numbers}, parts {values}")

    @property
    def attention(self) -> float:
        """Through attention, all blocks together."""
        return math.fsum(block.attention for block in self.blocks)

    @property
    def mlp(self) -> float:
        """Through the MLPs, all blocks together."""
        return math.fsum(block.mlp for block in self.blocks)

    @property
    def preactivation_effect(self) -> float:
        """The whole change of the target's pre-activation."""
        return self.skip + self.attention + self.mlp
