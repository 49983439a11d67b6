"""An atlas of as many edges as one likes, drawn at random: some recur in a fifth of all prompts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sae_graphs.atlas.prompts import digest
from sae_graphs.atlas.rows import EDGES, FAILURES, NODES, with_categories
from sae_graphs.atlas.store import PARTS, ROW_GROUP, Manifest, writing

PER_PROMPT = 40  # edges
LAYERS, WIDTH, DISTINCT, LONGEST = 7, 1000, 20_000, 20
KINDS = ("closings", "acronyms", "facts", "names", "induction")


def generate(folder: Path, edges: int, *, seed: int = 0) -> None:
    """An atlas of about so many edges, compacted as at the end of a build."""
    rng = np.random.default_rng(seed)
    prompts = edges // PER_PROMPT
    ids = pa.array([digest(number) for number in range(prompts)])
    facts = {"model": "generated", "layers": [[str(layer), "-"] for layer in range(LAYERS)]}
    with writing(folder, Manifest(facts, ("kind",))) as store:
        part = folder / PARTS / "generated"
        part.mkdir(parents=True)
        weights = np.zeros(prompts)
        written = _write_edges(part / "edges.parquet", rng, ids, edges, weights)
        _write_nodes(part / "nodes.parquet", rng, ids)
        _write_prompts(part / "prompts.parquet", rng, ids, weights)
        pq.write_table(FAILURES.empty_table(), part / "failures.parquet")
        print(f"generated {written:,} edges of {prompts:,} prompts")
        started = time.process_time()
        store.compact()
        print(f"made one part of them: {time.process_time() - started:.1f} s of the processor")
        store.write_database()


def _write_edges(
    file: Path, rng: np.random.Generator, ids: pa.Array, edges: int, weights: Any
) -> int:
    ends = rng.integers(0, [LAYERS - 1, WIDTH, WIDTH], (DISTINCT, 3))
    ends = np.unique(ends, axis=0)
    often = 1 / np.arange(1, len(ends) + 1) ** 0.8
    for _ in range(20):  # what the most common ones may not have goes to the others
        often = np.minimum(edges * often / often.sum(), len(ids) / 5)
    counts = np.ceil(rng.permutation(often)).astype(int)
    written = 0
    with pq.ParquetWriter(file, EDGES, compression="zstd") as writer:
        for some in np.array_split(np.arange(len(ends)), max(edges // 500_000, 1)):
            rows = np.concatenate([rng.integers(0, len(ids), counts[at]) for at in some])
            place = np.repeat(some, counts[some])
            layer, source, target = ends[place].T
            effect = rng.normal(-1, 1, len(rows))
            flow = 0.5 * effect
            np.add.at(weights, rows, np.abs(flow))
            at = rng.integers(1, LONGEST, len(rows)).astype(np.int32)
            named = pa.array([str(n) for n in range(LAYERS)])
            parts = 0.2 * effect
            columns = [
                *(ids.take(pa.array(rows)), named.take(pa.array(layer))),
                *(source.astype(np.int32), at, named.take(pa.array(layer + 1))),
                *(target.astype(np.int32), at, effect, 0.1 * effect, flow),
                *(parts, parts, parts, 3 * parts),
            ]
            held = pa.table([pa.array(each) for each in columns], schema=EDGES)
            writer.write_table(held, row_group_size=ROW_GROUP)
            written += len(rows)
    return written


def _write_nodes(file: Path, rng: np.random.Generator, ids: pa.Array) -> None:
    count = 20 * len(ids)
    order = np.sort(rng.integers(0, LAYERS * WIDTH, count))
    named = pa.array([str(n) for n in range(LAYERS)])
    at = rng.integers(1, LONGEST, count).astype(np.int32)
    words = pa.array([f"t{n}" for n in range(LONGEST)])
    effect = rng.normal(-1, 1, count)
    no = pa.array(np.zeros(count, dtype=bool))
    columns = [
        *(
            ids.take(pa.array(rng.integers(0, len(ids), count))),
            named.take(pa.array(order // WIDTH)),
        ),
        *((order % WIDTH).astype(np.int32), at, words.take(pa.array(at)), np.abs(effect)),
        *(effect, 0.1 * effect, np.full(count, 0.01), no, no),
    ]
    held = pa.table([pa.array(each) for each in columns], schema=NODES)
    pq.write_table(held, file, compression="zstd", row_group_size=ROW_GROUP)


def _write_prompts(file: Path, rng: np.random.Generator, ids: pa.Array, weights: Any) -> None:
    schema = with_categories(["kind"])
    count = len(ids)
    kinds = [KINDS[at] for at in rng.integers(0, len(KINDS), count)]
    own = {
        "prompt_id": ids,
        "prompt": [f"prompt {number}" for number in range(count)],
        "target": [f" {kind[:3]}" for kind in kinds],
        "strength": weights,
        "kind": kinds,
    }
    columns = [
        pa.array(own[field.name], field.type) if field.name in own else pa.nulls(count, field.type)
        for field in schema
    ]
    pq.write_table(pa.table(columns, schema=schema), file, row_group_size=ROW_GROUP)
