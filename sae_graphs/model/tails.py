"""Many copies of a prompt that differ from one position on, run through a block together.

A *tail* is the rows of a copy from its first changed position to the one that is read. Rows before
it are shared: attention gets their keys and values, never run again. Tails of one beginning go
through the model's own block as one batch, each row attending to what stands before it, so that
nothing is multiplied that is masked out afterwards; `rows.py` packs rows of any positions.

Where a model does not let rows be run alone, whole copies are run, which is as exact.

Letters: `C` copies, `R` runs that the copies are of, `B` = `C R`, `T` tokens, `P` positions before
the tail, `n` rows of it, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_graphs.model.replay import Replay, Step
from sae_graphs.model.rows import (
    KeysAndValues,
    cache_name,
    causal_mask,
    keys_and_values,
    named_arguments,
)
from sae_graphs.model.run import Run
from sae_graphs.model.self_check import same

Context = tuple[Tensor, ...]
"""What attention needs of some rows: keys and values `[R, heads, P, d]`, or, where whole copies are
run, the stream `[R, 1, P, D]`."""


class Tail(NamedTuple):
    """What a block makes of tails, and what attention needs of them in its turn."""

    streams: Tensor  # [B, n, D], or [B, 1, D]
    context: Context


class Tails:
    """The blocks of a model, to be run on tails that end at the position `read` of a `run`.

    `alone`: whether they are run without the rows before them.
    """

    def __init__(self, replay: Replay, run: Run, read: int) -> None:
        self.replay, self.run, self.stop = replay, run, read + 1
        able = replay.rows_alone and replay.together and None not in run.kept
        self.alone = able and replay.tails_alone
        if self.alone and len(run) > replay.tails_checked:  # some look at how long their input is
            self.alone = replay.tails_alone = self._agree()
            replay.tails_checked = len(run)

    def of_run(self, block: int, start: int) -> Context:
        """What attention needs of the run's own rows before `start`."""
        kept = self.run.kept[block]
        if self.alone and kept is not None:
            return kept.keys[:, :, :start], kept.values[:, :, :start]
        return (self.run.inputs[block][None, None, :start],)

    def row(self, position: int, start: int, *, last: bool) -> int:
        """Where a position stands in what passes a hook while tails from `start` on are run.

        With `last`, the row that is read alone passes, and is asked for.
        """
        if not self.alone:
            return position
        return 0 if last else position - start

    def through(
        self, block: int, streams: Tensor, start: int, before: Context, *, last: bool = False
    ) -> Tail:
        """Tails `[B, n, D]` from `start` on, run through a block.

        `before` is of `R` runs, whose copies stand in turn: copy `c` of run `r` at `c R + r`. With
        `last`, only the row that is read is run to the end: `[B, 1, D]`.
        """
        if not self.alone:
            return self._whole(block, streams, start, before, last=last)
        held = KeysAndValues(before[0], before[1])
        module = self.replay.model.blocks[block]
        aside: list[KeysAndValues] = []
        if last and streams.shape[1] > 1:
            call = self._arguments(block, start, self.stop - 1)
            aside = keys_and_values(module, streams[:, :-1], call)
            held = _joined(held, aside[0])
            streams, start = streams[:, -1:], self.stop - 1
        cache = _After(held)
        call = self._arguments(block, start, self.stop)
        out = module(streams, **call, **{self._cache_names[block]: cache})
        own = _joined(aside[0], cache.own) if aside else cache.own
        return Tail(out[0] if isinstance(out, tuple) else out, tuple(own))

    # -- inside ------------------------------------------------------------------------------------

    def _whole(
        self, block: int, streams: Tensor, start: int, before: Context, *, last: bool
    ) -> Tail:
        rest = self.run.inputs[block][None, self.stop :].expand(len(streams), -1, -1)
        held = before[0][:, 0]
        n_copies = len(streams) // len(held)
        whole = torch.cat([held.repeat(n_copies, 1, 1), streams, rest], 1)  # [B, T, D]
        out = self.replay.whole(self.run, Step(block, "whole"), whole)
        first = self.stop - 1 if last else start
        return Tail(out[:, first : self.stop], (streams[:, None],))

    @cached_property
    def _named(self) -> list[Mapping[str, Any] | None]:
        blocks = self.replay.model.blocks
        return [
            named_arguments(block, call.args, call.kwargs)
            for block, call in zip(blocks, self.run.calls, strict=True)
        ]

    @cached_property
    def _cache_names(self) -> list[str]:
        return [cache_name(block) or "" for block in self.replay.model.blocks]

    def _arguments(self, block: int, start: int, stop: int) -> dict[str, Any]:
        """The block's arguments in the run for the rows from `start` to `stop`, the cache aside."""
        named = dict(self._named[block] or {})
        named.pop(self._cache_names[block], None)
        if named.get("attention_mask") is None:
            named["attention_mask"] = causal_mask(len(self.run), self.run.inputs[block])
        return {name: _part(name, value, start, stop) for name, value in named.items()}

    def _agree(self) -> bool:
        """Whether every block gives on tails what it gave in the run, and knows its arguments."""
        if not all(self._cache_names) or None in self._named:
            return False
        start = self.stop // 2
        for block, after in enumerate(self.run.inputs[1:]):
            for name, value in (self._named[block] or {}).items():
                if not _goes_by_rows(name, value, len(self.run)):
                    return False
            streams = self.run.inputs[block][None, start : self.stop].repeat(2, 1, 1)
            kept = self.run.kept[block]
            assert kept is not None
            held = kept.keys[:, :, :start], kept.values[:, :, :start]
            expected = after[start : self.stop].expand(2, -1, -1)
            try:
                out = self.through(block, streams, start, held).streams
            except (RuntimeError, IndexError, TypeError, ValueError):
                return False
            if not same(out, expected):
                return False
        return True


