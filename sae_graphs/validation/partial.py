"""`ValidationPartial`: paths that were tested, kept in a folder until the validation is done.

Each path's file is written in one step and carries the key of its run, so that what is found
after an interruption is whole and belongs here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from sae_graphs._version import __version__
from sae_graphs.checkpoint import run_key
from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.node_link import to_bytes as graph_bytes
from sae_graphs.model.instrument import InstrumentedModel, weights_of
from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.evidence_json import load, to_bytes
from sae_graphs.validation.settings import ValidationSettings

log = logging.getLogger(__name__)

Told = Callable[[int, int], None]


class ValidationPartial:
    """The paths of one validation that are done; `told` hears how many were found, and of how many.

    Keys are worked out once, when they are first needed.
    """

    def __init__(self, folder: str | Path, *, told: Told | None = None) -> None:
        self.folder = Path(folder)
        self._told = told
        self._key: Callable[[], str] = lambda: ""
        self._names: list[str] = []
        self._found: dict[str, UnitReport] = {}
        self._broken = False

    @property
    def n_kept(self) -> int:
        """How many paths lie in the folder, done."""
        return len(self._found)

    @property
    def n_units(self) -> int:
        """How many there are to test."""
        return len(self._names)

    def file(self, name: str) -> Path:
        """Where one path's report lies."""
        return self.folder / f"path-{self._names.index(name)}.json"

    def begin(self, key: Callable[[], str], names: Sequence[str]) -> None:
        """Look for reports of the run with this key."""
        self._key, self._names = cache(key), list(names)
        for name in names:
            if self.file(name).is_file():
                self._look(name)
        if self._found and self._told is not None:
            self._told(len(self._found), len(names))

    def _look(self, name: str) -> None:
        try:
            held = load(self.file(name))
        except SaeGraphsError:  # damaged: it is tested again
            return
        ours = held.settings.get("run") == self._key()
        if ours and [unit.name for unit in held.units] == [name]:
            self._found[name] = held.units[0]

    def read(self, name: str) -> UnitReport | None:
        """One path's report, where it is done."""
        return self._found.get(name)

    def write(self, unit: UnitReport) -> None:
        """Keep one path's report. Where that fails, a run goes on without."""
        if self._broken:
            return
        report = ValidationReport(
            model="",
            saes="",
            prompt="",
            target="",
            contrast=None,
            discovery=(),
            test=(),
            settings={"run": self._key()},
            units=(unit,),
        )
        try:
            write_atomically(self.file(unit.name), to_bytes(report))
            self._found[unit.name] = unit
        except OSError as problem:
            reason = problem.strerror or problem
            log.warning("cannot write %s: %s: the run could not be resumed", self.folder, reason)
            self._broken = True

    def remove(self) -> None:
        """Delete the reports, once the whole is in place."""
        if not self.folder.is_dir():
            return
        for file in self.folder.glob("*path-*.json*"):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's is in it
            self.folder.rmdir()


def validation_key(
    model: InstrumentedModel,
    graph: CausalGraph,
    tokens: Sequence[Sequence[int]],
    settings: ValidationSettings,
) -> str:
    """Tells apart everything that determines what a validation finds of a path."""
    facts = {
        "sae_graphs": __version__,
        "graph": hashlib.sha256(graph_bytes(graph.parts)).hexdigest(),
        "tokens": [list(ids) for ids in tokens],
        "saes": [(layer.point.hook_name, str(layer.cfg.to_dict())) for layer in model.stack.layers],
        "settings": dict(settings.to_json()),
    }
    return run_key(facts, weights_of(model))
