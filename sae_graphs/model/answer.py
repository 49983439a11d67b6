"""`Answer`: the token that is asked about, and its score.

The score is in nats and does not saturate: the log-odds of the token, or, beside a contrast, the
difference of their logits. A probability is shown beside it, and nothing is tested on one.

Letters: `N` rows, `V` vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.next_token import log_odds, token_id
from sae_graphs.model.run import Run


class Answer(NamedTuple):
    """A token by its id, and the token that it is compared with, if any."""

    token_id: int
    contrast: int | None = None

    def score(self, logits: Tensor) -> Tensor:
        """The score `[...]` of logits `[..., V]`, in nats.

        The log-odds; with a contrast `logit(y) - logit(contrast)`.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.contrast is None:
            return log_odds(logits, self.token_id)
        return logits[..., self.token_id] - logits[..., self.contrast]

    def probability(self, logits: Tensor) -> Tensor:
        """The token's probability `[...]`."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.softmax(-1)[..., self.token_id]


def answer_of(
    model: LanguageModel,
    run: Run,
    read: int,
    *,
    target: str | None = None,
    contrast: str | None = None,
) -> Answer:
    """What is asked at a position: the token named, or the likeliest but for the contrast.

    Raises `SaeGraphsError` where a text is not one token, or the two are the same.
    """
    other = None if contrast is None else token_id(model, contrast)
    if target is not None:
        own = token_id(model, target)
    else:
        order = run.logits[read].topk(min(2, run.logits.shape[-1])).indices.tolist()
        own = next(token for token in order if token != other)
    if own == other:
        raise SaeGraphsError(f"target and contrast are both {target!r}; give two tokens")
    return Answer(own, other)
