"""An atlas's folder: its manifest, and parts of rows that are there whole or not at all.

`atlas.json` says of which model and settings all rows are. Each folder in `parts/` holds a Parquet
file of each table; it is made beside and put in place in one step. A part of many (`all-...`) names
those that it stands for, which then no longer count, and are removed. `atlas.duckdb` has views of
the tables for other programs, with paths as seen from the folder. Torch-free.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sae_graphs.atlas.prompts import digest
from sae_graphs.atlas.rows import TABLES, Rows, tables_of
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.files import locked, write_atomically
from sae_graphs.runs import made_with
from sae_graphs.schema import read_json

MANIFEST = "atlas.json"
DATABASE = "atlas.duckdb"
SCHEMA = "sae_graphs/atlas/1"
PARTS, DRAFTS = "parts", ".drafts"
WHOLE = "all-"  # how the names of compacted parts begin
STANDS_FOR = "stands-for.json"
MEMORY = "1GB"  # that sorting may take; the rest goes to the disk
ROW_GROUP = 2**17
REMEDY = "build the atlas again, or restore the file"
SORTED = {
    "prompts": "prompt_id",
    "nodes": "layer, index, prompt_id, position",
    "edges": "source_layer, source_index, target_layer, target_index, prompt_id, "
    "source_position, target_position",
    "failures": "prompt_id",
}


@dataclass(frozen=True)
class Manifest:
    """What all rows of an atlas have in common: `facts` that must agree, the categories' names."""

    facts: Mapping[str, Any]
    categories: tuple[str, ...] = ()
    made_with: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """That of a folder; raises `SaeGraphsError` where there is none, or it is damaged."""
        file = folder / MANIFEST
        if not file.is_file():
            raise SaeGraphsError(
                f"{folder} is no atlas: it has no {MANIFEST}; give a folder that "
                "`sae-graphs atlas build` wrote"
            )
        held = read_json(file, give="an atlas", remedy=REMEDY)
        if not isinstance(held, dict) or held.get("schema") != SCHEMA:
            raise SaeGraphsError(f"{file} is not of the schema {SCHEMA}; {REMEDY}")
        facts, names = held.get("facts"), held.get("categories")
        if not isinstance(facts, dict) or not isinstance(names, list):
            raise SaeGraphsError(f"{file} lacks its facts or its categories; {REMEDY}")
        return cls(facts, tuple(map(str, names)), held.get("made_with"))

    def to_bytes(self) -> bytes:
        """As `atlas.json` has it."""
        held = {
            "schema": SCHEMA,
            "facts": dict(self.facts),
            "categories": list(self.categories),
            "made_with": dict(self.made_with or made_with()),
        }
        return (json.dumps(held, indent=1) + "\n").encode()


