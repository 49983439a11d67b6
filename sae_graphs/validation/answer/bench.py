"""Copies of a prompt with something ablated in each: run, scored, counted.

Letters: `B` copies, `V` vocabulary, `L` SAE layers, `T` tokens, `K` controls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.flows import selected
from sae_graphs.model.joint import Edit, Sets, run_packs, run_sets
from sae_graphs.significance import p_value
from sae_graphs.validation.answer.records import Null, NullKind, Score
from sae_graphs.validation.answer.subject import Prepared, Unit
from sae_graphs.validation.scaling import match_of
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import generator_for

Tick = Callable[[int], None]  # told how many copies more are done
TIMED = 64  # copies after which it is foretold how long the rest takes


class Counter:
    """Counts the copies of all prompts, `total` in all, and says how long the rest will take."""

    def __init__(
        self,
        total: int,
        progress: Callable[[int, int], None] | None,
        foretold: Callable[[float], None] | None,
    ) -> None:
        self._total, self._progress, self._foretold = total, progress, foretold
        self._done, self._started = 0, time.perf_counter()

    def tick(self, n: int) -> None:
        """So many copies more are done, or left out."""
        self._done += n
        if self._foretold is not None and self._done >= min(TIMED, self._total):
            seconds = time.perf_counter() - self._started
            self._foretold(seconds * (self._total - self._done) / self._done)
            self._foretold = None
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


class Bench:
    """Runs copies of one prompt; `tick` is told how many more are done, or left out."""

    def __init__(self, found: Prepared, settings: ValidationSettings, tick: Tick) -> None:
        self.found, self.settings, self.tick = found, settings, tick

    def generator(self, kind: str, unit: Unit) -> torch.Generator:
        """The random numbers of one kind of control of one unit."""
        ids = self.found.asked.clean.token_ids
        return generator_for(self.settings.seed, "answer", kind, unit.spots, ids)

    def selected(self, sets: Sequence[Sequence[Spot]]) -> Sets:
        """Sets of features at tokens, by depth."""
        clean = self.found.asked.clean
        return selected(sets, len(clean), clean.logits.device)

    def ablating(self, sets: Sets, n: int) -> tuple[Tensor, Tensor]:
        """Logits `[B, V]` without each set, and what that takes from the stream, `[B, L, T]`."""
        asked, intervention = self.found.asked, self.found.intervention
        return run_sets(
            asked.model,
            asked.clean,
            sets,
            n,
            asked.read,
            intervention=intervention,
            progress=self.tick,
        )

    def run(self, edits: Callable[[int, int], Mapping[int, Edit]], n: int) -> tuple[Tensor, Tensor]:
        """The same of copies with edits."""
        asked = self.found.asked
        return run_packs(asked.model, asked.clean, edits, n, asked.read, self.tick)

    def scores(self, logits: Tensor) -> list[Score]:
        """The answer's score and probability in each of the logits `[B, V]`."""
        answer = self.found.asked.answer
        both = answer.score(logits).tolist(), answer.probability(logits).tolist()
        return [Score(nats, probability) for nats, probability in zip(*both, strict=True)]

    def null(
        self,
        kind: NullKind,
        logits: Tensor,
        after: float,
        *,
        took: Tensor | None = None,
        norms: Tensor | None = None,
        narrowest: int | None = None,
    ) -> Null:
        """How often the controls' logits `[K, V]` give a score of `after` or less.

        `took` `[K, L, T]` are the norms of what they take, `norms` `[L, T]` the unit's.
        """
        scores = [score.nats for score in self.scores(logits)]
        match = None
        if took is not None and norms is not None and bool(norms.any()):
            match = match_of(took, norms)
        return Null(
            kind,
            scores=tuple(scores),
            p=p_value(-after, [-score for score in scores]),
            match=match,
            narrowest=narrowest,
        )


def cost_of(unit: Unit, settings: ValidationSettings) -> int:
    """Copies that a unit takes, at most."""
    cost = 1 + 3 * settings.controls
    cost += 2 if unit.kind == "path" else 1 + settings.controls
    if settings.quick:
        return cost
    return cost + 2 * len(unit.features) + (settings.fewer_controls if unit.kind == "path" else 0)
