"""Prompts made ready to be ablated in, features by their names, and small validations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sae_graphs.effects.settings import GraphSettings
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import Subject, subject
from sae_graphs.validation.validate import validate
from tests.support.effect_graphs import effect_settings
from tests.support.models import CORPUS


def subject_of(
    model: InstrumentedModel,
    prompt: str,
    how: GraphSettings | None = None,
    *,
    own: bool = True,
    **options: Any,
) -> Subject:
    """The graph's own prompt, or another; `options` are those of a validation."""
    settings = ValidationSettings(**options)
    return subject(model, prompt, "discovery", how or effect_settings(), settings, own=own)


def names(*features: str) -> tuple[FeatureId, ...]:
    return tuple(FeatureId.parse(feature) for feature in features)


def edges(*pairs: tuple[str, str]) -> tuple[Edge, ...]:
    """Edges of which only the ends matter."""
    ends = (names(*pair) for pair in pairs)
    return tuple(Edge(source, target, -1.0) for source, target in ends)


SMALL: dict[str, Any] = {"controls": 20, "other_controls": 19, "paths": 1, "snippets": 3}


def small_validation(
    model: InstrumentedModel, graph: CausalGraph, *prompts: str, **options: Any
) -> ValidationReport:
    """A validation of few controls and snippets, without the time that it took."""
    texts = options.pop("texts", [CORPUS] * 10)
    report = validate(model, graph, prompts, texts=texts, **{**SMALL, **options})
    assert isinstance(report, ValidationReport)
    return replace(report, seconds=0.0)
