"""`validation.json` of an answer graph: a report as plain JSON, and back."""

from __future__ import annotations

import json
from typing import Any

from sae_graphs.errors import GraphFileError
from sae_graphs.graph.records import FeatureId
from sae_graphs.schema import plain, rebuilt
from sae_graphs.validation.answer.records import AnswerReport

SCHEMA = "sae_graphs/answer-validation/1"
_REMEDY = "validate the graph again"


def to_json(report: AnswerReport) -> dict[str, Any]:
    """The report as dictionaries, lists, strings and numbers, with its `schema`.

    Beside each unit's record stands whether it is `supported`.
    """
    data = plain(report, {FeatureId: str})
    for each, found in zip((report, *report.tests), (data, *data["tests"]), strict=True):
        for unit, written in zip(each.units, found["units"], strict=True):
            written["supported"] = unit.supported
    return {"schema": SCHEMA, **data}


def from_json(data: Any) -> AnswerReport:
    """The inverse of `to_json`; raises `GraphFileError` where something is missing or wrong."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    values = _bare({name: value for name, value in data.items() if name != "schema"})
    if isinstance(tests := values.get("tests"), list):
        values["tests"] = [_bare(test) if isinstance(test, dict) else test for test in tests]
    own = {FeatureId: FeatureId.parse}
    try:
        report: AnswerReport = rebuilt(AnswerReport, values, "the report", own, remedy=_REMEDY)
    except RecursionError as problem:
        raise GraphFileError(f"it is nested too deeply; {_REMEDY}") from problem
    return report


def _bare(values: dict[str, Any]) -> dict[str, Any]:
    """A report without what is worked out of its units."""
    units = values.get("units")
    if not isinstance(units, list) or not all(isinstance(unit, dict) for unit in units):
        return values
    derived = {"supported"}
    bare = [{name: value for name, value in unit.items() if name not in derived} for unit in units]
    return {**values, "units": bare}


def to_bytes(report: AnswerReport) -> bytes:
    """The contents of `validation.json`: ASCII, so that no token can spoil it."""
    return (json.dumps(to_json(report), indent=1, allow_nan=False) + "\n").encode("ascii")
