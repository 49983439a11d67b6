"""`python -m benchmarks.atlas`: an atlas of ten million generated edges, and what asking it costs.

Each question is timed beside what a person who knows SQL would write over the same Parquet files,
each on a connection of its own that is opened within the time; answers come as pandas tables, and
must agree. The edges are drawn: some recur in a fifth of all prompts, most in a few.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.atlas_made import KINDS, generate
from benchmarks.progress import HERE, write_text
from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.store import PARTS


class Question(NamedTuple):
    """What is asked, the same in SQL (several queries, of a page), and the columns that agree."""

    name: str
    ask: Callable[[Atlas], Any]
    queries: Sequence[str]
    same: Sequence[str]


PLACES = """
SELECT n.prompt_id, p.prompt, p.target, n.layer, n.index, n.position, n.token, n.activation,
    n.effect_on_answer, p.kind
FROM nodes n JOIN prompts p USING (prompt_id)
WHERE {where} ORDER BY {order} LIMIT {limit}"""
USES = """
SELECT {what}, count(*) AS prompts, avg(effect) AS mean_effect, avg(activation) AS mean_activation
FROM (SELECT {what}, n.prompt_id, avg(effect_on_answer) AS effect, avg(activation) AS activation
    FROM nodes n JOIN prompts p USING (prompt_id) WHERE {feature} GROUP BY ALL)
GROUP BY {what} ORDER BY prompts DESC, {what} LIMIT 20"""
NEIGHBOURS = """
SELECT {other}_layer || '.' || {other}_index AS feature, count(*) AS prompts,
    avg(effect) AS mean_effect, avg(relative_effect) AS mean_relative_effect, avg(flow) AS mean_flow
FROM (SELECT {other}_layer, {other}_index, prompt_id, sum(effect) AS effect,
        sum(relative_effect) AS relative_effect, sum(flow) AS flow
    FROM edges WHERE {mine}_layer = '{layer}' AND {mine}_index = {index} GROUP BY ALL)
GROUP BY {other}_layer, {other}_index
ORDER BY prompts DESC, {other}_layer, {other}_index LIMIT 20"""
SIMILAR = """
WITH mine AS (
    SELECT source_layer, source_index, target_layer, target_index,
        sum(coalesce(abs(flow), abs(effect))) AS weight
    FROM edges WHERE prompt_id = '{prompt}' AND source_layer <> 'token' GROUP BY ALL
), theirs AS (
    SELECT e.prompt_id, source_layer, source_index, target_layer, target_index, mine.weight AS mine,
        sum(coalesce(abs(flow), abs(effect))) AS weight
    FROM edges e JOIN mine USING (source_layer, source_index, target_layer, target_index)
    WHERE e.prompt_id <> '{prompt}' GROUP BY ALL
), shared AS (
    SELECT prompt_id, sum(least(mine, weight)) AS common, count(*) AS shared_edges
    FROM theirs GROUP BY prompt_id
)
SELECT prompt_id, prompt, target, kind, shared_edges,
    common / (strength + (SELECT sum(weight) FROM mine) - common) AS similarity
FROM shared JOIN prompts USING (prompt_id) ORDER BY similarity DESC, prompt_id LIMIT 10"""
ONCE = """
WITH once AS (
    SELECT source_layer, source_index, target_layer, target_index, prompt_id,
        sum(coalesce(flow, effect)) AS effect
    FROM edges WHERE source_layer <> 'token' GROUP BY ALL
)"""
RECURRING = f"""{ONCE}
SELECT source_layer || '.' || source_index AS source, target_layer || '.' || target_index AS target,
    count(*) AS prompts, avg(effect) AS mean_effect, stddev(effect) AS deviation,
    {", ".join(f"count(*) FILTER (kind = '{kind}') AS {kind}" for kind in KINDS)}
FROM once JOIN prompts USING (prompt_id)
GROUP BY source_layer, source_index, target_layer, target_index HAVING count(*) >= 5
ORDER BY prompts DESC, sum(abs(effect)) DESC LIMIT 100"""
DIFFERENT = f"""{ONCE}
SELECT source_layer || '.' || source_index AS source, target_layer || '.' || target_index AS target,
    count(*) FILTER (kind = 'closings') AS prompts_a, count(*) FILTER (kind = 'facts') AS prompts_b,
    avg(effect) FILTER (kind = 'closings') AS mean_effect_a,
    avg(effect) FILTER (kind = 'facts') AS mean_effect_b
