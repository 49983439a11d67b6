"""Causal graphs of a language model's features: exact, drawn, with evidence.

>>> import sae_graphs as sg
>>> model = sg.load("demo")                          # doctest: +SKIP
>>> graph = sg.causal_graph(model, "Copyright (C")   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_graphs._version import __version__ as __version__
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge, FeatureId, Node
from sae_graphs.late import named

if TYPE_CHECKING:
    from sae_graphs.effects.build import causal_graph, discover
    from sae_graphs.effects.comparison import compare_methods
    from sae_graphs.effects.replot import replot
    from sae_graphs.features.neuronpedia.annotate import annotate
    from sae_graphs.graph.combine import union
    from sae_graphs.graph.difference import difference
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.pretrained.loading import load, load_model
    from sae_graphs.validation.evidence import ValidationReport
    from sae_graphs.validation.responses import response_curve
    from sae_graphs.validation.validate import validate

__all__ = [
    "CausalGraph",
    "Edge",
    "FeatureId",
    "InstrumentedModel",
    "LanguageModel",
    "Node",
    "SaeGraphsError",
    "ValidationReport",
    "annotate",
    "causal_graph",
    "compare_methods",
    "difference",
    "discover",
    "load",
    "load_model",
    "replot",
    "response_curve",
    "union",
    "validate",
]


# What needs torch is imported when it is first used: a saved graph opens without it.
def __getattr__(name: str) -> Any:
    return named(name)
