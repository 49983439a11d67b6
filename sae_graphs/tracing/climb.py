"""The corrupted runs climb the model, and leave in every block what their copies need.

They differ from the clean run from the first corrupted token on: these rows alone are run, beside
the clean run's where what its parts write is asked for. In the last block only the row that is read
is run to the end.

Letters: `R` noise runs, `T` tokens, `n` rows of a tail, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sae_graphs.errors import CannotSplitError
from sae_graphs.model.block_parts import (
    ATTENTION_HOOKS,
    MLP_HOOKS,
    Written,
    check_sum,
    part_hook,
)
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.recording import outputs_of
from sae_graphs.model.run import Run
from sae_graphs.model.tails import Context, Tails
from sae_graphs.tracing.cells import PARTS, Group, Part

LEAST_ROWS = 64  # with less, calls take all the time
ROWS_AT_ONCE = 2048  # token rows in one call of a block: more gain nothing on a CPU
CALL_WORTH = (
    5e7  # floating point operations in the time of one call's overhead, 2 ms of a slow core
)
_HOOKS: Mapping[Part, Sequence[str]] = {"attention": ATTENTION_HOOKS, "mlp": MLP_HOOKS}


@dataclass(frozen=True)
class Ground:
    """What all walks of one trace share: the model, the clean run, where it is read.

    `start` is the first token that is corrupted, before which nothing differs.
    """

    model: LanguageModel
    clean: Run
    read: int
    start: int

    @cached_property
    def tails(self) -> Tails:
        """The blocks, to be run on tails."""
        return Tails(self.model.replay, self.clean, self.read)

    @cached_property
    def hooks(self) -> dict[str, nn.Module]:
        """The model's hook points by name; slow to make."""
        return dict(self.model.model.hook_dict)

    @property
    def n_blocks(self) -> int:
        """The model's blocks, each a layer of the trace."""
        return len(self.clean.calls)

    @cached_property
    def rows_at_once(self) -> int:
        """Token rows that go through a block together, in a quarter of the working memory."""
        cfg = self.model.model.cfg
        n_floats = 30 * int(cfg.d_model) + 4 * int(getattr(cfg, "n_heads", 1)) * len(self.clean)
        room = self.model.working_memory // (4 * n_floats * self.clean.logits.element_size())
        return max(LEAST_ROWS, min(ROWS_AT_ONCE, room))

    @cached_property
    def rows_a_call(self) -> int:
        """Token rows whose multiplications take about as long as a call of a block by itself."""
        return int(CALL_WORTH / (24 * int(self.model.model.cfg.d_model) ** 2))

    def hook(self, block: int, part: Part) -> nn.Module:
        """Where a part of a block is seen as it enters the stream."""
        return part_hook(self.model.name, self.hooks, block, _HOOKS[part])


class Climbed(NamedTuple):
    """Corrupted runs in every block, and their last stream `[R, D]` at the read token."""

    levels: tuple[Level, ...]
    ends: Tensor


@torch.no_grad()
def climb(ground: Ground, embeddings: Tensor, groups: Sequence[Group] = ()) -> Climbed:
    """Corrupted runs on their way up, with all that copies of these groups need of them.

    `embeddings` `[R, T, D]` are their streams before the first block. Raises `CannotSplitError`
    where the model does not show what attention and MLP write, and that is asked for.
    """
    wanted = any(copy.parts for group in groups for copy in group.copies)
    parts = PARTS if wanted else ()  # both: that they are all which is added can be checked
    runs = embeddings[:, ground.start : ground.read + 1]  # [R, n, D]
    levels = []
    for block in range(ground.n_blocks):
        levels.append(Level(ground, block, runs, parts))
        runs = levels[-1].after
    return Climbed(tuple(levels) if groups else (), runs[:, -1])


