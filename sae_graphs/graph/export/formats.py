"""A saved graph in the formats of other programs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.files import write_atomically
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations, fitting
from sae_graphs.graph.annotations import load as load_annotations
from sae_graphs.graph.export.attribution import attribution
from sae_graphs.graph.export.attribution_rules import broken_rules
from sae_graphs.graph.export.tables import ANATOMY_COLUMNS, Value, edge_rows, node_rows
from sae_graphs.graph.graph import CausalGraph

SUFFIXES = {
    "graphml": ".graphml",
    "gexf": ".gexf",
    "csv": ".csv",
    "parquet": ".parquet",
    "attribution": ".attribution.json",
}
FORMATS = tuple(SUFFIXES)

_log = logging.getLogger(__name__)


def export(
    graph: CausalGraph,
    path: str | Path,
    *,
    annotations: Annotations | str | Path | None = None,
    told: Callable[[str], None] | None = None,
) -> tuple[Path, ...]:
    """Write the graph in the format that the path's suffix names; returns the files.

    Effects are ablated minus clean, in every format but the last.

    - `.graphml`, `.gexf`: nodes and edges with numbers and texts alone. An edge's `weight` is
      |effect|; its anatomy is `skip`, `attention`, `mlp` and their sum. `label` is the reader's
      label or the feature's name and explanation. In GEXF, arrows are red where the source
      promotes its target, blue where it suppresses it. Lost: anatomies by block and head, all
      contexts but the first, activations by token, what layers and the run's settings were.
      Those of an answer graph have what flows along each edge, and each node's effect on the
      answer, in nats.
    - `.csv`, `.parquet`: every number of the edges, by block and head too. `NAME.csv` holds the
      edges and `NAME.nodes.csv` the nodes, joined by their names. Lost: of the nodes, as above.
      Read CSV with `pandas.read_csv(file, dtype={"source": str, "target": str, "feature": str})`:
      without that, pandas takes the name 2.720 for the number 2.72, which is another feature's.
    - `.attribution.json`: for circuit-tracer's viewer and Neuronpedia, where a link's weight is
      *minus* the effect, so that positive ones support; see
      `sae_graphs.graph.export.attribution.attribution`.

    `annotations` are a reader's, or their file: labels, groups, pins and notes go along. Texts are
    made visible, so that any program can hold them; `graph.json` alone has them as they were.
    `told` gets one line on each thing left out, which is logged as a warning by default.

    Raises `SaeGraphsError` for another suffix, where the file cannot be written, and where viewers
    of an attribution graph would show nothing.
    """
    file = Path(path)
    kind = _kind(file)
    if file.is_dir():
        raise SaeGraphsError(f"{file} is a folder; give a file, such as {file / 'graph.csv'}")
    end = SUFFIXES[kind]
    stem, given = file.name[: -len(end)], file.name[-len(end) :]  # `.CSV` stays `.CSV`
    said: Any = annotations
    if isinstance(annotations, str | Path):
        said = load_annotations(annotations)
    files = exported(graph, kind, stem=stem, annotations=said or NO_ANNOTATIONS, told=told)
    written = {file.with_name(name.removesuffix(end) + given): d for name, d in files.items()}
    try:
        for place, data in written.items():
            write_atomically(place, data)
    except OSError as problem:
        raise SaeGraphsError(
            f"cannot write {file}: {problem.strerror or problem}; give another folder"
        ) from problem
    return tuple(written)


def exported(
    graph: CausalGraph,
    kind: str,
    *,
    stem: str = "graph",
    annotations: Annotations = NO_ANNOTATIONS,
    told: Callable[[str], None] | None = None,
) -> dict[str, bytes]:
    """The files of one of `FORMATS`, by name: what `export` writes."""
    tell = told or _log.warning
    said = fitting(annotations, graph.parts.features, told=tell)
    name = stem + SUFFIXES[kind]
    if kind == "attribution":
        return {name: attribution_bytes(graph, annotations=said, told=tell)}
    if kind in ("graphml", "gexf"):
        from sae_graphs.graph.export import xml as export_xml

        return {name: getattr(export_xml, kind)(graph, said)}
    nodes = f"{stem}.nodes{SUFFIXES[kind]}"
    return {
        name: _table(edge_rows(graph), _EDGE_KINDS, kind),
        nodes: _table(node_rows(graph, said), _NODE_KINDS, kind),
    }


def attribution_bytes(
    graph: CausalGraph, *, annotations: Annotations, told: Callable[[str], None]
) -> bytes:
    """The attribution graph as a file, held against the viewers' rules; ASCII."""
    made = attribution(graph, annotations=annotations)
    data = (json.dumps(made.data, indent=1, allow_nan=False) + "\n").encode("ascii")
    if broken := broken_rules(json.loads(data), size=len(data)):
        raise SaeGraphsError(
            f"viewers would not show this attribution graph: {broken[0]}; write another format"
        )
    for line in made.warnings:
        told(line)
    return data


