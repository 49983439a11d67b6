"""The prompts that an atlas is made of: read from a file or a dataset, named by what they say.

Torch-free. JSONL, CSV, TSV and Parquet have columns: the prompt, its answer where there is a
`target`, and others, which are carried along as categories. A text file has a prompt a line.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from sae_graphs.errors import SaeGraphsError, quoted

log = logging.getLogger(__name__)

PROMPT, TARGET = "prompt", "target"
SUBJECT = "subject"  # the category that a trace corrupts
PLAIN = str | int | float | bool | Decimal | date | time  # what a category may be, written as text
BATCH = 4096  # rows of Parquet that are read at once
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
ID_LETTERS = 12  # letters and digits, 60 bits; DuckDB keeps so many letters in place


@dataclass(frozen=True)
class Asked:
    """A prompt, its answer where that is not the likeliest next token, and what kind it is of."""

    prompt: str
    target: str | None = None
    categories: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or not self.prompt:
            raise SaeGraphsError(f"a prompt is {self.prompt!r:.60}; expected some text")
        if not isinstance(self.target, str | None):
            raise SaeGraphsError(f"a target is {self.target!r:.60}; expected the text of a token")
        if not all(isinstance(each, str) for pair in self.categories.items() for each in pair):
            raise SaeGraphsError(f"categories are {self.categories!r:.60}; expected texts by name")
        own = {"a prompt": self.prompt, "a target": self.target or ""}
        for what, text in (*own.items(), *self.categories.items()):
            if encodable(what) != what or encodable(text) != text:
                raise SaeGraphsError(
                    f"{what!a:.40} is {text!a:.60}, which holds half a character (a lone "
                    "surrogate); write it as UTF-8"
                )

    @property
    def id(self) -> str:
        """Twelve letters and digits of a digest of the prompt and its answer, its name here.

        >>> Asked("Copyright (C").id
        's3oymqvy6scw'
        """
        return digest([self.prompt, self.target])


def encodable(text: str) -> str:
    """A text that UTF-8 can hold: half a character becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def digest(facts: Any) -> str:
    """Twelve of `a` to `z` and `2` to `7` that tell plain values apart."""
    found = hashlib.sha256(json.dumps(facts).encode()).digest()
    return base64.b32encode(found).decode().lower()[:ID_LETTERS]


def asked_of(prompts: Iterable[str | Asked | Mapping[str, Any]]) -> tuple[Asked, ...]:
    """Prompts as they are given in Python: texts, rows with a `prompt`, or what this module reads.

    Raises `SaeGraphsError` where one is none of these, or there is none at all.
    """
    if isinstance(prompts, str):
        raise SaeGraphsError(f"prompts are {prompts!r:.60}; expected several prompts, as a list")
    found = []
    for number, each in enumerate(prompts, start=1):
        if isinstance(each, Mapping):
            found.append(_asked(each, PROMPT, list(each), f"prompt {number}"))
        else:
            found.append(each if isinstance(each, Asked) else Asked(each))
    if not found:
        raise SaeGraphsError("there are no prompts; give some, as a list of texts")
    return tuple(found)


def read_prompts(
    file: Path,
    *,
    column: str = PROMPT,
    categories: Sequence[str] | None = None,
    besides: Sequence[str] = (),
) -> tuple[Asked, ...]:
    """The prompts of a file, and their `categories`: these columns, or all that are there.

    Of columns `besides` a row need not have each.

    Raises `SaeGraphsError` where it cannot be read, a column is missing, or no prompt is in it.
    """
    suffix = file.suffix.lower()
    if suffix not in FORMATS and suffix:
        raise SaeGraphsError(f"cannot read {file}; expected one of {quoted(FORMATS, 9)}")
    rows = _parquet(file) if suffix == ".parquet" else _rows(file, column)
    names = None if categories is None else tuple(dict.fromkeys((*categories, *besides)))
    found, left_out = [], set[str]()
    for number, row in enumerate(rows, start=1):
        where = f"{file}, row {number}"
        if column not in row:
            raise SaeGraphsError(
                f"{where} has no column {column!r}; it has {quoted(row)}; name the one with the "
                "prompts with --column"
            )
        if missing := [name for name in categories or () if name not in row]:
            raise SaeGraphsError(f"{where} has no column {missing[0]!r}; it has {quoted(row)}")
        if row[column] not in (None, ""):
            found.append(_asked(row, column, names, where, left_out))
    if not found:
        raise SaeGraphsError(f"{file} holds no prompts; expected rows with some text")
    if left_out:
        log.warning("%s of %s hold no text or number, and are left out", quoted(left_out, 9), file)
    return tuple(found)


