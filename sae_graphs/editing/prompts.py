"""Prompts of different lengths run together, and run again from one block on with gradients.

Rows are filled up on the right with a token that comes after all that is read: in a model that
writes from left to right it changes nothing there, to the last bit of what a row alone would give.

Letters: `B` prompts, `T` tokens of the longest, `D` d_model, `F` inputs of the projection, `V`
vocabulary.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sae_graphs.editing.projection import Projection
from sae_graphs.editing.settings import Token
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.recording import BlockCall, outputs_of, recording_calls
from sae_graphs.model.stream import StreamPoint
from sae_graphs.tracing.subject import find_subject
from sae_graphs.words import said

PREFIX_TOKENS = (4, 16)  # of the pieces of text that are put before a prompt
LOOKED_AT = 4000  # sentences, of which prefixes are drawn


class Placed(NamedTuple):
    """A prompt's tokens, and the position at which the fact is written or looked for."""

    ids: tuple[int, ...]
    at: int
    note: str = ""  # of a subject that comes several times


def placed(
    model: LanguageModel,
    text: str,
    subject: str,
    token: Token,
    *,
    before: int | None = None,
    prepend_bos: bool | None = None,
) -> Placed:
    """A prompt with its subject, and where its `token` is.

    Where the subject comes several times, it is the one with `before` characters before it; the
    last, where that is not given. Raises `SaeGraphsError` where the subject is not in it, or has
    nothing after it that is asked.
    """
    ids = model.tokenize(text, prepend_bos=prepend_bos)
    if token == "last":
        return Placed(ids, len(ids) - 1)
    behind = None if before is None else len(text) - before
    positions, note = find_subject(model, ids, subject, len(ids), behind=behind)
    if token == "subject-first":
        return Placed(ids, positions[0], note)
    if token == "subject-last":
        return Placed(ids, positions[-1], note)
    if positions[-1] + 1 == len(ids):
        raise SaeGraphsError(
            f"nothing comes after the subject in {said(text)}; write the fact at another token"
        )
    return Placed(ids, positions[-1] + 1, note)


class Target(NamedTuple):
    """The token that is to follow, and what to know of it."""

    token_id: int
    note: str = ""


def target_of(
    model: LanguageModel, asked: str, target: str, *, prepend_bos: bool | None = None
) -> Target:
    """The first token of a target after a prompt; a note where it has several.

    Raises `SaeGraphsError` where the target is empty.
    """
    if not isinstance(target, str) or not target:
        raise SaeGraphsError(f"the target is {target!r:.40}; give some text, such as ' Rome'")
    before = model.tokenize(asked, prepend_bos=prepend_bos)
    whole = model.tokenize(asked + target, prepend_bos=prepend_bos)
    joined = whole[: len(before)] == before and len(whole) > len(before)
    ids = whole[len(before) :] if joined else model.tokenize(target, prepend_bos=False)
    if len(ids) == 1:
        return Target(ids[0])
    first = model.token_string(ids[0])
    return Target(
        ids[0],
        f"the target {said(target)} is {len(ids)} tokens; the first, {said(first)}, was written",
    )


def prefixes_of(
    model: LanguageModel, texts: Iterable[str], n: int, *, seed: int, without: Sequence[str]
) -> list[str]:
    """So many sentences of a text, drawn by `seed`: some tokens each, to stand before a prompt.

    None of them holds one of the words in `without`. Raises `SaeGraphsError` where there are fewer.
    """
    least, most = PREFIX_TOKENS
    avoided = [word.strip().casefold() for word in without if word.strip()]
    kept: dict[str, None] = {}  # each once, in their order
    for sentence in _sentences(texts):
        if len(kept) == LOOKED_AT:
            break
        known = sentence.casefold()
        if not any(word in known for word in avoided) and len(sentence) < 12 * most:
            kept[sentence] = None
    found = list(kept)
    random.Random(seed).shuffle(found)
    chosen: list[str] = []
    for sentence in found:
        if len(chosen) == n:
            break
        if least <= len(model.tokenize(sentence, prepend_bos=False)) <= most:
            chosen.append(f"{sentence} ")
    if len(chosen) < n:
        raise SaeGraphsError(
            f"the text has {len(chosen)} sentences of {least} to {most} tokens to put before the "
            f"prompt, {n} are asked for; give more text, or fewer prefixes"
        )
    return chosen


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            line = " ".join(sentence.split())
            if line.endswith((".", "!", "?")) and line[:1].isupper():
                yield line


