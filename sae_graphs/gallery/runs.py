"""The runs in a folder: found one level deep, and read without trust in what lies there.

Nothing outside of a run's folder is ever opened: links are not followed, dot files are not seen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations, fitting
from sae_graphs.graph.annotations import load as load_annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import RunRecord
from sae_graphs.runs import (
    ANNOTATIONS,
    GRAPH,
    RECORD,
    REPORT,
    VALIDATION,
    record_of,
)
from sae_graphs.runs import KINDS as KINDS_OF_RUNS
from sae_graphs.validation import evidence_json, saved
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.report.marks import is_of

Record = TypeVar("Record")
# The files of which one makes a folder a run, and says of what kind: the first that is there.
FILES = tuple(KINDS_OF_RUNS)
LARGEST = 256 * 2**20  # bytes of a file that is read whole
# The kinds of files that are handed out, by suffix. Anything that a browser could run as a page
# of its own is plain text; pages are held by their policy.
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".pdf": "application/pdf",
    ".json": "application/json",
    ".dot": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/plain; charset=utf-8",
    ".graphml": "text/plain; charset=utf-8",
    ".gexf": "text/plain; charset=utf-8",
    ".parquet": "application/octet-stream",
    ".safetensors": "application/octet-stream",
}


@dataclass(frozen=True)
class Run:
    """A folder with one of the `FILES`; addresses call it `name`."""

    name: str
    folder: Path

    @property
    def file(self) -> str:
        """The first of the `FILES` that is there, which says of what kind the run is."""
        return next((name for name in FILES if _holds(self.folder, name)), GRAPH)

    @property
    def is_graph(self) -> bool:
        """Whether it is a graph, whatever else was saved beside it."""
        return self.file == GRAPH


@dataclass(frozen=True)
class Summary:
    """What a card shows of a run that is no graph; `found` is what it found, in words.

    That of many prompts has no tokens, and `prompt` says which they are.
    """

    prompt: str
    model: str
    found: str
    tokens: tuple[str, ...] = ()
    read_position: int = 0
    next_tokens: tuple[tuple[str, float], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """What the gallery shows of a run: of a graph its record, of other kinds the `summary`.

    `problem` says why there is neither, where that is so.

    `created` is in seconds since 1970. `verdicts` counts what validation found by kind, None where
    there is no validation; `unread` says why one that is there could not be used.
    """

    run: Run
    created: float
    record: RunRecord | None = None
    summary: Summary | None = None
    features: int = 0
    outputs: int = 0
    edges: int = 0
    verdicts: Mapping[str, int] | None = None
    has_report: bool = False
    unread: str | None = None
    problem: str | None = None
    title: str | None = None


def runs_in(folder: Path) -> dict[str, Run]:
    """The runs by name: the folder itself, where it is one, and those right in it.

    Raises `SaeGraphsError` where the folder cannot be listed.
    """
    root = folder.resolve()
    try:
        children = sorted(child for child in root.iterdir() if _is_seen(child))
    except OSError as problem:
        raise SaeGraphsError(
            f"cannot list {folder}: {problem.strerror}; give a folder that holds runs"
        ) from problem
    found = {child.name: Run(child.name, child) for child in children if _is_run(child)}
    if _is_run(root):
        name = root.name or "run"
        while name in found:
            name += " (the folder itself)"
        found = {name: Run(name, root), **found}
    return found


def links_in(folder: Path) -> int:
    """How many links right in the folder lead to runs: they are not followed."""
    try:
        children = list(folder.resolve().iterdir())
    except OSError:
        return 0
    return sum(child.is_symlink() and child.is_dir() and _is_run(child) for child in children)


def _is_seen(child: Path) -> bool:
    return not child.name.startswith(".") and not child.is_symlink() and child.is_dir()


def _is_run(folder: Path) -> bool:
    """True where something of such a name is there; whether it can be read is told later."""
    return any(_holds(folder, name) for name in FILES)


def _holds(folder: Path, name: str) -> bool:
    try:
        return not stat.S_ISDIR((folder / name).lstat().st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def plain_file(run: Run, names: Sequence[str]) -> Path | None:
    """A file in the run's folder, given by the names on the way to it; None where there is none.

    Only plain files of the `KINDS` above count, below folders that are no links, and no name that
    starts with a dot, holds a control code, or could mean another place.
    """
    if not names or not all(map(_is_harmless, names)):
        return None
    path = run.folder
    for number, name in enumerate(names, start=1):
        path = path / name
        try:
            mode = path.lstat().st_mode
        except (OSError, ValueError):
            return None
        if not (stat.S_ISREG(mode) if number == len(names) else stat.S_ISDIR(mode)):
            return None
    return path if path.suffix.lower() in KINDS else None


def _is_harmless(name: str) -> bool:
    bad = any(character in "/\\:" or ord(character) < 32 for character in name)
    return bool(name) and not name.startswith(".") and not bad


def graph_of(run: Run) -> CausalGraph:
    """The run's graph; raises `SaeGraphsError` where it cannot be read, whatever is there."""
    return record_in(run, GRAPH, CausalGraph.load)


def record_in(run: Run, name: str, load: Callable[[Path], Record]) -> Record:
    """What a file of the run holds; raises `SaeGraphsError` where it cannot be read."""
    file = readable_file(run, (name,))
    try:
        return load(file)
    except SaeGraphsError as problem:
        raise GraphFileError(brief(problem, run)) from problem


def annotations_of(run: Run, graph: CausalGraph) -> tuple[Annotations, str | None]:
    """What a reader says of the graph, and why it is left out, where it is."""
    name = (ANNOTATIONS,)
    if plain_file(run, name) is None:
        return NO_ANNOTATIONS, None
    try:
        file = readable_file(run, name)
        return fitting(load_annotations(file), graph.parts.features), None
    except SaeGraphsError as problem:
        return NO_ANNOTATIONS, f"{ANNOTATIONS} is left out: {brief(problem, run)}"


def report_of(
    run: Run, graph: CausalGraph
) -> tuple[ValidationReport | AnswerReport | None, str | None]:
    """What validation found of this graph, and why it is left out, where it is."""
    names = (VALIDATION, evidence_json.FILE_NAME)
    if plain_file(run, names) is None:
        return None, None
    try:
        report = saved.load(readable_file(run, names))
    except SaeGraphsError as problem:
        return None, f"the validation is left out: {brief(problem, run)}"
    if not is_of(report, graph):
        return None, "the validation is left out: it is of another graph; validate this one again"
    return report, None


def saes_given(run: Run) -> tuple[str | None, str | None]:
    """The SAEs that the run's command was given, and which of several, as its record has them."""
    if plain_file(run, (RECORD,)) is None:
        return None, None
    held = record_of(run.folder) or {}
    given, pattern = (held.get(name) for name in ("saes_given", "sae_pattern_given"))
    return (
        given if isinstance(given, str) else None,
        pattern if isinstance(pattern, str) else None,
    )


def has_report(run: Run) -> bool:
    """True where there is a validation report to read."""
    return plain_file(run, (VALIDATION, REPORT)) is not None


def readable_file(run: Run, names: Sequence[str]) -> Path:
    file, name = plain_file(run, names), "/".join((run.name, *names))
    if file is None:
        raise GraphFileError(f"{name} is not a plain file, and links are not followed")
    if file.stat().st_size > LARGEST:
        raise GraphFileError(f"{name} is larger than {LARGEST // 2**20} MiB")
    return file


def brief(problem: Exception, run: Run) -> str:
    """The message with the run's name for its path on this machine."""
    return str(problem).replace(f"{run.folder}{os.sep}", f"{run.name}/")
