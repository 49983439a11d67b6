"""One walk up the model that carries the corrupted runs and the copies of all cells.

The corrupted runs differ from the clean run from the first corrupted token on: these rows alone are
run. At each block's input the copies that are born there leave them (see `cells`); then the block
runs the corrupted runs, beside a clean one whose parts are heard where they are needed, and every
group of copies, as tails that begin at the group's token. A copy's rows before that are its
corrupted run's, whose keys and values all its copies share. In the last block only the row that is
read is run to the end.

Letters: `R` noise runs, `C` copies of a group, `T` tokens, `n` rows of a tail, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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


@torch.no_grad()
def walk(
    ground: Ground, embeddings: Tensor, groups: Sequence[Group] = (), told: Told | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The last stream at the read token of corrupted runs `[R, D]`, and of their copies.

    `embeddings` `[R, T, D]` are the corrupted runs' streams before the first block. Of each group,
    `[C, R, D]`, in the order of its copies. Raises `CannotSplitError` where the model does not show
    what attention and MLP write, and that is asked for.
    """
    stop = ground.read + 1
    runs = embeddings[:, ground.start : stop]  # [R, n, D]
    herds = [_Herd(ground, group, runs) for group in groups]
    parts = tuple(part for part in PARTS if any(part in herd.parts for herd in herds))
    given: dict[Part, Tensor] = {}
    for block in range(ground.n_blocks):
        for herd in herds:
            herd.bear(block, runs, given)
        level = _Level(ground, block, runs, parts)
        given = level.with_clean_parts({part for herd in herds for part in herd.born_at(block + 1)})
        for herd in herds:
            herd.advance(level, told)
        runs = level.after
    for herd in herds:
        herd.bear(ground.n_blocks, runs, given)
    return runs[:, -1], [herd.ends for herd in herds]


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
        self.parts = {part for copy in group.copies for part in (copy.part, copy.holds) if part}
        self._born = 0

    def born_at(self, block: int) -> set[Part]:
        """The parts of the block below that copies which are born at this one take over."""
        copies = self.group.copies[self.group.born_by(block - 1) : self.group.born_by(block)]
        return {copy.part for copy in copies if copy.part}

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