class Rows:
    """Prompts run together once, whose blocks from one on can be run again with a change.

    `tokens` is `[B, T]`, `at` `[B]` the position that is changed in each, `last` `[B]` that of its
    last token.
    """

    def __init__(
        self, model: LanguageModel, projection: Projection, prompts: Sequence[Placed]
    ) -> None:
        self.model, self.projection = model, projection
        longest, device = max(len(each.ids) for each in prompts), model.model.cfg.device
        self.tokens = torch.tensor(
            [[*each.ids, *(each.ids[-1],) * (longest - len(each.ids))] for each in prompts],
            device=device,
        )
        self.at = torch.tensor([each.at for each in prompts], device=device)
        self.last = torch.tensor([len(each.ids) - 1 for each in prompts], device=device)
        with (
            torch.no_grad(),
            recording_calls(model.model.blocks) as recorded,
            outputs_of(projection.reads) as read,
            outputs_of(projection.writes) as written,
        ):
            model.streams_at(self.tokens, [model.end])
        self._entered = recorded.inputs[projection.block].detach()  # [B, T, D]
        self._calls: list[BlockCall] = list(recorded.calls[projection.block :])
        self.read, self.written = (
            once(heard, projection.block).reshape(*self.tokens.shape, -1)
            for heard in (read, written)
        )  # [B, T, F], [B, T, D]

    @property
    def keys(self) -> Tensor:
        """What the projection reads where it is changed, `[B, F]`."""
        return self.read[torch.arange(len(self.at)), self.at]

    @property
    def values(self) -> Tensor:
        """What it writes there, `[B, D]`, its bias included."""
        return self.written[torch.arange(len(self.at)), self.at]

    def logits(self, change: Tensor, *reads: Tensor) -> Tensor:
        """The logits `[B, V]` at the last tokens, `change` `[D]` added to what is written there.

        Or at positions `reads`, `[B]` each, one after the other: `[N * B, V]`. Gradients flow to
        the change.
        """
        mask = torch.zeros(self.tokens.shape, dtype=change.dtype, device=change.device)
        mask[torch.arange(len(self.at)), self.at] = 1.0
        return self.logits_with(mask[..., None] * change, *reads)

    def logits_with(self, added: Tensor, *reads: Tensor) -> Tensor:
        """The same with something added at all tokens, `[B, T, D]`."""
        blocks = self.model.model.blocks[self.projection.block :]
        with _added(self.projection.writes, added):
            streams = self._entered
            for block, call in zip(blocks, self._calls, strict=True):
                out = block(streams, *call.args, **call.kwargs)
                streams = out[0] if isinstance(out, tuple) else out
        rows = torch.arange(len(self.at))
        found = torch.cat([streams[rows, each] for each in reads or (self.last,)])
        return self.model.unembed(found)


def keys_on(model: LanguageModel, projection: Projection, tokens: Tensor) -> Tensor:
    """What the projection reads at all tokens of a batch `[B, T]`: `[B, T, F]`."""
    with outputs_of(projection.reads) as heard:
        model.streams_at(tokens, [StreamPoint(projection.block, "post")])
    return once(heard, projection.block).reshape(*tokens.shape, -1)


def once(heard: list[Tensor], block: int) -> Tensor:
    """The one tensor that passed; raises `SaeGraphsError` where none did, or several."""
    if len(heard) != 1:
        raise SaeGraphsError(
            f"the output projection of block {block} was used {len(heard)} times in one pass, "
            "expected once; choose another layer or model"
        )
    return heard[0].detach()


@contextmanager
def _added(writes: nn.Module, added: Tensor) -> Iterator[None]:
    """What passes a hook point gains `[B, T, D]`."""

    def add(module: nn.Module, args: object, output: Tensor) -> Tensor:
        return output + added.reshape(output.shape)

    handle = writes.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
