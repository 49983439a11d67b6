"""A saved validation, of whichever kind of graph."""

from __future__ import annotations

from pathlib import Path

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.schema import read_json
from sae_graphs.validation import evidence_json
from sae_graphs.validation.answer import record_json
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence import ValidationReport


def load(path: str | Path) -> ValidationReport | AnswerReport:
    """Read a report from a file, or from the folder that it was written into.

    Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
    """
    file = Path(path)
    file = file / evidence_json.FILE_NAME if file.is_dir() else file
    remedy = "validate the graph again"
    data = read_json(file, give="a folder that `sae-graphs validate` wrote", remedy=remedy)
    is_answer = isinstance(data, dict) and data.get("schema") == record_json.SCHEMA
    try:
        return record_json.from_json(data) if is_answer else evidence_json.from_json(data)
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file} is not a saved validation: {problem}") from problem