class Store:
    """An atlas's folder: read it, or, inside `writing`, put parts into it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    # -- reading ---------------------------------------------------------------------------------

    def parts(self) -> list[Path]:
        """The parts that count, in the order of their names."""
        root = self.folder / PARTS
        found = sorted(path for path in root.glob("*") if path.is_dir()) if root.is_dir() else []
        stood_for = {name for part in found for name in _stands_for(part)}
        return [part for part in found if part.name not in stood_for]

    def done(self) -> set[str]:
        """The ids of the prompts that are measured."""
        found: set[str] = set()
        for part in self.parts():
            found.update(_table(part / "prompts.parquet", ["prompt_id"])["prompt_id"].to_pylist())
        return found

    # -- writing, inside `writing` ---------------------------------------------------------------

    def add(self, batch: Sequence[Rows]) -> None:
        """A part with the rows of some prompts. Raises `SaeGraphsError` where it cannot be kept."""
        tables = tables_of(batch, self.manifest.categories)
        name = digest(sorted([each.prompt_id, each.failed] for each in batch))
        with self._part(name) as draft:
            for table, held in tables.items():
                pq.write_table(held, draft / f"{table}.parquet", compression="zstd")

    def compact(self, *, small: bool = False) -> None:
        """All parts as one, in the order of their contents; `small` leaves out those of many."""
        parts = [part for part in self.parts() if not (small and part.name.startswith(WHOLE))]
        if len(parts) < 2 and all(part.name.startswith(WHOLE) for part in parts):
            return
        import duckdb

        name = WHOLE + digest([part.name for part in parts])
        with self._part(name) as draft:
            database = duckdb.connect(":memory:")
            database.execute(f"SET memory_limit='{MEMORY}'")
            database.execute(f"SET temp_directory={literal(draft / 'sorting')}")
            database.execute("SET preserve_insertion_order=false")
            for table, order in SORTED.items():
                files = [part / f"{table}.parquet" for part in parts]
                database.execute(
                    f"COPY (SELECT * FROM {reading(files)} {_once(table)} ORDER BY {order}) TO "
                    f"{literal(draft / f'{table}.parquet')} "
                    f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
                )
            database.close()
            shutil.rmtree(draft / "sorting", ignore_errors=True)
            names = json.dumps([part.name for part in parts])
            (draft / STANDS_FOR).write_text(names, encoding="utf-8")
        self.tidy()

    def tidy(self) -> None:
        """Remove what a killed build left, and parts that another stands for."""
        shutil.rmtree(self.folder / DRAFTS, ignore_errors=True)
        live = set(self.parts())
        for path in (self.folder / PARTS).glob("*"):
            if path.is_dir() and path not in live:
                shutil.rmtree(path, ignore_errors=True)

    def write_database(self) -> None:
        """The file with views of the tables, for other programs."""
        import duckdb

        draft = self.folder / DRAFTS / f"{uuid.uuid4().hex}.duckdb"
        draft.parent.mkdir(parents=True, exist_ok=True)
        database = duckdb.connect(str(draft))
        database.execute(f"SET file_search_path={literal(self.folder.resolve())}")
        for view in views([part.relative_to(self.folder) for part in self.parts()]):
            database.execute(view)
        database.close()
        draft.replace(self.folder / DATABASE)
        shutil.rmtree(draft.parent, ignore_errors=True)

    @contextmanager
    def _part(self, name: str) -> Iterator[Path]:
        """A folder to write a part into, which is in its place afterwards."""
        draft, place = self.folder / DRAFTS / uuid.uuid4().hex, self.folder / PARTS / name
        try:
            draft.mkdir(parents=True)
            place.parent.mkdir(exist_ok=True)
            yield draft
            if place.exists():  # the same prompts failed before, or it was cut off while tidying
                shutil.rmtree(place)
            draft.rename(place)
        except OSError as problem:
            raise SaeGraphsError(
                f"cannot write into {self.folder}: {problem.strerror or problem}; what is measured "
                "is kept; make room, or give another folder, and build again"
            ) from problem
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def open_store(folder: Path) -> Store:
    """The store of a folder that is an atlas."""
    return Store(folder, Manifest.read(folder))


@contextmanager
def writing(folder: Path, manifest: Manifest) -> Iterator[Store]:
    """The store of a new folder, or of one whose rows are of the same model and settings.

    Raises `SaeGraphsError` where they are of others, the folder holds something else, or another
    build writes into it.
    """
    from filelock import Timeout

    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise SaeGraphsError(
            f"cannot write into {folder}: {problem.strerror}; give another folder"
        ) from problem
    try:
        with locked(folder / ".lock", wait=False):
            if (folder / MANIFEST).is_file():
                held = Manifest.read(folder)
                check_same(folder, held.facts, manifest.facts)
                names = dict.fromkeys((*held.categories, *manifest.categories))
                manifest = Manifest(held.facts, tuple(names), held.made_with)
            write_atomically(folder / MANIFEST, manifest.to_bytes())
            store = Store(folder, manifest)
            store.tidy()
            yield store
    except Timeout as problem:
        raise SaeGraphsError(
            f"another build is writing into {folder}; wait until it is done, or give another folder"
        ) from problem


def check_folder(folder: Path) -> None:
    """Raise `SaeGraphsError` where a folder holds something that is no atlas."""
    if folder.exists() and not folder.is_dir():
        raise SaeGraphsError(f"{folder} is a file; give a folder to write into")
    if folder.is_dir() and not (folder / MANIFEST).is_file():
        others = [path.name for path in folder.iterdir() if path.name != ".lock"]
        if others:
            raise SaeGraphsError(
                f"{folder} holds {quoted(sorted(others), 3)}, which no atlas wrote; give a new "
                "folder"
            )


def check_same(folder: Path, held: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise `SaeGraphsError` naming the first fact in which an atlas differs from a new build."""
    for name in dict.fromkeys((*held, *given)):
        one, other = held.get(name), given.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            check_same(folder, one, other)
        elif json.dumps(one) != json.dumps(other):
            raise SaeGraphsError(
                f"{folder} is an atlas with {name} {one!r:.60}, and this build has {other!r:.60}; "
                "give the same, or another folder with --out"
            )


def views(parts: Sequence[Path]) -> list[str]:
    """The statements that make the views of the tables."""
    files = {table: [part / f"{table}.parquet" for part in parts] for table in TABLES}
    return [
        f"CREATE VIEW prompts AS SELECT * FROM {reading(files['prompts'])}",
        f"""CREATE VIEW nodes AS SELECT *, concat(layer, '.', "index") AS feature
            FROM {reading(files["nodes"])}""",
        f"""CREATE VIEW edges AS SELECT *, {name_of("source")} AS source,
            {name_of("target")} AS target, coalesce(abs(flow), abs(effect)) AS strength
            FROM {reading(files["edges"])}""",
        f"""CREATE VIEW failures AS SELECT prompt_id, any_value(prompt) AS prompt,
            any_value(reason) AS reason FROM {reading(files["failures"])}
            WHERE prompt_id NOT IN (SELECT prompt_id FROM {reading(files["prompts"])})
            GROUP BY prompt_id""",
    ]


def reading(files: Sequence[Path]) -> str:
    """What to select from, to read some Parquet files together."""
    listed = ", ".join(literal(file) for file in files)
    return f"read_parquet([{listed}], union_by_name=true)"


def literal(value: object) -> str:
    """A text within a query."""
    return "'" + str(value).replace("'", "''") + "'"


def name_of(end: str) -> str:
    """The feature at one end of an edge; a token's, and the answer's, is that of its layer."""
    return (
        f"CASE WHEN {end}_layer IN ('answer', 'token') THEN {end}_layer "
        f"ELSE concat({end}_layer, '.', {end}_index) END"
    )


# -- inside ----------------------------------------------------------------------------------------


def _once(table: str) -> str:
    """Of prompts that failed several times, one row; others are there once."""
    return "QUALIFY row_number() OVER (PARTITION BY prompt_id) = 1" if table == "failures" else ""


def _stands_for(part: Path) -> list[str]:
    file = part / STANDS_FOR
    if not file.is_file():
        return []
    return list(map(str, read_json(file, give="an atlas", remedy=REMEDY)))


def _table(file: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=list(columns))
    except (OSError, pa.ArrowException) as problem:
        reason = " ".join(str(problem).split())[:120]
        raise SaeGraphsError(f"cannot read {file} ({reason}); {REMEDY}") from problem
