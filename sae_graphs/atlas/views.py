"""The tables of an atlas as DuckDB sees them: the statements of its views, and how they are quoted.

Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sae_graphs.atlas.rows import PROMPTS, TABLES
from sae_graphs.graph.feature_id import ANSWER_LAYER, TOKEN_LAYER

_GLOB = re.compile(r"[*?\[{]")


def views(
    parts: Sequence[Path], categories: Sequence[str], tables: Iterable[str] = TABLES
) -> list[str]:
    """The statements that make the views of the tables; a part may lack some categories."""
    files = {table: [part / f"{table}.parquet" for part in parts] for table in tables}
    names = [identifier(name) for name in (*PROMPTS.names, *categories)]
    missing = ("prompt_id", *map(identifier, categories))
    none = ", ".join(f"NULL::VARCHAR AS {name}" for name in missing)
    return [
        f"""CREATE VIEW prompts AS SELECT {", ".join(names)} FROM (
            FROM {reading(files["prompts"])} UNION ALL BY NAME SELECT {none} WHERE false)""",
        f"""CREATE VIEW nodes AS SELECT *, {name_of()} AS feature
            FROM {reading(files["nodes"])}""",
        f"""CREATE VIEW edges AS SELECT *, {name_of("source_")} AS source,
            {name_of("target_")} AS target, coalesce(abs(flow), abs(effect)) AS strength
            FROM {reading(files["edges"])}""",
        f"""CREATE VIEW failures AS SELECT prompt_id, any_value(prompt) AS prompt,
            first(reason ORDER BY tried DESC, reason DESC) AS reason
            FROM {reading(files["failures"])}
            WHERE prompt_id NOT IN (SELECT prompt_id FROM {reading(files["prompts"])})
            GROUP BY prompt_id""",
        *(
            f"CREATE VIEW {table} AS FROM {reading(held)}"
            for table, held in files.items()
            if table not in TABLES
        ),
    ]


def reading(files: Sequence[Path]) -> str:
    """What to select from, to read some Parquet files together."""
    listed = ", ".join(literal(escaped(file)) for file in files)
    return f"read_parquet([{listed}], union_by_name=true, hive_partitioning=false)"


def escaped(file: Path) -> str:
    """The pattern that fits a file alone: DuckDB reads all paths as patterns."""
    return _GLOB.sub(r"[\g<0>]", str(file))


def literal(value: object) -> str:
    """A text within a query."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A column's name within a query."""
    return '"' + name.replace('"', '""') + '"'


def name_of(end: str = "") -> str:
    """The feature of a node, or at an end of an edge (`source_`): a token's, and the answer's, is
    that of its layer."""
    own = ", ".join(literal(layer) for layer in (ANSWER_LAYER, TOKEN_LAYER))
    return (
        f"CASE WHEN {end}layer IN ({own}) THEN {end}layer "
        f"""ELSE concat({end}layer, '.', "{end}index") END"""
    )
