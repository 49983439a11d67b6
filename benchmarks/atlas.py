"""`python -m benchmarks.atlas`: an atlas of ten million generated edges, and what asking it costs.

Each question is timed beside the bare DuckDB queries that it is made of, on a connection of its own
over the same files; the tables are pandas' in both. The edges are drawn: some recur in a fifth of
all prompts, most in a few.
"""

from __future__ import annotations

import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.progress import HERE, write_text
from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.database import Database
from sae_graphs.atlas.prompts import digest
from sae_graphs.atlas.rows import EDGES, FAILURES, NODES, with_categories
from sae_graphs.atlas.store import PARTS, ROW_GROUP, WHOLE, Manifest, open_store, writing
from sae_graphs.atlas.views import views

PER_PROMPT = 40  # edges
LAYERS, WIDTH, DISTINCT, LONGEST = 7, 1000, 20_000, 20
KINDS = ("closings", "acronyms", "facts", "names", "induction")
TIMES = 3


def main(
    edges: Annotated[int, typer.Option(help="To generate.", min=1000)] = 10_000_000,
    out: Annotated[Path, typer.Option(help="Folder to write atlas.json to.")] = HERE,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the atlas.", show_default="a temporary one")
    ] = None,
) -> None:
    """Generate an atlas, ask it, print and save the seconds beside those of bare queries."""
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch) / "atlas"
        if not (place / PARTS).is_dir():
            generate(place, edges)
        found = measured(place)
    for row in found["questions"]:
        print(f"{row['question']:40} {row['seconds']:8.3f} s   bare {row['bare']:8.3f} s")
    write_text(out / "atlas.json", json.dumps(found, indent=1) + "\n")


def measured(folder: Path) -> dict[str, Any]:
    """The median seconds of each question, and of the bare queries that it is made of."""
    from benchmarks.measure import machine

    atlas = Atlas(folder)
    one = atlas.sql("SELECT prompt_id FROM prompts ORDER BY prompt_id LIMIT 1")["prompt_id"][0]
    name = atlas.sql("SELECT source FROM edges WHERE source_layer = '3' LIMIT 1")["source"][0]
    questions: dict[str, Callable[[], object]] = {
        "prompts of a category, 20": lambda: atlas.prompts(category="facts", limit=20),
        "features of a layer at a token, 20": lambda: atlas.features(layer=3, token="t4", limit=20),
        "features that oppose, 20": lambda: atlas.features(
            sign="opposes", min_effect=1.0, limit=20
        ),
        "edges of a feature, 20": lambda: atlas.edges(name, limit=20),
        "a feature's page": lambda: atlas.feature(name),
        "similar prompts": lambda: atlas.similar(one),
        "recurring edges, with categories": lambda: atlas.recurring_edges(limit=100),
        "differences": lambda: atlas.differences("closings", "facts"),
        "SQL: edges counted": lambda: atlas.sql("SELECT count(*) FROM edges WHERE effect < 0"),
    }
    rows = []
    for question, ask in questions.items():
        queries = asked_in(ask)
        own, bare = [], []
        for _ in range(TIMES):
            own.append(seconds(ask))
            bare.append(seconds(functools.partial(bare_answer, folder, queries)))
        rows.append(
            {
                "question": question,
                "seconds": statistics.median(own),
                "bare": statistics.median(bare),
                "queries": len(queries),
            }
        )
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    counts = {
        table: int(atlas.sql(f"SELECT count(*) AS n FROM {table}")["n"][0])
        for table in ("prompts", "nodes", "edges")
    }
    return {"machine": machine(1), "rows": counts, "bytes": size, "questions": rows}


Query = tuple[str, tuple[Any, ...]]


def asked_in(ask: Callable[[], object]) -> list[Query]:
    """The queries that a question is made of."""
    found: list[Query] = []
    own = Database.table, Database.rows

    def table(self: Database, query: str, parameters: Any = ()) -> Any:
        found.append((query, tuple(parameters)))
        return own[0](self, query, parameters)

    def rows(self: Database, query: str, parameters: Any = ()) -> Any:
        found.append((query, tuple(parameters)))
        return own[1](self, query, parameters)

    Database.table, Database.rows = table, rows  # type: ignore[method-assign]
    try:
        ask()
    finally:
        Database.table, Database.rows = own  # type: ignore[method-assign]
    return found


_BARE: dict[Path, Any] = {}


def bare_answer(folder: Path, queries: list[Query]) -> None:
    """The same queries on a plain connection."""
    import duckdb

    if folder not in _BARE:
        _BARE[folder] = duckdb.connect(":memory:")
        store = open_store(folder)
        for view in views(store.parts(), store.manifest.categories):
            _BARE[folder].execute(view)
    for query, parameters in queries:
        _BARE[folder].execute(query, list(parameters)).df()


def seconds(run: Callable[[], object]) -> float:
    """What a run takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


# -- generated -------------------------------------------------------------------------------------


def generate(folder: Path, edges: int, *, seed: int = 0) -> None:
    """An atlas of about so many edges, in the order that a build leaves them in."""
    rng = np.random.default_rng(seed)
    prompts = edges // PER_PROMPT
    ids = pa.array([digest(number) for number in range(prompts)])
    facts = {"model": "generated", "layers": [[str(layer), "-"] for layer in range(LAYERS)]}
    with writing(folder, Manifest(facts, ("kind",))) as store:
        part = folder / PARTS / f"{WHOLE}generated"
        part.mkdir(parents=True)
        weights = np.zeros(prompts)
        written = _write_edges(part / "edges.parquet", rng, ids, edges, weights)
        _write_nodes(part / "nodes.parquet", rng, ids)
        _write_prompts(part / "prompts.parquet", rng, ids, weights)
        pq.write_table(FAILURES.empty_table(), part / "failures.parquet")
        store.write_database()
    print(f"generated {written:,} edges of {prompts:,} prompts")


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


if __name__ == "__main__":
    typer.run(main)
