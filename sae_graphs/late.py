"""Names that are imported when they are first used: what needs torch, and what shows records.

What is imported late stands above the one that asks for it: a graph draws itself in a notebook, and
knows nothing of drawing. Here is the one table of such names; nothing else imports by a string.
"""

from __future__ import annotations

import importlib
from typing import Any

# What `sae_graphs` offers beside what it holds at once: a module and a name in it, or a module.
PUBLIC = {
    "CausalGraph": "sae_graphs.graph.graph:CausalGraph",
    "Edge": "sae_graphs.graph.records:Edge",
    "FeatureId": "sae_graphs.graph.feature_id:FeatureId",
    "InstrumentedModel": "sae_graphs.model.instrument:InstrumentedModel",
    "LanguageModel": "sae_graphs.model.language_model:LanguageModel",
    "Node": "sae_graphs.graph.records:Node",
    "ValidationReport": "sae_graphs.validation.evidence:ValidationReport",
    "ablate": "sae_graphs.effects.ablate:ablate",
    "annotate": "sae_graphs.features.neuronpedia.annotate:annotate",
    "causal_graph": "sae_graphs.effects.build:causal_graph",
    "compare_methods": "sae_graphs.effects.comparison:compare_methods",
    "difference": "sae_graphs.graph.difference:difference",
    "discover": "sae_graphs.effects.build:discover",
    "interventions": "sae_graphs.interventions",
    "load": "sae_graphs.pretrained.loading:load",
    "load_model": "sae_graphs.pretrained.loading:load_model",
    "replot": "sae_graphs.effects.replot:replot",
    "response_curve": "sae_graphs.validation.responses:response_curve",
    "union": "sae_graphs.graph.combine:union",
    "validate": "sae_graphs.validation.validate:validate",
    "verdicts": "sae_graphs.validation.report.tables:verdicts",
}

# How records show themselves, and leave for other programs: functions of the record.
VIEWS = {
    "ablation_html": "sae_graphs.render.notebook:ablation_html",
    "answer_report_html": "sae_graphs.validation.answer.report:report_html",
    "answer_report_table": "sae_graphs.validation.report.tables:answer_table",
    "comparison_html": "sae_graphs.render.notebook:comparison_html",
    "curve_picture": "sae_graphs.validation.report.notebook:curve_picture",
    "curve_svg": "sae_graphs.validation.report.notebook:curve_svg",
    "drawn_as": "sae_graphs.render.pictures:drawn_as",
    "explorer": "sae_graphs.render.pictures:explorer",
    "export": "sae_graphs.graph.export.formats:export",
    "node_html": "sae_graphs.render.notebook:node_html",
    "picture": "sae_graphs.render.pictures:picture",
    "report_html": "sae_graphs.validation.report.notebook:report_html",
    "report_table": "sae_graphs.validation.report.tables:report_table",
    "svg": "sae_graphs.render.pictures:svg",
    "table": "sae_graphs.graph.export.tables:to_pandas",
    "unit_kind": "sae_graphs.validation.verdicts:kind_in",
    "unit_reason": "sae_graphs.validation.verdicts:reason",
}


def named(name: str) -> Any:
    """The public object of that name, imported now; raises `AttributeError` where there is none."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'sae_graphs' has no attribute {name!r}")
    return found(PUBLIC[name])


def view(name: str) -> Any:
    """The function of `VIEWS` that shows a record, imported now."""
    return found(VIEWS[name])


def found(place: str) -> Any:
    """What stands at a place such as `sae_graphs.render.pictures:svg`; without a name, the module.

    >>> found("sae_graphs.errors:quoted")("ab")
    'a, b'
    """
    module, _, name = place.partition(":")
    held = importlib.import_module(module)
    return getattr(held, name) if name else held
