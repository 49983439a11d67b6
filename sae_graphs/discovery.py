"""Finding a graph on some prompts, to test it on others.

A path that was found on a prompt was chosen because it is strong there. What several prompts have
in common, tested on prompts that had no say in it, is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sae_graphs.build import causal_graph
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.combine import common
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.settings import GraphSettings


class Discovery(NamedTuple):
    """A graph that several prompts have in common, those prompts, and the ones left to test it."""

    graph: CausalGraph
    discovery: tuple[str, ...]
    test: tuple[str, ...]


def discover(
    model: InstrumentedModel,
    prompts: Sequence[str],
    *,
    part: float = 0.5,
    seed: int = 0,
    settings: GraphSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Discovery:
    """Draw a `part` of the prompts at random, and find what their graphs have in common.

    Then `validate(model, found.graph, found.test, discovery=found.discovery)`. Raises
    `SaeGraphsError` where a part would be empty, or the graphs have nothing in common.
    """
    settings = settings or GraphSettings()
    if settings.ablate == "each":
        raise SaeGraphsError("positions mean nothing across prompts; discover with ablate='all'")
    if isinstance(prompts, str):
        raise SaeGraphsError(f"prompts are {prompts!r:.60}; expected several prompts, as a list")
    distinct = list(dict.fromkeys(prompts))
    if not 0 < part < 1:
        raise SaeGraphsError(f"the part to discover on is {part}; expected between 0 and 1")
    if len(distinct) < 2:
        raise SaeGraphsError(
            f"{len(distinct)} different prompts; a graph found on some and tested on others needs "
            "at least 2"
        )
    count = min(max(round(part * len(distinct)), 1), len(distinct) - 1)
    chosen = set(random.Random(seed).sample(range(len(distinct)), count))
    found_on = tuple(prompt for number, prompt in enumerate(distinct) if number in chosen)
    graphs = []
    for number, prompt in enumerate(found_on):
        graphs.append(causal_graph(model, prompt, settings=settings))
        if progress is not None:
            progress(number + 1, count)
    rest = tuple(prompt for number, prompt in enumerate(distinct) if number not in chosen)
    return Discovery(common(graphs), found_on, rest)
