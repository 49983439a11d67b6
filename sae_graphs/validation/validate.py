"""Evidence for a graph: every path ablated, beside controls that could have said no.

1. Prepare the prompts. 2. Ablate each component and its strongest paths, and as many features
that are not theirs. 3. Ask whether it is the path or only its nodes, what is left without all the
rest, how the response grows. 4. Compare kinds of ablation, and other text. 5. Judge all paths
together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from sae_graphs.bars import Progress, heard, with_bar
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.keywords import with_settings
from sae_graphs.model.instrument import InstrumentedModel, with_saes
from sae_graphs.model.interventions import Intervention
from sae_graphs.validation.answer.partial import AnswerPartial
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.answer.run import validate_answer
from sae_graphs.validation.answer.subject import check_for_answer
from sae_graphs.validation.background import (
    NOISE_SIZES,
    RESAMPLED,
    SNIPPET,
    Texts,
    agreement,
    backgrounds,
    bundled_texts,
    changes_by_kind,
)
from sae_graphs.validation.evidence import Curve, UnitReport, ValidationReport
from sae_graphs.validation.judging import judged
from sae_graphs.validation.mediation import keep_only, mediation
from sae_graphs.validation.partial import ValidationPartial, validation_key
from sae_graphs.validation.path_ablation import Tick, ablate_path
from sae_graphs.validation.remarks import no_tests, too_few_controls
from sae_graphs.validation.responses import COEFFICIENTS, WIDER, check_curve, curve, effect_of
from sae_graphs.validation.settings import (
    CONTROLS,
    OTHER_CONTROLS,
    PATHS,
    SNIPPETS,
    Curves,
    Paths,
    ValidationSettings,
)
from sae_graphs.validation.subjects import (
    Subject,
    Unit,
    ablated_elsewhere,
    check_same_run,
    generator_for,
    in_scope,
    prompt_of,
    settings_of,
    subject,
    units_of,
)

TOKENS_OF_TEXTS = 20_000  # read of the other text, from which snippets are drawn


@with_bar("ablating paths")
@with_settings(ValidationSettings)
@torch.no_grad()
def validate(
    model: InstrumentedModel,
    graph: CausalGraph,
    prompts: Sequence[str] | str = (),
    *,
    controls: int = CONTROLS,
    other_controls: int = OTHER_CONTROLS,
    paths: int = PATHS,
    path: Paths = (),
    target: str | None = None,
    contrast: str | None = None,
    curve: Curves = (),
    snippets: int = SNIPPETS,
    quick: bool | None = None,
    seed: int = 0,
    intervention: Intervention | str | None = None,
    settings: ValidationSettings | None = None,
    texts: Iterable[str] | None = None,
    corpus: str | None = None,
    discovery: Sequence[str] | None = None,
    roles: Sequence[Mapping[str, str]] | None = None,
    resume: str | Path | ValidationPartial | AnswerPartial | None = None,
    progress: Progress | bool | None = None,
    foretold: Callable[[float], None] | None = None,
) -> ValidationReport | AnswerReport:
    """Test a graph and its strongest paths by ablating them, beside controls.

    An answer graph is tested as a whole, and its paths, in its own prompt, in log-odds, with the
    `intervention` that it was made with, unless another is given: an `AnswerReport`, which
    `foretold` hears the seconds of. In further `prompts`, each with its own likeliest token for the
    answer, its features are ablated at the same positions where tokens are aligned by position,
    else at every token (`sae_graphs.graph.across`), or at those of the `roles`, one mapping for the
    graph's prompt and one for each further one, such as `{"subject": "Mary"}`. All else is about
    graphs of effects, of which every component is tested.

    Joint ablation at the positions that the graph's settings name: each layer's features are
    encoded again on the stream as it is then. Scores are ablated minus clean, in nats: log-odds, or
    with a `contrast` logit differences; each is set beside matched controls (see
    `sae_graphs.validation.controls`). With further `prompts` the graph is judged on these, else on
    its own. `texts` are other text for the change off the distribution, by default the bundled
    corpus; `corpus` is its name in the report. `discovery` names the prompts that the graph was
    found on. The options from `controls` to `seed` are those of `ValidationSettings`, which says
    what each does; or give `settings` whole. `progress` is told the copies run and their number,
    or True for a bar.
    With a folder to `resume` from, paths that an earlier, interrupted run tested are read.

    Raises `SaeGraphsError` where the graph is another model's, or an option does not fit.
    """
    settings = settings or ValidationSettings()  # made of the options, where there are any
    started, told = time.perf_counter(), heard(progress)
    model = with_saes(model)
    if not isinstance(graph, CausalGraph):
        raise SaeGraphsError(
            f"{graph!r:.60} is no graph; give one that causal_graph or CausalGraph.load gave"
        )
    if graph.run.answer is not None:
        check_for_answer(settings, texts)
        return validate_answer(
            model,
            graph,
            settings,
            prompts=prompts,
            roles=roles,
            discovery=discovery,
            intervention=intervention,
            resume=None if resume is None else _as_answers(resume),
            progress=told,
            foretold=foretold,
        )
    for name, value in (("an intervention", intervention), ("roles", roles)):
        if value is not None:
            raise SaeGraphsError(
                f"this graph of effects is tested by zero-ablation, at all tokens alike; {name} "
                "can be given for answer graphs alone"
            )
    settings = replace(settings, quick=bool(settings.quick))
    found_on = tuple(discovery or (graph.run.prompt,))
    given = (prompts,) if isinstance(prompts, str) else tuple(dict.fromkeys(prompts))
    found = _prepare(model, graph, [prompt for prompt in given if prompt not in found_on], settings)
    source = None if settings.quick or settings.snippets == 0 else _source(found, texts)
    kept = _partial(resume, found, settings)
    counter = _Counter(told, _planned(found, settings))
    units = []
    for unit in found.units:
        cost = _cost(unit, found, settings)
        tested = None if kept is None else kept.read(unit.name)
        if tested is None:
            tested = _tested(unit, found, settings, counter.tick)
            if kept is not None:
                kept.write(unit.name, tested)
        counter.finish(cost)
        units.append(tested)
    report = ValidationReport(
        model=graph.run.model,
        saes=graph.run.saes,
        prompt=graph.run.prompt,
        target=_only({result.target.token for result in units[0].results}),
        contrast=settings.contrast,
        log_odds=settings.contrast is None,
        discovery=found_on,
        test=tuple(test.clean.prompt for test in found.tests),
        settings=settings.to_json(),
        units=judged(units, settings.seed),
        curves=_asked_curves(found, settings, counter.tick),
        warnings=(
            *no_tests(given, found_on),
            *too_few_controls(len(found.tests), len(found.units), settings),
        ),
    )
    if source is not None:
        named = corpus or ("the bundled corpus" if texts is None else "the texts given")
        report = replace(_with_other_text(report, found, settings, source, counter), corpus=named)
    counter.finish(_cost_of_rest(found, settings))
    return replace(report, seconds=time.perf_counter() - started)


def _only(tokens: set[str]) -> str | None:
    """The one token that all prompts are asked for, if there is one."""
    return next(iter(tokens)) if len(tokens) == 1 else None


# -- the steps -------------------------------------------------------------------------------------


class _Prepared(NamedTuple):
    graph: CausalGraph
    own: Subject
    tests: tuple[Subject, ...]
    units: tuple[Unit, ...]

    @property
    def nodes(self) -> tuple[FeatureId, ...]:
        return tuple(node.feature for node in self.graph.nodes)


def _prepare(
    model: InstrumentedModel,
    graph: CausalGraph,
    prompts: Sequence[str],
    settings: ValidationSettings,
) -> _Prepared:
    units = units_of(graph, settings)
    scope, how = in_scope(model, graph), settings_of(graph)
    own = subject(scope, prompt_of(graph), "discovery", how, settings, own=True)
    check_same_run(own, graph)
    for cause, effect in settings.curve:
        check_curve(own, cause, effect_of(scope, effect))
    tests = [subject(scope, prompt, "test", how, settings, own=False) for prompt in prompts]
    return _Prepared(graph, own, tuple(tests), units)


def _source(found: _Prepared, texts: Iterable[str] | None) -> Texts:
    """Other text, by default that of the bundled model, read before anything is measured."""
    return Texts(
        found.own.model,
        bundled_texts() if texts is None else texts,
        n_tokens=TOKENS_OF_TEXTS,
        prepend_bos=settings_of(found.graph).prepend_bos,
    )


def _tested(unit: Unit, found: _Prepared, settings: ValidationSettings, tick: Tick) -> UnitReport:
    """One component or path, on all prompts, and in the graph's own taken apart."""
    results = [
        ablate_path(prompt, unit.features, found.nodes, settings, tick)
        for prompt in (found.own, *found.tests)
    ]
    report = UnitReport(
        name=unit.name,
        kind=unit.kind,
        component=unit.component,
        features=unit.features,
        edges=tuple((edge.source, edge.target) for edge in unit.edges),
        results=tuple(results),
    )
    if settings.quick:
        return report
    return replace(
        report,
        mediation=mediation(found.own, unit.features, unit.edges, tick),
        keep_only=keep_only(found.own, unit.features, tick),
        curves=_curves(unit, found.own, tick),
    )


