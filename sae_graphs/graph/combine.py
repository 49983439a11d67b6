"""Several graphs in one: of one prompt (`union`), or what several prompts share (`common`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import ne
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.across import SUMMED, alignment
from sae_graphs.graph.feature_id import ANSWER, FeatureId, feature_order
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.paths import longest_path_edges, on_long_paths
from sae_graphs.graph.records import Edge, Node, RunRecord

SHARE = 0.5  # of the prompts in which an edge must be drawn


def union(left: CausalGraph, right: CausalGraph) -> CausalGraph:
    """Both graphs' edges in one. They must come from one run: the same model, SAEs, tokens, read
    position and settings; only `pin` may differ, where no feature is pinned in both.

    Raises `SaeGraphsError` where they differ, and where they disagree on an effect.
    """
    _check_same_run(left, right)
    edges = {(edge.source, edge.target): edge for edge in left.edges}
    for edge in right.edges:
        mine = edges.setdefault((edge.source, edge.target), edge)
        if not math.isclose(mine.effect, edge.effect, rel_tol=1e-4, abs_tol=1e-6):
            raise SaeGraphsError(f"the graphs disagree: {mine} here, {edge} there")
    nodes = {node.feature: node for graph in (right, left) for node in graph.nodes}
    return assemble(_joined_run(left, right), nodes.values(), edges.values())


def _check_same_run(left: CausalGraph, right: CausalGraph) -> None:
    for name in ("model", "saes", "tokens", "read_position"):
        mine, theirs = getattr(left.run, name), getattr(right.run, name)
        if mine != theirs:
            raise SaeGraphsError(
                f"cannot join graphs of different runs: {name} is {mine!r} and {theirs!r}; "
                "measure both in the same way"
            )
    ours, others = dict(left.run.settings), dict(right.run.settings)
    pins = [set(settings.pop("pin", None) or ()) for settings in (ours, others)]
    for settings in (ours, others):
        settings.pop("seed", None)  # nothing is drawn at random
    differing = sorted(k for k in ours.keys() | others.keys() if ours.get(k) != others.get(k))
    if differing:
        k = differing[0]
        raise SaeGraphsError(
            f"cannot join graphs of different settings: {k} is {ours.get(k)!r} and "
            f"{others.get(k)!r}; measure both in the same way"
        )
    if left.run.answer is None and pins[0] != pins[1] and (not all(pins) or pins[0] & pins[1]):
        raise SaeGraphsError(
            "cannot join these graphs: some features were measured in both runs, so totals would "
            "count them twice; pin different features in each"
        )


def _joined_run(left: CausalGraph, right: CausalGraph) -> RunRecord:
    """The run record of both: measured twice the same, or with pins that do not overlap."""
    pins = [graph.run.settings.get("pin") or [] for graph in (left, right)]
    if set(pins[0]) == set(pins[1]):
        return left.run
    if left.run.answer is not None:  # all was measured in both, whatever is pinned
        pinned = list(dict.fromkeys([*pins[0], *pins[1]]))
        return replace(left.run, settings={**left.run.settings, "pin": pinned})

    def added(a: Any, b: Any) -> Any:
        return b if a is None else a if b is None else a + b

    layers = tuple(
        replace(
            mine,
            total_abs_effect=added(mine.total_abs_effect, theirs.total_abs_effect),
            kept_abs_effect=added(mine.kept_abs_effect, theirs.kept_abs_effect),
            measured_features=added(mine.measured_features, theirs.measured_features),
        )
        for mine, theirs in zip(left.run.layers, right.run.layers, strict=True)
    )
    return replace(
        left.run,
        settings={**left.run.settings, "pin": [*pins[0], *pins[1]]},
        total_abs_effect=left.run.total_abs_effect + right.run.total_abs_effect,
        layers=layers,
    )


def common(graphs: Sequence[CausalGraph], *, share: float = SHARE) -> CausalGraph:
    """The edges that at least a `share` of the graphs have, on paths as long as theirs.

    Effects are means over the graphs that have the edge. The record is the first graph's; a node
    that is not in the first has no activations, its `activation` being the mean over the others;
    an output token that is not is added to the record.

    Of answer graphs the features that at least a `share` of them keep, and such edges between them:
    by position where the tokens of each prompt are aligned with those of the first
    (`sae_graphs.graph.across`), else summed over tokens. The settings say which, as `aligned`.
    Raises `SaeGraphsError` where nothing is left, and where some graphs are of answers and some of
    effects.
    """
    needed = max(1, math.ceil(share * len(graphs)))
    answers = [graph.run.answer is not None for graph in graphs]
    if all(answers):
        return _common_answers(graphs, needed)
    if any(answers):
        raise SaeGraphsError(
            "some of these are answer graphs and some are graphs of effects, which have no edge in "
            "common; give graphs of one kind"
        )
    effects: dict[tuple[FeatureId, FeatureId], list[float]] = {}
    nodes: dict[FeatureId, list[Node]] = {}
    for graph in graphs:
        for edge in graph.edges:
            effects.setdefault((edge.source, edge.target), []).append(edge.effect)
        for node in graph.nodes:
            nodes.setdefault(node.feature, []).append(node)
    edges = [
        Edge(source, target, math.fsum(values) / len(values))
        for (source, target), values in effects.items()
        if len(values) >= needed
    ]
    length = min(longest_path_edges(edges), int(graphs[0].run.settings["min_path_edges"]))
    edges = list(on_long_paths(edges, length)) if edges else []
    if not edges:
        raise SaeGraphsError(
            f"the graphs of {len(graphs)} prompts have no edge in common that {needed} of them "
            "draw; give prompts that are more alike"
        )
    own = {node.feature: node for node in graphs[0].nodes}
    ends = {edge.target for edge in edges}
    outputs = {out.token_id: out for graph in graphs[::-1] for out in graph.run.outputs}
    known = {out.token_id for out in graphs[0].run.outputs}
    more = [outputs[i] for i in sorted(outputs) if i not in known and FeatureId("out", i) in ends]
    run = replace(
        graphs[0].run,
        settings={**graphs[0].run.settings, "common_to": len(graphs)},
        outputs=(*graphs[0].run.outputs, *more),
    )
    return assemble(run, [own.get(f) or _mean(found) for f, found in nodes.items()], edges)


def _mean(found: Sequence[Node]) -> Node:
    mean = math.fsum(node.activation for node in found) / len(found)
    return replace(found[0], activation=mean, activations=())


# -- answer graphs ---------------------------------------------------------------------------------


def _common_answers(graphs: Sequence[CausalGraph], needed: int) -> CausalGraph:
    """The features that `needed` of the graphs keep, and how they lead on to each other there."""
    graphs, aligned = _alike(graphs)
    nodes: dict[FeatureId, list[Node]] = {}
    edges: dict[tuple[FeatureId, FeatureId], list[Edge]] = {}
    for graph in graphs:
        for node in graph.nodes:
            nodes.setdefault(node.feature, []).append(node)
        for edge in graph.edges:
            edges.setdefault((edge.source, edge.target), []).append(edge)
    kept = {
        feature
        for feature, found in nodes.items()
        if feature.is_feature and sum(not node.relay for node in found) >= needed
    }
    if not kept:
        raise SaeGraphsError(
            f"the answer graphs of {len(graphs)} prompts, {aligned}, have no feature in common "
            f"that {needed} of them keep; give prompts that are more alike"
        )
    links = [_mean_edge(same) for same in edges.values() if len(same) >= needed]
    depths, reached = graphs[0].depths, {ANSWER, *kept}
    for link in sorted(links, key=lambda link: -depths[link.source.layer]):
        if link.target in reached:
            reached.add(link.source)
    links = [link for link in links if link.target in reached]
    first, leading = graphs[0], {link.source for link in links}
    own = {node.feature: node for node in first.nodes}
    drawn = [
        _mean_on_answer(own.get(feature), found, relay=feature not in kept)
        for feature, found in nodes.items()
        if feature in reached and feature.is_feature
    ]
    drawn += [
        own.get(feature, found[0])
        for feature, found in nodes.items()
        if feature in reached and not feature.is_feature
    ]
    assert first.run.answer is not None
    stranded = sorted(kept - leading, key=lambda feature: feature_order(feature, depths))
    answer = replace(
        first.run.answer,
        coverage=None,
        paths=(),
        dense=(),
        stranded=tuple(str(feature) for feature in stranded),
        what_if=None,
    )
    settings = {**first.run.settings, "common_to": len(graphs), "aligned": aligned}
    return assemble(replace(first.run, settings=settings, answer=answer), drawn, links)


def _alike(graphs: Sequence[CausalGraph]) -> tuple[list[CausalGraph], str]:
    """The graphs, summed over tokens unless these are the same in all, and which it was."""
    tokens = graphs[0].run.tokens
    if not all(graph.resolves_positions for graph in graphs):
        found, aligned = [SUMMED], SUMMED.words
    else:
        found = [alignment(tokens, graph.run.tokens) for graph in graphs]
        most = max(sum(map(ne, tokens, graph.run.tokens)) for graph in graphs)
        aligned = (
            f"by position: the prompts have {len(tokens)} tokens each, of which {most} at most "
            "differ from the first's"
        )
    other = next((each for each in found if each.kind != "position"), None)
    if other is None:
        return list(graphs), aligned
    return [g.summed() if g.resolves_positions else g for g in graphs], other.words


def _mean_edge(same: Sequence[Edge]) -> Edge:
    """One edge for those of several graphs, with means."""
    return Edge(
        same[0].source,
        same[0].target,
        math.fsum(edge.effect for edge in same) / len(same),
        relative_effect=_known_mean([edge.relative_effect for edge in same]),
        flow=_known_mean([edge.flow for edge in same]),
    )


def _mean_on_answer(own: Node | None, found: Sequence[Node], *, relay: bool) -> Node:
    """A feature with its mean effects on the answers of the graphs that have it."""
    return replace(
        own or _mean(found),
        effect_on_answer=_known_mean([node.effect_on_answer for node in found]),
        direct_effect=_known_mean([node.direct_effect for node in found]),
        relay=relay,
    )


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None
