"""The runs in a folder: found one level deep, and read without trust in what lies there.

Nothing outside of a run's folder is ever opened: links are not followed, dot files are not seen.
What was read is kept until its file changes.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.gallery.drawing import Artist, Kind
from sae_graphs.gallery.skeleton import Page
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations, fitting
from sae_graphs.graph.annotations import load as load_annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import RunRecord
from sae_graphs.runs import ANNOTATIONS, GRAPH, RECORD, REPORT, VALIDATION
from sae_graphs.validation import evidence_json
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.judging import VerdictKind
from sae_graphs.validation.report.marks import is_of
from sae_graphs.validation.verdicts import verdict

KEPT = 2**26  # characters of pages and pictures that are kept
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
}


@dataclass(frozen=True)
class Run:
    """A folder with a `graph.json`; `name` is what addresses call it."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Card:
    """What the gallery shows of a run. `problem` says why there is no record, where there is none.

    `created` is in seconds since 1970. `verdicts` counts what validation found by kind, None where
    there is no validation; `unread` says why one that is there could not be used.
    """

    run: Run
    created: float
    record: RunRecord | None = None
    features: int = 0
    outputs: int = 0
    edges: int = 0
    verdicts: Mapping[VerdictKind, int] | None = None
    has_report: bool = False
    unread: str | None = None
    problem: str | None = None
    title: str | None = None


# -- finding ---------------------------------------------------------------------------------------


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


def _is_seen(child: Path) -> bool:
    return not child.name.startswith(".") and not child.is_symlink() and child.is_dir()


def _is_run(folder: Path) -> bool:
    """True where something called `graph.json` is there; whether it can be read is told later."""
    try:
        return not stat.S_ISDIR((folder / GRAPH).lstat().st_mode)
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


# -- reading ---------------------------------------------------------------------------------------


def graph_of(run: Run) -> CausalGraph:
    """The run's graph; raises `SaeGraphsError` where it cannot be read, whatever is there."""
    file = _readable(run, (GRAPH,))
    try:
        return CausalGraph.load(file)
    except SaeGraphsError as problem:
        raise GraphFileError(_brief(problem, run)) from problem


def annotations_of(run: Run, graph: CausalGraph) -> tuple[Annotations, str | None]:
    """What a reader says of the graph, and why it is left out, where it is."""
    name = (ANNOTATIONS,)
    if plain_file(run, name) is None:
        return NO_ANNOTATIONS, None
    try:
        file = _readable(run, name)
        return fitting(load_annotations(file), graph), None
    except SaeGraphsError as problem:
        return NO_ANNOTATIONS, f"{ANNOTATIONS} is left out: {_brief(problem, run)}"


def report_of(run: Run, graph: CausalGraph) -> tuple[ValidationReport | None, str | None]:
    """What validation found of this graph, and why it is left out, where it is."""
    names = (VALIDATION, evidence_json.FILE_NAME)
    if plain_file(run, names) is None:
        return None, None
    try:
        report = evidence_json.load(_readable(run, names))
    except SaeGraphsError as problem:
        return None, f"the validation is left out: {_brief(problem, run)}"
    if not is_of(report, graph):
        return None, "the validation is left out: it is of another graph; validate this one again"
    return report, None


def has_report(run: Run) -> bool:
    """True where there is a validation report to read."""
    return plain_file(run, (VALIDATION, REPORT)) is not None


def _readable(run: Run, names: Sequence[str]) -> Path:
    file, name = plain_file(run, names), "/".join((run.name, *names))
    if file is None:
        raise GraphFileError(f"{name} is not a plain file, and links are not followed")
    if file.stat().st_size > LARGEST:
        raise GraphFileError(f"{name} is larger than {LARGEST // 2**20} MiB")
    return file


def _brief(problem: Exception, run: Run) -> str:
    """The message with the run's name for its path on this machine."""
    return str(problem).replace(f"{run.folder}{os.sep}", f"{run.name}/")


# -- cards -----------------------------------------------------------------------------------------


