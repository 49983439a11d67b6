"""`validation.json` of an answer graph: a report as plain JSON, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.graph.records import FeatureId
from sae_graphs.schema import plain, read_json, rebuilt
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence_json import FILE_NAME

SCHEMA = "sae_graphs/answer-validation/1"
_REMEDY = "validate the graph again"


def to_json(report: AnswerReport) -> dict[str, Any]:
    """The report as dictionaries, lists, strings and numbers, with its `schema`.

    Beside each unit's record stands whether it is `supported`.
    """
    data = plain(report, {FeatureId: str})
    for unit, written in zip(report.units, data["units"], strict=True):
        written["supported"] = unit.supported
    return {"schema": SCHEMA, **data}


def from_json(data: Any) -> AnswerReport:
    """The inverse of `to_json`; raises `GraphFileError` where something is missing or wrong."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    values = {name: value for name, value in data.items() if name != "schema"}
    units = values.get("units")
    if isinstance(units, list) and all(isinstance(unit, dict) for unit in units):
        derived = {"supported"}
        values["units"] = [
            {name: value for name, value in unit.items() if name not in derived} for unit in units
        ]
    own = {FeatureId: FeatureId.parse}
    try:
        report: AnswerReport = rebuilt(AnswerReport, values, "the report", own, remedy=_REMEDY)
    except RecursionError as problem:
        raise GraphFileError(f"it is nested too deeply; {_REMEDY}") from problem
    return report


def to_bytes(report: AnswerReport) -> bytes:
    """The contents of `validation.json`: ASCII, so that no token can spoil it."""
    return (json.dumps(to_json(report), indent=1, allow_nan=False) + "\n").encode("ascii")


def load(path: str | Path) -> AnswerReport:
    """Read a report from a file, or from the folder that it was written into.

    Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
    """
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    data = read_json(file, give="a folder that `sae-graphs validate` wrote", remedy=_REMEDY)
    try:
        return from_json(data)
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file} is not a saved validation: {problem}") from problem
