"""How the model answers at the read token: log-odds, probability, divergence from the clean run.

Letters: `N` copies, `V` vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_graphs.tracing.records import Score


class Asked(NamedTuple):
    """What is asked at the read token: the clean logits `[V]`, and the token or group of tokens."""

    logits: Tensor
    targets: tuple[int, ...]

    def scores(self, logits: Tensor) -> Tensor:
        """Log-odds, probability and divergence of logits `[N, V]`: `[3, N]` in double precision.

        The log-odds, in nats, are those of the group together: the logarithm of the sum of its
        tokens' odds-weights over that of all others'. The divergence is of the clean distribution
        from this one: `sum p_clean (log p_clean - log p)`, in nats.
        """
        wide, targets = logits.double(), list(self.targets)
        clean = self.logits.double().log_softmax(-1)
        expected = wide @ clean.exp()  # [N]
        group = wide[:, targets].logsumexp(-1)
        wide = wide.clone() if wide is logits else wide
        wide[:, targets] = -torch.inf
        others = wide.logsumexp(-1)
        odds = group - others
        everything = torch.logaddexp(group, others)
        kl = ((clean.exp() * clean).sum() - expected + everything).clamp(min=0)
        return torch.stack([odds, odds.sigmoid(), kl])

    def every(self, logits: Tensor) -> NDArray[np.float64]:
        """`scores` of corrupted runs `[R, V]`, `[3, R]`; no divergence where they are clean."""
        found = self.scores(logits)
        found[2] = torch.where((logits == self.logits).all(-1), 0.0, found[2])
        cells: NDArray[np.float64] = found.cpu().numpy()
        return cells

    @property
    def clean(self) -> Score:
        """That of the clean run."""
        return Score(*self.every(self.logits[None])[:, 0].tolist())