class Level:
    """The corrupted runs `[R, n, D]` in one block: what it makes of them, and what its parts write.

    `context` `[R, ...]` is what attention needs of all their rows. In the last block, `after` and
    the parts are of the row that is read alone.
    """

    def __init__(self, ground: Ground, block: int, runs: Tensor, parts: tuple[Part, ...]) -> None:
        self.ground, self.block, self.runs, self.parts = ground, block, runs, parts
        self.last = block == ground.n_blocks - 1
        tails, start = ground.tails, ground.start
        self._before = tails.of_run(block, start)  # [1, ...]
        beside = [ground.clean.inputs[block][None, start : ground.read + 1]] if parts else []
        every = torch.cat([*beside, runs])
        with self._listening() as heard:
            done = tails.through(block, every, start, self._before, last=self.last)
        self.after = done.streams[len(beside) :]
        self.context: Context = tuple(
            torch.cat([one.expand(len(runs), *one.shape[1:]), two[len(beside) :]], 2)
            for one, two in zip(self._before, done.context, strict=True)
        )
        self.written = {part: self._rows(value, len(every)) for part, value in heard.items()}
        if parts:
            entered = every[:, -done.streams.shape[1] :]
            written = Written(self.written["attention"], self.written["mlp"], None)
            check_sum(ground.model.name, block, entered, written, done.streams)

    @property
    def together(self) -> bool:
        """Whether the block can be run on several copies at once."""
        return self.ground.model.replay.together

    @property
    def first(self) -> int:
        """The token of the first row of `after`."""
        return self.ground.read if self.last else self.ground.start

    def at(self, part: Part, token: int, *, clean: bool) -> Tensor:
        """What a part writes at a token: `[D]` in the clean run, `[R, D]` in the corrupted ones."""
        rows = self.written[part][:, token - self.first]
        return rows[0] if clean else rows[1:]

    def with_clean_parts(self, wanted: set[Part]) -> dict[Part, Tensor]:
        """What the block gives with one part as in the clean run, in every row of `after`.

        Rows do not see each other's: a block's attention reads what enters it.
        """
        found: dict[Part, Tensor] = {}
        if "mlp" in wanted:
            written = self.written["mlp"]
            found["mlp"] = self.after + (written[:1] - written[1:])
        if "attention" in wanted:
            tails, n_rows = self.ground.tails, self.after.shape[1]
            first = 0 if tails.alone else self.first
            rows = (slice(None), slice(first, first + n_rows))
            clean = self.written["attention"][:1]
            with self.putting("attention", [(rows, clean)]):
                found["attention"] = tails.through(
                    self.block, self.runs, self.ground.start, self._before, last=self.last
                ).streams
        return found

    @contextmanager
    def putting(self, part: Part, puts: Sequence[tuple[Any, Tensor]]) -> Iterator[None]:
        """What a part of the block writes becomes another at some places, given as index, value."""
        if not puts:
            yield
            return

        def put(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            shown = output.clone()
            for index, value in puts:
                shown[index] = value
            return shown

        handle = self.ground.hook(self.block, part).register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _listening(self) -> Iterator[dict[Part, list[Tensor]]]:
        with ExitStack() as hooks:
            yield {
                part: hooks.enter_context(outputs_of(self.ground.hook(self.block, part)))
                for part in self.parts
            }

    def _rows(self, heard: list[Tensor], n_copies: int) -> Tensor:
        """What was heard of a part, at the rows of `after`: `[1 + R, n, D]`."""
        n_rows = self.after.shape[1]
        n_heard = n_rows if self.ground.tails.alone else len(self.ground.clean)
        width = self.runs.shape[-1]
        if {tuple(value.shape[1:]) for value in heard} != {(n_heard, width)}:
            raise CannotSplitError(
                f"a hook point of block {self.block} of {self.ground.model.name} shows "
                f"{[tuple(value.shape) for value in heard]}, expected [B, {n_heard}, {width}]"
            )
        rows = torch.cat(heard) if len(heard) > 1 else heard[0]  # one copy at a time
        if len(rows) != n_copies:
            raise CannotSplitError(
                f"a hook point of block {self.block} of {self.ground.model.name} is passed "
                f"{len(rows)} times by {n_copies} copies of a prompt"
            )
        first = 0 if self.ground.tails.alone else self.first
        return rows[:, first : first + n_rows]
