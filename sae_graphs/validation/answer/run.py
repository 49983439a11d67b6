"""Is it what the answer hangs on? A graph and its paths ablated, beside controls of their size.

1. The prompt, after a check that the graph is the model's. 2. Of each unit: its features ablated
together, and matched sets, scaled ones and random directions in their place. 3. The graph kept
alone, and matched sets. 4. What flows along each path. 5. Judge all of them together.

Letters: `B` copies, `V` vocabulary, `L` SAE layers, `T` tokens, `K` controls.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.flows import flows_along, selected
from sae_graphs.effects.answer.measure import effects_on_answer
from sae_graphs.features.reference import Reference
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.joint import Edit, Sets, adding, run_packs, run_sets
from sae_graphs.significance import p_value
from sae_graphs.validation.answer.controls import (
    Drawn,
    all_but,
    directions,
    matched,
    sets_of,
    shuffled,
)
from sae_graphs.validation.answer.outcomes import judged
from sae_graphs.validation.answer.partial import AnswerPartial, answer_key
from sae_graphs.validation.answer.records import (
    AnswerReport,
    AnswerUnit,
    Flow,
    KeepOnly,
    Null,
    NullKind,
    Score,
    Single,
)
from sae_graphs.validation.answer.subject import Prepared, Unit, prepared
from sae_graphs.validation.evidence import Match
from sae_graphs.validation.judging import SIGNIFICANT
from sae_graphs.validation.scaling import scaled_to
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import generator_for

Tick = Callable[[int], None]  # told how many copies more are done


@torch.no_grad()
def validate_answer(
    model: InstrumentedModel,
    graph: CausalGraph,
    settings: ValidationSettings,
    *,
    intervention: Intervention | str | None = None,
    references: Sequence[Reference] | None = None,
    resume: AnswerPartial | None = None,
    progress: Callable[[int, int], None] | None = None,
    foretold: Callable[[float], None] | None = None,
) -> AnswerReport:
    """Test an answer graph and its strongest paths; see `validate`.

    `references` are those of the model's layers, by depth, the stored ones where none are given.
    """
    started = time.perf_counter()
    settings = replace(settings, quick=settings.quick is not False)
    found = prepared(model, graph, settings, intervention, references)
    if resume is not None:
        resume.begin(
            lambda: answer_key(found, graph, settings), [unit.name for unit in found.units]
        )
    asked, bench = found.asked, _Bench(found, settings, progress, foretold)
    without_any, _ = bench.ablating(found.every, 1)
    units = []
    for unit in found.units:
        tested = None if resume is None else resume.read(unit.name)
        if tested is None:
            tested = _tested(unit, bench)
            if resume is not None:
                resume.write(unit.name, tested)
        else:
            bench.tick(_cost(unit, settings))
        units.append(tested)
    contrast = asked.answer.contrast
    return judged(
        AnswerReport(
            model=graph.run.model,
            saes=graph.run.saes,
            prompt=graph.run.prompt,
            tokens=asked.clean.tokens,
            target=asked.model.token_string(asked.answer.token_id),
            contrast=None if contrast is None else asked.model.token_string(contrast),
            intervention=found.intervention.name,
            clean=bench.scores(asked.clean.logits[asked.read][None])[0],
            without_any=bench.scores(without_any)[0],
            settings=_settings(settings),
            units=tuple(units),
            warnings=(*found.warnings, *_too_few_controls(len(units), settings)),
            seconds=time.perf_counter() - started,
        )
    )


def _too_few_controls(n_units: int, settings: ValidationSettings) -> tuple[str, ...]:
    """Where a single unit that no control matches could not be called necessary."""
    if n_units / (1 + settings.controls) <= SIGNIFICANT:
        return ()
    needed = math.ceil(n_units / SIGNIFICANT) - 1
    return (
        f"with {settings.controls} controls and {n_units} units, a single one that stands out "
        f"could not be called necessary; give --controls {needed}, or test fewer paths",
    )


def _settings(settings: ValidationSettings) -> dict[str, object]:
    """Those that say something of an answer graph."""
    foreign = {"curve", "snippets"} | (set() if not settings.quick else {"other_controls"})
    return {name: value for name, value in settings.to_json().items() if name not in foreign}


# -- one unit --------------------------------------------------------------------------------------


def _tested(unit: Unit, bench: _Bench) -> AnswerUnit:
    """A graph or a path, ablated, beside its controls."""
    asked, settings = bench.found.asked, bench.settings
    own = selected([unit.spots], len(asked.clean), asked.clean.logits.device)
    logits, moved = bench.ablating(own, 1)
    norms, after = moved[0], bench.scores(logits)[0]
    drawn = matched(
        asked,
        bench.found.table,
        unit.spots,
        norms,
        settings.controls,
        bench.generator("matched", unit),
    )
    nulls = list(_nulls(unit, bench, drawn, norms, after.nats))
    nulls += [] if settings.quick else _shuffles(unit, bench, norms, after.nats)
    is_path = unit.kind == "path"
    return AnswerUnit(
        name=unit.name,
        kind=unit.kind,
        features=unit.features,
        ablated=after,
        nulls=tuple(nulls),
        keep_only=None if is_path else _keep_only(bench, own, drawn),
        flow=_flow(unit, bench) if is_path else None,
        singles=() if settings.quick else _singles(unit, bench, after.nats),
    )


def _nulls(
    unit: Unit, bench: _Bench, drawn: Drawn, norms: Tensor, after: float
) -> tuple[Null, ...]:
    """The controls that decide whether it is necessary; `norms` `[L, T]` are what it takes."""
    asked, n = bench.found.asked, bench.settings.controls
    towards = directions(asked, norms, n, bench.generator("directions", unit))

    def pushing(start: int, stop: int) -> Mapping[int, Edit]:
        return {depth: adding(deltas[start:stop]) for depth, deltas in towards.items()}

    pushed, _ = bench.run(pushing, n)
    pushes = bench.null("directions", pushed, after)
    if drawn.refused is not None:
        kinds: tuple[NullKind, ...] = ("matched", "scaled")
        bench.tick(2 * n)
        return (*(Null(kind, refused=drawn.refused) for kind in kinds), pushes)
    sets = sets_of(drawn, len(asked.clean))
    plain, took = bench.ablating(sets, drawn.n)

    def scaling(start: int, stop: int) -> Mapping[int, Edit]:
        return {
            depth: scaled_to(
                asked.model,
                asked.clean,
                depth,
                chosen.part(start, stop),
                bench.found.intervention,
                norms[depth],
            )
            for depth, chosen in sets.items()
        }

    scaled, _ = bench.run(scaling, drawn.n)
    bench.tick(2 * (n - drawn.n))
    return (
        bench.null("matched", plain, after, took=took, norms=norms, narrowest=drawn.narrowest),
        bench.null("scaled", scaled, after, narrowest=drawn.narrowest),
        pushes,
    )


def _keep_only(bench: _Bench, own: Sets, drawn: Drawn) -> KeepOnly:
    """The unit kept alone, and matched sets kept alone."""
    every, n = bench.found.every, bench.settings.controls
    logits, _ = bench.ablating(all_but(every, own, 1), 1)
    kept = bench.scores(logits)[0]
    if drawn.refused is not None:
        bench.tick(n)
        return KeepOnly(kept, Null("matched", refused=drawn.refused))
    sets = all_but(every, sets_of(drawn, len(bench.found.asked.clean)), drawn.n)
    theirs, _ = bench.ablating(sets, drawn.n)
    bench.tick(n - drawn.n)
    scores = [score.nats for score in bench.scores(theirs)]
    p = p_value(kept.nats, scores)  # how many keep it up as much
    return KeepOnly(kept, Null("matched", tuple(scores), p, narrowest=drawn.narrowest))


def _flow(unit: Unit, bench: _Bench) -> Flow:
    """What the first feature does to the answer: along the path alone, and altogether."""
    asked, table = bench.found.asked, bench.found.table
    (along,) = flows_along(asked, table, [unit.spots])
    (total,) = effects_on_answer(asked, table.of(unit.spots[:1])).tolist()
    bench.tick(2)
    return Flow(along, total)


def _shuffles(unit: Unit, bench: _Bench, norms: Tensor, after: float) -> list[Null]:
    """As many other features of the graph in a path's place, wherever they are."""
    if unit.kind == "graph":
        return []
    generator = bench.generator("shuffles", unit)
    n = bench.settings.fewer_controls
    sets = shuffled(unit.spots, bench.found.others, n, generator)
    bench.tick(n - len(sets or ()))
    if sets is None:
        return [Null("shuffles", refused="the graph has too few features")]
    logits, took = bench.ablating(bench.selected(sets), len(sets))
    return [bench.null("shuffles", logits, after, took=took, norms=norms)]


