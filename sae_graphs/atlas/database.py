"""An atlas's rows behind one connection that can only read. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sae_graphs.atlas import tallies
from sae_graphs.atlas.prompts import SUBJECT
from sae_graphs.atlas.store import REMEDY, open_store
from sae_graphs.atlas.views import escaped, identifier, literal, views
from sae_graphs.errors import SaeGraphsError, quoted

Categories = str | Mapping[str, str] | None
Condition = tuple[Any, ...]  # a piece of a query, then the values for its question marks
READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}  # of a query
RUNNING = {"query", "json_execute_serialized_sql"}  # functions that run a query within a text


class Database:
    """Views of the tables of an atlas's folder, in memory: nothing can be written.

    No other file can be read, and no setting changed. Raises `SaeGraphsError` where the folder is
    no atlas, is damaged, or holds no rows yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        """The parts that are there now; a build that ends puts others in their place."""
        import duckdb

        store = open_store(self.folder)
        self.manifest = store.manifest
        self._parts = parts = [part.resolve() for part in store.parts()]
        if not parts:
            raise SaeGraphsError(
                f"{self.folder} holds no prompts yet; run `sae-graphs atlas build` to its end"
            )
        self._connection = duckdb.connect(":memory:")
        try:
            for view in views(parts, self.categories, self._tables):
                self._connection.execute(view)
            self._connection.execute(tallies.view(self._connection, parts, self.categories))
        except duckdb.Error as problem:
            raise SaeGraphsError(
                f"cannot read {self.folder}: {_line(problem)}; {REMEDY}"
            ) from problem
        paths = [part / f"{table}.parquet" for part in parts for table in self._tables]
        paths += [part / tallies.FILE for part in parts]
        files = dict.fromkeys(literal(each) for path in paths for each in (path, escaped(path)))
        for setting in (
            "temp_directory=''",  # it could be written into
            f"allowed_paths=[{', '.join(files)}]",
            "enable_external_access=false",
            "lock_configuration=true",
        ):
            self._connection.execute(f"SET {setting}")

    @property
    def _tables(self) -> Mapping[str, Any]:
        return self.manifest.tables

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the columns that were carried along with the prompts."""
        return self.manifest.categories

    def check_select(self, query: str) -> None:
        """Raise `SaeGraphsError` where a query is anything but one SELECT that only reads.

        A SELECT may write: `WITH x AS (COPY ... TO ...)`. So all nodes of it are looked at, and
        functions that run a query within a text are none of it.
        """
        import duckdb

        kinds = [each.type for each in self._connection.extract_statements(query)]
        if kinds == [duckdb.StatementType.SELECT]:
            asked = "SELECT json_serialize_sql(?)"
            ((held,),) = self._connection.execute(asked, [query]).fetchall()
            if _only_reads(json.loads(held)):
                return
        raise SaeGraphsError(f"the query {query!r:.60} is not one SELECT; an atlas is only read")

    def asked(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """The answer to a SELECT that a user wrote, as a table; see `Atlas.sql`."""
        if not isinstance(query, str):
            raise SaeGraphsError(f"the query is {query!r:.60}; expected a SELECT, as text")
        with _told(f"; the tables are {quoted(self._tables, 9)}"):
            self.check_select(query)
        return self.table(query, parameters)

    def table(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """A query's answer as a pandas table."""
        return self._answer(lambda connection: connection.execute(query, list(parameters)).df())

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """A query's answer, row by row."""
        return list(
            self._answer(lambda connection: connection.execute(query, list(parameters)).fetchall())
        )

    def _answer(self, ask: Callable[[Any], Any]) -> Any:
        """What a connection says: another, where a build has taken away what this one reads."""
        import duckdb

        with _told(f"; the tables are {quoted(self._tables, 9)}"):
            try:
                return ask(self._connection)
            except duckdb.Error:
                if all(part.is_dir() for part in self._parts):
                    raise
            self._open()
            return ask(self._connection)

    def one(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """The one value that a query answers."""
        ((value,),) = self.rows(query, parameters)
        return value

    def column(self, by: str | None) -> str | None:
        """The column of a category: the first where none is named, None where there is none.

        A subject is the first where it is the only one: prompts seldom share one.
        """
        if by is not None:
            return self.needed_column(by)
        first = next(iter(self.categories), None)
        return next((name for name in self.categories if name != SUBJECT), first)

    def needed_column(self, by: str | None) -> str:
        """The same; raises where there is none of that name, or none at all."""
        first = self.column(None)
        if first is None:
            raise SaeGraphsError(
                f"{self.folder} has no categories: its prompts came without other columns"
            )
        if by is None:
            return first
        if not isinstance(by, str) or by not in self.categories:
            raise SaeGraphsError(
                f"{self.folder} has no category {by!r:.40}; it has {quoted(self.categories)}"
            )
        return by

    def named(self, category: Categories) -> Mapping[str, str]:
        """A category's value as that of the first column; values by column as they are.

        Raises `SaeGraphsError` for those that no prompt has.
        """
        if category is None:
            return {}
        if isinstance(category, str):
            category = {self.needed_column(None): category}
        if not isinstance(category, Mapping):
            raise SaeGraphsError(
                f"category is {category!r:.40}; expected a value, or values by column"
            )
        for name, value in category.items():
            place = identifier(self.needed_column(name))
            held = [row[0] for row in self.rows(f"SELECT DISTINCT {place} FROM prompts")]
            if value not in held:
                listed = quoted(sorted(str(each) for each in held if each is not None), 12)
                raise SaeGraphsError(f"no prompt has {name} {value!r:.40}; there are {listed}")
        return category

    def count(self, category: Categories) -> int:
        """How many prompts there are of a category, or of all."""
        where, values = "true", list[Any]()
        for condition, value in self.chosen(category):
            where, values = f"{where} AND {condition}", [*values, value]
        return int(self.one(f"SELECT count(*) FROM prompts p WHERE {where}", values))

    def chosen(self, category: Categories) -> list[Condition]:
        """Conditions on the prompts `p` for a category's value, or those of several columns."""
        return [(f"p.{identifier(name)} = ?", it) for name, it in self.named(category).items()]


@contextmanager
def _told(more: str) -> Iterator[None]:
    """What DuckDB has against a query, as a `SaeGraphsError` in one line."""
    import duckdb

    try:
        yield
    except (duckdb.Error, ValueError) as problem:  # ValueError: too few values for the query
        raise SaeGraphsError(f"the query cannot be answered: {_line(problem)}{more}") from problem


def _only_reads(node: Any) -> bool:
    """Whether nothing in a query, as DuckDB describes it, writes."""
    if isinstance(node, list):
        return all(map(_only_reads, node))
    if not isinstance(node, dict):
        return True
    if node.get("error") is True:
        return False
    kind, called = node.get("type"), node.get("function_name")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in READING:
        return False
    if isinstance(called, str) and called.lower() in RUNNING:
        return False
    return all(map(_only_reads, node.values()))


def _line(problem: Exception) -> str:
    """What a library says, in one line."""
    return " ".join(str(problem).split("LINE 1")[0].split())[:200]
