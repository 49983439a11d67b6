"""A two-block linear model whose every number can be worked out by hand, with identity SAEs.

Three coordinates, one feature each (`relu` of it). A block adds to a token's stream what a matrix
makes of it, its "MLP", and what another makes of the token before, its "attention":

    y[t] = x[t] + here @ x[t] + before @ x[t-1]          (nothing comes before the first token)
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from torch import Tensor, nn

from sae_graphs.model.instrument import InstrumentedModel

EMBEDDINGS = [[9.0, 9.0, 9.0], [1.0, 2.0, 0.0], [2.0, 1.0, 3.0]]  # BOS, a, b


class Letters:
    """A tokenizer of the words `^` (BOS), `a` and `b`, one letter each."""

    bos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": ["^ab".index(letter) for letter in text]}

    def __len__(self) -> int:
        return 3

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return "^ab"[token_id]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return "^ab".index(token) if token in tuple("^ab") else None

    def decode(self, ids: list[int], **options: bool) -> str:
        return "".join("^ab"[token_id] for token_id in ids)


class Block(nn.Module):
    def __init__(self, here: list[list[float]], before: list[list[float]]) -> None:
        super().__init__()
        self.here = nn.Parameter(torch.tensor(here, dtype=torch.float64), requires_grad=False)
        self.before = nn.Parameter(torch.tensor(before, dtype=torch.float64), requires_grad=False)
        self.hook_attn_out = nn.Identity()
        self.hook_mlp_out = nn.Identity()

    def forward(self, stream: Tensor) -> Tensor:
        previous = torch.cat([torch.zeros_like(stream[:, :1]), stream[:, :-1]], 1)  # [B, T, D]
        attention = self.hook_attn_out(previous @ self.before.T)
        return stream + self.hook_mlp_out(stream @ self.here.T) + attention


class LinearModel(nn.Module):
    """As much of a TransformerLens model as the engine uses; the logits are the last stream."""

    def __init__(self) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(d_model=3, n_ctx=8, n_heads=1, device="cpu", model_name="linear")
        self.tokenizer = Letters()
        self.blocks = nn.ModuleList(
            [
                # y0 = x0,  y1 = x1 + 2 x0,  y2 = x2 - 3 x0 + 1 (x1 of the token before)
                Block(
                    here=[[0, 0, 0], [2, 0, 0], [-3, 0, 0]],
                    before=[[0, 0, 0], [0, 0, 0], [0, 1, 0]],
                ),
                # z0 = y0 + 1/2 (y2 before),  z1 = y1 - y0,  z2 = y2 + 1 (y1 before)
                Block(
                    here=[[0, 0, 0], [-1, 0, 0], [0, 0, 0]],
                    before=[[0, 0, 0.5], [0, 0, 0], [0, 1, 0]],
                ),
            ]
        )
        self.hook_dict = {
            f"blocks.{number}.{name}": hook
            for number, block in enumerate(self.blocks)
            for name, hook in block.named_children()
        }
        self.ln_final = nn.Identity()
        self.unembed = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        stream = torch.tensor(EMBEDDINGS, dtype=torch.float64)[tokens]
        for block in self.blocks:
            stream = block(stream)
        return stream


def identity_sae(hook_name: str, **metadata: Any) -> StandardSAE:
    """Feature `j` is `relu` of coordinate `j`; it decodes to that coordinate."""
    sae = StandardSAE(StandardSAEConfig(d_in=3, d_sae=3, dtype="float64"))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(3))
        sae.W_dec.copy_(torch.eye(3))
        sae.b_enc.zero_()
    sae.cfg.metadata = SAEMetadata(hook_name=hook_name, prepend_bos=True, **metadata)
    return sae


def linear_model() -> InstrumentedModel:
    """The model with SAE layers `0`, `1` and `2`."""
    hooks = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    return InstrumentedModel(LinearModel(), [identity_sae(hook) for hook in hooks])
