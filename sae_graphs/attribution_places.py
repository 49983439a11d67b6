"""At which tokens an attribution graph puts features, and which of those its viewers would drop."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from sae_graphs.annotations import Annotations
from sae_graphs.attribution_words import safe
from sae_graphs.errors import quoted
from sae_graphs.graph import CausalGraph
from sae_graphs.records import FeatureId, Node, feature_order


def place_of(graph: CausalGraph, node: Node) -> int:
    """The token that a node stands at."""
    run, feature = graph.run, node.feature
    if feature.position is not None:
        return feature.position
    read = run.summed_at if isinstance(run.summed_at, int) else run.read_position
    if feature.is_output or not node.activations or node.activations[read]:
        return read
    first = 0 if run.settings.get("ablate_first") else 1
    before = range(first, read)  # what comes later has no effect there
    best = max(before, key=lambda at: (abs(node.activations[at]), at), default=read)
    return best if node.activations[best] else read


def too_frequent(
    graph: CausalGraph, places: Mapping[FeatureId, int]
) -> tuple[frozenset[FeatureId], list[str]]:
    """The weakest nodes of features that are at more than two thirds of the tokens."""
    n_tokens = len(graph.run.tokens)
    most = 2 * n_tokens // 3
    strength: dict[FeatureId, list[float]] = defaultdict(list)
    for edge in graph.edges:
        for end in (edge.source, edge.target):
            strength[end].append(abs(edge.effect))
    same: dict[tuple[str, int], list[FeatureId]] = defaultdict(list)
    for feature in places:
        same[feature.layer, feature.index].append(feature)

    def weakest_last(feature: FeatureId) -> tuple[float, int]:
        return -math.fsum(strength[feature]), -places[feature]

    dropped = [
        feature for each in same.values() for feature in sorted(each, key=weakest_last)[most:]
    ]
    if not dropped:
        return frozenset(), []
    ordered = sorted(dropped, key=lambda each: feature_order(each, graph.depths))
    return frozenset(dropped), [
        f"left out of the attribution graph: {quoted(ordered)}; viewers drop what is at more than "
        f"two thirds of the {n_tokens} tokens, so the strongest positions alone are kept"
    ]


def lost_from_view(annotations: Annotations, left_out: frozenset[FeatureId]) -> list[str]:
    """What a reader pinned or grouped and the file does not hold."""
    pins = [feature for feature in annotations.pins if feature in left_out]
    told = [f"the pins {quoted(pins)}"] if pins else []
    for group in annotations.groups:
        if lost := [feature for feature in group.features if feature in left_out]:
            which = "all" if len(lost) == len(group.features) else quoted(lost)
            told.append(f"{which} of the group {safe(group.name)!r}")
    return [f"left out with them, of what you marked: {quoted(told)}"] if told else []
