"""`validation.json` of an answer graph: a report as plain JSON, and back."""

from __future__ import annotations

import json
from typing import Any

from sae_graphs.errors import GraphFileError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.schema import plain, rebuilt
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence_json import with_derived, without_derived

SCHEMA = "sae_graphs/answer-validation/1"
_REMEDY = "validate the graph again"


def to_json(report: AnswerReport) -> dict[str, Any]:
    """The report as dictionaries, lists, strings and numbers, with its `schema`.

    Beside each unit's record stand its `DERIVED` properties, which are not read again.
    """
    data = with_derived(report.units, plain(report, {FeatureId: str}))
    data["tests"] = [
        with_derived(test.units, written)
        for test, written in zip(report.tests, data["tests"], strict=True)
    ]
    return {"schema": SCHEMA, **data}


def from_json(data: Any) -> AnswerReport:
    """The inverse of `to_json`; raises `GraphFileError` where something is missing or wrong."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    values = without_derived(data)
    if isinstance(tests := values.get("tests"), list):
        values["tests"] = [
            without_derived(test) if isinstance(test, dict) else test for test in tests
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
