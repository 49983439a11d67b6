"""`graph.html` of a run's folder: the explorer, with what was said and found of its graph there."""

from __future__ import annotations

import logging
from pathlib import Path

from sae_graphs import evidence_json
from sae_graphs.errors import GraphFileError
from sae_graphs.evidence import ValidationReport
from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.marks import Finding
from sae_graphs.runs import PAGE, REPORT, VALIDATION

_log = logging.getLogger(__name__)


def explorer_of(folder: Path, graph: CausalGraph, *, annotations: Annotations) -> bytes:
    """The page of a run in `folder`, with the findings of the validation that lies there.

    One that cannot be read, or is of another graph, is left out with a warning.
    """
    from sae_graphs.render.pictures import html

    findings = _findings(folder, graph)
    report = f"{VALIDATION}/{REPORT}" if findings else None
    return html(graph, annotations=annotations, findings=findings, report=report).encode()


def is_of(report: ValidationReport, graph: CausalGraph) -> bool:
    """Whether a graph has all features that a report speaks of."""
    known = {node.feature for node in graph.nodes}
    return all(known.issuperset(unit.features) for unit in report.units)


def _findings(folder: Path, graph: CausalGraph) -> tuple[Finding, ...]:
    file = folder / VALIDATION / evidence_json.FILE_NAME
    if not file.is_file():
        return ()
    from sae_graphs.report.marking import findings_of

    try:
        report = evidence_json.load(file)
    except GraphFileError as problem:
        _log.warning("the validation is left out of %s: %s", PAGE, problem)
        return ()
    if not is_of(report, graph):
        _log.warning("%s is of another graph, and left out of %s; validate again", file, PAGE)
        return ()
    return findings_of(report)
