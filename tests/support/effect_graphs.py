"""The source's graph, of the strongest effects of one layer on the next, for tests that mean it."""

from __future__ import annotations

from functools import partial
from typing import Any

from sae_graphs.effects.build import causal_graph
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel

EFFECT = ("--select", "effect")  # on the command line
effect_settings = partial(GraphSettings, select="effect")


def effect_graph(model: InstrumentedModel, prompt: str, **options: Any) -> CausalGraph:
    """`causal_graph` with `select="effect"`, where the options are not given as `settings`."""
    if "settings" not in options:
        options = {"select": "effect", **options}
    return causal_graph(model, prompt, **options)
