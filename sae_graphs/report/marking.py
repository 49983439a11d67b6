"""Verdicts as marks on the graph's picture, and as findings in its page."""

from __future__ import annotations

from sae_graphs.evidence import UnitReport, ValidationReport
from sae_graphs.graph.records import FeatureId
from sae_graphs.render.marks import LEAST_SHARE, Finding, Marks, Standing
from sae_graphs.report.anchors import judged
from sae_graphs.verdicts import short_words, verdict
from sae_graphs.words import said


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
                judgement.words,
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