def _curves(unit: Unit, own: Subject, tick: Tick) -> tuple[Curve, ...]:
    """The whole against the target's logit; a path's first feature against its last one."""
    inner = [feature for feature in unit.features if not feature.is_output]
    wide = [WIDER * coefficient for coefficient in COEFFICIENTS]
    found = []
    for coefficients in (COEFFICIENTS, wide):
        found.append(curve(own, inner, None, name=unit.name, coefficients=coefficients, tick=tick))
        if unit.kind == "path" and len(inner) > 1:
            first, last = inner[0], inner[-1]
            found.append(curve(own, [first], last, coefficients=coefficients, tick=tick))
    return tuple(found)


def _asked_curves(found: _Prepared, settings: ValidationSettings, tick: Tick) -> tuple[Curve, ...]:
    """Those of the pairs of features that were asked for, in both widths."""
    wide = [WIDER * coefficient for coefficient in COEFFICIENTS]
    return tuple(
        curve(
            found.own,
            [cause],
            effect_of(found.own.model, effect),
            coefficients=coefficients,
            tick=tick,
        )
        for cause, effect in settings.curve
        for coefficients in (COEFFICIENTS, wide)
    )


def _with_other_text(
    report: ValidationReport,
    found: _Prepared,
    settings: ValidationSettings,
    source: Texts,
    counter: _Counter,
) -> ValidationReport:
    """Kinds of ablation that need other text, and what ablation does there."""
    own, model, seed = found.own, found.own.model, settings.seed
    pieces = source.pieces(settings.snippets, SNIPPET, generator_for(seed, "snippets"))
    runs = [model.run_tokens(ids) for ids in pieces]
    alike = source.pieces(RESAMPLED, len(own.clean), generator_for(seed, "resampled"))
    others = [model.run_tokens(ids) for ids in alike]
    members = [own.members(unit.features) for unit in found.units]
    kinds = changes_by_kind(own, members, runs, others, counter.tick)
    where = partial(ablated_elsewhere, how=settings_of(found.graph))
    behind, noise = backgrounds(model, runs, members, seed, where, counter.tick)
    parts = zip(report.units, kinds, behind, strict=True)
    return replace(
        report,
        units=tuple(replace(unit, kinds=kind, background=back) for unit, kind, back in parts),
        noise=noise,
        agreement=agreement(kinds),
    )


