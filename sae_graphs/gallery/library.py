"""`Library`: the cards, pages and pictures of a folder's runs, each kept until its file changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sae_graphs.atlas.store import DATABASE
from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.artist import Artist, Kind
from sae_graphs.gallery.atlases import PICTURES, atlases_in
from sae_graphs.gallery.kinds import kind_of
from sae_graphs.gallery.runs import (
    FILES,
    Card,
    Run,
    annotations_of,
    brief,
    graph_of,
    has_report,
    readable_file,
    report_of,
    runs_in,
)
from sae_graphs.gallery.skeleton import Page
from sae_graphs.runs import ANNOTATIONS, RECORD, REPORT, VALIDATION
from sae_graphs.validation import evidence_json
from sae_graphs.validation.report.marks import kinds_in

KEPT = 2**26  # characters of pages and pictures that are kept


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
        # Pages list the other runs, and lead to an atlas.
        beside = () if kind == "thumbnail" else (*runs, *atlases_in(self.folder))
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
    *map(Path, FILES),
    Path(RECORD),
    Path(ANNOTATIONS),
    Path(VALIDATION) / evidence_json.FILE_NAME,
    Path(VALIDATION) / REPORT,
    Path(DATABASE),  # written when a build of an atlas ends
    *map(Path, PICTURES),
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
        return Card(run, created, problem=brief(problem, run))
    except Exception as problem:  # a file can be broken in more ways than anyone thinks of
        return Card(run, created, problem=f"it cannot be shown ({problem!r:.200})")


def _full_card(run: Run, created: float) -> Card:
    if not run.is_graph:
        return Card(run, created, summary=kind_of(run).summary(run))
    graph = graph_of(run)
    report, unread = report_of(run, graph)
    said, _ = annotations_of(run, graph)
    counts = None if report is None else kinds_in(report)
    outputs = sum(node.feature.is_output for node in graph.nodes)
    features = sum(node.feature.is_feature for node in graph.nodes)
    return Card(
        run,
        created,
        record=graph.run,
        features=features,
        outputs=outputs,
        edges=len(graph.edges),
        verdicts=counts,
        has_report=has_report(run),
        unread=unread,
        title=said.title,
    )


def _created(run: Run) -> float:
    """When the run was made: as its record says, else when its file was written."""
    with suppress(SaeGraphsError, OSError, ArithmeticError, LookupError, *_DAMAGE):
        record = json.loads(readable_file(run, (RECORD,)).read_text(encoding="utf-8"))
        made = datetime.fromisoformat(record["created"])
        return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    stamp = _stamp(run.folder / run.file)
    return stamp[0] / 1e9 if stamp else 0.0
