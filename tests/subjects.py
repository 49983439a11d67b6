"""Prompts made ready to be ablated in, and features by their names."""

from __future__ import annotations

from typing import Any

from sae_graphs.graph import Edge, FeatureId
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.settings import GraphSettings
from sae_graphs.subjects import Subject, subject
from sae_graphs.validation_settings import ValidationSettings


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
    return subject(model, prompt, "discovery", how or GraphSettings(), settings, own=own)


def names(*features: str) -> tuple[FeatureId, ...]:
    return tuple(FeatureId.parse(feature) for feature in features)


def edges(*pairs: tuple[str, str]) -> tuple[Edge, ...]:
    """Edges of which only the ends matter."""
    return tuple(Edge(*names(*pair), -1.0) for pair in pairs)
