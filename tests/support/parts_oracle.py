"""What skip connection, attention and MLP carry, the slow way: full passes and plain hooks.

Shares no code with `block_parts`: where blocks are sequential the parts are differences of the
streams before, in the middle of and after each block, not what attention and MLP say they wrote.

Letters: `T` tokens, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.support.oracle import Oracle

Streams = dict[str, Tensor]
Parts = dict[tuple[str, int], Tensor]


class PartsOracle:
    """The parts of a change between two SAE layers of an oracle, at every row."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.n_blocks = len(oracle.model.blocks)
        self.parallel = "blocks.0.hook_resid_mid" not in oracle.model.hook_dict
        self.clean = self._streams([])
        self._ablated: dict[tuple[int, ...], Streams | None] = {}

    def ablated(self, layer: int, feature: int, ablated: Sequence[int]) -> Streams | None:
        """The streams with a feature ablated; None where that changes nothing."""
        oracle, asked = self.oracle, (layer, feature, *ablated)
        if asked not in self._ablated:  # the edges of a source ask for the same pass
            changed = oracle.changed_stream(layer, feature, ablated)
            self._ablated[asked] = (
                changed
                if changed is None
                else {
                    **self._streams(oracle.writing_hooks(layer, changed[None])),
                    oracle.hooks[layer]: changed,
                }
            )
        return self._ablated[asked]

    def parts(self, streams: Streams, start: str, stop: str | None) -> Parts:
        """What each part between two hooks wrote into the streams `[T, D]`."""
        first, from_mid = _place(start)
        last, to_mid = (self.n_blocks, False) if stop is None else _place(stop)
        found: Parts = {}
        for block in range(first, last + to_mid):
            name = f"blocks.{block}."
            before, after = streams[name + "hook_resid_pre"], streams[name + "hook_resid_post"]
            if self.parallel:
                found["attention", block] = streams[name + "hook_attn_out"]
                found["mlp", block] = after - before - streams[name + "hook_attn_out"]
                continue
            mid = streams[name + "hook_resid_mid"]
            if not (from_mid and block == first):
                found["attention", block] = mid - before
            if not (to_mid and block == last):
                found["mlp", block] = after - mid
        return found

    def _streams(self, hooks: list[Any]) -> Streams:
        seen: Streams = {}
        names = ["hook_resid_pre", "hook_resid_post"]
        names += ["hook_attn_out"] if self.parallel else ["hook_resid_mid"]

        def keep(value: Tensor, name: str) -> None:
            seen[name] = value[0].clone()

        for block in range(self.n_blocks):
            for name in (f"blocks.{block}.{name}" for name in names):
                hooks = [*hooks, (name, lambda value, hook, n=name: keep(value, n))]
        self.oracle.model.run_with_hooks(self.oracle.ids, fwd_hooks=hooks)
        return seen


def _place(hook: str) -> tuple[int, bool]:
    """The first block that is still to come, and whether half of it is done."""
    _, block, name = hook.split(".")
    return int(block) + (name == "hook_resid_post"), name == "hook_resid_mid"


def encoder_by_hand(sae: Any, change: Tensor) -> Tensor:
    """Changes of the pre-activations `[..., F]` in activation units, from the weights alone."""
    found = change @ sae.W_enc
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        found = found * torch.linalg.vector_norm(sae.W_dec, dim=1)
    return found
