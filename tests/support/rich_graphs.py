"""Graphs made by hand for the pictures' tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy, BlockShare
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage, LogitToken
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

HOSTILE = (
    "<script>alert(1)</script>",
    "\"double' & single ]]> --> <!--",
    "\\N\\G\\n\\",
    "\x00\x07\x1b",
    "\ud83d",
    "\u202eabc\u200f\u200b",
    "\n\t\r ",
    "שלום",
    "😀",
    "\u0301\u0301",
    "&amp;&#65;&nbsp;",
    "\ufffd\uffff\ufffe",
    "",
    "%s {0} $x `",
)


def record(tokens: Sequence[str] = ("<bos>", "Copyright", " (", "C"), **changes: Any) -> RunRecord:
    """A run over these tokens, with four layers."""
    layers = tuple(
        LayerReport(str(depth), f"blocks.{depth}.hook_resid_pre", 40, 14.0, 0.02)
        for depth in range(4)
    )
    values: dict[str, Any] = {
        "model": "demo",
        "saes": "demo-saes",
        "prompt": "".join(tokens),
        "tokens": tuple(tokens),
        "read_position": len(tokens) - 1,
        "settings": {"top_k": 8, "per": "layer", "min_path_edges": 2, "ablate": "all"},
        "total_abs_effect": 40.0,
        "kept_abs_effect": 10.0,
        "next_tokens": ((")", 0.9), (" ", 0.05)),
        "layers": layers,
    }
    return RunRecord(**{**values, **changes})


def node(name: str, **changes: Any) -> Node:
    """A node with a context and token effects of both signs."""
    values: dict[str, Any] = {
        "feature": FeatureId.parse(name),
        "activation": 2.5,
        "activations": (0.0, 1.0, 0.0, 2.5),
        "contexts": (Context(("All", " rights", " reserved"), (0.0, 4.0, 1.0)),),
        "promotes": (TokenEffect(" )", -3.25, 0.9),),
        "suppresses": (TokenEffect(" and", 0.75, 0.01),),
    }
    return Node(**{**values, **changes})


def graph_of(
    *edges: tuple[str, str, float], run: RunRecord | None = None, **changes: Any
) -> CausalGraph:
    """The graph of these edges; `changes` hold for every node."""
    names = dict.fromkeys(name for source, target, _ in edges for name in (source, target))
    return assemble(
        run or record(),
        [node(name, **changes) for name in names],
        [Edge(FeatureId.parse(s), FeatureId.parse(t), effect) for s, t, effect in edges],
    )


def two_edges() -> CausalGraph:
    """One edge of each sign: the negative one promotes, the positive one suppresses."""
    return graph_of(("0.1", "1.2", -8.0), ("1.2", "2.3", 2.0))


def two_components() -> CausalGraph:
    """A strong chain, and a weak one whose largest effect is a quarter of the strong one's."""
    return graph_of(
        ("0.1", "1.2", -8.0), ("1.2", "2.3", 6.0), ("0.4", "1.5", -2.0), ("1.5", "2.6", 1.0)
    )


def hostile() -> CausalGraph:
    """Hostile text wherever a graph holds text."""
    everything = "".join(HOSTILE)
    run = record(
        HOSTILE,
        read_position=3,
        model=everything,
        saes=everything,
        next_tokens=tuple((token, 0.05) for token in HOSTILE),
        warnings=HOSTILE,
        layers=tuple(LayerReport(str(depth), everything, 1, 1.0, 0.5) for depth in range(4)),
    )
    return graph_of(
        ("0.1", "1.2", -8.0),
        ("1.2", "2.3", 2.0),
        run=run,
        activations=tuple(float(position) for position in range(len(HOSTILE))),
        contexts=(
            Context(HOSTILE, tuple(float(position) for position in range(len(HOSTILE)))),
            *(Context((token,), (1.0,)) for token in HOSTILE),
        ),
        promotes=tuple(TokenEffect(token, -1.0, 0.1) for token in HOSTILE),
        suppresses=tuple(TokenEffect(token, 1.0, 0.1) for token in reversed(HOSTILE)),
        page=FeaturePage(
            "found",
            everything,
            top_logits=tuple(LogitToken(token, 1.0) for token in HOSTILE),
            bottom_logits=tuple(LogitToken(token, -1.0) for token in reversed(HOSTILE)),
        ),
    )


def _anatomy(effect: float, block: int) -> Anatomy:
    heads = (0.25 * effect, 0.0, 0.0625 * effect)
    return Anatomy(0.625 * effect, (BlockAnatomy(block, 0.3125 * effect, 0.0625 * effect, heads),))


def resolved(boxes: int = 40, *, hostile_text: bool = False, seed: int = 1) -> CausalGraph:
    """A graph with token positions, output tokens, one of them against another, and anatomies."""
    chance = Random(seed)
    tokens: tuple[str, ...] = (
        "<bos>",
        "Copyright",
        " (",
        "C",
        ")",
        " 19",
        "98",
        " by",
        " the",
        "\n",
        " Free",
    )
    tokens = tuple((*HOSTILE, *tokens)[: len(tokens)]) if hostile_text else tokens
    last = len(tokens) - 1
    outputs = (
        OutputToken(340, HOSTILE[0] if hostile_text else " Software", 14.25, 0.875),
        OutputToken(11, HOSTILE[5] if hostile_text else ",", 3.5, 0.0625, contrast=" and"),
    )
    run = record(
        tokens,
        settings={"top_k": 8, "per": "layer", "min_path_edges": 3, "ablate": "each"},
        outputs=outputs,
    )
    ranks = [
        [
            FeatureId(str(depth), chance.randrange(1024), min(last, chance.randrange(1, last + 4)))
            for _ in range((boxes - 2) // 4)
        ]
        for depth in range(4)
    ]
    ranks.append([FeatureId("out", 340, last), FeatureId("out", 11, last)])
    edges: dict[tuple[FeatureId, FeatureId], Edge] = {}
    for depth, (lower, upper) in enumerate(pairwise(ranks)):
        for target in upper:
            able = [
                feature for feature in lower if (feature.position or 0) <= (target.position or 0)
            ]
            for source in chance.sample(able, min(2, len(able))):
                effect = chance.gauss(-1, 3)
                edges[source, target] = Edge(source, target, effect, _anatomy(effect, depth))
    names = dict.fromkeys(end for ends in edges for end in ends)
    return assemble(run, [_described(name, run, chance) for name in names], edges.values())


def _described(name: FeatureId, run: RunRecord, chance: Random) -> Node:
    if name.is_output:
        output = run.output(name)
        return Node(name, output.logit, token=output.token)
    values = [max(0.0, chance.gauss(-1, 2)) for _ in run.tokens]
    values[name.position or 0] = 1 + chance.random()
    return node(
        str(name),
        activation=values[name.position or 0],
        activations=tuple(values),
        written_by=(BlockShare("attention", 1, 0.625), BlockShare("mlp", 0, 0.25)),
        scrubbed_by=(BlockShare("mlp", 2, 0.375),),
    )


def large(layers: int = 10, wide: int = 20) -> CausalGraph:
    """200 features and 540 edges."""
    run = record(
        layers=tuple(LayerReport(str(depth), "hook", 1, 1.0, 0.1) for depth in range(layers))
    )
    edges = {
        (f"{depth}.{i}", f"{depth + 1}.{(i + step * step) % wide}"): (-1.0) ** i * (i + step + 1)
        for depth in range(layers - 1)
        for i in range(wide)
        for step in (0, 1, 2)
    }
    return graph_of(*((s, t, effect) for (s, t), effect in edges.items()), run=run)
