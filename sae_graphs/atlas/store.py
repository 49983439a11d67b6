"""An atlas's folder: its manifest, and parts of rows that are there whole or not at all.

`atlas.json` says of which model and settings all rows are. Each folder in `parts/` holds a Parquet
file of each table; it is made beside and put in place in one step, under a name that no other part
ever has. A part of many (`all-...`) names those that it stands for, and all that these stood for,
which then no longer count, and are taken away in one step each. The rows of prompts that no part
has yet are noted in `.journal.jsonl`, for the build after one that is killed. `atlas.duckdb` has
views of the tables for other programs, with paths as seen from the folder. Torch-free.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sae_graphs.atlas import tallies
from sae_graphs.atlas.prompts import check_names
from sae_graphs.atlas.rows import Rows, tables_in, tables_of
from sae_graphs.atlas.views import literal, reading, views
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.files import locked, write_atomically
from sae_graphs.runs import ATLAS, made_with
from sae_graphs.schema import read_json

MANIFEST = ATLAS
DATABASE = "atlas.duckdb"
SCHEMA = "sae_graphs/atlas/1"
PARTS, DRAFTS, JOURNAL = "parts", ".drafts", ".journal.jsonl"
WHOLE = "all-"  # how the names of compacted parts begin
STANDS_FOR = "stands-for.json"
FEWER = 4  # times as large is a part that others are not made one with
MEMORY = "1GB"  # that sorting may take; the rest goes to the disk
ROW_GROUP = 2**17
REMEDY = "build the atlas again, or restore the file"
SORTED = {
    "prompts": "prompt_id",
    "nodes": "layer, index, prompt_id, position",
    "edges": "source_layer, source_index, target_layer, target_index, prompt_id, "
    "source_position, target_position",
    "failures": "prompt_id",
    "traces": "prompt_id",
    "sites": "prompt_id, sweep, position, block, first_position",
    "verdicts": "prompt_id, unit",
}


@dataclass(frozen=True)
class Manifest:
    """What all rows of an atlas have in common: `facts` that must agree, the categories' names."""

    facts: Mapping[str, Any]
    categories: tuple[str, ...] = ()
    made_with: Mapping[str, Any] | None = None

    @property
    def tables(self) -> Mapping[str, pa.Schema]:
        """Its tables, by name."""
        return tables_in(self.facts)

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
        found = self._folders()
        stood_for = {name for part in found for name in _stands_for(part)}
        return [part for part in found if part.name not in stood_for]

    def done(self) -> dict[str, dict[str, str | None]]:
        """The ids of the prompts that are measured, and the categories that they have here."""
        found: dict[str, dict[str, str | None]] = {}
        for part in self.parts():
            for row in _prompts(part / "prompts.parquet", self.manifest.categories):
                found[row.pop("prompt_id")] = row
        return found

    def _folders(self) -> list[Path]:
        root = self.folder / PARTS
        return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []

    # -- writing, inside `writing` ---------------------------------------------------------------

    def add(self, batch: Sequence[Rows]) -> None:
        """A part with the rows of some prompts, all that are noted among them.

        Raises `SaeGraphsError` where it cannot be kept.
        """
        if batch:
            tables = tables_of(batch, self.manifest.categories, self.manifest.tables)
            with self._part(uuid.uuid4().hex) as draft:
                for table, held in tables.items():
                    pq.write_table(held, draft / f"{table}.parquet", compression="zstd")
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def note(self, rows: Rows) -> None:
        """Keep a prompt's rows until a part has them, should the build be killed before."""
        line = json.dumps([rows.prompt_id, rows.tables])
        with self._kept(), (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(f"{line}\n")

    def recover(self) -> None:
        """Make a part of what a killed build noted; half a line is of the prompt in flight."""
        file = self.folder / JOURNAL
        if not file.is_file():
            return
        done, found = self.done(), list[Rows]()
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
            with suppress(ValueError, TypeError):  # a line that a full disk cut
                rows = Rows(*json.loads(line))
                found += [rows] if rows.prompt_id not in done else []
        self.add(found)

    def compact(self) -> None:
        """Parts as one, in the order of their contents: all, but those that are far larger, and
        have tallies of all columns.

        So an atlas is not written again for each prompt that is added, and has few parts.
        """
        sizes = {part: _size(part) for part in self.parts()}
        parts = sorted(sizes, key=lambda part: (-sizes[part], part))
        while parts and parts[0].name.startswith(WHOLE):
            if sum(sizes[part] for part in parts[1:]) * FEWER >= sizes[parts[0]]:
                break
            if _is_older(parts[0], self.manifest.categories):
                break
            parts.pop(0)
        if not parts:
            return
        import duckdb

        with self._part(WHOLE + uuid.uuid4().hex) as draft:
            database = duckdb.connect(":memory:")
            database.execute(f"SET memory_limit='{MEMORY}'")
            database.execute(f"SET temp_directory={literal(draft / 'sorting')}")
            database.execute("SET preserve_insertion_order=false")
            for table in self.manifest.tables:
                files = [part / f"{table}.parquet" for part in parts]
                database.execute(
                    f"COPY (SELECT * FROM {reading(files)} {_once(table)} "
                    f"ORDER BY {SORTED[table]}) TO {literal(draft / f'{table}.parquet')} "
                    f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
                )
            tallies.write(database, draft, self.manifest.categories)
            database.close()
            shutil.rmtree(draft / "sorting", ignore_errors=True)
            gone = set(self._folders()) - set(self.parts())  # which could not be taken away
            names = sorted(part.name for part in gone.union(parts))
            (draft / STANDS_FOR).write_text(json.dumps(names), encoding="utf-8")
        self.tidy()

    def tidy(self) -> None:
        """Remove what a killed build left, and parts that another stands for."""
        drafts = self.folder / DRAFTS
        gone = sorted(set(self._folders()) - set(self.parts()))
        with suppress(OSError):  # another program has it open: it does not count, and stays
            drafts.mkdir(exist_ok=True)
            for path in gone:
                path.rename(drafts / uuid.uuid4().hex)
        shutil.rmtree(drafts, ignore_errors=True)
        for name in (MANIFEST, DATABASE):  # half-written ones
            for file in self.folder.glob(f".{name}.*"):
                file.unlink(missing_ok=True)

    def write_database(self) -> None:
        """The file with views of the tables, for other programs.

        It is made elsewhere, beside parts without rows: DuckDB opens no database in a folder that
        has a `?` in its name, and looks for files in none with a comma.
        """
        import duckdb

        parts = [part.relative_to(self.folder) for part in self.parts()]
        empty = tables_of([], self.manifest.categories, self.manifest.tables)
        with tempfile.TemporaryDirectory() as scratch:
            for part in parts:
                (Path(scratch) / part).mkdir(parents=True)
                for table, held in empty.items():
                    pq.write_table(held, Path(scratch) / part / f"{table}.parquet")
            file = Path(scratch) / DATABASE
            database = duckdb.connect(str(file))
            database.execute(f"SET file_search_path={literal(scratch)}")
            for view in views(parts, self.manifest.categories, self.manifest.tables):
                database.execute(view)
            database.close()
            write_atomically(self.folder / DATABASE, file.read_bytes())

    @contextmanager
    def _part(self, name: str) -> Iterator[Path]:
        """A folder to write a part into, which is in its place afterwards."""
        draft, place = self.folder / DRAFTS / uuid.uuid4().hex, self.folder / PARTS / name
        try:
            with self._kept():
                draft.mkdir(parents=True)
                place.parent.mkdir(exist_ok=True)
                yield draft
                draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """What the disk has against writing, as a `SaeGraphsError`."""
        try:
            yield
        except OSError as problem:
            raise SaeGraphsError(
                f"cannot write into {self.folder}: {problem.strerror or problem}; what is measured "
                "is kept; make room, or give another folder, and build again"
            ) from problem


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
                names = tuple(dict.fromkeys((*held.categories, *manifest.categories)))
                check_names(names)
                manifest = Manifest(held.facts, names, held.made_with)
            write_atomically(folder / MANIFEST, manifest.to_bytes())
            store = Store(folder, manifest)
            store.tidy()
            store.recover()
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
        ours = ".lock", JOURNAL, f".{MANIFEST}."  # what a killed build leaves
        others = [path.name for path in folder.iterdir() if not path.name.startswith(ours)]
        if others:
            raise SaeGraphsError(
                f"{folder} holds {quoted(sorted(others), 3)}, which no atlas wrote; give a new "
                "folder"
            )


def check_same(folder: Path, held: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise `SaeGraphsError` naming the first fact in which an atlas differs from a new build."""
    # The digest last: it is of all others, and says nothing of what differs.
    for name in sorted(dict.fromkeys((*held, *given)), key=lambda name: name == "digest"):
        one, other = held.get(name), given.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            check_same(folder, one, other)
        elif json.dumps(one) != json.dumps(other):
            told = f"with {name} {one!r:.60}, and this build has {other!r:.60}"
            if other is None and isinstance(one, Mapping):
                told = f"with {name}, and this build is without"
            elif one is None and isinstance(other, Mapping):
                told = f"without {name}, and this build is with it"
            raise SaeGraphsError(
                f"{folder} is an atlas {told}; give the same, or another folder with --out"
            )


# -- inside ----------------------------------------------------------------------------------------


def _once(table: str) -> str:
    """Of prompts that failed several times, the last; others are there once."""
    last = "(PARTITION BY prompt_id ORDER BY tried DESC, reason DESC)"
    return f"QUALIFY row_number() OVER {last} = 1" if table == "failures" else ""


def _size(part: Path) -> int:
    """The prompts of a part, those that failed as well."""
    files = (part / f"{table}.parquet" for table in ("prompts", "failures"))
    try:
        return sum(int(pq.read_metadata(file).num_rows) for file in files)
    except (OSError, pa.ArrowException) as problem:
        raise _unreadable(part, problem) from problem


def _is_older(part: Path, categories: Sequence[str]) -> bool:
    """Whether a part was made before there were tallies, or one of these columns."""
    there = pq.read_schema(part / "prompts.parquet").names
    return not (part / tallies.FILE).is_file() or not set(categories) <= set(there)


def _unreadable(place: Path, problem: Exception) -> SaeGraphsError:
    reason = " ".join(str(problem).split())[:120]
    return SaeGraphsError(f"cannot read {place} ({reason}); {REMEDY}")


def _stands_for(part: Path) -> list[str]:
    file = part / STANDS_FOR
    if not file.is_file():
        return []
    return list(map(str, read_json(file, give="an atlas", remedy=REMEDY)))


def _prompts(file: Path, categories: Sequence[str]) -> list[dict[str, Any]]:
    """Ids and categories, as far as a part has these."""
    try:
        there = set(pq.read_schema(file).names)
        columns = ["prompt_id", *(name for name in categories if name in there)]
        return list(pq.read_table(file, columns=columns, partitioning=None).to_pylist())
    except (OSError, pa.ArrowException) as problem:
        raise _unreadable(file, problem) from problem
