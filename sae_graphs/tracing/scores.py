"""How the model answers at the read token: log-odds, probability, divergence from the clean run.

Letters: `N` copies, `V` vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_graphs.model.next_token import divergence, log_odds
from sae_graphs.tracing.records import Score


class Asked(NamedTuple):
    """What is asked at the read token: the clean logits `[V]`, and the token or group of tokens."""

    logits: Tensor
    targets: tuple[int, ...]

    def scores(self, logits: Tensor) -> Tensor:
        """Log-odds, probability and divergence of logits `[N, V]`: `[3, N]` in double precision.

        Log-odds and probability are those of all targets together. Log-odds and divergence, which
        is of the clean distribution from this one, are in nats.
        """
        wide = logits.double()
        odds = log_odds(wide, *self.targets)
        return torch.stack([odds, odds.sigmoid(), divergence(self.logits.double(), wide)])

    def every(self, logits: Tensor) -> NDArray[np.float64]:
        """`scores` of logits `[N, V]` as an array `[3, N]`."""
        found: NDArray[np.float64] = self.scores(logits).cpu().numpy()
        return found

    @property
    def clean(self) -> Score:
        """That of the clean run."""
        return Score(*self.every(self.logits[None])[:, 0].tolist())