def read_dataset(
    name: str,
    *,
    column: str | None = None,
    config: str | None = None,
    split: str = "train",
    limit: int | None = None,
) -> tuple[Asked, ...]:
    """The texts of a dataset, by its name on the hub or its folder; at most `limit` of them."""
    from itertools import islice

    from sae_graphs.pretrained.corpora import Corpus

    texts = Corpus(name, True, config, split, column).texts()
    found = tuple(Asked(text) for text in islice((text for text in texts if text), limit))
    if not found:
        raise SaeGraphsError(f"{name} holds no prompts; expected rows with some text")
    return found


def check_categories(asked: Iterable[Asked], taken: Collection[str]) -> tuple[str, ...]:
    """The names of the categories; raises where one is `taken` by a column of an atlas's own."""
    names = tuple(dict.fromkeys(name for each in asked for name in each.categories))
    lowered = {name.lower() for name in taken}
    if wrong := [name for name in names if name.lower() in lowered]:
        raise SaeGraphsError(
            f"the column {wrong[0]!r} has the name of one that this atlas has itself; call it "
            "otherwise, or name the columns to carry along with --category"
        )
    check_names(names)
    return names


def check_subjects(asked: Iterable[Asked]) -> None:
    """Raise where no prompt names a subject to trace it with."""
    if not any(each.categories.get(SUBJECT) for each in asked):
        raise SaeGraphsError(
            "no prompt names a subject, which a trace corrupts; give each a column `subject`: a "
            "part of its text"
        )


def check_names(names: Sequence[str]) -> None:
    """Raise where two names of categories differ in case alone, which to a database are one."""
    if len({name.lower() for name in names}) < len(names):
        raise SaeGraphsError(
            f"of the categories {quoted(names, 20)} two differ in case alone; call them alike"
        )


# -- inside ----------------------------------------------------------------------------------------


def _asked(
    row: Mapping[str, Any],
    column: str,
    categories: Sequence[str] | None,
    where: str,
    left_out: set[str] | None = None,
) -> Asked:
    """The prompt of a row; columns that nobody named, and cannot be carried along, are `left_out`.

    Raises `SaeGraphsError` for those that were named.
    """
    kept: dict[str, str] = {}
    for name in row if categories is None else categories:
        value = row.get(name)
        if name in (column, TARGET) or value is None:
            continue
        if isinstance(value, PLAIN):
            kept[name] = str(value)
        elif categories is None and left_out is not None:
            left_out.add(name)
        else:
            raise SaeGraphsError(
                f"{where}: {name} is {value!r:.60}; a category is a text, a number or a date"
            )
    try:
        return Asked(row.get(column, ""), row.get(TARGET) or None, kept)
    except SaeGraphsError as problem:
        raise SaeGraphsError(f"{where}: {problem}") from problem


@contextmanager
def _opened(file: Path) -> Iterator[IO[str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            yield opened
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise SaeGraphsError(
            f"cannot read prompts from {file}: {reason}; give a file of {quoted(FORMATS, 9)}"
        ) from problem


def _rows(file: Path, column: str) -> Iterator[Mapping[str, Any]]:
    """Line by line: the file is never held whole."""
    suffix = file.suffix.lower()
    with _opened(file) as lines:
        if suffix in (".jsonl", ".json"):
            yield from _json_lines(lines, file)
        elif suffix in (".csv", ".tsv"):
            reader = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
            try:
                for row in reader:
                    yield {name: value for name, value in row.items() if name}
            except csv.Error as problem:
                raise SaeGraphsError(
                    f"{file}, line {reader.line_num} is no CSV: {problem}"
                ) from None
        else:
            for line in lines:
                if line.strip():
                    yield {column: line.rstrip("\r\n")}


def _json_lines(lines: Iterable[str], file: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise SaeGraphsError(
                f"{file}, line {number} is no JSON ({problem}); expected an object a line"
            ) from problem
        if not isinstance(row, dict):
            raise SaeGraphsError(
                f"{file}, line {number} is {line.rstrip()!r:.60}, expected an object"
            )
        yield row


def _parquet(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as problem:
        reason = " ".join(str(problem).split())[:120]
        raise SaeGraphsError(
            f"cannot read {file} ({reason}); give a file of {quoted(FORMATS, 9)}"
        ) from problem
