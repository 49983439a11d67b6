"""`trace.json`: a causal trace as plain JSON, and back. Torch-free.

Cells are nested lists `[R][T][L]`, as in the record, rounded to six significant digits: less than
noise runs differ by, and a fifth of the size. All else is as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.files import save_at
from sae_graphs.schema import plain, read_json, rebuilt
from sae_graphs.tracing.records import SCHEMA, Cells, Trace

FILE_NAME = "trace.json"
DIGITS = 6  # significant ones of each cell
_REMEDY = "trace the prompt again"


def to_json(trace: Trace) -> dict[str, Any]:
    """The trace as dictionaries, lists, strings and numbers, with its `schema`."""
    return {"schema": SCHEMA, **plain(trace, {np.ndarray: _rounded})}


def from_json(data: Any) -> Trace:
    """The inverse of `to_json`; raises `GraphFileError` where something is missing or wrong."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    values = {name: value for name, value in data.items() if name != "schema"}
    try:
        trace: Trace = rebuilt(Trace, values, "the trace", {Cells: _cells}, remedy=_REMEDY)
    except RecursionError as problem:
        raise GraphFileError(f"it is nested too deeply; {_REMEDY}") from problem
    return trace


def to_bytes(trace: Trace) -> bytes:
    """The contents of `trace.json`: ASCII, so that no token can spoil it."""
    text = json.dumps(to_json(trace), allow_nan=False, separators=(",", ":"))
    return (text + "\n").encode("ascii")


def save(trace: Trace, path: str | Path) -> Path:
    """Write the trace in one step, into a folder or to a file; returns the file."""
    return save_at(path, FILE_NAME, to_bytes(trace))


def load(path: str | Path) -> Trace:
    """Read a trace from a file, or from the folder that it was written into.

    Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    data = read_json(file, give="a folder that a trace was saved in", remedy=_REMEDY)
    try:
        return from_json(data)
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file} is not a saved trace: {problem}") from problem


def _rounded(cells: Cells) -> Any:
    """Nested lists of the numbers that six digits leave."""
    if not np.isfinite(cells).all():
        raise SaeGraphsError("a cell of the trace is no number; the model answers NaN somewhere")
    texts = np.char.mod(f"%.{DIGITS - 1}e", cells)
    return texts.astype(np.float64).tolist()


def _cells(value: Any) -> Cells:
    try:
        cells = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise GraphFileError(
            f"cells are {value!r:.40}, expected lists of numbers; {_REMEDY}"
        ) from None
    if cells.ndim != 3 or not np.isfinite(cells).all():
        raise GraphFileError(
            f"cells have the shape {cells.shape}, expected finite numbers by noise run, token and "
            f"layer; {_REMEDY}"
        )
    return cells
