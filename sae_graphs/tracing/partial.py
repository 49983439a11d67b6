"""`TracePartial`: noise runs whose cells were all measured, kept in a folder until a trace is done.

Torch-free. Letters: `S` sweeps, `T` tokens, `L` layers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from sae_graphs.checkpoint import Checkpoint
from sae_graphs.errors import GraphFileError
from sae_graphs.files import write_atomically

SCHEMA = "sae_graphs.trace.partial/1"

Measured = NDArray[np.float64]  # [S, 3, T, L] of one noise run


class TracePartial(Checkpoint[int, Measured]):
    """The noise runs of one trace that are done, by number.

    `strength` is that of the corruption, where traces of several share a folder.
    """

    pattern = "noise-run-*.safetensors*"

    def __init__(
        self,
        folder: str | Path,
        *,
        strength: str = "",
        told: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(folder, told=told)
        self._strength = f"{strength}-" if strength else ""

    def file(self, run: int) -> Path:
        """Where the cells of one noise run lie."""
        return self.folder / f"noise-run-{self._strength}{run}.safetensors"

    def key_in(self, run: int) -> str | None:
        """The key that a noise run's file carries."""
        try:
            with safe_open(self.file(run), "numpy") as held:
                about = held.metadata() or {}
        except (OSError, SafetensorError) as problem:
            raise GraphFileError(f"{self.file(run)} is damaged: {problem}; delete it") from problem
        return about.get("run") if about.get("schema") == SCHEMA else None

    def load(self, run: int) -> Measured:
        """The cells of one noise run."""
        try:
            with safe_open(self.file(run), "numpy") as held:
                cells: Measured = held.get_tensor("cells")
        except (OSError, SafetensorError) as problem:
            raise GraphFileError(f"{self.file(run)} is damaged: {problem}; delete it") from problem
        return cells

    def save(self, run: int, cells: Measured, key: str) -> None:
        """Write one noise run."""
        about = {"schema": SCHEMA, "run": key}
        data = safetensors_bytes({"cells": np.ascontiguousarray(cells)}, metadata=about)
        write_atomically(self.file(run), data)
