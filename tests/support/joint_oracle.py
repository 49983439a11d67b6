"""Joint edits the slow and obvious way: a full forward pass of all copies with nested hooks.

Every hook encodes the stream as it is then with the whole SAE, and decodes all of it. It shares no
code with `joint` or `instrument`, only the hooks of `Oracle`.

Letters: `B` copies, `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.support.oracle import Oracle

Edit = Callable[[Tensor], Tensor]
"""What an edit makes of the streams `[B, T, D]` at its layer, as they are then."""

Become = Callable[[Tensor], Tensor]
"""What activations `[B, T, F]` become."""


class Passed(NamedTuple):
    """A full pass with edits: `streams` and `moved` are by layer, before and by its edit."""

    logits: Tensor  # [B, T, V]
    end: Tensor | None  # [B, T, D] at the hook that was asked for
    streams: dict[int, Tensor]  # [B, T, D] each
    moved: dict[int, Tensor]  # [B, T] each


class JointOracle:
    """The model, SAEs and prompt of an `Oracle`, with an edit at any of its layers at once.

    Its clean pass is of as many copies as the others, so that no change is none to the last bit.
    """

    def __init__(self, oracle: Oracle, n_copies: int) -> None:
        self.oracle = oracle
        self.ids = oracle.ids.expand(n_copies, -1)
        self.clean = self.run({layer: lambda stream: stream for layer in range(len(oracle.hooks))})
        self.activations = [
            self.encode(layer, stream) for layer, stream in sorted(self.clean.streams.items())
        ]  # [B, T, F] each

    def run(self, edits: Mapping[int, Edit], end: str | None = None) -> Passed:
        """One full pass; `end` names a hook where the streams are wanted, before an edit there."""
        passed = Passed(torch.empty(0), None, {}, {})
        ends: list[Tensor] = []
        hooks: list[tuple[str, Any]] = []
        for layer in range(len(self.oracle.hooks)):  # those of one place run in this order
            if self.oracle.hooks[layer] == end:
                hooks.append((end, lambda value, hook: ends.append(value.clone())))
            if layer in edits:
                hooks += self._editing(layer, edits[layer], passed)
        logits = self.oracle.model.run_with_hooks(self.ids, fwd_hooks=hooks)
        return passed._replace(logits=logits, end=ends[0] if ends else None)

    def _editing(self, layer: int, edit: Edit, passed: Passed) -> list[tuple[str, Any]]:
        name = self.oracle.hooks[layer]

        def edited(stream: Tensor) -> Tensor:
            passed.streams[layer] = stream.clone()
            after = edit(stream)
            passed.moved[layer] = (after - stream).norm(dim=-1)
            return after

        if not name.endswith("resid_mid"):
            return [(name, lambda value, hook: edited(value))]
        # The bridge's mid hook sees the stream on its way into the MLP only: what is taken from it
        # has to be taken from what attention writes, which the skip connection carries on, too.
        block = name.rsplit(".", 1)[0]
        after_norm = f"{block}.ln1_post.hook_out"
        writer = (
            after_norm if after_norm in self.oracle.model.hook_dict else f"{block}.hook_attn_out"
        )
        entered: list[Tensor] = []

        def written(value: Tensor, hook: Any) -> Tensor:
            stream = entered[0] + value
            return value + (edited(stream) - stream)

        enter = (f"{block}.hook_resid_pre", lambda value, hook: entered.append(value.clone()))
        return [enter, (writer, written)]

    # -- edits -------------------------------------------------------------------------------------

    def changed(self, layer: int, chosen: Tensor, become: Become) -> Edit:
        """`x - (decode(a) - decode(a with the chosen [B, T, F] changed))`."""

        def edit(stream: Tensor) -> Tensor:
            acts = self.encode(layer, stream)
            after = torch.where(chosen, become(acts), acts)
            removed = self._decode(layer, acts, stream) - self._decode(layer, after, stream)
            return stream - removed

        return edit

    def others_held(self, layer: int, chosen: Tensor, silenced: Tensor | None = None) -> Edit:
        """`x_clean + decode(a_clean with the chosen as they are now) - decode(a_clean)`."""
        clean, acts = self.clean.streams[layer], self.activations[layer]

        def edit(stream: Tensor) -> Tensor:
            now = self.encode(layer, stream)
            if silenced is not None:
                now = torch.where(silenced, torch.zeros_like(now), now)
            mixed = torch.where(chosen, now, acts)
            return clean + (self._decode(layer, mixed, clean) - self._decode(layer, acts, clean))

        return edit

    def only_kept(self, layer: int, chosen: Tensor, ablated: Tensor, errors: bool) -> Edit:
        """All others 0 at `ablated` `[T]`; the SAE's error stays or goes with them."""

        def edit(stream: Tensor) -> Tensor:
            acts = self.encode(layer, stream)
            left = self._decode(layer, acts * chosen, stream)
            if errors:
                left = stream - (self._decode(layer, acts, stream) - left)
            return torch.where(ablated[:, None], left, stream)

        return edit

    def added(self, delta: Tensor) -> Edit:
        """`x + delta` `[B, T, D]`."""
        return lambda stream: stream + delta

    def encode(self, layer: int, stream: Tensor) -> Tensor:
        """Activations `[..., T, F]`."""
        return self.oracle.saes[layer].encode(stream)

    def _decode(self, layer: int, acts: Tensor, stream: Tensor) -> Tensor:
        self.encode(layer, stream)  # a decode belongs to the encode just before it
        return self.oracle.saes[layer].decode(acts)