FROM once JOIN prompts USING (prompt_id) WHERE kind IN ('closings', 'facts')
GROUP BY source_layer, source_index, target_layer, target_index HAVING count(*) >= 5"""


def main(
    edges: Annotated[int, typer.Option(help="To generate.", min=1000)] = 10_000_000,
    out: Annotated[Path, typer.Option(help="Folder to write atlas.json to.")] = HERE,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the atlas.", show_default="a temporary one")
    ] = None,
    times: Annotated[int, typer.Option(help="Of each question.", min=1)] = 5,
) -> None:
    """Generate an atlas, ask it, print and save the seconds beside those of bare queries."""
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch) / "atlas"
        if not (place / PARTS).is_dir():
            generate(place, edges)
        found = measured(place, times)
    for row in found["questions"]:
        print(
            f"{row['question']:40} {row['seconds']:8.3f} s   bare {row['bare']:8.3f} s   "
            f"of the processor {row['processor']:8.3f} s, bare {row['bare_processor']:8.3f} s"
        )
    write_text(out / "atlas.json", json.dumps(found, indent=1) + "\n")


def measured(folder: Path, times: int) -> dict[str, Any]:
    """The median seconds of each question, and of the same in SQL; raises where they disagree."""
    from benchmarks.measure import machine

    atlas = Atlas(folder)
    prompt = atlas.sql("SELECT min(prompt_id) AS least FROM prompts")["least"][0]
    feature = atlas.sql("SELECT source FROM edges WHERE source_layer = '3' LIMIT 1")["source"][0]
    atlas.recurring_edges(least=1)  # what is imported then
    rows = [
        {"question": each.name, **asked(folder, each, times)} for each in questions(prompt, feature)
    ]
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    counts = {
        table: int(atlas.sql(f"SELECT count(*) AS n FROM {table}")["n"][0])
        for table in ("prompts", "nodes", "edges")
    }
    threads = atlas.sql("SELECT current_setting('threads') AS n")["n"][0]
    return {"machine": machine(int(threads)), "rows": counts, "bytes": size, "questions": rows}


def asked(folder: Path, question: Question, times: int) -> dict[str, float]:
    """The median seconds of a question and of its queries, by the clock and of the processor."""
    own, bare = [], []
    for _ in range(times):  # in turn, as other work on the machine comes and goes
        answers, spent = timed(lambda: question.ask(Atlas(folder)))
        own.append(spent)
        plain, spent = timed(lambda: by_hand(folder, question.queries))
        bare.append(spent)
        check_same(question, answers, plain)
    (seconds, processor), (bare_seconds, bare_processor) = (
        map(statistics.median, zip(*each, strict=True)) for each in (own, bare)
    )
    return {
        "seconds": seconds,
        "bare": bare_seconds,
        "processor": processor,
        "bare_processor": bare_processor,
    }


def questions(prompt: str, feature: str) -> list[Question]:
    """What is timed, of a prompt and a feature."""
    layer, index = feature.split(".")
    own = f"n.layer = '{layer}' AND n.index = {index}"
    strongest = "abs(n.effect_on_answer) DESC"
    ends = {"layer": layer, "index": index}
    return [
        Question(
            "prompts of a category, 20",
            lambda atlas: [atlas.prompts(category="facts", limit=20)],
            ["SELECT * FROM prompts WHERE kind = 'facts' ORDER BY prompt_id LIMIT 20"],
            ["prompt_id", "target"],
        ),
        Question(
            "features of a layer at a token, 20",
            lambda atlas: [atlas.features(layer=3, token="t4", limit=20)],
            [PLACES.format(where="n.layer = '3' AND n.token = 't4'", order=strongest, limit=20)],
            ["prompt_id", "effect_on_answer"],
        ),
        Question(
            "features that oppose, 20",
            lambda atlas: [atlas.features(sign="opposes", min_effect=1.0, limit=20)],
            [
                PLACES.format(
                    where="n.effect_on_answer >= 1", order="n.effect_on_answer DESC", limit=20
                )
            ],
            ["prompt_id", "effect_on_answer"],
        ),
        Question(
            "edges of a feature, 20",
            lambda atlas: [atlas.edges(feature, limit=20)],
            [
                "SELECT e.*, p.prompt, p.target, p.kind FROM edges e JOIN prompts p "
                f"USING (prompt_id) WHERE source_layer = '{layer}' AND source_index = {index} "
                "ORDER BY coalesce(abs(flow), abs(effect)) DESC LIMIT 20"
            ],
            ["prompt_id", "target_index", "effect"],
        ),
        Question(
            "a feature's page",
            lambda atlas: list(atlas.feature(feature)[2:]),
            [
                PLACES.format(where=own, order=strongest, limit=10_000),
                USES.format(what="target", feature=own),
                USES.format(what="token", feature=own),
                NEIGHBOURS.format(mine="target", other="source", **ends),
                NEIGHBOURS.format(mine="source", other="target", **ends),
            ],
            [],
        ),
        Question(
            "similar prompts",
            lambda atlas: [atlas.similar(prompt)],
            [SIMILAR.format(prompt=prompt)],
            ["prompt_id", "shared_edges", "similarity"],
        ),
        Question(
            "recurring edges, with categories",
            lambda atlas: [atlas.recurring_edges(limit=100)],
            [RECURRING],
            ["source", "target", "prompts", "mean_effect"],
        ),
        Question(
            "differences",
            lambda atlas: [atlas.differences("closings", "facts")],
            [DIFFERENT],
            ["source", "target", "prompts_a", "prompts_b", "mean_effect_a", "mean_effect_b"],
        ),
        Question(
            "SQL: edges counted",
            lambda atlas: [atlas.sql("SELECT count(*) AS n FROM edges WHERE effect < 0")],
            ["SELECT count(*) AS n FROM edges WHERE effect < 0"],
            ["n"],
        ),
    ]


def by_hand(folder: Path, queries: Sequence[str]) -> list[Any]:
    """The answers to queries over the Parquet files, on a plain connection of their own."""
    import duckdb

    connection = duckdb.connect(":memory:")
    for table in ("prompts", "nodes", "edges"):
        files = folder / PARTS / "*" / f"{table}.parquet"
        connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{files}')")
    return [connection.execute(query).df() for query in queries]


def check_same(question: Question, answers: Sequence[Any], plain: Sequence[Any]) -> None:
    """Raise where a question's answers are not those of its queries, in whatever order."""
    import pandas as pd

    for own, bare in zip(answers, plain, strict=True):
        same = list(question.same) or [name for name in own if name in bare]
        tables = [held[same].sort_values(same, ignore_index=True) for held in (own, bare)]
        pd.testing.assert_frame_equal(*tables, check_dtype=False, rtol=1e-9)


def timed(run: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What a run answers, and the seconds that it takes: by the clock, and of the processor."""
    started, spent = time.perf_counter(), time.process_time()
    answer = run()
    return answer, (time.perf_counter() - started, time.process_time() - spent)


if __name__ == "__main__":
    typer.run(main)
