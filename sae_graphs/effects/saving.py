"""What a run keeps beside its graph: the layers that are done, and every effect measured."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_graphs._version import __version__
from sae_graphs.checkpoint import run_key
from sae_graphs.effects.arrays import Effects, keep_top
from sae_graphs.effects.describe import described
from sae_graphs.effects.experiment import Experiment
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.saved import KEPT_SETTINGS, SavedLayer, write_effects
from sae_graphs.effects.select import named
from sae_graphs.features.reference import Reference
from sae_graphs.graph.feature_id import OUTPUT_LAYER, FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import weights_of

DESCRIBED_TOP_K = 8  # times the run's top_k: features of so many edges are described for re-plots
MOST_DESCRIBED = 1000  # and no more features than this
_NO_NUMBER = (*KEPT_SETTINGS, "heads", "seed")  # settings that change no effect


def partial_of(resume: Partial | str | Path | None, effects: str | Path | None) -> Partial | None:
    """Where a run keeps its layers; effects that are to be saved need a place for them."""
    if isinstance(resume, Partial):
        return resume
    if resume is None and effects is not None:
        file = Path(effects)
        resume = file.with_name(f".{file.name}.partial")
    return None if resume is None else Partial(resume)


def key_of(experiment: Experiment, references: Sequence[Reference] = ()) -> str:
    """Tells apart everything that determines what a run measures, the `references` included."""
    model, clean = experiment.model, experiment.clean
    held = experiment.settings.to_json().items()
    facts = {
        "sae_graphs": __version__,
        "model": model.name,
        "device": clean.logits.device.type,
        "dtype": str(clean.logits.dtype),
        "saes": model.stack.name,
        "layers": [(layer.label, layer.point.hook_name) for layer in model.stack.layers],
        "tokens": list(clean.token_ids),
        "settings": {name: value for name, value in held if name not in _NO_NUMBER},
        "intervention": experiment.intervention.name,
    }
    means = ((f"reference {n}", held.mean) for n, held in enumerate(references))
    return run_key(facts, itertools.chain(weights_of(model), means))


def save_effects(file: Path, partial: Partial, experiment: Experiment, graph: CausalGraph) -> None:
    """Every effect into a file, with the features that other choices of edges may draw."""
    drawn = {node.feature for node in graph.nodes}
    further = _further_features(partial.blocks(), experiment, drawn)
    outputs = set(_every_output(experiment)) - drawn
    nodes = described(experiment, {*further, *outputs}).nodes
    layers = saved_layers(experiment)
    write_effects(file, graph.run, layers, [*graph.nodes, *nodes], partial.files())


def saved_layers(experiment: Experiment) -> list[SavedLayer]:
    """What was ablated in each layer, and what its features do on the prompt."""
    layers = []
    for depth, layer in enumerate(experiment.model.stack.layers):
        features = firsts = torch.zeros(0)
        if depth < len(experiment.ablations):
            ablations = experiment.ablations[depth]
            features, firsts = ablations.features, ablations.first_positions()
        active = experiment.clean.activations[depth]
        wide = torch.promote_types(active.values.dtype, torch.float32)
        layers.append(
            SavedLayer(
                label=layer.label,
                width=layer.n_features,
                neuronpedia_id=layer.neuronpedia_id,
                ablated=_indices(features),
                ablated_positions=_indices(firsts) if experiment.places.each else None,
                active_positions=_indices(active.positions),
                active_features=_indices(active.features),
                activations=active.values.to(wide).cpu().numpy(),
            )
        )
    return layers


def _indices(tensor: Tensor) -> Any:
    return tensor.to(torch.int32).cpu().numpy().astype(np.int32)


def _further_features(
    blocks: Iterable[Effects], experiment: Experiment, drawn: set[FeatureId]
) -> list[FeatureId]:
    """Features that another choice of edges would draw: those of the strongest, path or no path."""
    settings = experiment.settings
    top_k = DESCRIBED_TOP_K * (settings.top_k or 1)
    measured, _ = keep_top(blocks, top_k, settings.per or "layer")
    ends = (
        end for edge in named(measured, experiment.labels) for end in (edge.source, edge.target)
    )
    found = [end for end in dict.fromkeys(ends) if end not in drawn and not end.is_output]
    return found[:MOST_DESCRIBED]


def _every_output(experiment: Experiment) -> list[FeatureId]:
    """The output tokens; at the position where they are read, where positions are resolved."""
    at = experiment.places.read if experiment.places.each else None
    return [FeatureId(OUTPUT_LAYER, output.token_id, at) for output in experiment.outputs]
