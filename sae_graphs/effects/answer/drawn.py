"""A circuit as the nodes, edges and warnings of a graph; nothing here knows torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sae_graphs.effects.answer.circuit import Circuit, Link, Spot
from sae_graphs.graph.answer import AnswerRecord
from sae_graphs.graph.feature_id import ANSWER, TOKEN_LAYER, FeatureId
from sae_graphs.graph.records import Edge, LayerReport, Node, RunRecord

AT_ONCE = 1 / 3  # of the kept features may reach the answer in one step
LITTLE = 0.5  # of what is lost with all features: a graph that loses less is warned of


class Names:
    """Features at tokens under the names that they have in a graph."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def of(self, spot: Spot) -> FeatureId:
        """The name of a spot."""
        return FeatureId(self._labels[spot.depth], spot.feature, spot.position)

    def edge(self, link: Link) -> Edge:
        """The edge that a link is."""
        source, target, effect, relative, flow = link
        return Edge(self.of(source), self.of(target), effect, relative_effect=relative, flow=flow)


def framed(
    nodes: Iterable[Node], kept: Collection[FeatureId], lowest: str, tokens: Sequence[str]
) -> list[Node]:
    """Features as kept or as relays, and the tokens below those of the `lowest` layer."""
    features = [replace(node, relay=node.feature not in kept) for node in nodes]
    first = {node.feature.position or 0 for node in features if node.feature.layer == lowest}
    below = [
        Node(FeatureId(TOKEN_LAYER, 0, position), 1.0, token=tokens[position])
        for position in sorted(first)
    ]
    return [*features, *below]


def edges_to_answer(shape: Circuit, names: Names) -> list[Edge]:
    """Those of the features that reach it with no SAE feature in between."""
    return [
        Edge(names.of(spot), ANSWER, effect, flow=effect) for spot, effect in shape.ends.items()
    ]


def edges_of_tokens(nodes: Sequence[Node], lowest: str) -> list[Edge]:
    """From each token to the features of the `lowest` layer there, which would be nothing without.

    By definition, not by measurement: the effect is minus the activation.
    """
    tokens = {node.feature.position: node.feature for node in nodes if node.feature.is_token}
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


def with_kept(
    layers: Iterable[LayerReport],
    shape: Circuit,
    effect: Callable[[Spot], float],
    reasons: Mapping[str, str],
) -> tuple[LayerReport, ...]:
    """The layers' records with the |effect| on the answer of what is kept of each, in nats."""
    found = []
    for depth, layer in enumerate(layers):
        kept = [abs(effect(spot)) for spot in shape.kept if spot.depth == depth]
        found.append(
            replace(layer, kept_abs_effect=math.fsum(kept), no_anatomy=reasons.get(layer.label))
        )
    return tuple(found)


def choice_warnings(
    answer: AnswerRecord, shape: Circuit, effect: Callable[[Spot], float]
) -> tuple[str, ...]:
    """What a reader should know of what is kept: other nodes may have other warnings."""
    least = min((abs(effect(spot)) for spot in shape.kept), default=0.0)
    return (*_missed_warnings(answer, least), *_shape_warnings(answer, shape))


def _missed_warnings(answer: AnswerRecord, least: float) -> tuple[str, ...]:
    """What a shortlist passed over, and how large the largest of a sample of it was."""
    if answer.missed is None:
        return ()
    return (
        f"{answer.exact:,} of {answer.measured:,} features at tokens were measured, those of the "
        "largest gradients; among the others the largest effect on the answer of a random sample "
        f"was {answer.missed:.3g} nats, and the smallest that is kept {least:.3g} (--budget "
        "measures more)",
    )


def _shape_warnings(answer: AnswerRecord, shape: Circuit) -> tuple[str, ...]:
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
            "express: no arrow leaves them"
        )
    coverage = answer.coverage
    if coverage is None:
        return tuple(found)
    lost = coverage.lost
    if lost is None or lost < LITTLE or coverage.without_any >= coverage.clean:
        found.append(
            "low coverage: ablating the kept features together takes "
            + ("nothing" if lost is None else f"{lost:.0%}")
            + " of what ablating all rarely-on ones takes from the answer's score"
        )
    return tuple(found)


def answer_node(run: RunRecord, score: float) -> Node:
    """The answer at the top of the graph: its score is its activation."""
    return Node(ANSWER, score, token=run.outputs[0].token)
