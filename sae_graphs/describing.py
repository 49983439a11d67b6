"""What is known of the features and output tokens of a graph, beside its edges."""

from __future__ import annotations

from collections.abc import Collection

import torch

from sae_graphs.ablations import ablations_of
from sae_graphs.contexts import Advance, read_contexts, token_effects
from sae_graphs.graph import FeatureId, Node
from sae_graphs.measuring import Experiment
from sae_graphs.neuronpedia import feature_url


def describe(
    experiment: Experiment, features: Collection[FeatureId], advance: Advance | None = None
) -> list[Node]:
    """Nodes for features and output tokens.

    Features get activations, contexts and token effects: these are found by running the feature's
    ablation to the end of the model, by `advance` where it is given.
    """
    nodes = [_output_node(experiment, feature) for feature in features if feature.is_output]
    for depth, layer in enumerate(experiment.model.stack.layers):
        here = [feature for feature in features if feature.layer == layer.label]
        here.sort(key=lambda feature: (feature.index, feature.position or 0))
        if here:
            nodes += _features_of_layer(experiment, depth, here, advance)
    return nodes


def _features_of_layer(
    experiment: Experiment, depth: int, features: list[FeatureId], advance: Advance | None
) -> list[Node]:
    model, clean, places = experiment.model, experiment.clean, experiment.places
    layer = model.stack.layers[depth]
    indices = sorted({feature.index for feature in features})
    chosen = torch.tensor(indices, device=clean.logits.device)
    ablations = ablations_of(clean, depth, places, experiment.intervention, chosen)
    effects = token_effects(model, clean, ablations, features, places, advance=advance)
    contexts = dict(zip(indices, read_contexts(model, layer, indices), strict=True))
    columns = clean.activations[depth].of(chosen).T.tolist()
    activations = dict(zip(indices, columns, strict=True))  # [T] each
    return [
        Node(
            feature=feature,
            activation=activations[feature.index][_place(experiment, feature)],
            activations=tuple(activations[feature.index]),
            neuronpedia=feature_url(layer.neuronpedia_id, feature.index),
            contexts=contexts[feature.index],
            promotes=effect.promotes,
            suppresses=effect.suppresses,
        )
        for feature, effect in zip(features, effects, strict=True)
    ]


def _output_node(experiment: Experiment, feature: FeatureId) -> Node:
    """With its clean logit where it is read; minus that of the contrast, if there is one."""
    logits = experiment.clean.logits[_place(experiment, feature)].float()
    minus = experiment.contrast_id
    logit = float(logits[feature.index]) - (0.0 if minus is None else float(logits[minus]))
    token = experiment.model.token_string(feature.index)
    return Node(feature=feature, activation=logit, token=token)


def _place(experiment: Experiment, feature: FeatureId) -> int:
    return experiment.places.read if feature.position is None else feature.position
