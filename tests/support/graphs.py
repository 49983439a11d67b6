"""Graphs made by hand for tests that need no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy, BlockShare
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import (
    Context,
    Edge,
    LayerReport,
    Node,
    OutputToken,
    RunRecord,
    TokenEffect,
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


# -- token positions, output tokens, anatomies -----------------------------------------------------

OUTPUTS = (
    OutputToken(340, " )", 12.5, 0.75),
    OutputToken(7, "\n", 9.0, 0.125, contrast="C"),
)


def anatomy(skip: float, *blocks: tuple[Any, ...]) -> Anatomy:
    """`anatomy(-1.0, (4, -0.5, 0.25, (-0.5, 0.0)))`: block, attention, MLP, heads if any."""
    return Anatomy(skip, tuple(BlockAnatomy(*block) for block in blocks))


def output_node(name: str, run: RunRecord) -> Node:
    """The node of an output token of the run."""
    feature = FeatureId.parse(name)
    output = run.output(feature)
    return Node(feature, output.logit, token=output.token)


def rich_graph(edges: Iterable[Edge], run: RunRecord, **changes: Any) -> CausalGraph:
    """A graph of edges, some of which end in output tokens; `changes` hold for every feature."""
    edges = list(edges)
    names = {end for each in edges for end in (each.source, each.target)}
    values = {
        "written_by": (BlockShare("attention", 3, 0.625), BlockShare("embedding", None, 0.25)),
        "scrubbed_by": (BlockShare("mlp", 5, 0.375),),
        **changes,
    }
    nodes = [
        output_node(str(name), run) if name.is_output else _placed(node(name, **values))
        for name in names
    ]
    return assemble(run, nodes, edges)


def _placed(plain: Node) -> Node:
    """The node with the activation at its own position."""
    at = plain.feature.position
    if at is None or not plain.activations:
        return plain
    return Node(**{**vars(plain), "activation": plain.activations[at]})


def with_outputs() -> CausalGraph:
    """Two features that lead to two output tokens, the first edge with its anatomy by head."""
    return rich_graph(
        [
            Edge(
                FeatureId("2", 5),
                FeatureId("3", 6),
                -2.0,
                anatomy(-1.0, (2, -0.75, -0.25, (-1.0, 0.25))),
            ),
            Edge(FeatureId("3", 6), FeatureId("out", 340), -1.5, anatomy(-2.0, (3, 0.0, 0.5))),
            Edge(FeatureId("3", 6), FeatureId("out", 7), 0.5),
        ],
        run_record(outputs=OUTPUTS),
    )


def resolved() -> CausalGraph:
    """A graph with positions.

    `0.1` acts on `1.2` four times, on `1.3` twice with effects that cancel at the read position.
    """

    def placed(source: str, target: str, effect: float, *parts: Any) -> Edge:
        known = anatomy(*parts) if parts else None
        return Edge(FeatureId.parse(source), FeatureId.parse(target), effect, known)

    return rich_graph(
        [
            placed("0.1@1", "1.2@3", -1.0, -0.5, (0, -0.5, 0.0, (-0.75, 0.25))),
            placed("0.1@2", "1.2@3", -0.5, -1.0, (0, 0.25, 0.25, (0.5, -0.25))),
            placed("0.1@1", "1.2@1", -2.0, -2.0, (0, 0.0, 0.0, (0.0, 0.0))),
            placed("0.1@2", "1.2@2", 0.25, 0.25, (0, 0.0, 0.0, (0.0, 0.0))),
            placed("0.1@1", "1.3@3", 1.0),
            placed("0.1@2", "1.3@3", -1.0),
            placed("1.2@3", "2.4@3", -3.0, -3.0),
            placed("1.2@1", "2.4@3", 0.5),
            placed("1.2@2", "2.4@2", 4.0),
            placed("2.4@3", "out.340@3", -1.5),
        ],
        run_record(
            outputs=OUTPUTS,
            settings={"top_k": 8, "pin": [], "layers": None, "ablate": "each"},
        ),
    )
