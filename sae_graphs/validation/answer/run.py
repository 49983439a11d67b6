"""Is it what the answer hangs on? A graph and its paths ablated, beside controls of their size.

1. The prompt, after a check that the graph is the model's. 2. Of each unit: its features ablated
together, and matched sets, scaled ones and random directions in their place. 3. The graph kept
alone, and matched sets. 4. What flows along each path. 5. Judge all of them together. The same in
further prompts, each of which has an answer of its own.

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
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.reference import Reference
from sae_graphs.graph.across import Roles, check_roles
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.joint import Edit, Sets, adding
from sae_graphs.significance import p_value
from sae_graphs.validation.answer.bench import Bench, Counter, cost_of
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
    Single,
)
from sae_graphs.validation.answer.subject import Unit, prepared
from sae_graphs.validation.judging import SIGNIFICANT
from sae_graphs.validation.remarks import no_tests
from sae_graphs.validation.scaling import scaled_to
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.words import said


@torch.no_grad()
def validate_answer(
    model: InstrumentedModel,
    graph: CausalGraph,
    settings: ValidationSettings,
    *,
    prompts: Sequence[str] | str = (),
    roles: Sequence[Mapping[str, str]] | None = None,
    discovery: Sequence[str] | None = None,
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
    given = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    found_on = tuple(discovery or (graph.run.prompt,))
    others = _with_roles(graph, given, found_on, roles)
    own, *tests = prepared(model, graph, settings, intervention, references, others)
    names = [unit.name for unit in own.units]
    names += [_name(unit, n) for n, test in enumerate(tests, start=1) for unit in test.units]
    if resume is not None:
        resume.begin(lambda: answer_key(own, graph, settings, tests), names)
    plans = [(own, settings), *((test, replace(settings, quick=True)) for test in tests)]
    total = sum(1 + sum(cost_of(unit, how) for unit in each.units) for each, how in plans)
    counter = Counter(total, progress, foretold)
    report, *elsewhere = (
        _report(graph, Bench(each, how, counter.tick), resume, number)
        for number, (each, how) in enumerate(plans)
    )
    told = [f"in {said(test.prompt)}: {words}" for test in elsewhere for words in test.warnings]
    return replace(
        report,
        warnings=(*report.warnings, *no_tests(given, found_on), *told),
        discovery=tuple(discovery or ()),
        tests=tuple(elsewhere),
        seconds=time.perf_counter() - started,
    )


def _with_roles(
    graph: CausalGraph,
    given: Sequence[str],
    found_on: Sequence[str],
    roles: Sequence[Mapping[str, str]] | None,
) -> dict[str, Roles | None]:
    """The prompts to test on, each with the roles of the graph's prompt and its own."""
    found: dict[str, Roles | None] = {}
    if roles is not None:
        check_roles(roles, 1 + len(given), "the graph's prompt and for each further one")
        if graph.run.summed_at is not None:
            raise SaeGraphsError(
                "this graph is summed over tokens, so no feature has a role; leave roles out"
            )
    for number, prompt in enumerate(given, start=1):
        if prompt not in found_on:
            found.setdefault(prompt, None if roles is None else (roles[0], roles[number]))
    return found


def _name(unit: Unit, prompt: int) -> str:
    """What a unit's part of an interrupted run is called; prompt 0 is the graph's own."""
    return f"{unit.name}, prompt {prompt}" if prompt else unit.name


def _report(
    graph: CausalGraph, bench: Bench, resume: AnswerPartial | None, number: int
) -> AnswerReport:
    """All units in one prompt, judged together."""
    found, settings, asked = bench.found, bench.settings, bench.found.asked
    without_any, _ = bench.ablating(found.every, 1)
    units = []
    for unit in found.units:
        name = _name(unit, number)
        tested = None if resume is None else resume.read(name)
        if tested is None:
            tested = _tested(unit, bench)
            if resume is not None:
                resume.write(name, tested)
        else:
            bench.tick(cost_of(unit, settings))
        units.append(tested)
    contrast = asked.answer.contrast
    # The graph's own prompt speaks of both: intervention and controls are the same in the others.
    warnings = () if number else _too_few_controls(len(units), settings)
    return judged(
        AnswerReport(
            model=graph.run.model,
            saes=graph.run.saes,
            prompt=asked.clean.prompt,
            tokens=asked.clean.tokens,
            target=asked.model.token_string(asked.answer.token_id),
            contrast=None if contrast is None else asked.model.token_string(contrast),
            intervention=found.intervention.name,
            clean=bench.scores(asked.clean.logits[asked.read][None])[0],
            without_any=bench.scores(without_any)[0],
            settings=_settings(settings),
            units=tuple(units),
            warnings=(*found.warnings, *warnings),
            aligned=found.aligned,
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


def _tested(unit: Unit, bench: Bench) -> AnswerUnit:
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
        inactive=unit.inactive,
        singles=() if settings.quick else _singles(unit, bench, after.nats),
    )


def _nulls(unit: Unit, bench: Bench, drawn: Drawn, norms: Tensor, after: float) -> tuple[Null, ...]:
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


def _keep_only(bench: Bench, own: Sets, drawn: Drawn) -> KeepOnly:
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


def _flow(unit: Unit, bench: Bench) -> Flow | None:
    """What the first feature does to the answer: along the path alone, and altogether.

    None where its features do not stand at one token each.
    """
    if not unit.is_route:
        bench.tick(2)
        return None
    asked, table = bench.found.asked, bench.found.table
    (along,) = flows_along(asked, table, [unit.spots])
    (total,) = effects_on_answer(asked, table.of(unit.spots[:1])).tolist()
    bench.tick(2)
    return Flow(along, total)


def _shuffles(unit: Unit, bench: Bench, norms: Tensor, after: float) -> list[Null]:
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


def _singles(unit: Unit, bench: Bench, after: float) -> tuple[Single, ...]:
    """Each feature ablated alone, and all but it."""
    before, depths = bench.found.asked.score, bench.found.asked.model.stack.depths
    alone = [
        tuple(spot for spot in unit.spots if _is_at(spot, feature, depths))
        for feature in unit.features
    ]
    without = [tuple(spot for spot in unit.spots if spot not in own) for own in alone]
    logits, _ = bench.ablating(bench.selected([*alone, *without]), 2 * len(alone))
    changes = [score.nats - before for score in bench.scores(logits)]
    return tuple(map(Single, unit.features, changes[: len(alone)], changes[len(alone) :]))


def _is_at(spot: Spot, feature: FeatureId, depths: Mapping[str, int]) -> bool:
    same = (spot.depth, spot.feature) == (depths[feature.layer], feature.index)
    return same and feature.position in (None, spot.position)
