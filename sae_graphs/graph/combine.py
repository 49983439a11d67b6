"""Several graphs in one: of one prompt (`union`), or what several prompts share (`common`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.paths import longest_path_edges, on_long_paths
from sae_graphs.graph.records import Edge, FeatureId, Node, RunRecord

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
    Raises `SaeGraphsError` where nothing is left.
    """
    if any(graph.run.answer is not None for graph in graphs):
        raise SaeGraphsError(
            "answer graphs stand at the tokens of their own prompts: no edge of one is another's; "
            "compare two with difference, or give graphs of select='effect' (--select effect)"
        )
    needed = max(1, math.ceil(share * len(graphs)))
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