# -- keeping count ---------------------------------------------------------------------------------


class _Counter:
    """Counts copies for the progress bar; what was skipped counts as done when its step is."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._before = self._within = 0

    def tick(self, n: int) -> None:
        self._within += n
        if self._progress is not None:
            self._progress(min(self._before + self._within, self._total), self._total)

    def finish(self, cost: int) -> None:
        self._before, self._within = self._before + cost, 0
        self.tick(0)


def _planned(found: _Prepared, settings: ValidationSettings) -> int:
    units = sum(_cost(unit, found, settings) for unit in found.units)
    return units + _cost_of_rest(found, settings)


def _cost(unit: Unit, found: _Prepared, settings: ValidationSettings) -> int:
    """Copies that one unit takes, at most."""
    few = settings.fewer_controls
    cost = (1 + len(found.tests)) * (2 + settings.controls + 3 * few)
    if settings.quick:
        return cost
    curves = 2 * len(COEFFICIENTS) * (2 if unit.kind == "path" else 1)
    return cost + 3 + 2 * len(unit.features) + len(unit.edges) + 6 + curves


def _cost_of_rest(found: _Prepared, settings: ValidationSettings) -> int:
    """Copies of the curves that were asked for, and of other text."""
    n, curves = len(found.units), 2 * len(COEFFICIENTS) * len(settings.curve)
    if settings.quick or settings.snippets == 0:
        return curves
    return curves + (2 + RESAMPLED) * n + settings.snippets * (2 * n + len(NOISE_SIZES))


def _as_answers(resume: str | Path | ValidationPartial | AnswerPartial) -> AnswerPartial:
    if isinstance(resume, ValidationPartial):
        return AnswerPartial(resume.folder)
    return resume if isinstance(resume, AnswerPartial) else AnswerPartial(resume)


def _partial(
    resume: str | Path | ValidationPartial | AnswerPartial | None,
    found: _Prepared,
    settings: ValidationSettings,
) -> ValidationPartial | None:
    if resume is None:
        return None
    folder = resume.folder if isinstance(resume, AnswerPartial) else resume
    partial = folder if isinstance(folder, ValidationPartial) else ValidationPartial(folder)
    tokens = [test.clean.token_ids for test in (found.own, *found.tests)]
    names = [unit.name for unit in found.units]
    partial.begin(lambda: validation_key(found.own.model, found.graph, tokens, settings), names)
    return partial