class Library:
    """A folder of runs, with what was read and drawn of them kept while their files stay the same.

    What needs a layout is drawn by an `Artist`, in another process: see there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._artist = Artist()
        self._lock = threading.Lock()  # held for a moment, of the two dictionaries
        self._reading, self._drawing = threading.Lock(), threading.Lock()  # nothing is made twice
        self._cards: dict[str, tuple[Any, Card]] = {}
        self._drawn: dict[tuple[Any, ...], tuple[Any, Page]] = {}

    def close(self) -> None:
        """End the process that draws."""
        self._artist.close()

    def runs(self) -> dict[str, Run]:
        """The runs that are there now, by name."""
        return runs_in(self.folder)

    def cards(self) -> tuple[Card, ...]:
        """The cards of all runs, the newest first."""
        runs = self.runs()
        with self._lock:
            for gone in self._cards.keys() - runs.keys():
                del self._cards[gone]
        cards = [self.card(run) for run in runs.values()]
        return tuple(sorted(cards, key=lambda card: (-card.created, card.run.name)))

    def card(self, run: Run) -> Card:
        """One run's card, read again only where its files changed."""
        now = _stamps(run)
        with self._reading:
            with self._lock:
                seen, card = self._cards.get(run.name, (None, None))
            if card is None or seen != now:
                card = _card(run)
                with self._lock:
                    self._cards[run.name] = now, card
            return card

    def drawn(self, kind: Kind, names: Sequence[str], *, summed: bool = False) -> Page:
        """A page or a picture of these runs, drawn again only where something changed.

        Raises `SaeGraphsError` where a run cannot be read, or is gone.
        """
        runs = self.runs()
        key = kind, *names, summed
        beside = () if kind == "thumbnail" else tuple(runs)  # pages list the other runs
        now = beside, tuple(_stamps(runs[name]) for name in names if name in runs)
        if page := self._kept(key, now):
            return page
        with self._drawing:
            if page := self._kept(key, now):  # drawn while this one waited
                return page
            page = self._artist.draw(self.folder, kind, names, summed=summed)
        with self._lock:
            self._drawn[key] = now, page
            sizes = {each: len(kept.html) for each, (_, kept) in self._drawn.items()}
            while sum(sizes.values()) > KEPT and len(sizes) > 1:
                oldest = next(iter(sizes))
                del self._drawn[oldest], sizes[oldest]
        return page

    def _kept(self, key: tuple[Any, ...], now: Any) -> Page | None:
        with self._lock:
            found = self._drawn.pop(key, None)
            if found is None or found[0] != now:
                return None
            self._drawn[key] = found  # the last one that was asked for
            return found[1]


_DAMAGE = (ValueError, TypeError, RecursionError)
_PARTS = (
    Path(GRAPH),
    Path(RECORD),
    Path(ANNOTATIONS),
    Path(VALIDATION) / evidence_json.FILE_NAME,
    Path(VALIDATION) / REPORT,
)


def _stamps(run: Run) -> tuple[Any, ...]:
    """Tells whether anything that is shown of a run changed."""
    return tuple(_stamp(run.folder / name) for name in _PARTS)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.lstat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_mode


def _card(run: Run) -> Card:
    created = _created(run)
    try:
        return _full_card(run, created)
    except SaeGraphsError as problem:
        return Card(run, created, problem=_brief(problem, run))
    except Exception as problem:  # a file can be broken in more ways than anyone thinks of
        return Card(run, created, problem=f"it cannot be shown ({problem!r:.200})")


def _full_card(run: Run, created: float) -> Card:
    graph = graph_of(run)
    report, unread = report_of(run, graph)
    said, _ = annotations_of(run, graph)
    counts: Counter[VerdictKind] | None = None
    if report is not None:
        counts = Counter(verdict(unit, report).kind for unit in report.units)
    outputs = sum(node.feature.is_output for node in graph.nodes)
    return Card(
        run,
        created,
        record=graph.run,
        features=len(graph.nodes) - outputs,
        outputs=outputs,
        edges=len(graph.edges),
        verdicts=counts,
        has_report=has_report(run),
        unread=unread,
        title=said.title,
    )


def _created(run: Run) -> float:
    """When the run was made: as its record says, else when its graph was written."""
    with suppress(SaeGraphsError, OSError, ArithmeticError, LookupError, *_DAMAGE):
        record = json.loads(_readable(run, (RECORD,)).read_text(encoding="utf-8"))
        made = datetime.fromisoformat(record["created"])
        return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    stamp = _stamp(run.folder / GRAPH)
    return stamp[0] / 1e9 if stamp else 0.0
