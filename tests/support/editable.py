"""A linear model in which a rank-one edit can be worked out by hand.

Words of one letter; the stream of a token is its row of `EMBEDDINGS`. Block 0 has an MLP alone,
`y = x + OUT x`, block 1 an attention alone, which adds the token before; the logits of `a`, `b` and
`c` are the coordinates of the last stream, that of `^` is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from sae_graphs.model.language_model import LanguageModel

LETTERS = "^abc"
EMBEDDINGS = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 1.0, 1.0]]
OUT = [[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [3.0, 0.0, 1.0]]  # [D, F]
NONE = [[0.0] * 3] * 3
TEXT = "abcab"  # read without its first letter


class Letters:
    """A tokenizer of the letters `^` (BOS), `a`, `b` and `c`; it passes over all others."""

    bos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [LETTERS.index(letter) for letter in text if letter in LETTERS]}

    def __len__(self) -> int:
        return len(LETTERS)

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return LETTERS[token_id]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return LETTERS.index(token) if token in tuple(LETTERS) else None

    def decode(self, ids: list[int], **options: bool) -> str:
        return "".join(LETTERS[token_id] for token_id in ids)


class MLP(nn.Module):
    """As a `HookedTransformer` has it: the weights `[F, D]`, and a hook on what they read."""

    def __init__(self, out: list[list[float]]) -> None:
        super().__init__()
        self.W_out = nn.Parameter(torch.tensor(out, dtype=torch.float64).T.contiguous())
        self.hook_post = nn.Identity()

    def forward(self, stream: Tensor) -> Tensor:
        made: Tensor = self.hook_post(stream) @ self.W_out
        return made


class Block(nn.Module):
    def __init__(self, out: list[list[float]], before: float) -> None:
        super().__init__()
        self.mlp, self.before, self.hook_mlp_out = MLP(out), before, nn.Identity()

    def forward(self, stream: Tensor) -> Tensor:
        previous = torch.cat([torch.zeros_like(stream[:, :1]), stream[:, :-1]], 1)  # [B, T, D]
        written: Tensor = self.hook_mlp_out(self.mlp(stream))
        return stream + written + self.before * previous


class EditableModel(nn.Module):
    """As much of a TransformerLens model as is used."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(
            d_model=3, n_ctx=8, n_heads=1, d_vocab=4, device="cpu", model_name="editable"
        )
        self.tokenizer = Letters()
        self.blocks = nn.ModuleList(blocks)
        self.hook_dict = {
            f"blocks.{number}.hook_mlp_out": block.hook_mlp_out
            for number, block in enumerate(self.blocks)
        }
        self.ln_final = nn.Identity()

    def unembed(self, streams: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(streams[..., :1]), streams], -1)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = torch.tensor(EMBEDDINGS, dtype=torch.float64)[tokens]
        for block in self.blocks:
            stream = block(stream)
        return self.unembed(stream)


def editable(*, attends_first: bool = False) -> LanguageModel:
    """The model, read without BOS.

    With `attends_first` a block without an MLP stands before the others, whose attention adds the
    token before: then what the MLP reads, in block 1, depends on it.
    """
    blocks = [Block(OUT, 0.0), Block(NONE, 1.0)]
    if attends_first:
        blocks.insert(0, Block(NONE, 1.0))
    return LanguageModel(EditableModel(blocks), prepend_bos=False)
