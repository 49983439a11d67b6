"""Finding a graph on some prompts, to test it on others.

A path that was found on a prompt was chosen because it is strong there. What several prompts have
in common, tested on prompts that had no say in it, is not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from sae_graphs.build import causal_graph
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph import CausalGraph, assemble
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.paths import longest_path_edges, on_long_paths
from sae_graphs.records import Edge, FeatureId, Node
from sae_graphs.settings import GraphSettings

SHARE = 0.5  # of the prompts in which an edge must be drawn


class Discovery(NamedTuple):
    """A graph that several prompts have in common, those prompts, and the ones left to test it."""

    graph: CausalGraph
    discovery: tuple[str, ...]
    test: tuple[str, ...]


def discover(
    model: InstrumentedModel,
    prompts: Sequence[str],
    *,
    part: float = 0.5,
    seed: int = 0,
    settings: GraphSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Discovery:
    """Draw a `part` of the prompts at random, and find what their graphs have in common.

    Then `validate(model, found.graph, found.test, discovery=found.discovery)`. Raises
    `SaeGraphsError` where a part would be empty, or the graphs have nothing in common.
    """
    settings = settings or GraphSettings()
    if settings.ablate == "each":
        raise SaeGraphsError("positions mean nothing across prompts; discover with ablate='all'")
    if isinstance(prompts, str):
        raise SaeGraphsError(f"prompts are {prompts!r:.60}; expected several prompts, as a list")
    distinct = list(dict.fromkeys(prompts))
    if not 0 < part < 1:
        raise SaeGraphsError(f"the part to discover on is {part}; expected between 0 and 1")
    if len(distinct) < 2:
        raise SaeGraphsError(
            f"{len(distinct)} different prompts; a graph found on some and tested on others needs "
            "at least 2"
        )
    count = min(max(round(part * len(distinct)), 1), len(distinct) - 1)
    chosen = set(random.Random(seed).sample(range(len(distinct)), count))
    found_on = tuple(prompt for number, prompt in enumerate(distinct) if number in chosen)
    graphs = []
    for number, prompt in enumerate(found_on):
        graphs.append(causal_graph(model, prompt, settings=settings))
        if progress is not None:
            progress(number + 1, count)
    rest = tuple(prompt for number, prompt in enumerate(distinct) if number not in chosen)
    return Discovery(common(graphs), found_on, rest)


def common(graphs: Sequence[CausalGraph], *, share: float = SHARE) -> CausalGraph:
    """The edges that at least a `share` of the graphs have, on paths as long as theirs.

    Effects are means over the graphs that have the edge. The record is the first graph's; a node
    that is not in the first has no activations, its `activation` being the mean over the others;
    an output token that is not is added to the record.
    Raises `SaeGraphsError` where nothing is left.
    """
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
