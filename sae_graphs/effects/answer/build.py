"""From a prompt to the graph of what its answer hangs on, start to end.

1. Clean run, and what the features are on ordinary text. 2. The effect on the answer of every
active feature at every token. 3. Keep the strongest. 4. How they hang together. 5. How much of the
answer they account for, and along which paths. 6. Describe and assemble.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from sae_graphs.effects.ablations import ablations_of
from sae_graphs.effects.answer.circuit import Circuit, Spot, Table, circuit
from sae_graphs.effects.answer.coverage import coverage_of
from sae_graphs.effects.answer.flows import best_paths
from sae_graphs.effects.answer.measure import Asked
from sae_graphs.effects.answer.table import Shortlist, measured_table
from sae_graphs.effects.describe import Parts, described
from sae_graphs.effects.experiment import Experiment, Progress, chosen_intervention, in_scope
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.preflight import (
    fit_warnings,
    layer_reports,
    processing_warnings,
    stack_warnings,
)
from sae_graphs.effects.saving import key_of
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError
from sae_graphs.features.contexts import check_contexts
from sae_graphs.features.reference import Reference, mean_intervention, references_of
from sae_graphs.graph.answer import AnswerPath, AnswerRecord, FoldedFeature
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import (
    ANSWER,
    TOKEN_LAYER,
    Edge,
    FeatureId,
    LayerReport,
    Node,
    OutputToken,
    RunRecord,
)
from sae_graphs.model.answer import answer_of
from sae_graphs.model.instrument import InstrumentedModel, with_saes
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.next_token import next_tokens

FOLDED = 8  # dense features that are listed
AT_ONCE = 1 / 3  # of the kept features may reach the answer in one step
LITTLE = 0.5  # of what is lost with all features: a graph that loses less is warned of


class Measured(NamedTuple):
    """A prompt's effects on its answer, and what they were measured with."""

    asked: Asked
    experiment: Experiment
    table: Table
    references: Sequence[Reference]
    shortlist: Shortlist


@torch.no_grad()
def answer_graph(
    model: InstrumentedModel,
    prompt: str,
    settings: GraphSettings,
    intervention: Intervention | str | None = None,
    progress: Progress | None = None,
    references: Sequence[Reference] | None = None,
    partial: Partial | None = None,
) -> CausalGraph:
    """The graph of what the answer to a prompt hangs on; see `causal_graph`.

    `references` are those of the model's layers, by depth; the stored ones, or those of the
    bundled English text, where none are given.
    """
    found = measure_answer(model, prompt, settings, intervention, progress, references, partial)
    check_contexts(found.experiment.model)
    return graph_of(found, kept_of(found))


@torch.no_grad()
def graph_of(found: Measured, kept: Sequence[Spot]) -> CausalGraph:
    """The graph of some features at tokens, by default the strongest, `kept_of`."""
    shape = circuit(found.asked, found.table, kept, top_k=found.experiment.settings.top_k or 1)
    names = _Names(found)
    features = [names.of(spot) for spot in (*shape.kept, *shape.relays)]
    edges = [names.edge(link) for link in shape.links]
    parts = described(found.experiment, features, edges)
    nodes = _nodes(found, shape, names, parts)
    edges = [*parts.edges, *_edges_to_answer(shape, names), *_edges_of_tokens(nodes)]
    return assemble(_record(found, shape, names, parts), nodes, edges)


@torch.no_grad()
def measure_answer(
    model: InstrumentedModel,
    prompt: str,
    settings: GraphSettings,
    intervention: Intervention | str | None = None,
    progress: Progress | None = None,
    references: Sequence[Reference] | None = None,
    partial: Partial | None = None,
) -> Measured:
    """Every active feature's effect on the answer, at each token but the first, in nats.

    Raises `SaeGraphsError` where the settings do not fit the prompt or the stack.
    """
    model = with_saes(model)
    settings = settings.located({x.label: x.neuronpedia_id for x in model.stack.layers})
    scope = in_scope(model, settings)
    clean = scope.clean_run(prompt, prepend_bos=settings.prepend_bos)
    read = _read_of(len(clean), settings)
    target = settings.target[0] if settings.target else None
    answer = answer_of(scope, clean, read, target=target, contrast=settings.contrast)
    asked = Asked(scope, clean, answer, read)
    if references is None:
        references = references_of(scope)
    if intervention is None or intervention == "mean":
        used = mean_intervention(scope, references)
    else:
        used = chosen_intervention(scope, intervention, clean, settings)
    places = asked.places._replace(reads=torch.arange(read + 1, device=clean.logits.device))
    ablations = tuple(
        ablations_of(clean, depth, places, used) for depth in range(len(scope.stack.layers))
    )
    experiment = Experiment(scope, clean, places, ablations, (_output(asked),), used, settings)
    dense = tuple(
        references[depth].dense.to(found.features.device)[found.features]
        for depth, found in enumerate(ablations)
    )
    if partial is not None:
        key = functools.partial(key_of, experiment)
        partial.begin(key, range(len(ablations)))
    table, shortlist = measured_table(asked, experiment, dense, progress, partial)
    return Measured(asked, experiment, table, references, shortlist)


