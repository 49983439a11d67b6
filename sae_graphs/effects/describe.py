"""What is known of the features and output tokens of a graph, beside its edges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.effects.ablations import Ablations, Places, ablations_of
from sae_graphs.effects.anatomy import with_anatomy
from sae_graphs.effects.exact import changed_rows, packs, reads_of
from sae_graphs.effects.experiment import Experiment
from sae_graphs.effects.writers import Scrubbing, Shares, peaks_of, writers_of
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.features.contexts import corpora_of, read_contexts
from sae_graphs.graph.addresses import feature_url
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Context, Edge, Node, TokenEffect
from sae_graphs.model.block_parts import CleanWrites
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.rows import Rows, Where
from sae_graphs.model.saes import SAELayer

LEAST_PROBABILITY = 1e-5  # tokens rarer than this, ablated and not, are left out
LEAST_EFFECT_NATS = 0.01
Advance = Callable[[Ablations, Rows, Where], Tensor]


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
    activations = _activations(experiment, depth, indices)
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


def _activations(
    experiment: Experiment, depth: int, features: Collection[int]
) -> dict[int, list[float]]:
    """The clean activations `[T]` of some features of a layer, by their indices."""
    indices, clean = sorted(features), experiment.clean
    chosen = torch.tensor(indices, device=clean.logits.device)
    columns = clean.activations[depth].of(chosen).T.tolist()
    return dict(zip(indices, columns, strict=True))


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


class TokenEffects(NamedTuple):
    """Tokens that ablating a feature makes less likely, and likelier; strongest first."""

    promotes: tuple[TokenEffect, ...]
    suppresses: tuple[TokenEffect, ...]


@torch.no_grad()
def token_effects(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    features: Sequence[FeatureId],
    places: Places,
    *,
    limit: int = 4,
    advance: Advance | None = None,
) -> list[TokenEffects]:
    """What changing each feature does to the next token at the last position that is read.

    Log-probabilities, changed minus clean, in nats. Ordered by effect times probability (the
    larger of clean and changed), so that neither rare tokens nor faint effects come first.
    `ablations` hold those of the features; one without an ablation has no effects. `advance` runs
    changed rows on to the end of the model, for those who want to listen on the way.
    """
    before = _log_probabilities(clean.logits[places.read])  # [V]
    start = clean.points[ablations.depth]
    places = places._replace(reads=places.reads[-1:])
    found: list[TokenEffects] = []
    for _, pack in packs(model, clean, ablations, places, model.end):
        change, reads = changed_rows(model, clean, pack), reads_of(pack, places)
        if advance is None:
            streams = model.advance(clean, start, model.end, change, reads)  # [B, D]
        else:
            streams = advance(pack, change, reads)
        logits = model.unembed(streams)  # [B, V]
        found += [_strongest(model, before, after, limit) for after in _log_probabilities(logits)]
    positions = ablations.first_positions().tolist() if places.each else [None] * len(ablations)
    keys = zip(ablations.features.tolist(), positions, strict=True)
    by_place = dict(zip(keys, found, strict=True))
    nothing = TokenEffects((), ())
    return [by_place.get((feature.index, feature.position), nothing) for feature in features]


def _log_probabilities(logits: Tensor) -> Tensor:
    """In nats, in at least single precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _strongest(model: InstrumentedModel, before: Tensor, after: Tensor, limit: int) -> TokenEffects:
    effect = after - before
    probability = torch.maximum(before, after).exp()
    counted = (probability >= LEAST_PROBABILITY) & (effect.abs() >= LEAST_EFFECT_NATS)
    weight = torch.where(counted, effect * probability, 0.0)

    def tokens(signed: Tensor) -> tuple[TokenEffect, ...]:
        top = signed.topk(min(limit, len(signed)))
        return tuple(
            TokenEffect(model.token_string(i), float(effect[i]), float(before[i].exp()))
            for value, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)
            if value > 0
        )

    return TokenEffects(promotes=tokens(-weight), suppresses=tokens(weight))


class Parts(NamedTuple):
    """Edges with anatomies, nodes with writers; by layer label, why edges have no anatomy."""

    edges: tuple[Edge, ...]
    nodes: list[Node]
    reasons: dict[str, str]
    warnings: tuple[str, ...]


class Dissection:
    """What each block has to do with a graph's edges and features, where that can be told.

    The features are `advance`d by whoever runs their ablations to the end of the model: which
    blocks scrub them is heard on the way.
    """

    def __init__(self, experiment: Experiment, features: Collection[FeatureId]) -> None:
        model, clean, places = experiment.model, experiment.clean, experiment.places
        heads = experiment.settings.heads
        self._experiment = experiment
        self._peaks = peaks_of(model, clean, features, places)
        at = torch.tensor(list(self._peaks.values()), dtype=torch.int64, device=places.reads.device)
        self._writes = CleanWrites(model, clean, torch.cat([places.reads, at]), heads=heads)
        self._scrubbing = Scrubbing(self._writes, self._peaks, places)
        self.advance = self._scrubbing.advance

    @torch.no_grad()
    def parts(self, edges: Sequence[Edge], nodes: Sequence[Node]) -> Parts:
        """The edges and the nodes with what was found of them."""
        ablations = self._experiment.ablations if edges else ()
        split = with_anatomy(self._writes, edges, ablations, self._experiment.places)
        shares = writers_of(self._writes, self._peaks, self._scrubbing.found)
        described = []
        for node in nodes:
            written_by, scrubbed_by = shares.get(node.feature, Shares())
            described.append(replace(node, written_by=written_by, scrubbed_by=scrubbed_by))
        return Parts(tuple(split.edges), described, split.reasons, split.warnings)


@torch.no_grad()
def described(
    experiment: Experiment,
    features: Collection[FeatureId],
    edges: Sequence[Edge] = (),
    *,
    bare: bool = False,
) -> Parts:
    """All that is known of some features and edges of a graph.

    `bare`: activations and the edges' anatomies alone, as everywhere; no texts, no tokens that the
    features move, no blocks that wrote them, which take longer and are there to be looked at.
    """
    if bare:
        return _bare(experiment, features, edges)
    dissection = Dissection(experiment, features)
    nodes, warnings = describe(experiment, features, dissection.advance)
    parts = dissection.parts(edges, nodes)
    return parts._replace(warnings=(*parts.warnings, *warnings))


def _bare(experiment: Experiment, features: Collection[FeatureId], edges: Sequence[Edge]) -> Parts:
    """See `described`."""
    model, clean, places = experiment.model, experiment.clean, experiment.places
    nodes = [_output_node(experiment, feature) for feature in features if feature.is_output]
    for depth, layer in enumerate(model.stack.layers):
        here = [feature for feature in features if feature.layer == layer.label]
        if not here:
            continue
        activations = _activations(experiment, depth, {feature.index for feature in here})
        nodes += [
            Node(
                feature,
                activations[feature.index][_place(experiment, feature)],
                activations=tuple(activations[feature.index]),
            )
            for feature in here
        ]
    writes = CleanWrites(model, clean, places.reads, heads=experiment.settings.heads)
    split = with_anatomy(writes, edges, experiment.ablations if edges else (), places)
    return Parts(tuple(split.edges), nodes, split.reasons, split.warnings)
