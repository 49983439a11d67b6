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
from itertools import accumulate
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

ROWS_AT_ONCE = 2048  # token rows in one call of a block: more gain nothing on a CPU
CALL_WORTH = (
    5e7  # floating point operations in the time of one call's overhead, 2 ms of a slow core
)
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

    @cached_property
    def rows_at_once(self) -> int:
        """Token rows that go through a block together, in a quarter of the working memory."""
        cfg = self.model.model.cfg
        n_floats = 30 * int(cfg.d_model) + 4 * int(getattr(cfg, "n_heads", 1)) * len(self.clean)
        room = self.model.working_memory // (4 * n_floats * self.clean.logits.element_size())
        return max(1, min(ROWS_AT_ONCE, room))

    @cached_property
    def rows_a_call(self) -> int:
        """Token rows whose multiplications take about as long as a call of a block by itself."""
        return int(CALL_WORTH / (24 * int(self.model.model.cfg.d_model) ** 2))

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
        for batch in _batches(level, herds):
            _advance(level, batch)
            if told is not None:
                told(sum(some.n for some in batch))
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
    """The copies of one group on their way up: `states` `[C, R, n, D]`, `ends` `[C, R, D]`.

    The first `n_born` of them are not the corrupted run any more.
    """

    def __init__(self, ground: Ground, group: Group, runs: Tensor) -> None:
        self.ground, self.group = ground, group
        n_runs, n_rows, width = len(runs), ground.read + 1 - group.token, runs.shape[-1]
        self.states = runs.new_empty(len(group.copies), n_runs, n_rows, width)
        self.ends = runs.new_empty(len(group.copies), n_runs, width)
        self.n_born = 0

    def taken_over_in(self, block: int) -> set[Part]:
        """The parts of a block that copies take over, which are born at the next."""
        born = slice(self.group.born_by(block), self.group.born_by(block + 1))
        return {copy.part for copy in self.group.copies[born] if copy.part}

    def bear(self, block: int, runs: Tensor, given: Mapping[Part, Tensor]) -> None:
        """Copies that are born at a block's input leave the corrupted `runs` as they are there."""
        token, ground = self.group.token, self.ground
        born = slice(self.n_born, self.group.born_by(block))
        for number, copy in enumerate(self.group.copies[born], self.n_born):
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
        self.n_born = born.stop

    def tails(self, some: slice, level: _Level, start: int) -> Tensor:
        """Some copies from the row `start` on, `[C R, n, D]`: rows before the group's token are
        those of the corrupted runs."""
        states = self.states[some]
        if start < self.group.token:
            first = level.ground.start
            rows = level.runs[None, :, start - first : self.group.token - first]
            states = torch.cat([rows.expand(len(states), -1, -1, -1), states], 2)
        return states.flatten(0, 1)

    def take(self, some: slice, out: Tensor, *, last: bool) -> None:
        """What a block made of some copies `[C R, n, D]`; after the last, of the row that is
        read."""
        found = out.unflatten(0, (-1, self.states.shape[1]))
        if last:
            self.ends[some] = found[:, :, -1]
        else:
            self.states[some] = found[:, :, -self.states.shape[2] :]

    def held(
        self, some: slice, level: _Level, part: Part, *, row: int, first: int
    ) -> list[tuple[Any, Tensor]]:
        """Where some copies hold a part in this block, and what it is there.

        They stand at `first` and after it in the batch, their token at `row`.
        """
        token, n_runs = self.group.token, self.states.shape[1]
        if level.last and token != level.ground.read:
            return []  # only the row that is read is run to the end
        puts: list[tuple[Any, Tensor]] = []
        for clean in (True, False):
            held = [
                number
                for number, copy in enumerate(self.group.copies[some])
                if copy.holds == part and level.block in copy.held and copy.severed != clean
            ]
            if held:
                value = level.at(part, token, clean=clean).expand(n_runs, -1)
                index = torch.tensor(held, device=value.device)[:, None] * n_runs + first
                index = (index + torch.arange(n_runs, device=value.device)).flatten()
                puts.append(((index, row), value.repeat(len(held), 1)))
        return puts


class _Some(NamedTuple):
    """Some of a herd's copies."""

    herd: _Herd
    which: slice

    @property
    def n(self) -> int:
        """How many they are, over all noise runs."""
        return (self.which.stop - self.which.start) * self.herd.states.shape[1]


def _batches(level: _Level, herds: Sequence[_Herd]) -> Iterator[list[_Some]]:
    """The copies that are born, in batches that go through the block in one call each.

    Tails of a batch begin at its first token. Groups of later tokens join it where the rows that
    are run in vain cost less than another call.
    """
    ground, batch = level.ground, list[_Some]()
    for herd in herds:
        n_runs, n_rows = herd.states.shape[1:3]
        step = max(1, ground.rows_at_once // (n_runs * n_rows)) if level.together else 1
        for first in range(0, herd.n_born, step):
            some = _Some(herd, slice(first, min(first + step, herd.n_born)))
            if batch and level.together:
                start = batch[0].herd.group.token
                rows = (some.n + sum(it.n for it in batch)) * (ground.read + 1 - start)
                in_vain = some.n * (herd.group.token - start)
                if in_vain <= ground.rows_a_call and rows <= ground.rows_at_once:
                    batch.append(some)
                    continue
            if batch:
                yield batch
            batch = [some]
    if batch:
        yield batch


def _advance(level: _Level, batch: Sequence[_Some]) -> None:
    """A batch of copies goes through a block."""
    tails, start = level.ground.tails, batch[0].herd.group.token
    streams = torch.cat([some.herd.tails(some.which, level, start) for some in batch])
    before = tuple(part[:, :, :start] for part in level.context)
    firsts = [0, *accumulate(some.n for some in batch)]
    with ExitStack() as hooks:
        for part in PARTS:
            puts = [
                put
                for some, first in zip(batch, firsts, strict=False)
                for put in some.herd.held(
                    some.which,
                    level,
                    part,
                    row=tails.row(some.herd.group.token, start, last=level.last),
                    first=first,
                )
            ]
            hooks.enter_context(level.putting(part, puts))
        out = tails.through(level.block, streams, start, before, last=level.last).streams
    for some, first in zip(batch, firsts, strict=False):
        some.herd.take(some.which, out[first : first + some.n], last=level.last)