class _After:
    """Takes the place of a cache: puts what stands before in front, and keeps what it is given."""

    def __init__(self, before: KeysAndValues) -> None:
        self.before = before
        self.own = before

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.own = KeysAndValues(keys, values)
        merged = _joined(self.before, self.own)
        return merged.keys, merged.values


def _joined(before: KeysAndValues, own: KeysAndValues) -> KeysAndValues:
    """Those of `R` runs `[R, heads, P, d]` in front of their copies' `[B, heads, n, d]`."""
    return KeysAndValues(*(_in_front(one, two) for one, two in zip(before, own, strict=True)))


def _in_front(before: Tensor, own: Tensor) -> Tensor:
    copies = own.unflatten(0, (-1, len(before)))  # [C, R, heads, n, d]
    shared = before.expand(len(copies), *before.shape)
    return torch.cat([shared, copies], 3).flatten(0, 1)


def _part(name: str, value: Any, start: int, stop: int) -> Any:
    """An argument of the run's call for the rows from `start` to `stop` alone."""
    if name == "attention_mask":
        return value[:, :, start:stop, :stop]
    if name == "position_embeddings" and isinstance(value, tuple):
        return tuple(part[:, start:stop] for part in value)
    if name == "position_ids" and isinstance(value, Tensor):
        return value[:, start:stop]
    if name == "cache_position" and isinstance(value, Tensor):
        return value[start:stop]
    return value


def _goes_by_rows(name: str, value: Any, n_tokens: int) -> bool:
    """Whether an argument is known to go by rows, or is the same for all."""
    if name == "attention_mask" and isinstance(value, Tensor):
        return value.ndim == 4 and value.shape[0] == 1 and value.shape[2:] == (n_tokens, n_tokens)
    if name == "position_embeddings" and isinstance(value, tuple):
        return all(_goes_by_rows("position_ids", part, n_tokens) for part in value)
    if name == "position_ids" and isinstance(value, Tensor):
        return value.ndim >= 2 and value.shape[:2] == (1, n_tokens)
    return name == "cache_position" or not isinstance(value, Tensor)
