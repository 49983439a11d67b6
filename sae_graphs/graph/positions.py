"""A causal graph with its effects summed over positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.across import placed
from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge, GraphParts, Node, RunRecord


def summed(graph: GraphParts, at: int | str | None = None) -> GraphParts:
    """A position-resolved graph as one of plain `layer.index` features, still to be assembled.

    The effect of `i` on `j` is the sum of the graph's effects of `i@p` on `j@at` over the source
    positions `p`; with `at="all"` over the target positions, too. `at` is the run's read position
    by default. Anatomies are summed by block and head, where every edge summed has one. Only edges
    that the graph holds are summed, and ablating a feature at one position at a time is not
    ablating it at all of them: the sums are those of single ablations. Where effects of both signs
    cancel, the kept share of the total |effect| falls; the totals stay those that were measured.

    A feature's activation is that at `at` (at the read position for `"all"`). The rest of what is
    known of it is taken from where it is strongest: the position at which its edges summed here
    have the largest total |effect|, the later one of equals. The settings say `summed_at`.

    An answer graph is summed over all tokens: of a feature its effects on the answer, of an edge
    what flows along it. The tokens themselves are left out.

    Raises `SaeGraphsError` where the graph has no positions, or `at` is none of its.
    """
    if not graph.resolves_positions:
        raise SaeGraphsError(
            "only a graph with token positions can be summed over them; this one has none: make "
            "it with --ablate each"
        )
    run = graph.run
    if run.answer is not None:
        return _summed_answer(graph, at)
    place = run.read_position if at is None else at
    last = len(run.tokens) - 1
    if place != "all" and (type(place) is not int or not 0 <= place <= last):
        raise SaeGraphsError(f"cannot sum at {at!r}; give a position from 0 to {last}, or 'all'")
    chosen = [edge for edge in graph.edges if place in ("all", edge.target.position)]
    shown_at = run.read_position if place == "all" else int(place)
    edges = _summed_edges(chosen)
    nodes = [_node(run, same, shown_at) for same in _by_feature(graph.nodes, chosen)]
    return GraphParts(_summed_run(run, edges, place), tuple(nodes), tuple(edges))


def _summed_answer(graph: GraphParts, at: int | str | None) -> GraphParts:
    """An answer graph over all tokens, without them."""
    if at not in (None, "all"):
        raise SaeGraphsError(
            f"cannot sum an answer graph at {at!r}: what leads to the answer goes from token to "
            "token; give 'all', or nothing"
        )
    run, nodes, edges = at_places(graph, {})
    settings = {**run.settings, "summed_at": "all"}
    return GraphParts(replace(run, settings=settings), nodes, edges)


def at_places(graph: GraphParts, places: Mapping[int, int]) -> GraphParts:
    """An answer graph with its positions named by the `places` that they are.

    What stands at one place is added up, and so is all of a feature that stands at none: that one
    has no position. The tokens are left out, unless every one of them is a place of its own.
    """
    run, whole = graph.run, range(len(graph.run.tokens))
    if all(places.get(position) == position for position in whole):
        return graph
    edges = _summed_edges([edge for edge in graph.edges if not edge.source.is_token], places)
    groups: dict[FeatureId, list[tuple[Node, float]]] = {}
    for node in graph.nodes:
        if not node.feature.is_token:
            pair = node, abs(node.effect_on_answer or 0.0)
            groups.setdefault(placed(node.feature, places), []).append(pair)
    nodes = [_node_on_answer(run, feature, same) for feature, same in groups.items()]
    answer = run.answer and replace(run.answer, what_if=None)  # that is of single tokens
    return GraphParts(replace(run, answer=answer), tuple(nodes), tuple(edges))


def _node_on_answer(run: RunRecord, feature: FeatureId, same: Sequence[tuple[Node, float]]) -> Node:
    """A feature with its effects on the answer added up; the answer as it is.

    Its activation at a place is that where it is strongest.
    """
    if feature.is_output:
        return same[0][0]
    nodes = [node for node, _ in same]
    if feature.position is None:
        found = _node(run, same, run.read_position)
    else:
        found = replace(_strongest(same), feature=feature)
    return replace(
        found,
        effect_on_answer=math.fsum(node.effect_on_answer or 0.0 for node in nodes),
        direct_effect=math.fsum(node.direct_effect or 0.0 for node in nodes),
        relay=all(node.relay for node in nodes),
    )


def _summed_edges(
    edges: Sequence[Edge], places: Mapping[int, int] = MappingProxyType({})
) -> list[Edge]:
    """One edge for each pair of features; those that cancel exactly are left out."""
    groups: dict[tuple[FeatureId, FeatureId], list[Edge]] = {}
    for edge in edges:
        ends = placed(edge.source, places), placed(edge.target, places)
        groups.setdefault(ends, []).append(edge)
    sums = [
        Edge(
            source,
            target,
            math.fsum(edge.effect for edge in same),
            _summed_anatomy(same),
            flow=_summed_flow(same),
        )
        for (source, target), same in groups.items()
    ]
    return [edge for edge in sums if edge.effect]


def _summed_flow(edges: Sequence[Edge]) -> float | None:
    flows = [edge.flow for edge in edges if edge.flow is not None]
    return math.fsum(flows) if len(flows) == len(edges) else None


def _plain(feature: FeatureId) -> FeatureId:
    return replace(feature, position=None)


def _summed_anatomy(edges: Sequence[Edge]) -> Anatomy | None:
    """The anatomies added up; None where an edge has none or they speak of different blocks."""
    anatomies = [edge.anatomy for edge in edges if edge.anatomy is not None]
    shapes = {tuple((b.block, len(b.heads)) for b in anatomy.blocks) for anatomy in anatomies}
    if len(anatomies) != len(edges) or len(shapes) != 1:
        return None
    blocks = tuple(
        BlockAnatomy(
            same[0].block,
            math.fsum(block.attention for block in same),
            math.fsum(block.mlp for block in same),
            tuple(math.fsum(head) for head in zip(*(block.heads for block in same), strict=True)),
        )
        for same in zip(*(anatomy.blocks for anatomy in anatomies), strict=True)
    )
    return Anatomy(math.fsum(anatomy.skip for anatomy in anatomies), blocks)


def _by_feature(nodes: Iterable[Node], edges: Iterable[Edge]) -> list[list[tuple[Node, float]]]:
    """The nodes that these edges touch, those of one feature together, with their strength."""
    strength: dict[FeatureId, float] = {}
    for edge in edges:
        for end in (edge.source, edge.target):
            strength[end] = strength.get(end, 0.0) + abs(edge.effect)
    groups: dict[FeatureId, list[tuple[Node, float]]] = {}
    for node in nodes:
        if node.feature in strength:
            pair = node, strength[node.feature]
            groups.setdefault(_plain(node.feature), []).append(pair)
    return list(groups.values())


def _node(run: RunRecord, same: Sequence[tuple[Node, float]], at: int) -> Node:
    """One node for a feature's nodes at several positions."""
    strongest = _strongest(same)
    known = [node.activation for node, _ in same if node.feature.position == at]
    if strongest.feature.is_output:
        known.append(run.output(strongest.feature).logit)  # where the run was read
    elif strongest.activations:
        known.append(strongest.activations[at])
    if not known:
        raise SaeGraphsError(f"{strongest.feature} has no activation at position {at}")
    return replace(strongest, feature=_plain(strongest.feature), activation=known[0])


def _strongest(same: Sequence[tuple[Node, float]]) -> Node:
    """The node that counts most, the later one of equals."""
    return max(same, key=lambda pair: (pair[1], pair[0].feature.position))[0]


def _summed_run(run: RunRecord, edges: Sequence[Edge], at: int | str) -> RunRecord:
    kept: dict[str, float] = {layer.label: 0.0 for layer in run.layers}
    for edge in edges:
        kept[edge.source.layer] += abs(edge.effect)
    layers = tuple(
        layer
        if layer.kept_abs_effect is None
        else replace(layer, kept_abs_effect=kept[layer.label])
        for layer in run.layers
    )
    return replace(run, settings={**run.settings, "summed_at": at}, layers=layers)
