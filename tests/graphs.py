"""Graphs made by hand for tests that need no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sae_graphs.graph import (
    CausalGraph,
    Context,
    Edge,
    FeatureId,
    LayerReport,
    Node,
    RunRecord,
    TokenEffect,
    assemble,
)

LAYERS = ("0", "1", "2", "3")


def run_record(**changes: Any) -> RunRecord:
    """A run over four layers, `0` to `3`."""
    reports = tuple(
        LayerReport(
            label=label,
            hook_point=f"blocks.{label}.hook_resid_pre",
            active_features=5,
            l0=2.5,
            fvu=0.1,
            total_abs_effect=None if label == LAYERS[-1] else 10.0,
            kept_abs_effect=None if label == LAYERS[-1] else 5.0,
            effect_in_features=None if label == LAYERS[-1] else 0.9,
        )
        for label in changes.pop("labels", LAYERS)
    )
    values: dict[str, Any] = {
        "model": "tiny",
        "saes": "tiny-saes",
        "prompt": "Copyright (C",
        "tokens": ("<bos>", "Copyright", " (", "C"),
        "read_position": 3,
        "settings": {"top_k": 8, "pin": [], "layers": None},
        "total_abs_effect": 30.0,
        "kept_abs_effect": 15.0,
        "next_tokens": ((")", 0.75), ("C", 0.125)),
        "layers": reports,
    }
    return RunRecord(**{**values, **changes})


def edge(source: str, target: str, effect: float) -> Edge:
    return Edge(FeatureId.parse(source), FeatureId.parse(target), effect)


def node(feature: FeatureId, **changes: Any) -> Node:
    """A node with something in every field."""
    values: dict[str, Any] = {
        "activation": 1.5,
        "neuronpedia": f"https://www.neuronpedia.org/tiny/{feature.layer}-res/{feature.index}",
        "activations": (0.0, 0.5, 0.0, 1.5),
        "contexts": (Context(("a", " (b"), (0.25, 2.0)),),
        "promotes": (TokenEffect(")", -0.5, 0.75),),
        "suppresses": (TokenEffect("\n", 0.25, 0.125),),
    }
    return Node(feature, **{**values, **changes})


def graph_of(
    edges: Mapping[tuple[str, str], float] | Iterable[Edge], run: RunRecord | None = None
) -> CausalGraph:
    """A graph of edges, given as objects or as `{("0.1", "1.2"): effect}`."""
    if isinstance(edges, Mapping):
        edges = [edge(source, target, effect) for (source, target), effect in edges.items()]
    edges = list(edges)
    features = {end for each in edges for end in (each.source, each.target)}
    return assemble(run or run_record(), [node(feature) for feature in features], edges)


def example() -> CausalGraph:
    """Two components: a diamond that ends in a tail, and one edge."""
    return graph_of(
        {
            ("0.1", "1.1"): -4.0,
            ("0.1", "1.2"): 1.0,
            ("1.1", "2.10600"): -2.0,
            ("1.2", "2.10600"): 3.0,
            ("2.10600", "3.5"): -1.5,
            ("0.9", "1.9"): 0.5,
        }
    )
