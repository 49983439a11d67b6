"""`validation.json`: a validation report as plain JSON, and back.

Features are `layer.index` strings, also where they are keys. A number that is not finite becomes
null; where the record needs a number it comes back as NaN.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.files import save_at
from sae_graphs.schema import _REMEDY, _finite, _no_number, _plain, _rebuilt
from sae_graphs.validation.evidence import ValidationReport

SCHEMA = "sae_graphs/validation/1"
FILE_NAME = "validation.json"


def to_json(report: ValidationReport) -> dict[str, Any]:
    """The report as dictionaries, lists, strings and numbers, with its `schema`."""
    return {"schema": SCHEMA, **_plain(report)}


def from_json(data: Any) -> ValidationReport:
    """The inverse of `to_json`; raises `GraphFileError` where something is missing or wrong."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    values = {name: value for name, value in data.items() if name != "schema"}
    try:
        report: ValidationReport = _rebuilt(ValidationReport, values, "the report")
    except RecursionError as problem:
        raise GraphFileError(f"it is nested too deeply; {_REMEDY}") from problem
    return report


def to_bytes(report: ValidationReport) -> bytes:
    """The contents of `validation.json`: ASCII, so that no token can spoil it."""
    return (json.dumps(to_json(report), indent=1, allow_nan=False) + "\n").encode("ascii")


def save(report: ValidationReport, path: str | Path) -> Path:
    """Write the report in one step, into a folder or to a file; returns the file."""
    return save_at(path, FILE_NAME, to_bytes(report))


def load(path: str | Path) -> ValidationReport:
    """Read a report from a file, or from the folder that it was written into.

    Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except OSError as problem:
        reason = problem.strerror or "unreadable"
        raise GraphFileError(
            f"cannot read {file}: {reason}; give a folder that `sae-graphs validate` wrote"
        ) from problem
    except ValueError as problem:
        raise GraphFileError(f"{file} is not JSON ({problem}); {_REMEDY}") from problem
    except RecursionError as problem:
        raise GraphFileError(f"{file} is nested too deeply; {_REMEDY}") from problem
    try:
        return from_json(data)
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file} is not a saved validation: {problem}") from problem


# -- one direction and the other -------------------------------------------------------------------
