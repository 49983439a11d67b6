"""Names that are imported when they are first used: what needs torch, and what draws records.

A module that is imported late stands above the one that asks for it; here is the one list of such
names, and nothing else in the package imports by a string.
"""

from __future__ import annotations

import importlib
from typing import Any

# What `sae_graphs` offers beside what it holds at once, and where that is.
PUBLIC = {
    "InstrumentedModel": "sae_graphs.model.instrument",
    "LanguageModel": "sae_graphs.model.language_model",
    "ValidationReport": "sae_graphs.validation.evidence",
    "annotate": "sae_graphs.features.neuronpedia.annotate",
    "causal_graph": "sae_graphs.effects.build",
    "compare_methods": "sae_graphs.effects.comparison",
    "difference": "sae_graphs.graph.difference",
    "discover": "sae_graphs.effects.build",
    "load": "sae_graphs.pretrained.loading",
    "load_model": "sae_graphs.pretrained.loading",
    "replot": "sae_graphs.effects.replot",
    "response_curve": "sae_graphs.validation.responses",
    "union": "sae_graphs.graph.combine",
    "validate": "sae_graphs.validation.validate",
}


def named(name: str) -> Any:
    """The public object of that name, imported now; raises `AttributeError` where there is none."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'sae_graphs' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)
