"""`Partial`: layers that were measured, kept in a folder until the run is done.

A run that is stopped goes on where it was when it is started again: layers that its folder holds
are read, the others measured. Each layer's file is written in one step and carries the key of its
run, so that what is found is whole and belongs here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from sae_graphs.checkpoint import PATIENCE
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.tensors import about_file, layer_tensors, read_layer, write_tensors
from sae_graphs.errors import SaeGraphsError

log = logging.getLogger(__name__)

SCHEMA = "sae_graphs/partial/1"

Told = Callable[[int, int], None]


class Partial:
    """The layers of one run that are done, in `folder`; `told` hears how many were found there.

    Layers are numbered by depth. Nothing is written before the run has lasted `PATIENCE` seconds.
    """

    def __init__(self, folder: str | Path, *, told: Told | None = None) -> None:
        self.folder = Path(folder)
        self._told = told
        self._key: Callable[[], str] = lambda: ""
        self._all = 0
        self._at_once = False
        self._broken = False
        self._started = time.monotonic()
        self._finished: set[int] = set()
        self._waiting: dict[int, list[Effects]] = {}

    @property
    def n_kept(self) -> int:
        """How many layers lie in the folder, done."""
        return len(self._finished)

    @property
    def n_layers(self) -> int:
        """How many layers the run measures."""
        return self._all

    def file(self, depth: int) -> Path:
        """Where the effects of one layer lie."""
        return self.folder / f"layer-{depth}.safetensors"

    def files(self) -> list[Path]:
        """Those of all layers, by depth."""
        return [self.file(depth) for depth in range(self._all)]

    def begin(self, key: Callable[[], str], n_layers: int, *, at_once: bool = False) -> None:
        """Look for layers of the run with this key, which is asked for only where it is needed.

        With `at_once`, layers are written as soon as they are done, however short the run.
        """
        self._key, self._all, self._at_once = cache(key), n_layers, at_once
        self._started = time.monotonic()
        self._waiting = {}
        self._finished = {depth for depth in range(n_layers) if self._is_ours(self.file(depth))}
        if self._finished and self._told is not None:
            self._told(len(self._finished), n_layers)

    def layer(self, depth: int, measure: Callable[[], Iterator[Effects]]) -> Iterator[Effects]:
        """The effects of one layer: read where it is done, else measured, and then kept."""
        blocks = self._read(depth)
        if blocks:
            yield from blocks
            return
        for block in measure():
            blocks.append(block)
            yield block
        self._waiting[depth] = blocks
        if self._at_once or time.monotonic() - self._started > PATIENCE:
            self._write()

    def blocks(self) -> Iterator[Effects]:
        """All effects again, layer by layer, once all are done."""
        for depth in range(self._all):
            yield from read_layer(self.file(depth), depth)

    def remove(self) -> None:
        """Delete the layers, once what was made of them is in place."""
        if not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            if file.name.endswith(".safetensors") or ".safetensors." in file.name:
                file.unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's is in it
            self.folder.rmdir()

    def _read(self, depth: int) -> list[Effects]:
        """A layer that is done; empty where it must be measured."""
        if depth not in self._finished:
            return []
        try:
            return list(read_layer(self.file(depth), depth))
        except SaeGraphsError:  # damaged, or another run of this kind is done and removed it
            self._finished.discard(depth)
            return []

    def _is_ours(self, file: Path) -> bool:
        if not file.is_file():
            return False
        try:
            about = about_file(file)
        except SaeGraphsError:
            return False
        return (about.get("schema"), about.get("run")) == (SCHEMA, self._key())

    def _write(self) -> None:
        """Put what is waiting into the folder. Where that fails, a run goes on without."""
        for depth, blocks in self._waiting.items():
            if self._broken:
                break
            about = {"schema": SCHEMA, "run": self._key()}
            try:
                write_tensors(self.file(depth), layer_tensors(depth, blocks), about)
                self._finished.add(depth)
            except OSError as problem:
                text = f"cannot write {self.folder}: {problem.strerror or problem}"
                if self._at_once:
                    raise SaeGraphsError(f"{text}; give another folder") from problem
                log.warning("%s: the run could not be resumed", text)
                self._broken = True
        self._waiting = {}
