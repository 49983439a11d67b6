"""What others do for the same numbers: a full forward pass for each feature, the SAEs dense.

This is the algorithm of the public implementation of the method ("Causal Graphs of
GPT-2-Small's Residual Stream"): it ablates every feature of every layer but the last, active or
not. The SAE's error is put back, which the source does not do and which costs one addition.

Letters: `T` tokens, `D` d_model, `F` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor


class FullPasses:
    """Effects of one feature at a time, a full forward pass with hooks for each.

    `saes` are ordered by depth; `ids` is one prompt. Features are ablated at every position from
    `first` on, effects are read at the last one.
    """

    def __init__(
        self, bridge: Any, saes: Sequence[SAE[Any]], ids: Sequence[int], *, first: int = 1
    ) -> None:
        self.bridge, self.saes = bridge, list(saes)
        self.hooks = [str(sae.cfg.metadata.hook_name) for sae in saes]
        self.tokens = torch.tensor([list(ids)])
        self.first = first if len(ids) > 1 else 0
        _, cache = bridge.run_with_cache(
            self.tokens, names_filter=lambda name: name in set(self.hooks)
        )
        self.errors: list[Tensor] = []  # [T, D]
        self.clean: list[Tensor] = []  # [F], at the last position
        for sae, hook in zip(self.saes, self.hooks, strict=True):
            stream = cache[hook][0]
            activations = sae.encode(stream)
            self.clean.append(activations[-1].clone())
            self.errors.append(stream - sae.decode(activations))

    @torch.no_grad()
    def effects(self, depth: int, feature: int) -> Tensor:
        """`[F of the next layer]`: one feature at `depth` zeroed, ablated minus clean."""
        sae, target = self.saes[depth], self.saes[depth + 1]
        read: list[Tensor] = []

        def ablate(stream: Tensor, hook: Any) -> Tensor:
            activations = sae.encode(stream[0])  # [T, F]
            activations[self.first :, feature] = 0
            return (sae.decode(activations) + self.errors[depth])[None]

        def encode(stream: Tensor, hook: Any) -> None:
            read.append(target.encode(stream[0])[-1])  # all of [T, F], then the last row

        hooks = [(self.hooks[depth], ablate), (self.hooks[depth + 1], encode)]
        self.bridge.run_with_hooks(self.tokens, fwd_hooks=hooks)
        return read[0] - self.clean[depth + 1]

    @property
    def n_ablations(self) -> int:
        """How many passes the public method runs: one for every feature but the last layer's."""
        return sum(int(sae.cfg.d_sae) for sae in self.saes[:-1])
