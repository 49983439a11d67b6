"""Names that are imported when they are first used: what needs torch, and what shows records.

What is imported late stands above the one that asks for it: a graph draws itself in a notebook, and
knows nothing of drawing. Here is the one table of such names; nothing else imports by a string.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# What `sae_graphs` offers beside what it holds at once: a module and a name in it, or a module.
PUBLIC = {
    "Atlas": "sae_graphs.atlas.atlas:Atlas",
    "CausalGraph": "sae_graphs.graph.graph:CausalGraph",
    "Edge": "sae_graphs.graph.records:Edge",
    "Edit": "sae_graphs.editing.record:Edit",
    "FeatureId": "sae_graphs.graph.feature_id:FeatureId",
    "GrangerReport": "sae_graphs.editing.granger.records:GrangerReport",
    "InstrumentedModel": "sae_graphs.model.instrument:InstrumentedModel",
    "LanguageModel": "sae_graphs.model.language_model:LanguageModel",
    "Node": "sae_graphs.graph.records:Node",
    "Trace": "sae_graphs.tracing.records:Trace",
    "ValidationReport": "sae_graphs.validation.evidence:ValidationReport",
    "ablate": "sae_graphs.effects.ablate:ablate",
    "annotate": "sae_graphs.features.neuronpedia.annotate:annotate",
    "build_atlas": "sae_graphs.atlas.build:build_atlas",
    "causal_graph": "sae_graphs.effects.build:causal_graph",
    "compare_methods": "sae_graphs.effects.comparison:compare_methods",
    "difference": "sae_graphs.graph.difference:difference",
    "discover": "sae_graphs.effects.build:discover",
    "edit": "sae_graphs.editing.edit:edit",
    "granger": "sae_graphs.editing.granger.granger:granger",
    "interventions": "sae_graphs.interventions",
    "load": "sae_graphs.pretrained.loading:load",
    "load_model": "sae_graphs.pretrained.loading:load_model",
    "replot": "sae_graphs.effects.replot:replot",
    "response_curve": "sae_graphs.validation.responses:response_curve",
    "trace": "sae_graphs.tracing.trace:trace",
    "union": "sae_graphs.graph.combine:union",
    "validate": "sae_graphs.validation.validate:validate",
    "verdicts": "sae_graphs.validation.report.tables:verdicts",
}

# How records show themselves, and leave for other programs: functions of the record.
VIEWS = {
    "ablation_html": "sae_graphs.render.notebook:ablation_html",
    "answer_report_html": "sae_graphs.validation.answer.report:report_html",
    "applied_edit": "sae_graphs.editing.applied:applied",
    "answer_report_table": "sae_graphs.validation.report.tables:answer_table",
    "comparison_html": "sae_graphs.render.notebook:comparison_html",
    "curve_picture": "sae_graphs.validation.report.notebook:curve_picture",
    "curve_svg": "sae_graphs.validation.report.notebook:curve_svg",
    "drawn_as": "sae_graphs.render.pictures:drawn_as",
    "explorer": "sae_graphs.render.pictures:explorer",
    "export": "sae_graphs.graph.export.formats:export",
    "granger_html": "sae_graphs.editing.granger.report:granger_html",
    "load_trace": "sae_graphs.tracing.record_json:load",
    "node_html": "sae_graphs.render.notebook:node_html",
    "picture": "sae_graphs.render.pictures:picture",
    "report_html": "sae_graphs.validation.report.notebook:report_html",
    "report_table": "sae_graphs.validation.report.tables:report_table",
    "save_trace": "sae_graphs.tracing.record_json:save",
    "svg": "sae_graphs.render.pictures:svg",
    "table": "sae_graphs.graph.export.tables:to_pandas",
    "trace_html": "sae_graphs.tracing.report:trace_html",
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


class Unloaded(ModuleType):
    """A module that is loaded when something of it is used; what `inspect` asks of all is known."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def put_off(module: str) -> None:
    """Have a module loaded when something of it is used, though others import it at their start.

    Nothing where it is loaded, or is not there.
    """
    place = None if module in sys.modules else importlib.util.find_spec(module)
    if place is not None:
        held = Unloaded(module)
        held.__spec__, held.__file__ = place, place.origin
        held.__path__ = list(place.submodule_search_locations or ())
        sys.modules[module] = held


@contextmanager
def quick_imports() -> Iterator[None]:
    """Inside, what is heavy is imported faster: no garbage is looked for, of which there is none.

    `wandb`, for which sae-lens asks and which nothing here uses, is put off.
    """
    collects = gc.isenabled()
    gc.disable()
    put_off("wandb")
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays
        if collects:
            gc.enable()
