"""`Activations`: what the features of one SAE layer do on a prompt, kept as the few that fire.

Letters: `T` tokens, `F` features of the SAE, `S` features of a selection, `N` entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Activations:
    """The non-zero entries of `[T, F]`, ordered by position, then feature."""

    positions: Tensor  # [N]
    features: Tensor  # [N]
    values: Tensor  # [N]
    shape: tuple[int, int]  # T, F

    @classmethod
    def of_dense(cls, dense: Tensor) -> Activations:
        """From all activations, `[T, F]`."""
        positions, features = dense.nonzero(as_tuple=True)
        n_tokens, width = dense.shape
        return cls(positions, features, dense[positions, features], (n_tokens, width))

    @classmethod
    def joined(cls, parts: Sequence[Activations]) -> Activations:
        """Activations at the positions of one part after the other."""
        starts = [0, *accumulate(part.shape[0] for part in parts)]
        return cls(
            torch.cat([p.positions + start for p, start in zip(parts, starts, strict=False)]),
            torch.cat([part.features for part in parts]),
            torch.cat([part.values for part in parts]),
            (starts[-1], parts[0].shape[1]),
        )

    def of(self, features: Tensor) -> Tensor:
        """The activations `[T, S]` of some features, each given once."""
        n_tokens, width = self.shape
        column = torch.full((width,), -1, dtype=torch.int64, device=self.values.device)
        column[features] = torch.arange(len(features), device=self.values.device)
        columns = column[self.features]
        wanted = columns >= 0
        found = self.values.new_zeros(n_tokens, len(features))
        found[self.positions[wanted], columns[wanted]] = self.values[wanted]
        return found

    def rows(self, positions: Tensor) -> Tensor:
        """The activations `[P, F]` at some positions, each given once."""
        n_tokens, width = self.shape
        row = torch.full((n_tokens,), -1, dtype=torch.int64, device=self.values.device)
        row[positions] = torch.arange(len(positions), device=self.values.device)
        rows = row[self.positions]
        wanted = rows >= 0
        found = self.values.new_zeros(len(positions), width)
        found[rows[wanted], self.features[wanted]] = self.values[wanted]
        return found

    def dense(self) -> Tensor:
        """All of them, `[T, F]`."""
        return self.rows(torch.arange(self.shape[0], device=self.values.device))

    def active(self, positions: Tensor) -> Tensor:
        """The features `[S]` that are active at any of the positions, given as a mask `[T]`."""
        return self.features[positions[self.positions]].unique()

    def sum_from(self, position: int) -> Tensor:
        """The sum `[F]` over all positions from `position` on."""
        counted = self.positions >= position
        total = self.values.new_zeros(self.shape[1])
        return total.index_add_(0, self.features[counted], self.values[counted])
