"""From the stream after the last block to the logits: norm, projection, unembedding, scale.

Letters: `N` rows, `D` d_model, `V` vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PROJECTIONS = ("model.decoder.project_out",)  # to a narrower embedding, by transformers' names


class Head:
    """What a model does after its last block, called on rows of the stream alone."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.norm: nn.Module | None = getattr(model, "ln_final", None)
        self.projection = _projection(model)

    def __call__(self, streams: Tensor) -> Tensor:
        """The logits `[N, V]` of streams after the last block `[N, D]`."""
        rows = streams[None]
        if self.norm is not None:
            rows = self.norm(rows)
        if self.projection is not None:
            rows = self.projection(rows)
        return self._scaled(self.model.unembed(rows)[0])

    def _scaled(self, logits: Tensor) -> Tensor:
        """With the scale and the soft cap that the architecture puts on its logits."""
        adapter: Any = getattr(self.model, "adapter", None)
        if hasattr(adapter, "apply_output_logits_transform"):
            transformed: Tensor = adapter.apply_output_logits_transform(logits)
            return transformed
        cap = getattr(self.model.cfg, "output_logits_soft_cap", None)
        return cap * torch.tanh(logits / cap) if cap and cap > 0 else logits

    def misses(self, logits: Tensor, recorded: Tensor) -> str:
        """How logits `[T, V]` that this makes differ from those that the model gave, in words."""
        ours, theirs = logits.double(), recorded.double()
        ratio = float((ours * theirs).sum() / ours.square().sum())
        if float((ratio * ours - theirs).norm()) <= 1e-3 * float(theirs.norm()):
            return (
                f"its logits are {ratio:.4g} times those of its last stream, a scale that "
                "sae_graphs does not know of this architecture"
            )
        off = float((ours - theirs).norm() / theirs.norm())
        return (
            f"the logits of its last stream, normed and unembedded, are off by {off:.1%} of its "
            "own: it does something after its last block that sae_graphs does not know"
        )


def _projection(model: Any) -> nn.Module | None:
    """A bridge's projection between norm and unembedding; None where it has none."""
    for path in PROJECTIONS:
        found: Any = getattr(model, "original_model", None)
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None
