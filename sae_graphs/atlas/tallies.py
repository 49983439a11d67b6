"""Of each edge: how many prompts of each category have it, and what flows along it there.

What recurs is asked of these few rows, not of all edges. A part of many has them in a file; those
of other parts, of columns with very many values, and of categories within others are made when
they are asked for, by the same queries. Torch-free.

An edge is counted once a prompt, whatever its tokens: its effect there is the sum over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_graphs.atlas.views import identifier, literal, reading

FILE = "tallies.parquet"
MOST = 1000  # values of a column whose tallies are kept
ENDS = "source_layer, source_index, target_layer, target_index"

_ONCE = f"""
SELECT {ENDS}, prompt_id, sum(coalesce(flow, effect)) AS effect FROM {{edges}}
WHERE source_layer <> 'token' AND {{where}} GROUP BY {ENDS}, prompt_id"""
# `squares` of the distances from the mean: so tallies of several parts have a deviation together.
_TALLIES = f"""
SELECT {{category}} AS category, value, {ENDS}, count(*) AS prompts, avg(effect) AS mean,
    var_pop(effect) * count(*) AS squares, sum(abs(effect)) AS size
FROM {{once}} JOIN (SELECT prompt_id, {{value}} AS value FROM prompts) USING (prompt_id)
GROUP BY value, {ENDS}"""


def counting(column: str | None, where: str) -> str:
    """The query for the tallies of a column's categories, over the views of an atlas.

    `where` is a condition on the prompts `p`; a column None has one category, without a name.
    """
    among = f"prompt_id IN (SELECT prompt_id FROM prompts p WHERE {where})"
    return _tallies(column, f"({_ONCE.format(edges='edges', where=among)})")


def of_column(column: str | None) -> str:
    """The condition on the view `tallies` for those of a column."""
    return "category IS NULL" if column is None else f"category = {literal(column)}"


def view(connection: Any, parts: Sequence[Path], categories: Sequence[str]) -> str:
    """The statement that makes the view `tallies` on a connection that has the other views."""
    kept = {part: reading([part / FILE]) for part in parts if (part / FILE).is_file()}
    held = {
        part: {name for (name,) in connection.execute(_LISTED.format(file=file)).fetchall()}
        for part, file in kept.items()
    }
    pieces = [f"FROM {file}" for file in kept.values()]
    for column in categories or (None,):
        others = [part / "edges.parquet" for part in parts if column not in held.get(part, ())]
        if others:
            once = _ONCE.format(edges=reading(others), where="true")
            pieces.append(_tallies(column, f"({once})"))
    return f"CREATE VIEW tallies AS {' UNION ALL '.join(pieces)}"


def write(database: Any, part: Path, categories: Sequence[str]) -> None:
    """The file of a part that has its other files; a layer at a time, for the memory's sake."""
    edges = reading([part / "edges.parquet"])
    database.execute(f"CREATE VIEW prompts AS FROM {reading([part / 'prompts.parquet'])}")
    there = {name for name, *_ in database.execute("DESCRIBE prompts").fetchall()}
    columns = [name for name in categories if name in there and _few(database, name)]
    once = _ONCE.format(edges=edges, where="false")
    database.execute(f"CREATE TABLE tallies AS {_tallies(None, f'({once})')}")
    layers = f"SELECT DISTINCT source_layer FROM {edges} WHERE source_layer <> 'token'"
    for (layer,) in database.execute(layers).fetchall():
        where = f"source_layer = {literal(layer)}"
        database.execute(
            f"CREATE OR REPLACE TABLE once AS {_ONCE.format(edges=edges, where=where)}"
        )
        for column in columns if categories else (None,):
            database.execute(f"INSERT INTO tallies {_tallies(column, 'once')}")
    database.execute(
        f"COPY (FROM tallies ORDER BY category, {ENDS}, value) TO {literal(part / FILE)} "
        "(FORMAT parquet, COMPRESSION zstd)"
    )


# -- inside ----------------------------------------------------------------------------------------

_LISTED = "SELECT DISTINCT category FROM {file}"


def _tallies(column: str | None, once: str) -> str:
    none = "NULL::VARCHAR"
    category, value = (none, none) if column is None else (literal(column), identifier(column))
    return _TALLIES.format(category=category, value=value, once=once)


def _few(database: Any, column: str) -> bool:
    asked = f"SELECT count(DISTINCT {identifier(column)}) <= {MOST} FROM prompts"
    return bool(database.execute(asked).fetchone()[0])
