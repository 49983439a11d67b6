"""Exact effects on the answer and their estimates from gradients, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.bars import Progress
from sae_graphs.effects.agreement import (
    Aligned,
    MethodComparison,
    PairComparison,
    agreement,
    aligned,
)
from sae_graphs.effects.answer.experiment import Prepared, prepare_answer
from sae_graphs.effects.answer.measure import effects_on_answer
from sae_graphs.effects.answer.table import effects_of, estimates
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.features.reference import Reference
from sae_graphs.graph.feature_id import ANSWER, ANSWER_LAYER
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention


class Timed(NamedTuple):
    """All effects of a layer on the answer, and how long they took."""

    effects: Effects
    seconds: float


@torch.no_grad()
def compare_on_answer(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    settings: GraphSettings,
    intervention: Intervention | str | None,
    methods: Sequence[str],
    progress: Progress | None = None,
    references: Sequence[Reference] | None = None,
) -> MethodComparison:
    """`compare_methods` of an answer graph: by which its nodes are chosen, the `nodes` strongest.

    Of the rarely-on features at tokens alone, unless the settings keep the dense ones.
    """
    found = prepare_answer(model, prompt, settings, intervention, references)
    asked, experiment = found.asked, found.experiment
    labels, k, n_tasks = experiment.labels, settings.nodes or 1, len(found.dense)
    parts: dict[str, list[Aligned]] = {method: [] for method in methods}
    pairs: list[PairComparison] = []
    for depth, label in enumerate(labels):
        exact, agreements = _timed(found, depth, "exact"), {}
        for method in methods:
            estimated = _timed(found, depth, method)
            parts[method].append(aligned(exact.effects, estimated.effects, k))
            seconds = estimated.seconds
            agreements[method] = agreement(parts[method][-1], k, labels, seconds, ANSWER)
        pairs.append(PairComparison(label, ANSWER_LAYER, exact.seconds, agreements))
        if progress is not None:
            progress((1 + len(methods)) * (depth + 1), (1 + len(methods)) * n_tasks)
    overall = {
        method: agreement(
            Aligned.joined(parts[method]).ranked(k),
            k,
            labels,
            sum(pair.methods[method].seconds for pair in pairs),
            ANSWER,
        )
        for method in methods
    }
    return MethodComparison(
        model=experiment.model.name,
        saes=experiment.model.stack.name,
        tokens=experiment.clean.tokens,
        read_position=asked.read,
        settings={**settings.to_json(), "intervention": experiment.intervention.name},
        steps=settings.steps,
        pairs=tuple(pairs),
        overall=overall,
    )


def _timed(found: Prepared, depth: int, method: str) -> Timed:
    """The effects of a layer by a method; those that are 0 have no entry."""
    asked, ablations = found.asked, found.experiment.ablations[depth]
    settings = found.experiment.settings
    if not settings.dense:
        ablations = ablations.chosen(~found.dense[depth])
    steps = settings.steps if method == "integrated-gradients" else None
    started = time.perf_counter()
    effects: Tensor
    if method == "exact":
        effects = effects_on_answer(asked, ablations)
    else:
        (effects,) = estimates(asked, [ablations], steps, None)
    seconds = time.perf_counter() - started
    block = effects_of(asked, ablations, effects)
    return Timed(block.chosen(block.values != 0), seconds)
