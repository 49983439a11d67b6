"""`Effects`: measured effects as flat arrays, and the choice of the strongest.

Nothing here knows torch: effects that were saved are read and chosen from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.effects.settings import Per
from sae_graphs.errors import SaeGraphsError

NOWHERE = -1  # the position of an end that is not resolved by position


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of features of the layer at `depth` on those of the next one, one an entry.

    Changed minus clean, in activation units of the target's SAE (of its logit, in nats, where the
    targets are output tokens). Effects that are 0 have no entry. Positions are -1 where the
    measurement does not resolve them.
    """

    depth: int
    sources: NDArray[np.int32]  # [N] feature indices
    source_positions: NDArray[np.int32]  # [N]
    targets: NDArray[np.int32]  # [N] feature indices
    target_positions: NDArray[np.int32]  # [N]
    values: NDArray[np.floating]  # [N]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def arrays(self) -> dict[str, NDArray]:
        """The columns by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "depth"}

    def chosen(self, which: NDArray | slice) -> Effects:
        """Some entries: a mask, indices, or a stretch."""
        return Effects(self.depth, **{name: held[which] for name, held in self.arrays.items()})

    def total(self) -> float:
        """The sum of |effect|."""
        return float(np.abs(self.values).sum(dtype=np.float64))

    @classmethod
    def joined(cls, parts: Sequence[Effects]) -> Effects:
        """The entries of several blocks of one layer pair."""
        columns = {
            name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays
        }
        return cls(parts[0].depth, **columns)


class MeasuredEdge(NamedTuple):
    """One effect that was kept: feature indices at `depth`, `depth + 1`; positions or None."""

    depth: int
    source: int
    source_position: int | None
    target: int
    target_position: int | None
    effect: float


def keep_top(
    blocks: Iterable[Effects], k: int, per: Per
) -> tuple[list[MeasuredEdge], dict[int, float]]:
    """The k largest |effect| of each set of effects, and the total |effect| by depth.

    A set is what `per` says: a layer pair, a source feature, or everything. Ties break by layer,
    source, target, so the result does not depend on the blocks; an effect of 0 is no edge.
    """
    kept: dict[int, Effects] = {}  # by depth
    totals: dict[int, float] = {}
    for block in blocks:
        total = block.total()
        if not np.isfinite(total):
            raise SaeGraphsError(
                "an effect is not finite: the activations overflow; use --dtype float32"
            )
        totals[block.depth] = totals.get(block.depth, 0.0) + total
        held = kept.get(block.depth)
        rivals = block if held is None else Effects.joined([held, block])
        kept[block.depth] = _strongest(rivals, k, by_source=per == "source")
    edges = [edge for depth in sorted(kept) for edge in _edges(kept[depth])]
    edges.sort(key=_edge_order)
    return (edges[:k] if per == "graph" else edges), totals


def _strongest(effects: Effects, k: int, *, by_source: bool) -> Effects:
    """The k strongest of a layer pair, or of each of its sources."""
    sizes = np.abs(effects.values)
    if not by_source and len(sizes) > k:
        effects = effects.chosen(sizes >= np.partition(sizes, -k)[-k])  # with ties
        sizes = np.abs(effects.values)
    ends = (effects.target_positions, effects.targets, effects.source_positions, effects.sources)
    if not by_source:
        return effects.chosen(np.lexsort((*ends, -sizes))[:k])
    order = np.lexsort((*ends[:2], -sizes, *ends[2:]))  # by source; the strongest first in each
    effects = effects.chosen(order)
    new = np.ones(len(effects), dtype=bool)
    new[1:] = (np.diff(effects.sources) != 0) | (np.diff(effects.source_positions) != 0)
    starts = np.flatnonzero(new)
    rank = np.arange(len(effects)) - starts[np.cumsum(new) - 1]
    return effects.chosen(rank < k)


def _edges(effects: Effects) -> list[MeasuredEdge]:
    columns = {name: held.tolist() for name, held in effects.arrays.items()}
    return [
        MeasuredEdge(effects.depth, source, _place(at), target, _place(read), value)
        for source, at, target, read, value in zip(*columns.values(), strict=True)
        if value != 0.0
    ]


def _place(position: int) -> int | None:
    return None if position == NOWHERE else position


def _edge_order(edge: MeasuredEdge) -> tuple[float, int, int, int, int, int]:
    ends = edge.source, edge.source_position or 0, edge.target, edge.target_position or 0
    return -abs(edge.effect), edge.depth, *ends
