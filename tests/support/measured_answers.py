"""Answer graphs of small models, whose features are on ordinary text what is drawn here."""

from __future__ import annotations

from typing import Any

import torch

from sae_graphs.effects.answer.build import answer_graph
from sae_graphs.effects.answer.experiment import Measured, measure_answer
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.features.reference import Reference
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.models import PROMPT


def references(model: InstrumentedModel, seed: int = 0) -> list[Reference]:
    """Random ones: about a fifth of the features is dense, and each has a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for layer in model.stack.layers:
        density = torch.rand(layer.n_features, generator=generator) * 0.37
        mean = torch.rand(layer.n_features, generator=generator)
        found.append(Reference(mean, density, 1000, "random", "none"))
    return found


def measured_of(model: InstrumentedModel, prompt: str = PROMPT, **options: Any) -> Measured:
    """Every effect on the answer."""
    return measure_answer(model, prompt, GraphSettings(**options), references=references(model))


def graph_of(model: InstrumentedModel, prompt: str = PROMPT, **options: Any) -> CausalGraph:
    """The graph; options of `answer_graph` beside those of the settings."""
    own = {
        name: options.pop(name)
        for name in ("effects", "partial", "progress", "intervention", "references")
        if name in options
    }
    settings = GraphSettings(**options)
    scope = model if settings.layers is None else model.between(*settings.layers)
    own.setdefault("references", references(scope))
    return answer_graph(model, prompt, settings, **own)