def kept_of(found: Measured) -> list[Spot]:
    """The strongest features at tokens, and those that are pinned."""
    settings, labels = found.experiment.settings, found.experiment.labels
    strongest = found.table.strongest(settings.nodes or 1, dense=settings.dense)
    pinned: list[Spot] = []
    for pin in settings.pins:
        ablations = found.table.ablations[labels.index(pin.layer)]
        rows = ablations.features == pin.index
        if pin.position is not None:
            rows &= ablations.positions == pin.position
        if not rows.any():
            raise UnknownFeatureError(
                f"pinned feature {pin} is inactive at every ablated position of this prompt, so "
                "ablating it changes nothing; pin a feature that is active"
            )
        pinned += [found.table.spot(ablations.depth, row) for row in rows.nonzero()[:, 0].tolist()]
    return list(dict.fromkeys([*strongest, *pinned]))


# -- the steps -------------------------------------------------------------------------------------


def _read_of(n_tokens: int, settings: GraphSettings) -> int:
    """The position whose next token is asked for; raises where no token before it is ablated."""
    read = settings.read
    if not isinstance(read, int) or not -n_tokens <= read < n_tokens:
        raise SaeGraphsError(
            f"read position {read} is outside the prompt of {n_tokens} tokens; expected "
            f"0 to {n_tokens - 1}, or negative from the end"
        )
    if read % n_tokens == 0:
        raise SaeGraphsError(
            "the token that is read is the first, and there no feature is ablated: give a longer "
            "prompt, or read another token, or select='effect' (--select effect)"
        )
    return read % n_tokens


def _output(asked: Asked) -> OutputToken:
    """The answer as an output token: its logit, minus the contrast's where there is one."""
    model, clean, (own, other), read = asked
    logits = clean.logits[read].float()
    minus = 0.0 if other is None else float(logits[other])
    return OutputToken(
        token_id=own,
        token=model.token_string(own),
        logit=float(logits[own]) - minus,
        probability=float(asked.answer.probability(clean.logits[read])),
        contrast=None if other is None else model.token_string(other),
    )


class _Names:
    """Features at tokens under the names that they have in a graph."""

    def __init__(self, found: Measured) -> None:
        self._labels = found.experiment.labels

    def of(self, spot: Spot) -> FeatureId:
        return FeatureId(self._labels[spot.depth], spot.feature, spot.position)

    def edge(self, link: tuple[Spot, Spot, float, float, float]) -> Edge:
        source, target, effect, relative, flow = link
        return Edge(self.of(source), self.of(target), effect, relative_effect=relative, flow=flow)


def _nodes(found: Measured, shape: Circuit, names: _Names, parts: Parts) -> list[Node]:
    """Features with their effects on the answer, the tokens below them, and the answer."""
    asked, table = found.asked, found.table
    spots = {names.of(spot): spot for spot in (*shape.kept, *shape.relays)}
    kept, nodes = set(shape.kept), []
    for node in parts.nodes:
        spot = spots[node.feature]
        nodes.append(
            replace(
                node,
                effect_on_answer=table.effect(spot),
                direct_effect=shape.direct[spot],
                density=float(found.references[spot.depth].density[spot.feature]),
                relay=spot not in kept,
            )
        )
    first = {spot.position for spot in spots.values() if spot.depth == 0}
    nodes += [
        Node(FeatureId(TOKEN_LAYER, 0, position), 1.0, token=asked.clean.tokens[position])
        for position in sorted(first)
    ]
    token = asked.model.token_string(asked.answer.token_id)
    nodes.append(Node(ANSWER, asked.score, token=token))
    return nodes


def _edges_to_answer(shape: Circuit, names: _Names) -> list[Edge]:
    return [
        Edge(names.of(spot), ANSWER, effect, flow=effect) for spot, effect in shape.ends.items()
    ]


def _edges_of_tokens(nodes: Sequence[Node]) -> list[Edge]:
    """From each token to the features of the first layer there, which would be nothing without.

    By definition, not by measurement: the effect is minus the activation.
    """
    tokens = {node.feature.position: node.feature for node in nodes if node.feature.is_token}
    lowest = next((node.feature.layer for node in nodes if node.feature.is_feature), None)
    return [
        Edge(
            tokens[node.feature.position],
            node.feature,
            -node.activation,
            relative_effect=-1.0,
            flow=node.effect_on_answer,
        )
        for node in nodes
        if node.feature.layer == lowest and node.feature.position in tokens
    ]


