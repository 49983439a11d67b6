"""An atlas's rows behind one connection that can only read. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_graphs.atlas.rows import TABLES
from sae_graphs.atlas.store import REMEDY, literal, open_store, views
from sae_graphs.errors import SaeGraphsError, quoted

Categories = str | Mapping[str, str] | None
Condition = tuple[Any, ...]  # a piece of a query, then the values for its question marks


class Database:
    """Views of the tables of an atlas's folder, in memory: nothing can be written.

    No other file can be read, and no setting changed. Raises `SaeGraphsError` where the folder is
    no atlas, is damaged, or holds no rows yet.
    """

    def __init__(self, folder: Path) -> None:
        import duckdb

        store = open_store(folder)
        self.folder, self.manifest = store.folder, store.manifest
        parts = [part.resolve() for part in store.parts()]
        if not parts:
            raise SaeGraphsError(
                f"{folder} holds no prompts yet; run `sae-graphs atlas build` to its end"
            )
        self._connection = duckdb.connect(":memory:")
        try:
            for view in views(parts):
                self._connection.execute(view)
        except duckdb.Error as problem:
            raise SaeGraphsError(f"cannot read {folder}: {_line(problem)}; {REMEDY}") from problem
        for setting in (
            f"allowed_directories=[{literal(store.folder.resolve())}]",
            "enable_external_access=false",
            "lock_configuration=true",
        ):
            self._connection.execute(f"SET {setting}")

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the columns that were carried along with the prompts."""
        return self.manifest.categories

    def check_select(self, query: str) -> None:
        """Raise `SaeGraphsError` where a query is anything but one SELECT."""
        import duckdb

        kinds = [each.type for each in self._connection.extract_statements(query)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise SaeGraphsError(
                f"the query {query!r:.60} is not one SELECT; an atlas is only read"
            )

    def asked(self, query: str, parameters: Sequence[Any] = (), *, polars: bool = False) -> Any:
        """The answer to a SELECT that a user wrote, as a table; see `Atlas.sql`."""
        import duckdb

        try:
            self.check_select(query)
            return self.table(query, parameters, polars=polars)
        except duckdb.Error as problem:
            raise SaeGraphsError(
                f"the query cannot be answered: {_line(problem)}; the tables are {quoted(TABLES)}"
            ) from problem

    def table(self, query: str, parameters: Sequence[Any] = (), *, polars: bool = False) -> Any:
        """A query's answer as a pandas table, or as one of polars."""
        if polars:
            return self._connection.sql(query, params=list(parameters) or None).pl()
        return self._connection.execute(query, list(parameters)).df()

    def check_polars(self) -> None:
        """Raise `SaeGraphsError` where polars is not installed."""
        try:
            self.table("SELECT 1", polars=True)
        except ImportError as problem:
            raise SaeGraphsError(
                "polars is not installed; pip install 'sae-graphs[polars]', or leave out "
                "frame='polars'"
            ) from problem

    def as_polars(self, table: Any) -> Any:
        """A pandas table as one of polars."""
        return self._connection.from_df(table).pl()

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """A query's answer, row by row."""
        return list(self._connection.execute(query, list(parameters)).fetchall())

    def one(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """The one value that a query answers."""
        ((value,),) = self.rows(query, parameters)
        return value

    def column(self, by: str | None) -> str | None:
        """The column of a category: the first where none is named, None where there is none."""
        return next(iter(self.categories), None) if by is None else self.needed_column(by)

    def needed_column(self, by: str | None) -> str:
        """The same; raises where there is none of that name, or none at all."""
        if not self.categories:
            raise SaeGraphsError(
                f"{self.folder} has no categories: its prompts came without other columns"
            )
        if by is None:
            return self.categories[0]
        if by not in self.categories:
            raise SaeGraphsError(
                f"{self.folder} has no category {by!r:.40}; it has {quoted(self.categories)}"
            )
        return by

    def chosen(self, category: Categories) -> list[Condition]:
        """Conditions on the prompts `p` for a category's value, or those of several columns."""
        if category is None:
            return []
        if isinstance(category, str):
            category = {self.needed_column(None): category}
        found: list[Condition] = []
        for name, value in category.items():
            place = identifier(self.needed_column(name))
            held = [row[0] for row in self.rows(f"SELECT DISTINCT {place} FROM prompts")]
            if value not in held:
                listed = quoted(sorted(str(each) for each in held if each is not None), 12)
                raise SaeGraphsError(f"no prompt has {name} {value!r:.40}; there are {listed}")
            found.append((f"p.{place} = ?", value))
        return found


def identifier(name: str) -> str:
    """A column's name within a query."""
    return '"' + name.replace('"', '""') + '"'


def _line(problem: Exception) -> str:
    """What a library says, in one line."""
    return " ".join(str(problem).split("LINE 1")[0].split())[:200]
