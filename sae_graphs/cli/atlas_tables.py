"""What `sae-graphs atlas query` prints: tables for people, CSV or JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.text import shortened, visible
from sae_graphs.words import NONE, counted, plain

WIDEST = 40  # characters of a cell
WORD = 15  # characters of a word that is not cut, as of `not distinguishable`
EVERY = 1_000_000  # rows, where no limit is given
HIDDEN = (  # of tables for people: said by another column, or too wide
    *("source_layer", "source_index", "target_layer", "target_index", "tokens", "warnings"),
    *("skip", "attention", "mlp", "preactivation_effect", "likeliest_probability", "strength"),
    *("low", "high", "p", "expected"),
)
SHOWN = {  # of these tables, for people
    "traces": ("prompt_id", "clean", "corrupted", "handover_block", "sites", "reason"),
    "sites": ("prompt_id", "sweep", "role", "block", "token", "restores", "share"),
    "verdicts": ("prompt_id", "unit", "verdict", "effect", "q", "reason"),
}
NAMES = ("source", "target", "feature", "prompt_id")  # never cut short
Answer = tuple[str | None, Any, int]  # a title, a table, rows that are left out of it


def answer(
    folder: Path, what: str, given: Mapping[str, Any], limit: int | None
) -> Iterator[Answer]:
    """The tables that answer a question, with at most so many rows each."""
    import pandas as pd

    atlas = Atlas(folder)
    if "category" in given:
        given = {**given, "category": category_of(given["category"], atlas)}
    if what == "feature":
        use = atlas.feature(given["feature"], limit=limit or EVERY, most=EVERY)
        for title in ("prompts", "answers", "tokens", "sources", "targets"):
            yield _cut(f"{title} of {use.feature}", getattr(use, title), limit)
        return
    if what == "separation":
        found = atlas.separation(**given)._asdict()
        shares = found.pop("by_category")
        yield None, pd.DataFrame([found]), 0
        yield _cut("by category", pd.DataFrame(shares.items(), columns=["category", "share"]), None)
        return
    asked = {
        "recurring": lambda: atlas.recurring_edges(**given),
        "features": lambda: atlas.features(**given),
        "edges": lambda: atlas.edges(**given),
        "prompts": lambda: atlas.prompts(**given),
        "traces": lambda: atlas.traces(**given),
        "sites": lambda: atlas.sites(**given),
        "verdicts": lambda: atlas.verdicts(**given),
        "similar": lambda: atlas.similar(given["like"], limit=limit or EVERY),
        "differences": lambda: atlas.differences(
            *given["between"], **{name: it for name, it in given.items() if name != "between"}
        ),
        "failures": lambda: atlas.sql("SELECT * FROM failures ORDER BY prompt"),
        "sql": lambda: atlas.sql(given["sql"]),
    }[what]
    yield _cut(None, asked(), limit)


def category_of(text: str | None, atlas: Atlas) -> str | dict[str, str] | None:
    """`closings`, or `phenomenon=closings`, where the atlas has a column of that name."""
    name, sign, value = (text or "").partition("=")
    return {name: value} if sign and name in atlas.categories else text


def print_table(
    console: Console,
    table: Any,
    style: str,
    *,
    title: str | None = None,
    more: int = 0,
    names: Sequence[str] | None = None,
) -> None:
    """A pandas table as `table`, with these columns alone, or all of it as `csv` or `json`."""
    if style == "json":
        console.out(json.dumps([_values(row) for row in _rows(table)], indent=1), highlight=False)
    elif style == "csv":
        console.out(_csv(table), highlight=False)
    else:
        _print_plain(console, table, title, more, names)


# -- inside ----------------------------------------------------------------------------------------


def _cut(title: str | None, table: Any, limit: int | None) -> Answer:
    shown = table if limit is None else table.head(limit)
    return title, shown, len(table) - len(shown)


def _csv(table: Any) -> str:
    """Lists as JSON has them; what a terminal would obey is shown as an escape."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(visible(str(name), space=" ") for name in table.columns)
    for row in _rows(table):
        found = map(_value, row.values())
        writer.writerow(
            visible(json.dumps(value) if isinstance(value, list | dict) else value, space=" ")
            if isinstance(value, str | list | dict)
            else value
            for value in found
        )
    return file.getvalue().rstrip("\n")


def _rows(table: Any) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    """As JSON has it: what is not there, or no number, is null."""
    import pandas as pd

    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, Mapping):
        return {str(name): _value(each) for name, each in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is pd.NA or value is pd.NaT:
        return None
    return value if isinstance(value, str | int | bool) or value is None else str(value)


def _print_plain(
    console: Console, table: Any, title: str | None, more: int, shown: Sequence[str] | None
) -> None:
    if title is not None:
        console.print(Text(title, style="bold"), soft_wrap=True)
    if not len(table):
        console.print("nothing fits")
        return
    names = shown or [name for name in table.columns if name not in HIDDEN]
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        numbers = table[name].dtype.kind in "fi"
        drawn.add_column(
            Text(visible(str(name), space=" ").replace("_", " ")),
            justify="right" if numbers else "left",
            min_width=_least(table[name], whole=numbers or name in NAMES),
        )
    for row in _rows(table[[*names]]):
        drawn.add_row(*(_cell(value) for value in row.values()))
    console.print(drawn)
    if more:
        console.print(Text(f"and {counted(more, 'row')} more: --limit shows them", style="dim"))


def _least(column: Any, *, whole: bool) -> int:
    """The width in which cells are whole, or each of their words."""
    texts = [_cell(value).plain for value in column]
    if whole:
        return max(map(len, texts), default=1)
    return min(max((len(word) for text in texts for word in text.split()), default=1), WORD)


def _cell(value: Any) -> Text:
    found = _value(value)
    if found is None:
        return Text(NONE)
    if isinstance(found, float):
        return Text(plain(found))
    text = found if isinstance(found, str) else json.dumps(found)
    return Text(shortened(visible(text, space=" "), WIDEST))
