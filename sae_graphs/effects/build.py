"""From a prompt to its causal graph, start to end: this file is the program's table of contents.

1. Clean run. 2. Measure every active feature's effect on the next layer. 3. Keep the strongest.
4. Filter to paths. 5. Describe the features that are left. 6. Assemble.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch

from sae_graphs.bars import Progress, heard, with_bar
from sae_graphs.effects.answer.build import answer_graph
from sae_graphs.effects.describe import Parts, described
from sae_graphs.effects.experiment import (
    Experiment,
    ids_given,
    measure_all,
    method_warnings,
    prepare,
)
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.preflight import (
    fit_warnings,
    layer_reports,
    processing_warnings,
    stack_warnings,
)
from sae_graphs.effects.rounding import relative_floor
from sae_graphs.effects.saving import key_of, partial_of, save_effects
from sae_graphs.effects.select import Selection, ends_of
from sae_graphs.effects.select import select as selected
from sae_graphs.effects.settings import (
    STEPS,
    Ablate,
    GraphSettings,
    Layers,
    Method,
    Per,
    Pins,
    Read,
    Select,
)
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.contexts import check_contexts
from sae_graphs.features.reference import Reference
from sae_graphs.graph.combine import common
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import RunRecord
from sae_graphs.keywords import with_settings
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.next_token import next_tokens

Prompt = str | Sequence[int]
Prompts = list[str] | tuple[str, ...] | Sequence[Sequence[int]]


@overload
def causal_graph(
    model: InstrumentedModel,
    prompt: Prompt,
    *,
    select: Select = "answer",
    nodes: int | None = None,
    dense: bool = False,
    budget: int | None = None,
    top_k: int | None = None,
    per: Per | None = None,
    min_path_edges: int | None = None,
    ablate: Ablate | None = None,
    ablate_first: bool = False,
    intervention: Intervention | str | None = None,
    read: Read = -1,
    layers: Layers = None,
    pin: Pins = (),
    outputs: int = 0,
    target: str | Sequence[str] = (),
    contrast: str | None = None,
    method: Method = "exact",
    steps: int = STEPS,
    heads: bool = False,
    prepend_bos: bool | None = None,
    seed: int = 0,
    settings: GraphSettings | None = None,
    effects: str | Path | None = None,
    resume: Partial | str | Path | None = None,
    progress: Progress | bool | None = None,
) -> CausalGraph: ...


@overload
def causal_graph(
    model: InstrumentedModel, prompt: Prompts, **options: Any
) -> list[CausalGraph]: ...


@with_bar("ablating features")  # type: ignore[misc]  # the options are those of the first, for both
@with_settings(GraphSettings, renamed={"targets": "target"})
@torch.no_grad()
def causal_graph(
    model: InstrumentedModel,
    prompt: Prompt | Prompts,
    *,
    select: Select = "answer",
    nodes: int | None = None,
    dense: bool = False,
    budget: int | None = None,
    top_k: int | None = None,
    per: Per | None = None,
    min_path_edges: int | None = None,
    ablate: Ablate | None = None,
    ablate_first: bool = False,
    intervention: Intervention | str | None = None,
    read: Read = -1,
    layers: Layers = None,
    pin: Pins = (),
    outputs: int = 0,
    target: str | Sequence[str] = (),
    contrast: str | None = None,
    method: Method = "exact",
    steps: int = STEPS,
    heads: bool = False,
    prepend_bos: bool | None = None,
    seed: int = 0,
    settings: GraphSettings | None = None,
    effects: str | Path | None = None,
    resume: Partial | str | Path | None = None,
    progress: Progress | bool | None = None,
) -> CausalGraph | list[CausalGraph]:
    """The causal graph of one forward pass, or of each of several: a list of prompts gives a list.

    A prompt is text, or token ids in one row, which are run as they are.

    Every feature that is active at an ablated position is ablated alone, and its effect on each
    feature of the next SAE layer read at the read position: ablated minus clean, in activation
    units of the target. `intervention` says how: an `Intervention`, or by name "zero", "mean" (over
    reference text), "scale:0.5" or "resample:FILE". The options from `top_k` to `seed` are those of
    `GraphSettings`, which says what each does; or give `settings` whole. `progress` is told the
    features done and their number (of several prompts, those done), or True for a bar. Raises
    `SaeGraphsError` for options that do not fit the prompt or the stack.

    Every effect goes into the file `effects` where it is given: `effects.safetensors` in the
    folder that the graph is saved in, for `replot`. With a folder to `resume` from, layers that
    an earlier, interrupted run of the same kind measured are read, and those that this run
    measures are kept there; it stays until you delete it.

    Method: the post "Causal Graphs of GPT-2-Small's Residual Stream"; here exact, with the SAEs'
    errors kept.
    """
    settings = settings or GraphSettings()  # made of the options, where there are any
    told = heard(progress)
    prompts, several = _listed(prompt)
    if not several:
        return _graph(model, prompts[0], settings, intervention, effects, resume, told)
    if effects is not None or resume is not None:
        raise SaeGraphsError("several prompts cannot share one file of effects, or one to resume")
    graphs = []
    for number, each in enumerate(prompts):
        graphs.append(_graph(model, each, settings, intervention))
        if told is not None:
            told(number + 1, len(prompts))
    return graphs


def _listed(prompt: Any) -> tuple[list[Prompt], bool]:
    """The prompts that are given, and whether as several; raises where that is a list of none."""
    if not isinstance(prompt, list | tuple):
        return [prompt], False
    if not prompt:
        raise SaeGraphsError("there is no prompt; give some text, token ids, or a list of either")
    several = all(isinstance(each, str | list | tuple) for each in prompt)
    return (list(prompt), True) if several else ([prompt], False)


def _graph(
    model: InstrumentedModel,
    prompt: Prompt,
    settings: GraphSettings,
    intervention: Intervention | str | None,
    effects: str | Path | None = None,
    resume: Partial | str | Path | None = None,
    progress: Progress | None = None,
    bare: bool = False,
    references: Sequence[Reference] | None = None,
    paths: bool = True,
) -> CausalGraph:
    """The graph of one prompt."""
    if settings.select == "answer":
        return answer_graph(
            model,
            prompt,
            settings,
            intervention,
            progress,
            partial=partial_of(resume, None),
            references=references,
            effects=None if effects is None else Path(effects),
            bare=bare,
            paths=paths,
        )
    experiment = prepare(model, prompt, settings, intervention or "zero")
    if not bare:
        check_contexts(experiment.model)
    partial = partial_of(resume, effects)
    if partial is not None:
        key = functools.partial(key_of, experiment)
        partial.begin(key, range(len(experiment.ablations)), at_once=effects is not None)
    blocks = measure_all(experiment, progress, partial)

    chosen = selected(
        blocks,
        experiment.labels,
        top_k=settings.top_k or 1,
        per=settings.per or "layer",
        min_path_edges=experiment.min_path_edges,
        n_outputs=len(experiment.outputs),
    )
    parts = described(experiment, ends_of(chosen.edges), chosen.edges, bare=bare)
    graph = assemble(_record(experiment, chosen, parts), parts.nodes, parts.edges)

    if effects is not None and partial is not None:
        save_effects(Path(effects), partial, experiment, graph)
        if resume is None:
            partial.remove()
    return graph


@torch.no_grad()
def bare_graph(
    model: InstrumentedModel,
    prompt: Prompt,
    settings: GraphSettings,
    intervention: Intervention | str | None = None,
    references: Sequence[Reference] | None = None,
    paths: bool = False,
) -> CausalGraph:
    """The nodes, edges and scores of `causal_graph`, without what is there to be looked at.

    The numbers are the same; there are no texts, no tokens that a feature moves, no blocks that
    wrote it, no `paths` unless asked for, and no random features beside the coverage: a third of
    the time. `references` are those of the layers measured, as in `answer_graph`.
    """
    return _graph(
        model, prompt, settings, intervention, bare=True, references=references, paths=paths
    )


# -- the steps -------------------------------------------------------------------------------------


def _record(experiment: Experiment, chosen: Selection, parts: Parts) -> RunRecord:
    """What was run, and what a reader should know of it."""
    model, clean, settings = experiment.model, experiment.clean, experiment.settings
    layers = tuple(
        replace(layer, no_anatomy=parts.reasons.get(layer.label))
        for layer in layer_reports(experiment, chosen.totals, chosen.edges)
    )
    return RunRecord(
        model=model.name,
        saes=model.stack.name,
        prompt=clean.prompt,
        tokens=clean.tokens,
        read_position=experiment.places.read,
        settings={
            **settings.to_json(),
            "min_path_edges": experiment.min_path_edges,
            "intervention": experiment.intervention.name,
            "dtype": str(clean.logits.dtype).removeprefix("torch."),
            "floor": relative_floor(clean.logits.dtype),
            **ids_given(model, clean, settings.prepend_bos),
        },
        total_abs_effect=sum(chosen.totals.values()),
        kept_abs_effect=0.0,  # `assemble` sees to it
        next_tokens=next_tokens(model, clean, experiment.places.read),
        layers=layers,
        warnings=(
            *fit_warnings(layers),
            *stack_warnings(model),
            *processing_warnings(model, clean),
            *method_warnings(settings),
            *parts.warnings,
            *chosen.warnings,
        ),
        outputs=experiment.outputs,
    )


class Discovery(NamedTuple):
    """A graph that several prompts have in common, those prompts, and the ones left to test it."""

    graph: CausalGraph
    discovery: tuple[str, ...]
    test: tuple[str, ...]


@with_bar("prompts")
@with_settings(
    GraphSettings, own=("seed",), renamed={"targets": "target"}, usual={"select": "effect"}
)
def discover(
    model: InstrumentedModel,
    prompts: Sequence[str],
    *,
    part: float = 0.5,
    seed: int = 0,
    select: Select = "effect",
    nodes: int | None = None,
    dense: bool = False,
    budget: int | None = None,
    top_k: int | None = None,
    per: Per | None = None,
    min_path_edges: int | None = None,
    ablate: Literal["all", "read"] | None = None,
    ablate_first: bool = False,
    read: Read = -1,
    layers: Layers = None,
    pin: Pins = (),
    outputs: int = 0,
    target: str | Sequence[str] = (),
    contrast: str | None = None,
    method: Method = "exact",
    steps: int = STEPS,
    heads: bool = False,
    prepend_bos: bool | None = None,
    settings: GraphSettings | None = None,
    progress: Progress | bool | None = None,
) -> Discovery:
    """Draw a `part` of the prompts at random, and find what their graphs have in common.

    `seed` is that of the drawing; the options from `select` on are those of `causal_graph`, but
    that the strongest effects of one layer on the next are the default. With `select="answer"` the
    graph holds what the prompts' own answers hang on, by position where the prompts differ in few
    tokens, else summed over tokens: its settings say which (`common`).
    Then `validate(model, found.graph, found.test, discovery=found.discovery)`. Raises
    `SaeGraphsError` where a part would be empty, or the graphs have nothing in common.
    """
    settings = settings or GraphSettings(select="effect")
    if settings.select == "effect" and settings.ablate == "each":
        raise SaeGraphsError("positions mean nothing across prompts; discover with ablate='all'")
    if isinstance(prompts, str):
        raise SaeGraphsError(f"prompts are {prompts!r:.60}; expected several prompts, as a list")
    distinct = list(dict.fromkeys(prompts))
    if not 0 < part < 1:
        raise SaeGraphsError(f"the part to discover on is {part}; expected between 0 and 1")
    if len(distinct) < 2:
        raise SaeGraphsError(
            f"{len(distinct)} different prompts; a graph found on some and tested on others needs "
            "at least 2"
        )
    count = min(max(round(part * len(distinct)), 1), len(distinct) - 1)
    chosen = set(random.Random(seed).sample(range(len(distinct)), count))
    found_on = tuple(prompt for number, prompt in enumerate(distinct) if number in chosen)
    graphs, told = [], heard(progress)
    for number, prompt in enumerate(found_on):
        graphs.append(causal_graph(model, prompt, settings=settings))
        if told is not None:
            told(number + 1, count)
    rest = tuple(prompt for number, prompt in enumerate(distinct) if number not in chosen)
    return Discovery(common(graphs), found_on, rest)
