"""The corrupted runs climb the model; then one walk carries the copies of all cells after them.

The corrupted runs differ from the clean run from the first corrupted token on: these rows alone are
run, beside the clean run's where what its parts write is asked for. Then, at each block's input,
the copies that are born there leave them (see `cells`), and the block runs every group of copies as
tails that begin at the group's token. A copy's rows before that are its corrupted run's, whose keys
and values all its copies share. In the last block only the row that is read is run to the end.

Letters: `R` noise runs, `C` copies of a group, `T` tokens, `n` rows of a tail, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from sae_graphs.tracing.cells import PARTS, Copy, Group, Part

ROWS_AT_ONCE = 2048  # token rows in one call of a block: more gain nothing on a CPU
_HOOKS: Mapping[Part, Sequence[str]] = {"attention": ATTENTION_HOOKS, "mlp": MLP_HOOKS}

Told = Callable[[int], None]
"""`told(n)`: so many more copies have passed a block."""


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

    def hook(self, block: int, part: Part) -> nn.Module:
        """Where a part of a block is seen as it enters the stream."""
        return part_hook(self.model.name, self.hooks, block, _HOOKS[part])


class Climbed(NamedTuple):
    """Corrupted runs in every block, and their last stream `[R, D]` at the read token."""

    levels: tuple[_Level, ...]
    ends: Tensor


@torch.no_grad()
def climb(ground: Ground, embeddings: Tensor, groups: Sequence[Group] = ()) -> Climbed:
    """Corrupted runs on their way up, with all that copies of these groups need of them.

    `embeddings` `[R, T, D]` are their streams before the first block. Raises `CannotSplitError`
    where the model does not show what attention and MLP write, and that is asked for.
    """
    wanted = {part for group in groups for copy in group.copies for part in copy.parts}
    parts = tuple(part for part in PARTS if part in wanted)
    runs = embeddings[:, ground.start : ground.read + 1]  # [R, n, D]
    levels = []
    for block in range(ground.n_blocks):
        levels.append(_Level(ground, block, runs, parts))
        runs = levels[-1].after
    return Climbed(tuple(levels) if groups else (), runs[:, -1])


@torch.no_grad()
def carry(climbed: Climbed, groups: Sequence[Group], told: Told | None = None) -> list[Tensor]:
    """The last stream at the read token of the copies of some groups: `[C, R, D]` each."""
    if not groups:
        return []
    herds = [_Herd(climbed.levels[0].ground, group, climbed.levels[0].runs) for group in groups]
    given: dict[Part, Tensor] = {}
    for level in climbed.levels:
        taken = {part for herd in herds for part in herd.taken_over_in(level.block)}
        for herd in herds:
            herd.bear(level.block, level.runs, given)
        given = level.with_clean_parts(taken)
        for herd in herds:
            herd.advance(level, told)
    for herd in herds:
        herd.bear(len(climbed.levels), climbed.levels[-1].after, given)
    return [herd.ends for herd in herds]


class _Level:
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
        if parts == PARTS:
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


class _Herd:
    """The copies of one group on their way up: `states` `[C, R, n, D]`, `ends` `[C, R, D]`."""

    def __init__(self, ground: Ground, group: Group, runs: Tensor) -> None:
        self.ground, self.group = ground, group
        n_runs, n_rows, width = len(runs), ground.read + 1 - group.token, runs.shape[-1]
        self.states = runs.new_empty(len(group.copies), n_runs, n_rows, width)
        self.ends = runs.new_empty(len(group.copies), n_runs, width)
        self._born = 0

    def taken_over_in(self, block: int) -> set[Part]:
        """The parts of a block that copies take over, which are born at the next."""
        born = slice(self.group.born_by(block), self.group.born_by(block + 1))
        return {copy.part for copy in self.group.copies[born] if copy.part}

    def bear(self, block: int, runs: Tensor, given: Mapping[Part, Tensor]) -> None:
        """Copies that are born at a block's input leave the corrupted `runs` as they are there."""
        token, ground = self.group.token, self.ground
        born = slice(self._born, self.group.born_by(block))
        for number, copy in enumerate(self.group.copies[born], self._born):
            if block == ground.n_blocks:
                assert copy.part is not None, "a state is restored before a block"
                self.ends[number] = given[copy.part][:, -1]
                continue
            at = token - ground.start
            self.states[number] = runs[:, at:]
            row = (
                ground.clean.inputs[block][token] if copy.part is None else given[copy.part][:, at]
            )
            self.states[number, :, 0] = row
        self._born = born.stop

    def advance(self, level: _Level, told: Told | None) -> None:
        """The copies that are born go through a block."""
        token, (_, n_runs, n_rows, _) = self.group.token, self.states.shape
        before = tuple(part[:, :, :token] for part in level.context)
        at_once = max(1, ROWS_AT_ONCE // (n_runs * n_rows)) if level.together else 1
        for first in range(0, self._born, at_once):
            some = slice(first, min(first + at_once, self._born))
            copies = self.group.copies[some]
            streams = self.states[some].flatten(0, 1)
            with ExitStack() as hooks:
                for part in PARTS:
                    hooks.enter_context(level.putting(part, self._held(level, copies, part)))
                out = level.ground.tails.through(
                    level.block, streams, token, before, last=level.last
                ).streams.unflatten(0, (len(copies), n_runs))
            if level.last:
                self.ends[some] = out[:, :, 0]
            else:
                self.states[some] = out
            if told is not None:
                told(len(copies) * n_runs)

    def _held(self, level: _Level, copies: Sequence[Copy], part: Part) -> list[tuple[Any, Tensor]]:
        """Where some copies hold a part in this block, and what it is there."""
        token, n_runs = self.group.token, self.states.shape[1]
        if level.last and token != level.ground.read:
            return []  # only the row that is read is run to the end
        puts: list[tuple[Any, Tensor]] = []
        row = level.ground.tails.row(token)
        for clean in (True, False):
            held = [
                number
                for number, copy in enumerate(copies)
                if copy.holds == part and level.block in copy.held and copy.severed != clean
            ]
            if held:
                value = level.at(part, token, clean=clean).expand(n_runs, -1)
                index = torch.tensor(held, device=value.device)[:, None] * n_runs
                index = (index + torch.arange(n_runs, device=value.device)).flatten()
                puts.append(((index, row), value.repeat(len(held), 1)))
        return puts