def _kind(file: Path) -> str:
    found = [kind for kind, end in SUFFIXES.items() if file.name.lower().endswith(end)]
    if not found or len(file.name) == len(SUFFIXES[found[0]]):
        raise SaeGraphsError(
            f"cannot tell a format from the name {file.name!r}; give one that ends in "
            f"{quoted(SUFFIXES.values(), 8)}, such as mine.graphml"
        )
    return found[0]


# -- tables ----------------------------------------------------------------------------------------

# Columns and their kinds, whatever the values are; those of blocks, which edges have beside these,
# are numbers.
_TEXT, _WHOLE, _NUMBER = "string", "Int64", "float64"  # each can miss values
_EDGE_KINDS = {
    **dict.fromkeys(("source", "target", "source_layer", "target_layer"), _TEXT),
    **dict.fromkeys(("source_index", "target_index"), _WHOLE),
    **dict.fromkeys(("source_position", "target_position"), _WHOLE),
    "target_token": _TEXT,
    "effect": _NUMBER,
    "sign": _TEXT,
    "component": _WHOLE,
    **dict.fromkeys(("source_explanation", "target_explanation"), _TEXT),
    **dict.fromkeys(ANATOMY_COLUMNS, _NUMBER),
}
_NODE_KINDS = {
    **dict.fromkeys(("feature", "layer"), _TEXT),
    **dict.fromkeys(("index", "position", "depth"), _WHOLE),
    "is_output": "bool",
    **dict.fromkeys(("token", "contrast"), _TEXT),
    **dict.fromkeys(("probability", "activation"), _NUMBER),
    "component": _WHOLE,
    **dict.fromkeys(("explanation", "neuronpedia", "label", "group"), _TEXT),
    "pinned": "bool",
    **dict.fromkeys(("note", "top_context", "top_token"), _TEXT),
    **dict.fromkeys(("promotes", "suppresses", "written_by", "scrubbed_by"), _TEXT),
    "kind": _TEXT,
    "relay": "bool",
}

_OF_ANSWERS = ("kind", "relay")  # columns of answer graphs alone


def _table(rows: list[dict[str, Value]], kinds: dict[str, str], kind: str) -> bytes:
    """Rows as CSV or Parquet; a table without rows has its columns all the same."""
    import pandas as pd

    names = list(rows[0]) if rows else [name for name in kinds if name not in _OF_ANSWERS]
    columns = {
        name: pd.array([row[name] for row in rows], dtype=kinds.get(name, _NUMBER))
        for name in names
    }
    frame = pd.DataFrame(columns)
    if kind == "csv":
        text: str = frame.to_csv(index=False, lineterminator="\n")
        return text.encode()
    file = io.BytesIO()
    try:
        frame.to_parquet(file, engine="pyarrow", index=False)
    except ImportError as missing:
        raise SaeGraphsError(
            "Parquet needs pyarrow, which is not installed; install it, or write CSV"
        ) from missing
    return file.getvalue()
