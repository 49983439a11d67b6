"""Parts of an interrupted run, kept until it is done.

A run that is stopped goes on where it was when it is started again: parts that its folder holds are
read, the others made. Each part's file is written in one step and carries the key of its run, so
that what is found is whole and belongs here. Where nothing can be written, a run goes on without.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from sae_graphs.errors import SaeGraphsError

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds: what a shorter run measured is not worth writing
SAMPLE = 2**16  # values of each weight that tell models apart

Name = TypeVar("Name", bound=Hashable)
Part = TypeVar("Part")


class WhileWritable:
    """Writes as long as that works; the first time that it does not, a warning says so."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._broken = False

    def write(self, write: Callable[[], None]) -> bool:
        """Whether it was written: False where that fails, once and for all."""
        if self._broken:
            return False
        try:
            write()
        except OSError as problem:
            reason = problem.strerror or problem
            log.warning("cannot write %s: %s: the run could not be resumed", self._place, reason)
            self._broken = True
        return not self._broken


class Checkpoint(ABC, Generic[Name, Part]):
    """The parts of one run that are done, in `folder`; `told` hears how many were found there, and
    of how many.

    Whoever keeps parts of a kind says where one lies and how it is written and read. Nothing is
    written before the run has lasted `patience` seconds, by default `PATIENCE`.
    """

    patience: float | None = None
    pattern: str  # of the names of all files that may lie in the folder, drafts included

    def __init__(
        self, folder: str | Path, *, told: Callable[[int, int], None] | None = None
    ) -> None:
        self.folder = Path(folder)
        self._told = told
        self._writer = WhileWritable(self.folder)
        self._key: Callable[[], str] = lambda: ""
        self._names: list[Name] = []
        self._at_once = False
        self._started = time.monotonic()
        self._done: set[Name] = set()
        self._waiting: dict[Name, Part] = {}

    # -- how parts of a kind are kept ------------------------------------------------------------

    @abstractmethod
    def file(self, name: Name) -> Path:
        """Where a part lies, or would."""

    @abstractmethod
    def key_in(self, name: Name) -> str | None:
        """The key that a part's file carries, None where it is none of the kind.

        Raises `SaeGraphsError` where the file is damaged.
        """

    @abstractmethod
    def load(self, name: Name) -> Part:
        """A part from its file; raises `SaeGraphsError` where it is damaged."""

    @abstractmethod
    def save(self, name: Name, part: Part, key: str) -> None:
        """Write a part's file in one step, with the key of its run. Raises `OSError`."""

    # -- the life of a run -----------------------------------------------------------------------

    @property
    def n_kept(self) -> int:
        """How many parts lie in the folder, done."""
        return len(self._done)

    @property
    def n_parts(self) -> int:
        """How many parts the run has."""
        return len(self._names)

    def files(self) -> list[Path]:
        """Where all parts lie, in their order."""
        return [self.file(name) for name in self._names]

    def begin(
        self, key: Callable[[], str], names: Sequence[Name], *, at_once: bool = False
    ) -> None:
        """Look for parts of the run with this key, which is asked for only where it is needed.

        With `at_once`, parts are written as soon as they are done, however short the run, and
        `SaeGraphsError` is raised where one cannot be.
        """
        self._key, self._names, self._at_once = cache(key), list(names), at_once
        self._started = time.monotonic()
        self._waiting = {}
        self._done = {name for name in names if self._is_ours(name)}
        if self._done and self._told is not None:
            self._told(len(self._done), len(names))

    def done(self, name: Name) -> bool:
        """Whether a part lies in the folder."""
        return name in self._done

    def read(self, name: Name) -> Part | None:
        """A part that is done; None where it must be made."""
        if name not in self._done:
            return None
        try:
            return self.load(name)
        except SaeGraphsError:  # damaged, or another run of this kind is done and removed it
            self._done.discard(name)
            return None

    def write(self, name: Name, part: Part) -> None:
        """Keep a part. Where that fails, a run goes on without."""
        self._waiting[name] = part
        patience = PATIENCE if self.patience is None else self.patience
        if self._at_once or time.monotonic() - self._started >= patience:
            for waiting, its_part in self._waiting.items():
                self._put(waiting, its_part)
            self._waiting = {}

    def remove(self) -> None:
        """Delete the parts, once what was made of them is in place."""
        if not self.folder.is_dir():
            return
        for file in self.folder.glob(self.pattern):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's is in it
            self.folder.rmdir()

    def _is_ours(self, name: Name) -> bool:
        if not self.file(name).is_file():
            return False
        try:
            found = self.key_in(name)
        except SaeGraphsError:
            return False
        return found is not None and found == self._key()

    def _put(self, name: Name, part: Part) -> None:
        if not self._at_once:
            if self._writer.write(lambda: self.save(name, part, self._key())):
                self._done.add(name)
            return
        try:
            self.save(name, part, self._key())
        except OSError as problem:
            reason = problem.strerror or problem
            raise SaeGraphsError(
                f"cannot write {self.folder}: {reason}; give another folder"
            ) from problem
        self._done.add(name)


def run_key(facts: Any, weights: Iterator[tuple[str, Any]]) -> str:
    """A few letters that tell apart what determines the numbers of a run.

    `facts` are plain JSON; of each tensor of the `weights` its kind, its shape and values spread
    over all of it count: any training changes them, and no model is read whole.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in weights:
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(flat.numel() // SAMPLE, 1) | 1]  # odd steps pass through all columns
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(sample.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
