"""The tables of an atlas, and a graph as their rows: one of the prompt, of each node and edge.

Effects are ablated minus clean, as everywhere; those on the answer in nats of its score. Tables of
traces and verdicts are there where these were asked for. Torch-free.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from sae_graphs.atlas.prompts import Asked, encodable
from sae_graphs.graph.answer import DENSE
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge, Node

_TEXT, _WHOLE, _NUMBER = pa.string(), pa.int32(), pa.float64()

PROMPTS = pa.schema(
    [
        *[("prompt_id", _TEXT), ("prompt", _TEXT), ("tokens", pa.list_(_TEXT))],
        *[("read_position", _WHOLE), ("target", _TEXT), ("probability", _NUMBER)],
        *[("score", _NUMBER), ("likeliest", _TEXT), ("likeliest_probability", _NUMBER)],
        *[("measured", _WHOLE), ("exact", _WHOLE), ("missed", _NUMBER)],
        *[("coverage_lost", _NUMBER), ("coverage_left", _NUMBER), ("strength", _NUMBER)],
        *[("nodes", _WHOLE), ("edges", _WHOLE), ("warnings", pa.list_(_TEXT))],
    ]
)
NODES = pa.schema(
    [
        *[("prompt_id", _TEXT), ("layer", _TEXT), ("index", _WHOLE), ("position", _WHOLE)],
        *[("token", _TEXT), ("activation", _NUMBER), ("effect_on_answer", _NUMBER)],
        *[("direct_effect", _NUMBER), ("density", _NUMBER), ("dense", pa.bool_())],
        ("relay", pa.bool_()),
    ]
)
EDGES = pa.schema(
    [
        *[("prompt_id", _TEXT), ("source_layer", _TEXT), ("source_index", _WHOLE)],
        *[("source_position", _WHOLE), ("target_layer", _TEXT), ("target_index", _WHOLE)],
        *[("target_position", _WHOLE), ("effect", _NUMBER), ("relative_effect", _NUMBER)],
        *[("flow", _NUMBER), ("skip", _NUMBER), ("attention", _NUMBER), ("mlp", _NUMBER)],
        ("preactivation_effect", _NUMBER),
    ]
)
FAILURES = pa.schema(  # `tried`: when, in seconds since 1970
    [("prompt_id", _TEXT), ("prompt", _TEXT), ("reason", _TEXT), ("tried", _NUMBER)]
)
TRACES = pa.schema(  # one of each prompt; `reason`: why it was not traced, or has no sites
    [
        *[("prompt_id", _TEXT), ("subject_first", _WHOLE), ("subject_last", _WHOLE)],
        *[("noise", _NUMBER), ("clean", _NUMBER), ("corrupted", _NUMBER), ("lost_nats", _NUMBER)],
        *[("clean_probability", _NUMBER), ("corrupted_probability", _NUMBER)],
        *[("handover_block", _WHOLE), ("sites", _WHOLE), ("reason", _TEXT)],
        ("warnings", pa.list_(_TEXT)),
    ]
)
SITES = pa.schema(
    [
        *[("prompt_id", _TEXT), ("sweep", _TEXT), ("role", _TEXT), ("block", _WHOLE)],
        *[("position", _WHOLE), ("token", _TEXT), ("first_block", _WHOLE), ("last_block", _WHOLE)],
        *[("first_position", _WHOLE), ("last_position", _WHOLE), ("restores", _NUMBER)],
        *[("low", _NUMBER), ("high", _NUMBER), ("share", _NUMBER)],
    ]
)
VERDICTS = pa.schema(  # `warnings` are those of the whole report, in its first row
    [
        *[("prompt_id", _TEXT), ("unit", _TEXT), ("claim", _TEXT), ("verdict", _TEXT)],
        *[("supported", pa.bool_()), ("necessary", pa.bool_()), ("sufficient", pa.bool_())],
        *[("mediates", pa.bool_()), ("features", pa.list_(_TEXT)), ("before", _NUMBER)],
        *[("after", _NUMBER), ("effect", _NUMBER), ("probability_before", _NUMBER)],
        *[("probability_after", _NUMBER), ("share_lost", _NUMBER), ("share_left", _NUMBER)],
        *[("share_mediated", _NUMBER), ("p", _NUMBER), ("q", _NUMBER), ("p_equal_norm", _NUMBER)],
        *[("controls", _WHOLE), ("warnings", pa.list_(_TEXT)), ("reason", _TEXT)],
    ]
)
TABLES = {"prompts": PROMPTS, "nodes": NODES, "edges": EDGES, "failures": FAILURES}
TRACED, VALIDATED = {"traces": TRACES, "sites": SITES}, {"verdicts": VERDICTS}
TRACE, VALIDATION = "trace", "validation"  # the facts of atlases that have these tables

Row = dict[str, Any]


def tables_in(facts: Mapping[str, Any]) -> dict[str, pa.Schema]:
    """The tables of an atlas, by name: traces' and verdicts where its facts say how these are."""
    return {
        **TABLES,
        **(TRACED if facts.get(TRACE) is not None else {}),
        **(VALIDATED if facts.get(VALIDATION) is not None else {}),
    }


