"""`LayerStore`: the best contexts so far of one SAE's features, and their sums.

Letters: `B` rows, `T` tokens of a row, `F` features, `K` contexts per feature, `W` tokens per
context, `S` features that have something new.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.contexts import AFTER, BEFORE, KEPT
from sae_graphs.features.reference import Tally

MOST = torch.finfo(torch.float16).max  # that can be stored; what is larger counts as this


@dataclass
class LayerStore:
    """The best contexts so far of one layer. Rows are ordered by peak: the largest |activation|."""

    peaks: Tensor  # [K, F], magnitudes, 0 where there is none yet
    tokens: Tensor  # [K, F, W], -1 where there is no token
    activations: Tensor  # [K, F, W]
    times_active: Tensor  # [F]
    sums: Tensor  # [F], of activations over all tokens, float64

    @classmethod
    def empty(cls, n_features: int) -> LayerStore:
        width = BEFORE + 1 + AFTER
        return cls(
            torch.zeros(KEPT, n_features),
            torch.full((KEPT, n_features, width), -1, dtype=torch.int32),
            torch.zeros(KEPT, n_features, width, dtype=torch.float16),
            torch.zeros(n_features, dtype=torch.int64),
            torch.zeros(n_features, dtype=torch.float64),
        )

    @staticmethod
    def size(n_features: int) -> int:
        """The bytes that the store of so many features takes."""
        return n_features * (KEPT * (4 + (BEFORE + 1 + AFTER) * 6) + 8 + 8)

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name; `LayerStore(**tensors)` makes it again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def tally(self) -> Tally:
        """What is counted of every token; what is added to it is added here."""
        return Tally(self.sums, self.times_active)

    def max_activation(self) -> Tensor:
        """Each feature's activation of largest magnitude, with its sign `[F]`."""
        return self.peaks[0].copysign(self.activations[0, :, BEFORE].float())

    def add(self, tokens: Tensor, activations: Tensor) -> None:
        """Take the batch's `tokens` `[B, T]`, `activations` `[B, T, F]` in: one place a text.

        Raises `SaeGraphsError` where an activation is not finite.
        """
        peaks, positions = activations.abs().max(1)  # [B, F]
        if not peaks.isfinite().all():
            raise SaeGraphsError(
                "an SAE's activations are not finite; check the model's and SAEs' weights, and "
                "give --dtype float32"
            )
        self.tally.add(activations)
        best = _largest(peaks, KEPT)  # [K', F]
        ranked = _largest(torch.cat([self.peaks, best.values]), KEPT)
        better = (ranked.indices >= KEPT).any(0).nonzero()[:, 0]  # features with something new
        if len(better) == 0:
            return
        texts = best.indices[:, better]  # [K', S]
        at = positions.gather(0, best.indices)[:, better]
        new_tokens, new_activations = _windows(tokens, activations, texts, at, better)
        order = ranked.indices[:, better, None].expand(-1, -1, new_tokens.shape[-1])
        self.peaks = ranked.values
        self.tokens[:, better] = torch.cat([self.tokens[:, better], new_tokens]).gather(0, order)
        self.activations[:, better] = torch.cat(
            [self.activations[:, better], new_activations]
        ).gather(0, order)


class _Ranked(NamedTuple):
    values: Tensor
    indices: Tensor


def _largest(values: Tensor, k: int) -> _Ranked:
    """The k largest of each column, earlier rows first among equals (`topk` promises no order).

    So what a store holds does not depend on the batches, and its empty places, which count 0, come
    before texts on which the feature is silent.
    """
    ordered, rows = values.sort(dim=0, descending=True, stable=True)
    return _Ranked(ordered[:k], rows[:k])


def _windows(
    tokens: Tensor, activations: Tensor, texts: Tensor, at: Tensor, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens and activations `[K', S, W]` around positions `at` `[K', S]` of some texts."""
    positions = at[..., None] + torch.arange(-BEFORE, AFTER + 1)
    inside = (positions >= 0) & (positions < tokens.shape[1])
    positions = positions.clamp(0, tokens.shape[1] - 1)
    found = tokens[texts[..., None], positions].to(torch.int32)
    values = activations[texts[..., None], positions, features[None, :, None]]
    values = values.clamp(-MOST, MOST).half()
    return found.masked_fill(~inside, -1), values.masked_fill(~inside, 0.0)