def _record(found: Measured, shape: Circuit, names: _Names, parts: Parts) -> RunRecord:
    """What was run, and what a reader should know of it."""
    asked, experiment, table = found.asked, found.experiment, found.table
    model, clean, settings = asked.model, asked.clean, experiment.settings
    totals = {depth: float(effects.abs().sum()) for depth, effects in enumerate(table.effects)}
    layers = _layers(found, shape, parts, totals)
    answer = _answer_record(found, shape, names)
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
        },
        total_abs_effect=math.fsum(totals.values()),
        kept_abs_effect=0.0,  # `assemble` sees to it
        next_tokens=next_tokens(model, clean, asked.read),
        layers=layers,
        warnings=(
            *fit_warnings(layers),
            *stack_warnings(model),
            *processing_warnings(model, clean),
            *_method_warnings(settings),
            *_missed_warnings(found, shape),
            *_shape_warnings(shape, answer),
            *parts.warnings,
        ),
        outputs=experiment.outputs,
        answer=answer,
    )


def _layers(
    found: Measured, shape: Circuit, parts: Parts, totals: dict[int, float]
) -> tuple[LayerReport, ...]:
    """The layers on this prompt; their total and kept |effect| is that on the answer, in nats."""
    reports = []
    for depth, layer in enumerate(layer_reports(found.experiment, totals, ())):
        kept = [abs(found.table.effect(spot)) for spot in shape.kept if spot.depth == depth]
        reports.append(
            replace(
                layer, kept_abs_effect=math.fsum(kept), no_anatomy=parts.reasons.get(layer.label)
            )
        )
    return tuple(reports)


def _answer_record(found: Measured, shape: Circuit, names: _Names) -> AnswerRecord:
    asked, table = found.asked, found.table
    probability = float(asked.answer.probability(asked.clean.logits[asked.read]))
    folded = [
        FoldedFeature(
            str(names.of(spot)),
            table.effect(spot),
            float(found.references[spot.depth].density[spot.feature]),
        )
        for spot in table.strongest_dense(FOLDED)
        if spot not in shape.kept
    ]
    paths = [
        AnswerPath(tuple(str(names.of(spot)) for spot in path), flow, table.effect(path[0]))
        for path, flow in best_paths(asked, table, shape)
    ]
    return AnswerRecord(
        score=asked.score,
        probability=probability,
        measured=found.shortlist.total,
        exact=found.shortlist.exact,
        missed=found.shortlist.missed,
        coverage=coverage_of(asked, table, shape.kept, found.experiment.intervention),
        dense=tuple(folded),
        paths=tuple(paths),
        stranded=tuple(str(names.of(spot)) for spot in shape.stranded),
    )


def _method_warnings(settings: GraphSettings) -> tuple[str, ...]:
    if settings.method == "exact":
        return ()
    name = settings.method.replace("-", " ")
    return (
        f"effects on the answer are estimates by {name}, not measured: features are chosen by "
        "them; edges and coverage are measured",
    )


def _missed_warnings(found: Measured, shape: Circuit) -> tuple[str, ...]:
    """What a shortlist passed over, and how large the largest of a sample of it was."""
    exact, total, missed = found.shortlist
    if missed is None:
        return ()
    least = min((abs(found.table.effect(spot)) for spot in shape.kept), default=0.0)
    return (
        f"{exact:,} of {total:,} features at tokens were measured, those of the largest gradients; "
        f"among the others the largest effect on the answer of a random sample was {missed:.3g} "
        f"nats, and the smallest that is kept {least:.3g} (--budget measures more)",
    )


def _shape_warnings(shape: Circuit, answer: AnswerRecord) -> tuple[str, ...]:
    """Where the graph does not carry the prompt's story, and why."""
    found = []
    if len(shape.at_once) > AT_ONCE * len(shape.kept):
        found.append(
            f"{len(shape.at_once)} of {len(shape.kept)} kept features reach the answer in one "
            "step: the SAE layers do not carry this prompt's story from feature to feature"
        )
    if shape.stranded:
        found.append(
            f"{len(shape.stranded)} of {len(shape.kept)} kept features lead nowhere that the SAEs "
            "express, and are drawn apart"
        )
    lost = answer.coverage.lost
    if lost is None or lost < LITTLE or answer.coverage.without_any >= answer.coverage.clean:
        found.append(
            "low coverage: ablating the kept features together takes "
            + ("nothing" if lost is None else f"{lost:.0%}")
            + " of what ablating all rarely-on ones takes from the answer's score"
        )
    return tuple(found)
