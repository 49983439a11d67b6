"""The oracle: the same effects, computed the slow and obvious way, from DESIGN.md alone.

One feature at a time: a full forward pass of the model with TransformerLens hooks, the SAE's whole
`encode` and `decode`. It shares no code with `instrument` or `ablation`.

Letters: `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

Change = Callable[[Tensor, int], Tensor]
"""`change(clean activations of one feature [T], feature)` gives what they become."""


def zero(activations: Tensor, feature: int) -> Tensor:
    """Zero-ablation."""
    return torch.zeros_like(activations)


def scaled(coefficient: float) -> Change:
    """Multiply by a coefficient."""
    return lambda activations, feature: activations * coefficient


def replaced(values: Tensor) -> Change:
    """Take the values `[T, F]` instead."""
    return lambda activations, feature: values[:, feature]


class Oracle:
    """A model, its SAEs ordered by depth, and one prompt's token ids."""

    def __init__(self, model: Any, saes: Sequence[SAE[Any]], ids: Sequence[int]) -> None:
        self.model, self.saes = model, list(saes)
        self.hooks = [str(sae.cfg.metadata.hook_name) for sae in saes]
        for hook in self.hooks:
            assert hook in model.hook_dict, f"the model has no {hook}"
        self.ids = torch.tensor([list(ids)])
        self.logits, self.streams = self._clean()  # [T, V], [T, D] each
        self.activations = [
            sae.encode(x) for sae, x in zip(self.saes, self.streams, strict=True)
        ]  # [T, F] each

    def effects(
        self, layer: int, ablated: Sequence[int], read: int, change: Change = zero
    ) -> Tensor:
        """`[F, F of the next layer]`: every feature of `layer` changed alone, ablated - clean."""
        target, hook = self.saes[layer + 1], self.hooks[layer + 1]
        clean = self.activations[layer + 1][read]
        rows = torch.zeros(self.activations[layer].shape[1], len(clean), dtype=clean.dtype)
        for feature in range(len(rows)):
            changed = self._changed_stream(layer, feature, ablated, change)
            if changed is not None:
                _, stream = self._run(layer, changed, hook)
                rows[feature] = target.encode(stream)[read] - clean
        return rows

    def effects_at_each(self, layer: int, ablated: int, change: Change = zero) -> Tensor:
        """`[F, T, F of the next layer]`: changed at one position alone, read at all of them."""
        target, hook = self.saes[layer + 1], self.hooks[layer + 1]
        clean = self.activations[layer + 1]
        found = torch.zeros(self.activations[layer].shape[1], *clean.shape, dtype=clean.dtype)
        for feature in range(len(found)):
            changed = self._changed_stream(layer, feature, [ablated], change)
            if changed is not None:
                _, stream = self._run(layer, changed, hook)
                found[feature] = target.encode(stream) - clean
        return found

    def logit_effects(
        self, layer: int, ablated: Sequence[int], read: int, change: Change = zero
    ) -> Tensor:
        """`[F, V]`: logit of the next token at `read`, ablated - clean, in nats."""
        clean = self.logits[read]
        rows = torch.zeros(self.activations[layer].shape[1], len(clean), dtype=clean.dtype)
        for feature in range(len(rows)):
            changed = self._changed_stream(layer, feature, ablated, change)
            if changed is not None:
                logits, _ = self._run(layer, changed, None)
                rows[feature] = logits[read] - clean
        return rows

    def token_effects(
        self, layer: int, ablated: Sequence[int], read: int, change: Change = zero
    ) -> Tensor:
        """`[F, V]`: log-probability of the next token at `read`, ablated - clean, in nats."""
        clean = self.logits[read].log_softmax(-1)
        rows = torch.zeros(self.activations[layer].shape[1], len(clean), dtype=clean.dtype)
        for feature in range(len(rows)):
            changed = self._changed_stream(layer, feature, ablated, change)
            if changed is not None:
                logits, _ = self._run(layer, changed, None)
                rows[feature] = logits[read].log_softmax(-1) - clean
        return rows

    # -- inside ------------------------------------------------------------------------------------

    def _changed_stream(
        self, layer: int, feature: int, ablated: Sequence[int], change: Change
    ) -> Tensor | None:
        """`x - (decode(a) - decode(a changed))` `[T, D]`; None where nothing changes."""
        sae, x = self.saes[layer], self.streams[layer]
        a = sae.encode(x)
        changed = a.clone()
        for position in ablated:
            changed[position, feature] = change(a[:, feature], feature)[position]
        if torch.equal(a, changed):
            return None
        sae.encode(x)  # a decode belongs to the encode just before it
        whole = sae.decode(a)
        sae.encode(x)
        without = sae.decode(changed)
        return x - (whole - without)

    def _clean(self) -> tuple[Tensor, list[Tensor]]:
        seen: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any, name: str) -> None:
            seen[name] = value[0].clone()

        hooks = [(name, lambda v, hook, n=name: keep(v, hook, n)) for name in self.hooks]
        logits = self.model.run_with_hooks(self.ids, fwd_hooks=hooks)
        return logits[0], [seen[name] for name in self.hooks]

    def _run(self, layer: int, changed: Tensor, end: str | None) -> tuple[Tensor, Tensor]:
        """A full pass with the stream at `layer` changed: logits `[T, V]`, stream at `end`."""
        seen: list[Tensor] = []
        hooks: list[tuple[str, Any]] = self._writing_hooks(layer, changed)
        if end is not None:
            hooks.append((end, lambda value, hook: seen.append(value[0].clone())))
        logits = self.model.run_with_hooks(self.ids, fwd_hooks=hooks)
        return logits[0], seen[0] if seen else changed

    def _writing_hooks(self, layer: int, changed: Tensor) -> list[tuple[str, Any]]:
        hook = self.hooks[layer]
        if not hook.endswith("resid_mid"):
            return [(hook, lambda value, hook: changed[None].to(value.dtype))]
        # The bridge's mid hook sees the stream on its way into the MLP only. What attention
        # writes reaches the MLP and the skip connection alike, so the change goes in there.
        block = hook.rsplit(".", 1)[0]
        difference = changed - self.streams[layer]
        after_norm = f"{block}.ln1_post.hook_out"
        writer = after_norm if after_norm in self.model.hook_dict else f"{block}.hook_attn_out"
        assert writer in self.model.hook_dict, f"the model has no {writer}"
        return [(writer, lambda value, hook: value + difference[None])]
