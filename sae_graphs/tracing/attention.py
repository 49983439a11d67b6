"""Attention in a clean run, read at the model's own hook points: `last_token`, `first_token`.

Each block is run again on the run's own input, and its pattern heard. Letters: `H` heads, `T`
tokens, `L` layers, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from sae_graphs.errors import CannotSplitError, SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.recording import outputs_of
from sae_graphs.model.replay import Step
from sae_graphs.model.run import Run
from sae_graphs.tracing.last_token import FirstToken, LastToken, starts_of

HOOK = "blocks.{block}.attn.hook_pattern"
LONG = 512  # tokens of the text on which attention to the first token is seen
MORE_THAN_ALL = 1e-3  # by which rounding may take a row of attention beyond 1
DIGITS = 5


@torch.no_grad()
def patterns(model: LanguageModel, run: Run) -> Iterator[Tensor]:
    """The attention `[H, T, T]` of each block in turn: rows look at columns.

    Raises `CannotSplitError` where the model does not show it.
    """
    hooks: dict[str, nn.Module] = dict(model.model.hook_dict)
    for block, stream in enumerate(run.inputs[:-1]):
        hook = hooks.get(HOOK.format(block=block))
        if hook is None:
            raise CannotSplitError(f"{model.name} has no hook where its attention is seen")
        with outputs_of(hook) as seen:
            model.replay.whole(run, Step(block, "whole"), stream[None])
        shape = (len(run), len(run))
        if len(seen) != 1 or seen[0].ndim != 4 or tuple(seen[0].shape[-2:]) != shape:
            raise CannotSplitError(f"{model.name} does not show its attention in block {block}")
        pattern = seen[0][0].float()
        more = max(MORE_THAN_ALL, 4 * torch.finfo(seen[0].dtype).eps)
        if not bool((pattern.sum(-1) <= 1 + more).all() and (pattern >= 0).all()):
            raise CannotSplitError(f"what {model.name} shows in block {block} is no attention")
        yield pattern


def last_token(model: LanguageModel, run: Run, corrupted: int, read: int) -> LastToken:
    """What the token at `read` looks at in a run, and how its state moves; five digits."""
    rows = torch.stack([pattern[:, read, : read + 1] for pattern in patterns(model, run)])
    rows = rows.double()  # [L, H, read + 1]
    most = float(np.log(read + 1)) or 1.0
    entropy = torch.special.entr(rows).sum(-1) / most
    states = torch.stack([stream[read] for stream in run.inputs]).double()  # [L + 1, D]
    change = states[1:] - states[:-1]
    return LastToken(
        first=_by_head(rows[:, :, 0]),
        corrupted=_by_head(rows[:, :, corrupted]),
        own=_by_head(rows[:, :, read]),
        entropy=_by_head(entropy),
        norm=_rounded(states.norm(dim=-1)),
        cosine=_rounded(torch.cosine_similarity(states[1:], states[:-1], dim=-1)),
        velocity=_rounded(change.norm(dim=-1)),
    )


def long_text(
    model: LanguageModel, texts: Sequence[str], *, prepend_bos: bool | None
) -> tuple[int, ...]:
    """Token ids of some texts, a line each, as many as the model reads, at most `LONG`.

    Texts that the model does not read are left out.
    """
    ids: list[int] = []
    most = min(LONG, int(model.model.cfg.n_ctx))
    for text in texts:
        with suppress(SaeGraphsError):
            ids += model.tokenize(f"{text}\n", prepend_bos=False if ids else prepend_bos)
        if len(ids) >= most:
            break
    return tuple(ids[:most])


def first_token(model: LanguageModel, token_ids: Sequence[int]) -> FirstToken:
    """Attention to the first token of a text, by stretch of positions and by layer."""
    run = model.run(token_ids)
    columns = torch.stack([pattern[:, :, 0].mean(0) for pattern in patterns(model, run)])  # [L, T]
    starts = starts_of(len(run))
    ends = [*starts[1:], len(run)]
    return FirstToken(
        len(run),
        starts,
        tuple(
            _rounded(columns[:, start:end].double().mean(-1))
            for start, end in zip(starts, ends, strict=True)
        ),
    )


def _by_head(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(_rounded, values))


def _rounded(values: Tensor) -> tuple[float, ...]:
    """With five significant digits, as records keep them."""
    return tuple(float(f"{value:.{DIGITS}g}") for value in values.tolist())
