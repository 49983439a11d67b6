"""Text that a model writes on from prompts, several at once.

Letters: `B` prompts, `T` tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sae_graphs.model.language_model import LanguageModel
from sae_graphs.text import joined


@torch.no_grad()
def continued(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    *,
    top_k: int | None = None,
    seed: int = 0,
) -> list[tuple[int, ...]]:
    """So many tokens after each prompt, as far as the model reads: the likeliest each time.

    Or, with `top_k`, drawn among so many by `seed`, the same draws whatever the model.
    """
    rows = [list(ids) for ids in prompts]
    starts = [len(ids) for ids in rows]
    generator = torch.Generator().manual_seed(seed)
    limit = int(model.model.cfg.n_ctx)
    for _ in range(n_tokens):
        open_rows = [row for row in rows if len(row) < limit]
        if not open_rows:
            break
        logits = next_logits(model, open_rows)
        for row, following in zip(open_rows, _chosen(logits, top_k, generator), strict=True):
            row.append(following)
    return [tuple(row[start:]) for row, start in zip(rows, starts, strict=True)]


@torch.no_grad()
def next_logits(model: LanguageModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """The logits `[B, V]` of what follows each row of token ids, run together."""
    device, longest = model.model.cfg.device, max(map(len, rows))
    tokens = torch.tensor(
        [[*row, *(row[-1],) * (longest - len(row))] for row in rows], device=device
    )
    (streams,) = model.streams_at(tokens, [model.end])  # [B, T, D]
    last = torch.tensor([len(row) - 1 for row in rows], device=device)
    return model.unembed(streams[torch.arange(len(rows), device=device), last])


def text_of_ids(model: LanguageModel, ids: Sequence[int]) -> str:
    """Tokens as text, up to the end that the model sets."""
    end: Any = getattr(model.tokenizer, "eos_token_id", None)
    kept = list(ids[: list(ids).index(end)]) if end in ids else list(ids)
    return joined(model.token_string(each) for each in kept)


def _chosen(logits: Tensor, top_k: int | None, generator: torch.Generator) -> list[int]:
    if top_k is None:
        found: list[int] = logits.argmax(-1).tolist()
        return found
    top = logits.double().cpu().topk(min(top_k, logits.shape[-1]))
    drawn = torch.multinomial(top.values.softmax(-1), 1, generator=generator)
    return [int(each) for each in top.indices.gather(1, drawn)[:, 0]]