class Rows(NamedTuple):
    """What was found of one prompt: its rows by table; of one that failed, `failures` alone."""

    prompt_id: str
    tables: Mapping[str, Sequence[Row]]

    @property
    def failed(self) -> bool:
        """Whether the prompt could not be measured."""
        return bool(self.tables["failures"])


def rows_of(graph: CausalGraph, asked: Asked) -> Rows:
    """The rows of a graph, made of this prompt."""
    name, edges = asked.id, [edge for edge in graph.edges if not edge.source.is_token]
    run, answer = graph.run, graph.run.answer
    coverage = None if answer is None else answer.coverage
    output = run.outputs[0] if run.outputs else None
    top = run.next_tokens[0] if run.next_tokens else (None, None)
    prompt = {
        "prompt_id": name,
        "prompt": asked.prompt,
        "tokens": list(run.tokens),
        "read_position": run.read_position,
        "target": top[0] if output is None else output.token,
        "probability": top[1] if output is None else output.probability,
        "score": None if answer is None else answer.score,
        "likeliest": top[0],
        "likeliest_probability": top[1],
        "measured": None if answer is None else answer.measured,
        "exact": None if answer is None else answer.exact,
        "missed": None if answer is None else answer.missed,
        "coverage_lost": None if coverage is None else coverage.lost,
        "coverage_left": None if coverage is None else coverage.left,
        "strength": math.fsum(edge.strength for edge in edges),
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "warnings": list(run.warnings),
        **asked.categories,
    }
    return Rows(
        name,
        {
            "prompts": [prompt],
            "nodes": [_node(name, node, run.tokens) for node in graph.nodes],
            "edges": [_edge(name, edge) for edge in graph.edges],
            "failures": [],
        },
    )


def failure_of(asked: Asked, reason: str) -> Rows:
    """The rows of a prompt that could not be measured."""
    said = " ".join(encodable(reason).split())
    row = {"prompt_id": asked.id, "prompt": asked.prompt, "reason": said, "tried": time.time()}
    return Rows(asked.id, {"prompts": [], "nodes": [], "edges": [], "failures": [row]})


def tables_of(
    batch: Iterable[Rows], categories: Sequence[str], tables: Mapping[str, pa.Schema] = TABLES
) -> dict[str, pa.Table]:
    """The rows of several prompts as tables; the prompts' has these columns of categories."""
    held = list(batch)
    found = {}
    for name, schema in tables.items():
        if name == "prompts":
            schema = with_categories(categories)
        rows = [row for each in held for row in each.tables.get(name, ())]
        found[name] = pa.Table.from_pylist(rows, schema=schema)
    return found


def with_categories(categories: Sequence[str]) -> pa.Schema:
    """The columns of the table of prompts."""
    return pa.schema([*PROMPTS, *((category, _TEXT) for category in categories)])


# -- inside ----------------------------------------------------------------------------------------


def _node(name: str, node: Node, tokens: Sequence[str]) -> Row:
    feature = node.feature
    token = node.token
    if token is None and feature.position is not None:
        token = tokens[feature.position]
    return {
        "prompt_id": name,
        "layer": feature.layer,
        "index": feature.index,
        "position": feature.position,
        "token": token,
        "activation": node.activation,
        "effect_on_answer": node.effect_on_answer,
        "direct_effect": node.direct_effect,
        "density": node.density,
        "dense": None if node.density is None else node.density >= DENSE,
        "relay": node.relay,
    }


def _edge(name: str, edge: Edge) -> Row:
    source, target, anatomy = edge.source, edge.target, edge.anatomy
    return {
        "prompt_id": name,
        "source_layer": source.layer,
        "source_index": source.index,
        "source_position": source.position,
        "target_layer": target.layer,
        "target_index": target.index,
        "target_position": target.position,
        "effect": edge.effect,
        "relative_effect": edge.relative_effect,
        "flow": edge.flow,
        "skip": None if anatomy is None else anatomy.skip,
        "attention": None if anatomy is None else anatomy.attention,
        "mlp": None if anatomy is None else anatomy.mlp,
        "preactivation_effect": None if anatomy is None else anatomy.preactivation_effect,
    }
