"""Atlases made by hand: prompts of two kinds whose edges are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import Rows
from sae_graphs.atlas.store import Manifest, writing
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.graph.feature_id import FeatureId

EFFECT = GraphSettings(select="effect", min_path_edges=1, top_k=3)  # soon measured
FACTS = {"model": "hand-made", "layers": [["0", "a"], ["1", "b"], ["2", "c"]]}
Link = tuple[str, str, float]  # source, target, flow in nats


def everything(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of an atlas, in the order of their contents."""
    database = Atlas(folder)._database
    rows = {table: database.rows(f"SELECT * FROM {table}") for table in database.manifest.tables}
    return {table: sorted(found, key=str) for table, found in rows.items()}


def rows_by_hand(
    asked: Asked,
    links: Sequence[Link],
    *,
    target: str = " x",
    effects: Mapping[int, float] | None = None,
) -> Rows:
    """The rows of a prompt whose graph has these edges; a node's effect is 1 nat, supporting, but
    for those at positions with `effects`."""
    edges = [_edge(asked.id, *link) for link in links]
    ends = {FeatureId.parse(end) for source, into, _ in links for end in (source, into)}
    measured = [edge for edge in edges if edge["source_layer"] != "token"]
    prompt = {
        "prompt_id": asked.id,
        "prompt": asked.prompt,
        "tokens": asked.prompt.split(" "),
        "target": target,
        "strength": sum(abs(edge["flow"]) for edge in measured),
        **asked.categories,
    }
    nodes = [
        {
            "prompt_id": asked.id,
            "layer": feature.layer,
            "index": feature.index,
            "position": feature.position,
            "token": None if feature.position is None else prompt["tokens"][feature.position],
            "activation": 2.0,
            "effect_on_answer": (effects or {}).get(feature.position or 0, -1.0),
            "dense": False,
        }
        for feature in sorted(ends, key=str)
    ]
    tables = {"prompts": [prompt], "nodes": nodes, "edges": edges, "failures": []}
    return Rows(asked.id, tables)


def _edge(name: str, source: str, target: str, flow: float) -> dict[str, Any]:
    one, other = FeatureId.parse(source), FeatureId.parse(target)
    return {
        "prompt_id": name,
        "source_layer": one.layer,
        "source_index": one.index,
        "source_position": one.position,
        "target_layer": other.layer,
        "target_index": other.index,
        "target_position": other.position,
        "effect": 2 * flow,
        "relative_effect": -0.5,
        "flow": flow,
    }


def atlas_by_hand(
    folder: Path,
    graphs: Mapping[str, tuple[str | Mapping[str, str] | None, Sequence[Link]]],
    *,
    parts: int = 1,
    compact: bool = True,
    facts: Mapping[str, Any] = FACTS,
    effects: Mapping[str, Mapping[int, float]] | None = None,
) -> Path:
    """An atlas of prompts, each with its category (`kind`, or several columns) and its edges."""
    rows, names = [], ["kind"]
    for prompt, (kind, links) in graphs.items():
        own = {"kind": kind} if isinstance(kind, str) else dict(kind or {})
        names += own
        asked = Asked(prompt, None, own)
        rows.append(rows_by_hand(asked, links, effects=(effects or {}).get(prompt)))
    with writing(folder, Manifest(facts, tuple(dict.fromkeys(names)))) as store:
        for part in chunks(rows, parts):
            store.add(part)
        if compact:
            store.compact()
    return folder


def chunks(rows: Sequence[Any], parts: int) -> Iterable[Sequence[Any]]:
    """The rows in so many parts."""
    size = -(-len(rows) // parts)
    return [rows[at : at + size] for at in range(0, len(rows), size)]
