"""Prompts to trace with their subjects marked: read from a file, and filtered. Torch-free.

A CSV file with the columns `prompt`, `subject`, `category`, `target`, or JSONL with the same keys;
`category` and `target` may be missing. The filters are those of the sources: the likeliest next
token is the target's first, and one token is corrupted, which is neither the first nor the last.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.words import probability, said

COLUMNS = ("prompt", "subject", "category", "target")
NEEDED = frozenset({"prompt", "subject"})
FOLDER = Path(__file__).parent / "cases"
Row = TypeVar("Row")
Made = TypeVar("Made")
UNNAMED = "all"  # the category of cases that name none


@dataclass(frozen=True)
class Case:
    """A prompt, the text of it that is corrupted, what kind it is of, and how it goes on."""

    prompt: str
    subject: str
    category: str = UNNAMED
    target: str | None = None

    def __post_init__(self) -> None:
        if not self.prompt or not self.subject:
            raise SaeGraphsError(f"a case needs a prompt and a subject, got {self!r:.120}")
        if self.subject not in self.prompt:
            raise SaeGraphsError(
                f"the subject {said(self.subject)} is not in the prompt {said(self.prompt)}"
            )


@dataclass(frozen=True)
class Looked:
    """What a model makes of a case's prompt, before anything is corrupted.

    `wanted` is the first token of the target; None where none is named.
    """

    tokens: tuple[str, ...]
    subject: tuple[int, ...]
    read: int
    top: str
    probability: float
    wanted: str | None = None


def bundled() -> tuple[str, ...]:
    """The names of the case files inside the package."""
    return names_in(FOLDER, ".csv")


def read_cases(file: str | Path) -> tuple[Case, ...]:
    """The cases of a file, or of one inside the package, by its name.

    Raises `SaeGraphsError` with the line's number where one is none.
    """
    path, text = text_of_cases(file, FOLDER, ".csv", give="a CSV or JSONL file of cases")
    lines = path.suffix.lower() in (".jsonl", ".json")
    rows = json_lines(text, path) if lines else _csv(text, path)
    return tuple(each_case(rows, _case, file, expected=f"rows of {quoted(COLUMNS)}"))


# -- files of cases of any kind --------------------------------------------------------------------


def names_in(folder: Path, ending: str) -> tuple[str, ...]:
    """The names of the case files in a folder of the package."""
    return tuple(sorted(file.stem for file in folder.glob(f"*{ending}")))


def text_of_cases(file: str | Path, folder: Path, ending: str, *, give: str) -> tuple[Path, str]:
    """Where a file of cases lies, and its text: a path, or the name of one in the package's folder.

    Raises `SaeGraphsError` where it cannot be read, which says what to `give`.
    """
    path, names = Path(file), names_in(folder, ending)
    if str(file) in names and not path.exists():
        path = folder / f"{file}{ending}"
    try:
        return path, path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise SaeGraphsError(
            f"cannot read {file}: {reason}; give {give}, or one of {quoted(names)}"
        ) from problem


def json_lines(text: str, file: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSONL, each with its line's number; raises `SaeGraphsError` with that."""
    for line, words in enumerate(text.split("\n"), start=1):  # other ends of lines are text
        if not words.strip():
            continue
        try:
            row = json.loads(words)
        except (ValueError, RecursionError) as problem:
            raise SaeGraphsError(f"{file}, line {line} is no JSON ({problem})") from problem
        if not isinstance(row, dict):
            raise SaeGraphsError(f"{file}, line {line} is {words!r:.60}, expected an object")
        yield line, row


def each_case(
    rows: Iterable[tuple[int, Row]],
    make: Callable[[Row], Made],
    file: str | Path,
    *,
    expected: str,
    called: str = "line",
) -> list[Made]:
    """What `make` makes of each row; raises `SaeGraphsError` with its number, or where none is."""
    found = []
    for number, row in rows:
        try:
            found.append(make(row))
        except SaeGraphsError as problem:
            raise SaeGraphsError(f"{file}, {called} {number}: {problem}") from problem
    if not found:
        raise SaeGraphsError(f"{file} holds no case; expected {expected}")
    return found


# -- a case ----------------------------------------------------------------------------------------


def _case(row: Mapping[str, object]) -> Case:
    if missing := NEEDED - {name for name, value in row.items() if value not in (None, "")}:
        raise SaeGraphsError(
            f"{quoted(sorted(missing))} is missing; expected the columns {quoted(COLUMNS)}"
        )
    if unknown := set(row) - set(COLUMNS):
        raise SaeGraphsError(
            f"{quoted(sorted(map(str, unknown)))} is no column of a case; expected "
            f"{quoted(COLUMNS)}"
        )
    for name, value in row.items():
        if value is not None and not isinstance(value, str):
            raise SaeGraphsError(f"{name} is {value!r:.60}, expected a text")
    texts = {name: value for name, value in row.items() if isinstance(value, str) and value}
    return Case(**texts)


def _csv(text: str, path: Path) -> Iterable[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            yield reader.line_num, {name or "an unnamed column": it for name, it in row.items()}
    except csv.Error as problem:
        raise SaeGraphsError(
            f"{path}, line {reader.line_num} is no CSV ({problem}); give a CSV or JSONL file"
        ) from problem


def refusal(case: Case, looked: Looked) -> str | None:
    """Why a case is left out; None where it passes all filters."""
    if case.target is not None and looked.top != looked.wanted:
        told = f"{said(looked.top)} ({probability(looked.probability)})"
        return f"the likeliest next token is {told}, not {said(case.target)}"
    if len(looked.subject) != 1:
        return f"{len(looked.subject)} tokens would be corrupted, not one"
    (at,) = looked.subject
    if at == 0:
        return "the corrupted token is the first"
    if at == looked.read:
        return "the corrupted token is the last"
    return None


REASONS = (
    ("the likeliest next token", "another next token"),
    ("the corrupted token is the first", "the first token"),
    ("the corrupted token is the last", "the last token"),
    ("the subject is the last token", "the last token"),
)


def kind_of(reason: str) -> str:
    """A refusal in a few words, to be counted.

    >>> kind_of("3 tokens would be corrupted, not one"), kind_of("the corrupted token is the last")
    ('more than one token', 'the last token')
    """
    for start, words in REASONS:
        if reason.startswith(start):
            return words
    if "does not hang on this subject" in reason:
        return "does not hang on it"
    return "more than one token" if "would be corrupted" in reason else "other"
