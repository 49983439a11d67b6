"""`validation.json`: a validation report as plain JSON, and back.

Features are `layer.index` strings, also where they are keys. A number that is not finite becomes
null; where the record needs a number it comes back as NaN.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.files import save_at
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.schema import plain, read_json, rebuilt
from sae_graphs.validation.evidence import ValidationReport

SCHEMA = "sae_graphs/validation/1"
FILE_NAME = "validation.json"
DERIVED = ("verdict", "supported", "reason")  # of a unit
_REMEDY = "validate the graph again"


def to_json(report: ValidationReport) -> dict[str, Any]:
    """The report as dictionaries, lists, strings and numbers, with its `schema`.

    Beside each unit's record stand its `DERIVED` properties, which are not read again.
    """
    data = with_derived(report.units, plain(report, {FeatureId: str}))
    return {"schema": SCHEMA, **data}


def with_derived(units: Sequence[Any], data: dict[str, Any]) -> dict[str, Any]:
    """A report's data with what its units say of themselves."""
    written = [
        one | {name: getattr(unit, name) for name in DERIVED}
        for unit, one in zip(units, data["units"], strict=True)
    ]
    return data | {"units": written}


def without_derived(data: dict[str, Any]) -> dict[str, Any]:
    """A report's data as its record has it: neither the schema, nor what is worked out anew."""
    values = {name: value for name, value in data.items() if name != "schema"}
    units = values.get("units")
    if isinstance(units, list) and all(isinstance(unit, dict) for unit in units):
        values["units"] = [
            {name: value for name, value in unit.items() if name not in DERIVED} for unit in units
        ]
    return values


def from_json(data: Any) -> ValidationReport:
    """The inverse of `to_json`; raises `GraphFileError` where something is missing or wrong."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    values = without_derived(data)
    try:
        own = {FeatureId: FeatureId.parse}
        report: ValidationReport = rebuilt(
            ValidationReport, values, "the report", own, remedy=_REMEDY
        )
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
    data = read_json(file, give="a folder that `sae-graphs validate` wrote", remedy=_REMEDY)
    try:
        return from_json(data)
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file} is not a saved validation: {problem}") from problem
