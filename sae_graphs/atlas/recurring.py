"""Which edges recur, in which categories more than chance, and which graphs are alike. Torch-free.

An edge is counted once a prompt, whatever its tokens: its effect there is the sum over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sae_graphs.atlas.database import Categories, Database
from sae_graphs.atlas.tallies import ENDS, counting, of_column
from sae_graphs.atlas.views import identifier, name_of
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.significance import adjusted, exceeding, mean_interval

VALUES = 100  # of a column whose categories are compared: each takes a column of counts
_NAMES = f"{name_of('source_')} AS source, {name_of('target_')} AS target"
_RECURRING = f"""
{{given}}
SELECT {_NAMES}, sum(prompts)::BIGINT AS prompts, any_value(whole) AS mean_effect,
    sqrt(sum(squares + prompts * (mean - whole) ** 2) / nullif(sum(prompts) - 1, 0)) AS deviation
    {{counts}}
FROM (SELECT *, sum(prompts * mean) OVER own / sum(prompts) OVER own AS whole
    FROM tallies WHERE {{where}} WINDOW own AS (PARTITION BY {ENDS}))
GROUP BY {ENDS} HAVING sum(prompts) >= ?
ORDER BY sum(prompts) DESC, sum(size) DESC, {ENDS}"""
_COUNT = "coalesce(sum(prompts) FILTER (value = ?), 0)::BIGINT"
_MEAN = "sum(prompts * mean) FILTER (value = ?) / sum(prompts) FILTER (value = ?)"
_DIFFERENT = f"""
SELECT {_NAMES}, {_COUNT} AS prompts_a, {_COUNT} AS prompts_b, {_MEAN} AS mean_effect_a,
    {_MEAN} AS mean_effect_b
FROM tallies WHERE {{where}} AND value IN (?, ?)
GROUP BY {ENDS} HAVING sum(prompts) >= ? ORDER BY {ENDS}"""
SIMILAR = f"""
WITH mine AS (
    SELECT {ENDS}, sum(strength) AS weight, row_number() OVER () AS edge FROM edges
    WHERE prompt_id = ? AND source_layer <> 'token' GROUP BY {ENDS}
), theirs AS (
    SELECT e.prompt_id, any_value(mine.weight) AS mine, sum(e.strength) AS weight
    FROM edges e JOIN mine USING ({ENDS}) GROUP BY e.prompt_id, edge
), shared AS (
    SELECT prompt_id, sum(least(mine, weight)) AS common, count(*) AS shared_edges
    FROM theirs GROUP BY prompt_id
)
SELECT p.prompt_id, p.prompt, p.target, shared_edges,
    common / (p.strength + (SELECT sum(weight) FROM mine) - common) AS similarity{{carried}}
FROM shared JOIN prompts p USING (prompt_id) WHERE p.prompt_id <> ?
ORDER BY similarity DESC, p.prompt_id LIMIT ?"""
# Of each prompt first: one where a feature stands at many tokens weighs as much as another.
USES = """
WITH places AS (
    SELECT {{what}} AS {{name}}, prompt_id, avg(n.effect_on_answer) AS effect,
        avg(n.activation) AS activation
    FROM nodes n JOIN prompts p USING (prompt_id) WHERE {own} GROUP BY {{what}}, prompt_id
)
SELECT {{name}}, count(*) AS prompts, avg(effect) AS mean_effect,
    avg(activation) AS mean_activation
FROM places GROUP BY {{name}} ORDER BY prompts DESC, {{name}} LIMIT ?"""
NEIGHBOURS = """
WITH once AS (
    SELECT {other}_layer, {other}_index, any_value({other}) AS feature, prompt_id,
        sum(effect) AS effect, sum(relative_effect) AS relative_effect, sum(flow) AS flow
    FROM edges WHERE {mine}_layer = ? AND {mine}_index = ?
    GROUP BY {other}_layer, {other}_index, prompt_id
)
SELECT any_value(feature) AS feature, count(*) AS prompts, avg(effect) AS mean_effect,
    avg(relative_effect) AS mean_relative_effect, avg(flow) AS mean_flow
