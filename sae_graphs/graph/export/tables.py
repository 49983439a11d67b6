"""The rows that exports are made of: one a node, one an edge, with plain values alone.

Texts are made visible: a newline is an arrow, a control code an escape, so that every format can
hold them. `graph.json` has them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sae_graphs.graph.anatomy import Anatomy
from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import shares_words
from sae_graphs.graph.records import Context, Edge, Node, TokenEffect
from sae_graphs.text import ELLIPSIS, HARD_SPACE, encodable, visible, web_address, window
from sae_graphs.words import MINUS

if TYPE_CHECKING:
    import pandas as pd

ANATOMY_COLUMNS = ("skip", "attention", "mlp", "preactivation_effect")


Value = str | int | float | bool | None

CONTEXT_WIDTH = 80  # columns of text


def readable(text: str) -> str:
    """One line that any file can hold, spaces as they are."""
    return visible(text, space=" ")


def node_rows(graph: CausalGraph, annotations: Annotations) -> list[dict[str, Value]]:
    """One row a node, in the graph's order; None where something is not known.

    `activation` is clean, in the units of the feature's SAE (a logit in nats, for output tokens);
    `promotes` and `suppresses` are tokens with their effects in nats (ablated minus clean).
    """
    return [_node_row(graph, node, annotations) for node in graph.nodes]


def _node_row(graph: CausalGraph, node: Node, annotations: Annotations) -> dict[str, Value]:
    feature = node.feature
    output = graph.run.output(feature) if feature.is_output else None
    group = annotations.group_of(feature)
    contrast = None if output is None else output.contrast
    return {
        "feature": str(feature),
        "layer": feature.layer,
        "index": feature.index,
        "position": feature.position,
        "depth": graph.depths[feature.layer],
        "is_output": feature.is_output,
        "token": _readable(node.token),
        "contrast": _readable(contrast),
        "probability": None if output is None else output.probability,
        "activation": node.activation,
        "component": node.component,
        "explanation": _readable(node.explanation),
        "neuronpedia": web_address(node.neuronpedia),
        "label": _readable(annotations.labels.get(feature)),
        "group": None if group is None else readable(group.name),
        "pinned": feature in annotations.pins,
        "note": _readable(annotations.notes.get(feature)),
        "top_context": context_text(node.contexts[0]) if node.contexts else None,
        "top_token": _readable(peak_of(node.contexts[0])) if node.contexts else None,
        "promotes": _effects(node.promotes),
        "suppresses": _effects(node.suppresses),
        "written_by": shares_words(node.written_by).replace(MINUS, "-") or None,
        "scrubbed_by": shares_words(node.scrubbed_by).replace(MINUS, "-") or None,
        **(_on_answer(node) if graph.run.answer is not None else {}),
    }


def _on_answer(node: Node) -> dict[str, Value]:
    """What only nodes of answer graphs have; effects in nats, ablated minus clean."""
    feature = node.feature
    return {
        "kind": "answer" if feature.is_output else "token" if feature.is_token else "feature",
        "effect_on_answer": node.effect_on_answer,
        "direct_effect": node.direct_effect,
        "density": node.density,
        "relay": bool(node.relay),
    }


def edge_rows(graph: CausalGraph, *, blocks: bool = True) -> list[dict[str, Value]]:
    """One row an edge, strongest first: its effect (ablated minus clean), and how it came about.

    `skip`, `attention`, `mlp` and their sum are changes of the target's pre-activation; with
    `blocks`, so are `attention_4`, `attention_4_head_7` and `mlp_4`, for block 4. None where there
    is no anatomy. Every row has the same columns.
    """
    parts = [block_columns(edge) if blocks else {} for edge in graph.edges]
    places = {name: place for part in parts for name, (place, _) in part.items()}
    names = sorted(places, key=lambda name: places[name])
    empty: dict[str, Value] = dict.fromkeys(names)
    return [
        _edge_row(graph, edge) | empty | {name: value for name, (_, value) in part.items()}
        for edge, part in zip(graph.edges, parts, strict=True)
    ]


def _edge_row(graph: CausalGraph, edge: Edge) -> dict[str, Value]:
    source, target = graph[edge.source], graph[edge.target]
    return {
        "source": str(edge.source),
        "target": str(edge.target),
        "source_layer": edge.source.layer,
        "target_layer": edge.target.layer,
        "source_index": edge.source.index,
        "target_index": edge.target.index,
        "source_position": edge.source.position,
        "target_position": edge.target.position,
        "target_token": _readable(target.token),
        "effect": edge.effect,
        **(flow_columns(edge) if graph.run.answer is not None else {}),
        "sign": edge.sign,
        "component": source.component,
        "source_explanation": _readable(source.explanation),
        "target_explanation": _readable(target.explanation),
        **anatomy_sums(edge.anatomy),
    }


def context_text(context: Context, width: int = CONTEXT_WIDTH) -> str | None:
    """A context as text of at most `width` columns around its peak; None where it is empty."""
    if not context.tokens:
        return None
    shown = [visible(token) for token in context.tokens]
    text, peak = "".join(shown), context.peak or 0
    start = len("".join(shown[:peak]))
    first, last = window(text, start, start + len(shown[peak]), width)
    ends = ELLIPSIS if first > 0 else "", ELLIPSIS if last < len(text) else ""
    return (ends[0] + text[first:last] + ends[1]).replace(HARD_SPACE, " ") or None


def peak_of(context: Context) -> str | None:
    """The token of a context on which the feature is most active; None where it is empty."""
    return None if context.peak is None else context.tokens[context.peak]


def _effects(effects: Iterable[TokenEffect]) -> str | None:
    words = (f'"{readable(item.token)}" {item.effect_nats:+.4g}' for item in effects)
    return "; ".join(words) or None


def _readable(text: Any) -> str | None:
    return None if text is None else readable(text)


def flow_columns(edge: Edge) -> dict[str, float | None]:
    """What only edges of answer graphs have: the effect as a share of the target's activation,
    and what flows along the edge to the answer, in nats, ablated minus clean."""
    return {"relative_effect": edge.relative_effect, "flow": edge.flow}


def anatomy_sums(anatomy: Anatomy | None) -> dict[str, float | None]:
    """The four numbers of `ANATOMY_COLUMNS`, each None where there is no anatomy."""
    return {name: getattr(anatomy, name, None) for name in ANATOMY_COLUMNS}


def block_columns(edge: Edge) -> dict[str, tuple[tuple[int, int, int], float]]:
    """Column name to its place among the columns, and this edge's value: `attention_4`,
    `attention_4_head_7`, `mlp_4`; nothing where there is no anatomy."""
    found: dict[str, tuple[tuple[int, int, int], float]] = {}
    for block in edge.anatomy.blocks if edge.anatomy is not None else ():
        n = block.block
        found[f"attention_{n}"] = (n, 0, -1), block.attention
        for head, value in enumerate(block.heads):
            found[f"attention_{n}_head_{head}"] = (n, 0, head), value
        found[f"mlp_{n}"] = (n, 1, -1), block.mlp
    return found


def to_pandas(graph: CausalGraph) -> pd.DataFrame:
    """One row an edge, strongest first; see `CausalGraph.to_pandas`."""
    import pandas as pd

    columns = {
        "source": [str(edge.source) for edge in graph.edges],
        "target": [str(edge.target) for edge in graph.edges],
        "source_layer": [edge.source.layer for edge in graph.edges],
        "target_layer": [edge.target.layer for edge in graph.edges],
        "source_position": _positions(edge.source for edge in graph.edges),
        "target_position": _positions(edge.target for edge in graph.edges),
        "target_token": [encodable(graph[edge.target].token) for edge in graph.edges],
        "effect": [edge.effect for edge in graph.edges],
        "component": [graph[edge.source].component for edge in graph.edges],
        "source_explanation": [graph[edge.source].explanation for edge in graph.edges],
        "target_explanation": [graph[edge.target].explanation for edge in graph.edges],
    }
    if graph.run.answer is not None:
        for name in ("relative_effect", "flow"):
            values = [getattr(edge, name) for edge in graph.edges]
            columns[name] = pd.array(values, dtype="float64")
    sums = [anatomy_sums(edge.anatomy) for edge in graph.edges]
    for name in ANATOMY_COLUMNS:
        columns[name] = pd.array([each[name] for each in sums], dtype="float64")
    return pd.DataFrame(columns)


def _positions(features: Iterable[FeatureId]) -> object:
    import pandas as pd

    return pd.array([feature.position for feature in features], dtype="Int64")
