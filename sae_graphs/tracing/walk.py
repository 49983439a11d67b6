"""One walk up the model that carries the copies of all cells after the corrupted runs.

At each block's input the copies that are born there leave the corrupted run (see `cells`); then the
block runs every group of copies as tails that begin at the group's token. A copy's rows before that
are its corrupted run's, whose keys and values all its copies share. In the last block only the row
that is read is run to the end.

Letters: `R` noise runs, `C` copies of a group, `n` rows of a tail, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_graphs.tracing.cells import PARTS, Group, Part
from sae_graphs.tracing.climb import Climbed, Ground, Level

Told = Callable[[int], None]
"""`told(n)`: so many more copies have passed a block."""


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

    def tails(self, some: slice, level: Level, start: int) -> Tensor:
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
        self, some: slice, level: Level, part: Part, *, row: int, first: int
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


def _batches(level: Level, herds: Sequence[_Herd]) -> Iterator[list[_Some]]:
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


def _advance(level: Level, batch: Sequence[_Some]) -> None:
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