FROM once GROUP BY {other}_layer, {other}_index
ORDER BY prompts DESC, {other}_layer, {other}_index LIMIT ?"""

_TOKENS = """
SELECT feature, token, count(DISTINCT prompt_id) AS prompts
FROM nodes JOIN prompts p USING (prompt_id)
WHERE token IS NOT NULL AND feature IN (SELECT unnest(?::VARCHAR[])) AND {where}
GROUP BY feature, token ORDER BY feature, prompts DESC, token"""


def edges(
    atlas: Database,
    by: str | None,
    category: Categories,
    least: int,
    long: bool,
    limit: int | None,
) -> Any:
    """See `Atlas.recurring_edges`."""
    check_count("least", least)
    if limit is not None:
        check_count("limit", limit)
    column, named = atlas.column(by), atlas.named(category)
    condition = " AND ".join(f"p.{identifier(name)} = ?" for name in named) or "true"
    values = list(named.values())
    sizes: dict[str, int] = {}
    if column is not None:
        kind = identifier(column)
        sizes = dict(
            atlas.rows(
                f"SELECT p.{kind}, count(*) FROM prompts p WHERE {condition} "
                f"AND p.{kind} IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT {VALUES + 1}",
                values,
            )
        )
    if len(sizes) > VALUES:
        if by is not None:
            raise SaeGraphsError(
                f"{column} has more than {VALUES} values; expected a column of so many at most to "
                f"compare; {atlas.folder} has {quoted(atlas.categories)}"
            )
        sizes = {}
    kinds = "".join(f", {_COUNT} AS kind_{at}" for at in range(len(sizes)))
    if named.keys() <= {column}:  # the tallies that are kept tell
        where = " AND ".join([of_column(column), *("value = ?" for _ in named)])
        query = _RECURRING.format(given="", counts=kinds, where=where)
        found = atlas.table(query, [*sizes, *values, least])
    else:
        given = f"WITH tallies AS ({counting(column, condition)})"
        query = _RECURRING.format(given=given, counts=kinds, where="true")
        found = atlas.table(query, [*values, *sizes, least])
    total = atlas.one(f"SELECT count(*) FROM prompts p WHERE {condition}", values)
    counts = [found.pop(f"kind_{at}").to_numpy() for at in range(len(sizes))]
    found.insert(3, "share", found["prompts"] / max(total, 1))
    found["low"], found["high"] = mean_interval(
        found["mean_effect"].to_numpy(),
        found.pop("deviation").to_numpy(),
        found["prompts"].to_numpy(),
    )
    if sizes:
        found = _with_kinds(found, np.stack(counts, axis=1), sizes, long)
    return found if limit is None else found.head(limit)


def differences(atlas: Database, a: str, b: str, by: str | None, least: int) -> Any:
    """See `Atlas.differences`."""
    check_count("least", least)
    column = atlas.needed_column(by)
    if a == b:
        raise SaeGraphsError(f"both categories are {a!r:.40}; give two different ones")
    for value in (a, b):
        atlas.named({column: value})
    sizes = [
        atlas.one(f"SELECT count(*) FROM prompts p WHERE p.{identifier(column)} = ?", [value])
        for value in (a, b)
    ]
    query = _DIFFERENT.format(where=of_column(column))
    found = atlas.table(query, [a, b, a, a, b, b, a, b, least])
    one, other = (found[f"prompts_{side}"].to_numpy() for side in "ab")
    (of_a, of_b), both = sizes, one + other
    more = exceeding(one, both, of_a, of_a + of_b)
    fewer = exceeding(other, both, of_b, of_a + of_b)
    found.insert(4, "share_a", one / of_a)
    found.insert(5, "share_b", other / of_b)
    found["p"] = np.minimum(1.0, 2 * np.minimum(more, fewer))
    found["q"] = np.array(adjusted(found["p"].tolist()), dtype=float)
    return found.sort_values(["p", "source", "target"], kind="stable", ignore_index=True)


def tokens(atlas: Database, features: str | Iterable[str | FeatureId], category: Categories) -> Any:
    """See `Atlas.tokens_of`."""
    names = [features] if isinstance(features, str) else list(map(str, features))
    chosen = atlas.chosen(category)
    where = " AND ".join(each[0] for each in chosen) or "true"
    values = [value for each in chosen for value in each[1:]]
    return atlas.table(_TOKENS.format(where=where), [names, *values])


def check_count(name: str, number: int) -> int:
    """A number of rows or prompts; raises where it is none."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise SaeGraphsError(f"{name} is {number!r:.40}; expected a whole number, 1 or more")
    return number


# -- inside ----------------------------------------------------------------------------------------


def _with_kinds(found: Any, counts: Any, sizes: Mapping[str, int], long: bool) -> Any:
    """Each edge with the category that has it most beyond chance, or with all of them.

    `counts` are those of the prompts with an edge, a column for each category.
    """
    names, total = np.array(list(sizes), dtype=object), sum(sizes.values())
    drawn, each = counts.sum(axis=1, keepdims=True), np.array(list(sizes.values()))
    p = exceeding(counts, drawn, each, total)
    q = np.array(adjusted(p.ravel().tolist()), dtype=float).reshape(p.shape)
    rows, columns = np.arange(len(found)), p.argmin(axis=1)
    if long:
        rows, columns = np.repeat(rows, len(names)), np.tile(np.arange(len(names)), len(found))
    table = found.iloc[rows].reset_index(drop=True)
    table["category"] = names[columns]
    expected = drawn * each / total
    for name, values in {"in_category": counts, "expected": expected, "p": p, "q": q}.items():
        table[name] = values[rows, columns]
    return table
