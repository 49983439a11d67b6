"""From a prompt to the graph of what its answer hangs on, start to end.

1. Clean run, and what the features are on ordinary text. 2. The effect on the answer of every
active feature at every token. 3. Keep the strongest. 4. How they hang together. 5. How much of the
answer they account for, and along which paths. 6. Describe and assemble.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from sae_graphs.bars import Progress
from sae_graphs.effects.answer.circuit import Circuit, Spot, circuit
from sae_graphs.effects.answer.coverage import DRAWS, coverage_of
from sae_graphs.effects.answer.drawn import (
    Names,
    answer_node,
    choice_warnings,
    edges_of_tokens,
    edges_to_answer,
    framed,
    with_kept,
)
from sae_graphs.effects.answer.experiment import Measured, kept_of, measure_answer
from sae_graphs.effects.answer.flows import best_paths
from sae_graphs.effects.answer.probe import Probe
from sae_graphs.effects.answer.saving import save_answer, strongest_dense, with_facts
from sae_graphs.effects.answer.what_if import what_if_of
from sae_graphs.effects.describe import Parts, described
from sae_graphs.effects.experiment import ids_given
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.preflight import (
    fit_warnings,
    layer_reports,
    processing_warnings,
    stack_warnings,
)
from sae_graphs.effects.rounding import relative_floor
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.features.contexts import check_contexts
from sae_graphs.features.reference import Reference
from sae_graphs.graph.answer import AnswerPath, AnswerRecord
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import LayerReport, RunRecord
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.next_token import next_tokens


@torch.no_grad()
def answer_graph(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    settings: GraphSettings,
    intervention: Intervention | str | None = None,
    progress: Progress | None = None,
    references: Sequence[Reference] | None = None,
    partial: Partial | None = None,
    effects: Path | None = None,
    bare: bool = False,
    paths: bool = True,
) -> CausalGraph:
    """The graph of what the answer to a prompt hangs on; see `causal_graph`.

    `references` are those of the model's layers, by depth; the stored ones, or those of the
    bundled English text, where none are given. Into the file `effects` goes what another choice of
    nodes and edges needs. `bare` is without what is there to be looked at: see `described`, and no
    random sets beside the coverage, no `what_if`; nor are there `paths` where these are not wanted.
    """
    found = measure_answer(model, prompt, settings, intervention, progress, references, partial)
    if not bare:
        check_contexts(found.experiment.model)
    return graph_of(found, kept_of(found), effects=effects, bare=bare, paths=paths)


@torch.no_grad()
def graph_of(
    found: Measured,
    kept: Sequence[Spot],
    *,
    effects: Path | None = None,
    bare: bool = False,
    paths: bool = True,
) -> CausalGraph:
    """The graph of some features at tokens; the options are those of `answer_graph`."""
    probe = Probe(found.asked, found.table)
    shape = circuit(probe, kept, top_k=found.experiment.settings.top_k or 1)
    names = Names(found.experiment.labels)
    features = [names.of(spot) for spot in (*shape.kept, *shape.relays)]
    edges = [names.edge(link) for link in shape.links]
    parts = described(found.experiment, features, edges, bare=bare)
    layers = layer_reports(found.experiment, _totals(found), ())
    general = _warnings(found, layers, parts)
    layers = with_kept(layers, shape, found.table.effect, parts.reasons)
    answer = _answer_record(found, shape, names, bare=bare, paths=paths)
    run = _record(found, shape, layers, general, answer)
    nodes = with_facts(found, probe, names, parts.nodes, (*shape.kept, *shape.relays))
    lowest = layers[0].label
    drawn = framed(nodes, {names.of(spot) for spot in kept}, lowest, run.tokens)
    edges = [*parts.edges, *edges_to_answer(shape, names), *edges_of_tokens(drawn, lowest)]
    graph = assemble(run, [*drawn, answer_node(run, found.asked.score)], edges)
    if effects is not None:
        save_answer(effects, found, probe, shape, graph, general)
    return graph


# -- the steps -------------------------------------------------------------------------------------


def _record(
    found: Measured,
    shape: Circuit,
    layers: tuple[LayerReport, ...],
    general: tuple[str, ...],
    answer: AnswerRecord,
) -> RunRecord:
    """What was run, and what a reader should know of it: `general` warnings, and of the nodes."""
    asked, experiment, table = found.asked, found.experiment, found.table
    model, clean, settings = asked.model, asked.clean, experiment.settings
    return RunRecord(
        model=model.name,
        saes=model.stack.name,
        prompt=clean.prompt,
        tokens=clean.tokens,
        read_position=asked.read,
        settings={
            **settings.to_json(),
            "intervention": experiment.intervention.name,
            "dtype": str(clean.logits.dtype).removeprefix("torch."),
            "floor": relative_floor(clean.logits.dtype),
            **ids_given(model, clean, settings.prepend_bos),
        },
        total_abs_effect=math.fsum(_totals(found).values()),
        kept_abs_effect=0.0,  # `assemble` sees to it
        next_tokens=next_tokens(model, clean, asked.read),
        layers=layers,
        warnings=(*general, *choice_warnings(answer, shape, table.effect)),
        outputs=experiment.outputs,
        answer=answer,
    )


def _answer_record(
    found: Measured, shape: Circuit, names: Names, *, bare: bool, paths: bool
) -> AnswerRecord:
    asked, table = found.asked, found.table
    kept = {str(names.of(spot)) for spot in shape.kept}
    folded = [feature for feature in strongest_dense(found, names) if feature.feature not in kept]
    drawn = [
        AnswerPath(tuple(str(names.of(spot)) for spot in path), flow, table.effect(path[0]))
        for path, flow in (best_paths(asked, table, shape) if paths else [])
    ]
    intervention, draws = found.experiment.intervention, 0 if bare else DRAWS
    return AnswerRecord(
        score=asked.score,
        measured=found.shortlist.total,
        exact=found.shortlist.exact,
        missed=found.shortlist.missed,
        coverage=coverage_of(asked, table, shape.kept, intervention, draws=draws),
        dense=tuple(folded),
        paths=tuple(drawn),
        stranded=tuple(str(names.of(spot)) for spot in shape.stranded),
        what_if=None if bare else what_if_of(found, shape, names),
    )


def _totals(found: Measured) -> dict[int, float]:
    """The total |effect| on the answer of each layer, by depth, in nats."""
    return {depth: float(effects.abs().sum()) for depth, effects in enumerate(found.table.effects)}


def _warnings(found: Measured, layers: Sequence[LayerReport], parts: Parts) -> tuple[str, ...]:
    """What a reader should know whatever nodes are kept."""
    model, settings = found.asked.model, found.experiment.settings
    return (
        *fit_warnings(layers),
        *stack_warnings(model),
        *processing_warnings(model, found.asked.clean),
        *_method_warnings(settings),
        *parts.warnings,
    )


def _method_warnings(settings: GraphSettings) -> tuple[str, ...]:
    if settings.method == "exact":
        return ()
    name = settings.method.replace("-", " ")
    return (
        f"effects on the answer are estimates by {name}, not measured: features are chosen by "
        "them; edges and coverage are measured",
    )
