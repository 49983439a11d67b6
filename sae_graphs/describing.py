"""What is known of the features and output tokens of a graph, beside its edges."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from sae_graphs.ablations import ablations_of
from sae_graphs.contexts import Advance, corpora_of, read_contexts, token_effects
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.addresses import feature_url
from sae_graphs.graph.records import Context, FeatureId, Node
from sae_graphs.measuring import Experiment
from sae_graphs.model.saes import SAELayer


class Described(NamedTuple):
    """Nodes, and what a reader should know of them."""

    nodes: list[Node]
    warnings: tuple[str, ...]


def describe(
    experiment: Experiment, features: Collection[FeatureId], advance: Advance | None = None
) -> Described:
    """Nodes for features and output tokens.

    Features get activations, contexts and token effects: these are found by running the feature's
    ablation to the end of the model, by `advance` where it is given.
    Contexts in the user's cache that are not these SAEs' are left out, with a warning; beside the
    SAEs' weights they raise `SaeGraphsError`.
    """
    shelf = _Contexts(experiment)
    nodes = [_output_node(experiment, feature) for feature in features if feature.is_output]
    for depth, layer in enumerate(experiment.model.stack.layers):
        here = [feature for feature in features if feature.layer == layer.label]
        here.sort(key=lambda feature: (feature.index, feature.position or 0))
        if here:
            nodes += _features_of_layer(experiment, depth, here, advance, shelf)
    return Described(nodes, shelf.warnings())


def _features_of_layer(
    experiment: Experiment,
    depth: int,
    features: list[FeatureId],
    advance: Advance | None,
    shelf: _Contexts,
) -> list[Node]:
    model, clean, places = experiment.model, experiment.clean, experiment.places
    layer = model.stack.layers[depth]
    indices = sorted({feature.index for feature in features})
    chosen = torch.tensor(indices, device=clean.logits.device)
    ablations = ablations_of(clean, depth, places, experiment.intervention, chosen)
    effects = token_effects(model, clean, ablations, features, places, advance=advance)
    contexts = dict(zip(indices, shelf.of(layer, indices), strict=True))
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


class _Contexts:
    """The contexts of a stack's features, and what is wrong with them."""

    def __init__(self, experiment: Experiment) -> None:
        self._model = experiment.model
        self._stale: dict[str, str] = {}  # layer label to what is wrong

    def of(self, layer: SAELayer, features: Sequence[int]) -> list[tuple[Context, ...]]:
        try:
            return read_contexts(self._model, layer, features)
        except SaeGraphsError as problem:
            if layer.folder is not None:
                raise
            self._stale[layer.label] = str(problem)
            return [()] * len(features)

    def warnings(self) -> tuple[str, ...]:
        if self._stale:
            layers, why = quoted(self._stale), next(iter(self._stale.values()))
            return (f"no contexts are shown for layers {layers}: {why}",)
        corpora = corpora_of(self._model)
        if len(corpora) < 2:
            return ()
        parts = " and of ".join(quoted(labels, 4) for labels in corpora[:3])
        return (
            f"the contexts of layers {parts} come from different texts; build them again with "
            "`sae-graphs contexts`",
        )


def _output_node(experiment: Experiment, feature: FeatureId) -> Node:
    """With its clean logit where it is read; minus that of the contrast, if there is one."""
    logits = experiment.clean.logits[_place(experiment, feature)].float()
    minus = experiment.contrast_id
    logit = float(logits[feature.index]) - (0.0 if minus is None else float(logits[minus]))
    token = experiment.model.token_string(feature.index)
    return Node(feature=feature, activation=logit, token=token)


def _place(experiment: Experiment, feature: FeatureId) -> int:
    return experiment.places.read if feature.position is None else feature.position
