"""Causal tracing the slow way: one full forward pass a cell, plain hooks on transformers' own
modules; no code of the package.

Letters: `T` tokens, `L` layers, `V` vocabulary, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Site(NamedTuple):
    """Where something is put back: `state` enters a block, `mlp` and `attention` leave theirs."""

    kind: str
    block: int


class Plain:
    """A plain transformers model by its blocks and their parts, as they enter the stream."""

    def __init__(self, model: Any, architecture: str) -> None:
        self.model = model
        match architecture:
            case "gpt2":
                self.blocks, parts = model.transformer.h, ("attn", "mlp")
            case "neox":
                self.blocks, parts = model.gpt_neox.layers, ("attention", "mlp")
            case "gemma2" | "gemma3":  # a norm stands between a part and the stream
                self.blocks = model.model.layers
                parts = ("post_attention_layernorm", "post_feedforward_layernorm")
            case _:
                self.blocks, parts = model.model.layers, ("self_attn", "mlp")
        self.parts = dict(zip(("attention", "mlp"), parts, strict=True))

    @contextmanager
    def _hooked(self, site: Site, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Whatever passes a site `[1, T, D]` becomes what `change` makes of it."""
        block = self.blocks[site.block]
        if site.kind == "state":
            handle = block.register_forward_pre_hook(
                lambda module, args, kwargs: (
                    ((change(args[0]), *args[1:]), kwargs)
                    if args
                    else (args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])})
                ),
                with_kwargs=True,
            )
        else:
            handle = getattr(block, self.parts[site.kind]).register_forward_hook(_changing(change))
        try:
            yield
        finally:
            handle.remove()

    def sites(self) -> list[Site]:
        """All of them."""
        kinds = ("state", "mlp", "attention")
        return [Site(kind, block) for block in range(len(self.blocks)) for kind in kinds]

    def run(
        self,
        ids: Sequence[int],
        embeddings: Tensor | None = None,
        restored: Mapping[tuple[Site, int], Tensor] | None = None,
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """Logits `[T, V]`, and what passed each site `[T, D]`.

        With `embeddings` `[T, D]` in place of the first stream, and rows of sites put in by token.
        """
        seen: dict[Site, Tensor] = {}

        def at(site: Site) -> Callable[[Tensor], Tensor]:
            def change(stream: Tensor) -> Tensor:
                stream = stream.clone()
                if site == Site("state", 0) and embeddings is not None:
                    stream[0] = embeddings
                for (where, token), row in (restored or {}).items():
                    if where == site:
                        stream[0, token] = row
                seen[site] = stream[0]
                return stream

            return change

        with torch.no_grad(), ExitStack() as hooks:
            for site in self.sites():
                hooks.enter_context(self._hooked(site, at(site)))
            logits = self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        return logits, seen


def _changing(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return change(output[0]), *output[1:]
        return change(output)

    return hook


def cell(
    plain: Plain,
    ids: Sequence[int],
    embeddings: Tensor,
    clean: Mapping[Site, Tensor],
    corrupted: Mapping[Site, Tensor],
    sweep: str,
    token: int,
    layer: int,
    window: int,
) -> Tensor:
    """The logits `[T, V]` of one cell."""
    n_blocks, restored = len(plain.blocks), dict[tuple[Site, int], Tensor]()
    if sweep in ("mlp", "attention"):
        first, stop = layer - window // 2, layer - (-window // 2)  # as ROME has it
        for block in range(max(0, first), min(n_blocks, stop)):
            site = Site(sweep, block)
            restored[site, token] = clean[site][token]
    else:
        site = Site("state", layer)
        restored[site, token] = clean[site][token]
        if sweep != "state":
            part = sweep.split("-")[1]
            for block in range(layer, n_blocks):
                held = Site(part, block)
                restored[held, token] = corrupted[held][token]
    return plain.run(ids, embeddings, restored)[0]
