"""Runs with saved effects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.runs import EFFECTS
from tests.support.effect_graphs import effect_graph

Saved = tuple[CausalGraph, Path]


def saved_run(model: InstrumentedModel, prompt: str, folder: Path, **options: Any) -> CausalGraph:
    graph = effect_graph(model, prompt, effects=folder / EFFECTS, **options)
    graph.save(folder)
    return graph


def measured(graph: CausalGraph) -> list[tuple[str, str, float]]:
    """What a re-plot must have of a new run's edges: all but their anatomy."""
    return [(str(edge.source), str(edge.target), edge.effect) for edge in graph.edges]
