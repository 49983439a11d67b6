"""Verdicts as marks on the graph's picture, findings in its page, badges and anchors in reports."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

from sae_graphs.errors import GraphFileError
from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.document.blocks import Badge
from sae_graphs.render.marks import LEAST_SHARE, Finding, Marks, Standing
from sae_graphs.render.pictures import html
from sae_graphs.runs import PAGE, REPORT, VALIDATION
from sae_graphs.validation import evidence_json, saved
from sae_graphs.validation.answer import report as answer_report
from sae_graphs.validation.answer.outcomes import names_of
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence import UnitReport, ValidationReport
from sae_graphs.validation.judging import VerdictKind
from sae_graphs.validation.verdicts import Verdict, short_words, verdict
from sae_graphs.words import said

_log = logging.getLogger(__name__)

SIGNS: dict[VerdictKind, str] = {
    "supported": "✓",
    "norm only": "≈",
    "not distinguishable": "~",
    "no effect": "0",
    "inactive": "–",
    "no controls": "?",
}
_UNFIT = re.compile(r"[^a-z0-9]+")


def marks_of(report: ValidationReport) -> Marks:
    """What a picture says of each component, and which features and arrows are ticked."""
    standings = {}
    features: set[FeatureId] = set()
    edges: set[tuple[FeatureId, FeatureId]] = set()
    for unit in report.units:
        found = verdict(unit, report)
        if unit.kind == "component":
            standings[unit.component] = Standing(found.supported, short_words(unit, found))
        if found.supported:
            features.update(_that_matter(unit))
            edges.update(_that_carry(unit))
    subtitle: tuple[str, ...] = ()
    if len(report.discovery) > 1:
        subtitle = (f"found on {len(report.discovery)} prompts:", *map(said, report.discovery))
    return Marks(standings, frozenset(features), frozenset(edges), subtitle)


def findings_of(report: ValidationReport) -> tuple[Finding, ...]:
    """What was found of each component and path, for the page that explores the graph."""
    found = []
    for unit, judgement, anchor in judged(report):
        mediation = unit.mediation
        needed, carried = {}, {}
        if mediation is not None:
            shares = {name: mediation.needed(name) for name in mediation.without}
            needed = {name: share for name, share in shares.items() if share is not None}
            carried = {
                (edge.source, edge.target): edge.fraction
                for edge in mediation.edges
                if edge.fraction is not None
            }
        found.append(
            Finding(
                unit.name,
                unit.kind,
                unit.component,
                unit.features,
                judgement.kind,
                judgement.supported,
                judgement.full,
                needed,
                carried,
                anchor,
            )
        )
    return tuple(found)


def _that_matter(unit: UnitReport) -> set[FeatureId]:
    """The features that undo a share of the change when left in place; all where not measured."""
    found = unit.mediation
    if found is None:
        return set(unit.features)
    shares = {feature: found.needed(feature) for feature in found.without}
    return {name for name, share in shares.items() if share is not None and share >= LEAST_SHARE}


def _that_carry(unit: UnitReport) -> set[tuple[FeatureId, FeatureId]]:
    """The arrows through which a share of what their source does flows."""
    measured = unit.mediation.edges if unit.mediation else ()
    return {
        (edge.source, edge.target)
        for edge in measured
        if edge.fraction is not None and edge.fraction >= LEAST_SHARE
    }


def badge(kind: VerdictKind) -> Badge:
    """A verdict as a report shows it at a glance."""
    return Badge(kind, SIGNS[kind])


def judged(report: ValidationReport) -> tuple[tuple[UnitReport, Verdict, str], ...]:
    """Every unit with its verdict and its anchor; no two anchors are the same."""
    taken: set[str] = set()
    found = []
    for place, unit in enumerate(report.units, start=1):
        anchor = _slug(unit.name, place)
        anchor = f"unit-{place}" if anchor in taken else anchor
        taken.add(anchor)
        found.append((unit, verdict(unit, report), anchor))
    return tuple(found)


def _slug(name: str, place: int) -> str:
    """A name for anchors and files: `graph-1-path-2`; `place` keeps odd ones apart."""
    words = _UNFIT.sub("-", name.lower()).strip("-")
    return words if re.fullmatch(r"graph-\d{1,6}(-path-\d{1,6})?", words) else f"unit-{place}"


def explorer_of(folder: Path, graph: CausalGraph, *, annotations: Annotations) -> bytes:
    """The page of a run in `folder`, with the findings of the validation that lies there.

    One that cannot be read, or is of another graph, is left out with a warning.
    """
    findings = _findings(folder, graph)
    report = f"{VALIDATION}/{REPORT}" if findings else None
    return html(graph, annotations=annotations, findings=findings, report=report).encode()


def is_of(report: ValidationReport | AnswerReport, graph: CausalGraph) -> bool:
    """Whether a graph has all features that a report speaks of."""
    known = {node.feature for node in graph.nodes}
    return all(known.issuperset(unit.features) for unit in report.units)


def _findings(folder: Path, graph: CausalGraph) -> tuple[Finding, ...]:
    file = folder / VALIDATION / evidence_json.FILE_NAME
    if not file.is_file():
        return ()
    try:
        report = saved.load(file)
    except GraphFileError as problem:
        _log.warning("the validation is left out of %s: %s", PAGE, problem)
        return ()
    if not is_of(report, graph):
        _log.warning("%s is of another graph, and left out of %s; validate again", file, PAGE)
        return ()
    return all_findings(report)


def all_findings(report: ValidationReport | AnswerReport) -> tuple[Finding, ...]:
    """`findings_of` a report on either kind of graph."""
    if isinstance(report, AnswerReport):
        return answer_report.findings_of(report)
    return findings_of(report)


def kinds_in(report: ValidationReport | AnswerReport) -> Counter[str]:
    """How many components and paths are supported, and what the others are."""
    if isinstance(report, AnswerReport):
        return Counter("supported" if unit.supported else names_of(unit) for unit in report.units)
    return Counter(verdict(unit, report).kind for unit in report.units)
