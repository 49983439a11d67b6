"""Verdicts as marks on the graph's picture."""

from __future__ import annotations

from sae_graphs.evidence import ValidationReport
from sae_graphs.records import FeatureId
from sae_graphs.render.marks import Marks, Standing
from sae_graphs.verdicts import short_words, verdict


def marks_of(report: ValidationReport) -> Marks:
    """What a picture says of each component, and which features and arrows paths support."""
    standings = {}
    features: set[FeatureId] = set()
    edges: set[tuple[FeatureId, FeatureId]] = set()
    for unit in report.units:
        found = verdict(unit, report)
        if unit.kind == "component":
            standings[unit.component] = Standing(found.supported, short_words(unit, found))
        elif found.supported:
            features.update(unit.features)
            edges.update(unit.edges)
    return Marks(standings, frozenset(features), frozenset(edges))
