"""The oracle: the same effects, computed the slow and obvious way, from DESIGN.md alone.

One feature in each copy of the prompt: a full forward pass of the model over some copies with
TransformerLens hooks, the SAE's whole `encode` and `decode`. It shares no code with the package.

Letters: `B` copies, `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

COPIES = 64  # in one pass

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
        self.activations: list[Tensor] = []  # [T, F] each
        self.decoded: list[Tensor] = []  # [T, D] each
        for sae, x in zip(self.saes, self.streams, strict=True):
            self.activations.append(sae.encode(x))
            self.decoded.append(sae.decode(self.activations[-1]))

    def effects(
        self, layer: int, ablated: Sequence[int], read: int, change: Change = zero
    ) -> Tensor:
        """`[F, F of the next layer]`: every feature of `layer` changed alone, ablated - clean."""
        return self._stream_effects(layer, ablated, change, read)

    def effects_at_each(self, layer: int, ablated: int, change: Change = zero) -> Tensor:
        """`[F, T, F of the next layer]`: changed at one position alone, read at all of them."""
        return self._stream_effects(layer, [ablated], change, slice(None))

    def logit_effects(
        self, layer: int, ablated: Sequence[int], read: int, change: Change = zero
    ) -> Tensor:
        """`[F, V]`: logit of the next token at `read`, ablated - clean, in nats."""
        return self._token_effects(layer, ablated, change, lambda logits: logits[..., read, :])

    def token_effects(
        self, layer: int, ablated: Sequence[int], read: int, change: Change = zero
    ) -> Tensor:
        """`[F, V]`: log-probability of the next token at `read`, ablated - clean, in nats."""
        return self._token_effects(
            layer, ablated, change, lambda logits: logits[..., read, :].log_softmax(-1)
        )

    # -- inside ------------------------------------------------------------------------------------

    def _stream_effects(
        self, layer: int, ablated: Sequence[int], change: Change, read: int | slice
    ) -> Tensor:
        """`[F, ..., F']`: what the next SAE says at `read`, changed - clean; 0 if nothing is."""
        target, hook = self.saes[layer + 1], self.hooks[layer + 1]
        clean = self.activations[layer + 1][read]
        rows = clean.new_zeros(self.activations[layer].shape[1], *clean.shape)
        for features, changed in self._packs(layer, ablated, change):
            _, streams = self._run(layer, changed, hook)
            rows[features] = target.encode(streams)[:, read] - clean
        return rows

    def _token_effects(
        self, layer: int, ablated: Sequence[int], change: Change, of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """`[F, V]`: what `of` makes of the logits, changed - clean; 0 if nothing is changed."""
        clean = of(self.logits)
        rows = clean.new_zeros(self.activations[layer].shape[1], len(clean))
        for features, changed in self._packs(layer, ablated, change):
            logits, _ = self._run(layer, changed, None)
            rows[features] = of(logits) - clean
        return rows

    def _packs(
        self, layer: int, ablated: Sequence[int], change: Change
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Features and their changed streams `[B, T, D]`, a pack at a time, none left out."""
        n = self.activations[layer].shape[1]
        found = [(i, self.changed_stream(layer, i, ablated, change)) for i in range(n)]
        kept = [(feature, stream) for feature, stream in found if stream is not None]
        for start in range(0, len(kept), COPIES):
            features, streams = zip(*kept[start : start + COPIES], strict=True)
            yield list(features), torch.stack(streams)

    def changed_stream(
        self, layer: int, feature: int, ablated: Sequence[int], change: Change = zero
    ) -> Tensor | None:
        """`x - (decode(a) - decode(a changed))` `[T, D]`; None where nothing changes."""
        sae, x = self.saes[layer], self.streams[layer]
        a = self.activations[layer]
        changed = a.clone()
        for position in ablated:
            changed[position, feature] = change(a[:, feature], feature)[position]
        if torch.equal(a, changed):
            return None
        sae.encode(x)  # a decode belongs to the encode just before it
        return x - (self.decoded[layer] - sae.decode(changed))

    def _clean(self) -> tuple[Tensor, list[Tensor]]:
        seen: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any, name: str) -> None:
            seen[name] = value[0].clone()

        hooks = [(name, lambda v, hook, n=name: keep(v, hook, n)) for name in self.hooks]
        logits = self.model.run_with_hooks(self.ids, fwd_hooks=hooks)
        return logits[0], [seen[name] for name in self.hooks]

    def _run(self, layer: int, changed: Tensor, end: str | None) -> tuple[Tensor, Tensor]:
        """A full pass of copies of the prompt with their streams `[B, T, D]` at `layer` changed.

        Logits `[B, T, V]`, streams at `end` `[B, T, D]`.
        """
        seen: list[Tensor] = []
        hooks: list[tuple[str, Any]] = self.writing_hooks(layer, changed)
        if end is not None:
            hooks.append((end, lambda value, hook: seen.append(value.clone())))
        logits = self.model.run_with_hooks(self.ids.expand(len(changed), -1), fwd_hooks=hooks)
        return logits, seen[0] if seen else changed

    def writing_hooks(self, layer: int, changed: Tensor) -> list[tuple[str, Any]]:
        """Hooks that put the streams `[B, T, D]` of the copies in place of the layer's."""
        hook = self.hooks[layer]
        if not hook.endswith("resid_mid"):
            return [(hook, lambda value, hook: changed.to(value.dtype))]
        # The bridge's mid hook sees the stream on its way into the MLP only. What attention
        # writes reaches the MLP and the skip connection alike, so the change goes in there.
        block = hook.rsplit(".", 1)[0]
        difference = changed - self.streams[layer]
        after_norm = f"{block}.ln1_post.hook_out"
        writer = after_norm if after_norm in self.model.hook_dict else f"{block}.hook_attn_out"
        assert writer in self.model.hook_dict, f"the model has no {writer}"
        return [(writer, lambda value, hook: value + difference)]
