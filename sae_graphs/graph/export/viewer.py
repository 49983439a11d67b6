"""A folder that circuit-tracer's viewer serves as it is: the graph, and what its features fire on.

`circuit-tracer start-server --graph_file_dir FOLDER` reads `graph-metadata.json`, a list of graphs;
each graph's own file; and, where the graph's `scan` begins with `./`, one file a feature below it.
Of features of graphs on Neuronpedia the viewer would ask another site: here nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.export.attribution import attribution
from sae_graphs.graph.export.attribution_nodes import plain_text
from sae_graphs.graph.export.attribution_rules import broken_rules
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import split_by_sign
from sae_graphs.graph.records import Context, Node
from sae_graphs.schema import read_json

FEATURES = "features"
SCAN = f"./data/{FEATURES}/"  # and the graph's slug: where features are, as seen from the page
METADATA = "graph-metadata.json"
_LISTED = ("slug", "scan", "schema_version", "prompt_tokens", "prompt", "transcoder_list")


class ViewerFolder(NamedTuple):
    """The folder's files by name, and what is missing from them, one line each."""

    files: dict[str, bytes]
    warnings: tuple[str, ...]


def viewer_folder(
    graph: CausalGraph,
    *,
    annotations: Annotations = NO_ANNOTATIONS,
    others: Sequence[dict[str, Any]] = (),
) -> ViewerFolder:
    """The files of one graph; `others` are graphs that the folder's list holds already.

    Raises `SaeGraphsError` where the viewer would show nothing.
    """
    made = attribution(graph, annotations=annotations, scan=SCAN)
    slug = made.data["metadata"]["slug"]
    made.data["metadata"]["scan"] += slug  # numbers of features are those of one model
    if broken := broken_rules(made.data):
        raise SaeGraphsError(f"the viewer would not show this graph: {broken[0]}")
    meta = made.data["metadata"]
    listed = {name: meta[name] for name in _LISTED if name in meta}
    graphs = [other for other in others if other.get("slug") != slug]
    files = {
        METADATA: _json({"graphs": [*graphs, listed]}),
        f"{slug}.json": _json(made.data),
    }
    numbers = {each["node_id"]: each["feature"] for each in made.data["nodes"]}
    for node in graph.nodes:
        number = numbers.get(made.ids.get(node.feature, ""))
        if node.feature.is_feature and number is not None:
            files[f"{FEATURES}/{slug}/{number}.json"] = _json(_feature(node, number))
    return ViewerFolder(files, made.warnings)


def listed_in(folder: Path) -> list[dict[str, Any]]:
    """The graphs that a folder of the viewer lists; raises where it holds something else."""
    file = folder / METADATA
    if folder.exists() and not folder.is_dir():
        raise SaeGraphsError(f"{folder} is no folder; give one for the viewer's files")
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise SaeGraphsError(
                f"{folder} holds other files and no {METADATA}; give a new folder, or one that "
                "--viewer wrote"
            )
        return []
    data = read_json(file, give="a folder that --viewer wrote", remedy="give a new folder")
    graphs = data.get("graphs") if isinstance(data, dict) else None
    if not isinstance(graphs, list) or not all(isinstance(graph, dict) for graph in graphs):
        raise SaeGraphsError(f"{file} is no list of graphs; give a new folder")
    return graphs


def _feature(node: Node, number: int) -> dict[str, Any]:
    """What the viewer shows of a feature: texts with activations, tokens that it moves."""
    lowered, raised = split_by_sign(node)
    return {
        "index": number,
        "act_min": 0.0,
        "act_max": max((abs(a) for c in node.contexts for a in c.activations), default=1.0) or 1.0,
        "top_logits": [plain_text(effect.token) for effect in lowered],
        "bottom_logits": [plain_text(effect.token) for effect in raised],
        "examples_quantiles": [
            {
                "quantile_name": "Top activations",
                "examples": [_example(context) for context in node.contexts if context.tokens],
            }
        ],
    }


def _example(context: Context) -> dict[str, Any]:
    return {
        "tokens": [plain_text(token) for token in context.tokens],
        "tokens_acts_list": [abs(value) for value in context.activations],
        "train_token_ind": context.peak,
        "is_repeated_datapoint": False,
    }


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode("ascii")
