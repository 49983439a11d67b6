"""Causal graphs of a language model's features: exact, drawn, with evidence.

    >>> import sae_graphs as sg
    >>> model = sg.load("demo")                          # or "gpt2-small", saes="gpt2-small-res-jb"
    >>> graph = sg.causal_graph(model, "Copyright (C")   # draws itself in a notebook
    >>> graph.paths(limit=3)
    >>> report = sg.validate(model, graph)               # is it true?
    >>> graph.save("outputs/mine")

From a prompt to a graph
    load             a language model and its SAEs, by name or folder
    load_model       a language model alone
    causal_graph     every feature ablated, its effects on the next layer measured, the strongest
                     kept
    annotate         with what Neuronpedia says of the features
    replot           other settings on effects that were saved; needs no model

What features do
    ablate           features set to something, all together: the next tokens before and after

Where an answer comes from
    trace            causal tracing: the subject corrupted, every state restored in turn

Change what a model knows
    edit             a fact written into one MLP, as a rank-one update: applied, undone, saved

What predicts what
    granger          does one feature's series over many texts help to predict another's?

What to believe of it
    validate         paths ablated, beside controls that could have done as much
    verdicts         what many validations found, in one table
    response_curve   how one feature follows another that is scaled
    discover         what the graphs of several prompts share, and prompts left to test it
    compare_methods  exact effects beside their estimates from gradients
    interventions    ablation other than by zero: a multiple, a mean, another prompt's

Several graphs
    difference       what two graphs share, and what only one has
    union            the edges of both in one

Many prompts
    build_atlas      their graphs in a database, made resumably, by one machine or many
    Atlas            asked: what recurs, where a feature matters, which prompts are alike

Types
    CausalGraph        its `Node`s and `Edge`s, named by `FeatureId`
    GrangerReport      what `granger` found
    InstrumentedModel  of a model and SAEs that you have; without these a `LanguageModel`
    Trace              what `trace` found
    Edit               what `edit` wrote
    ValidationReport   what `validate` found
    SaeGraphsError     raised for every mistake of the user, in one line

Options have the names of the command line's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sae_graphs._version import __version__ as __version__
from sae_graphs.errors import SaeGraphsError
from sae_graphs.late import named

if TYPE_CHECKING:
    from sae_graphs import interventions
    from sae_graphs.atlas.atlas import Atlas
    from sae_graphs.atlas.build import build_atlas
    from sae_graphs.editing.edit import edit
    from sae_graphs.editing.granger.granger import granger
    from sae_graphs.editing.granger.records import GrangerReport
    from sae_graphs.editing.record import Edit
    from sae_graphs.effects.ablate import ablate
    from sae_graphs.effects.build import causal_graph, discover
    from sae_graphs.effects.comparison import compare_methods
    from sae_graphs.effects.replot import replot
    from sae_graphs.features.neuronpedia.annotate import annotate
    from sae_graphs.graph.combine import union
    from sae_graphs.graph.difference import difference
    from sae_graphs.graph.feature_id import FeatureId
    from sae_graphs.graph.graph import CausalGraph
    from sae_graphs.graph.records import Edge, Node
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.pretrained.loading import load, load_model
    from sae_graphs.tracing.records import Trace
    from sae_graphs.tracing.trace import trace
    from sae_graphs.validation.evidence import ValidationReport
    from sae_graphs.validation.report.tables import verdicts
    from sae_graphs.validation.responses import response_curve
    from sae_graphs.validation.validate import validate

__all__ = [
    "Atlas",
    "CausalGraph",
    "Edge",
    "Edit",
    "FeatureId",
    "GrangerReport",
    "InstrumentedModel",
    "LanguageModel",
    "Node",
    "SaeGraphsError",
    "Trace",
    "ValidationReport",
    "__version__",
    "ablate",
    "annotate",
    "build_atlas",
    "causal_graph",
    "compare_methods",
    "difference",
    "discover",
    "edit",
    "granger",
    "interventions",
    "load",
    "load_model",
    "replot",
    "response_curve",
    "trace",
    "union",
    "validate",
    "verdicts",
]


# All else is imported when it is first used: a saved graph opens without torch, a command begins
# at once.
def __getattr__(name: str) -> Any:
    return named(name)


def __dir__() -> list[str]:
    return sorted(__all__)