def _singles(unit: Unit, bench: _Bench, after: float) -> tuple[Single, ...]:
    """Each feature ablated alone, and all but it."""
    before = bench.found.asked.score
    alone = [(spot,) for spot in unit.spots]
    without = [tuple(other for other in unit.spots if other != spot) for spot in unit.spots]
    logits, _ = bench.ablating(bench.selected([*alone, *without]), 2 * len(alone))
    changes = [score.nats - before for score in bench.scores(logits)]
    return tuple(map(Single, unit.features, changes[: len(alone)], changes[len(alone) :]))


# -- running ---------------------------------------------------------------------------------------


class _Bench:
    """Runs copies of the prompt, keeps count of them, and says how long all will take."""

    def __init__(
        self,
        found: Prepared,
        settings: ValidationSettings,
        progress: Callable[[int, int], None] | None,
        foretold: Callable[[float], None] | None,
    ) -> None:
        self.found, self.settings = found, settings
        self._progress, self._foretold = progress, foretold
        self._total = 1 + sum(_cost(unit, settings) for unit in found.units)
        self._done, self._started = 0, time.perf_counter()

    def tick(self, n: int) -> None:
        """So many copies more are done, or left out."""
        self._done += n
        if self._foretold is not None and self._done >= min(_TIMED, self._total):
            seconds = time.perf_counter() - self._started
            self._foretold(seconds * (self._total - self._done) / self._done)
            self._foretold = None
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

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
            ratios = took.double().flatten(1).norm(dim=1) / norms.double().norm()
            match = Match(*ratios.quantile(ratios.new_tensor([0.05, 0.5, 0.95])).tolist())
        return Null(
            kind,
            scores=tuple(scores),
            p=p_value(-after, [-score for score in scores]),
            match=match,
            narrowest=narrowest,
        )


_TIMED = 64  # copies after which it is foretold how long the rest takes


def _cost(unit: Unit, settings: ValidationSettings) -> int:
    """Copies that a unit takes, at most."""
    cost = 1 + 3 * settings.controls
    cost += 2 if unit.kind == "path" else 1 + settings.controls
    if settings.quick:
        return cost
    return cost + 2 * len(unit.spots) + (settings.fewer_controls if unit.kind == "path" else 0)
