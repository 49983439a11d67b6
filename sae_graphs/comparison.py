"""`compare_methods`: exact effects and their estimates from gradients, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, get_args

import torch

from sae_graphs.ablations import Ablations, places_of
from sae_graphs.agreement import (
    Aligned,
    MethodComparison,
    PairComparison,
    Verdict,
    agreement,
    aligned,
)
from sae_graphs.effects import Effects
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.interventions import ZERO, Intervention
from sae_graphs.measuring import ablations_in, in_scope, layer_effects
from sae_graphs.output_tokens import chosen_outputs
from sae_graphs.records import OUTPUT_LAYER
from sae_graphs.settings import GraphSettings, Method

ESTIMATES: tuple[Method, ...] = ("gradient", "integrated-gradients")


class Timed(NamedTuple):
    """All effects of a layer pair, and how long they took."""

    effects: Effects
    seconds: float


@torch.no_grad()
def compare_methods(
    model: InstrumentedModel,
    prompt: str,
    settings: GraphSettings | None = None,
    methods: Sequence[str] = ESTIMATES,
    steps: int | None = None,
    *,
    intervention: Intervention = ZERO,
    progress: Callable[[int, int], None] | None = None,
) -> MethodComparison:
    """Measure every effect, estimate it by each of the methods, and say how far they are apart.

    `settings` are those of `causal_graph`; `top_k` is how many of each layer pair's strongest
    edges are compared, its `method` is not looked at, and `steps`, if given, replaces its own.
    `progress` is told the layer pairs done by a method and their number. Raises `SaeGraphsError`
    for options that do not fit the prompt or the stack, and for unknown methods.
    """
    settings = settings or GraphSettings()
    unknown = [name for name in methods if name not in ESTIMATES]
    if unknown or not methods:
        raise SaeGraphsError(f"methods {list(methods)}: expected some of {quoted(ESTIMATES)}")
    settings = replace(settings, method="exact", steps=settings.steps if steps is None else steps)
    scope = in_scope(model, settings)
    clean = scope.clean_run(prompt, prepend_bos=settings.prepend_bos)
    places = places_of(clean, settings)
    outputs = chosen_outputs(scope, clean, settings, places.read)
    every = ablations_in(scope, clean, places, intervention, settings)
    labels = [*(layer.label for layer in scope.stack.layers), OUTPUT_LAYER]

    def timed(found: Ablations, method: str) -> Timed:
        started = time.perf_counter()
        chosen = replace(settings, method=method)  # type: ignore[arg-type]  # checked above
        blocks = layer_effects(scope, clean, found, places, chosen, outputs, intervention)
        return Timed(_joined(found.depth, blocks), time.perf_counter() - started)

    k, done, n_tasks = settings.top_k, 0, len(every) * (1 + len(methods))
    pairs: list[PairComparison] = []
    parts: dict[str, list[Aligned]] = {method: [] for method in methods}
    for found in every:
        exact, agreements = timed(found, "exact"), {}
        for method in methods:
            estimated = timed(found, method)
            parts[method].append(aligned(exact.effects, estimated.effects, k))
            agreements[method] = agreement(parts[method][-1], k, labels, estimated.seconds)
        ends = labels[found.depth : found.depth + 2]
        pairs.append(PairComparison(ends[0], ends[1], exact.seconds, agreements))
        done += 1 + len(methods)
        if progress is not None:
            progress(done, n_tasks)
    return MethodComparison(
        model=scope.name,
        saes=scope.stack.name,
        tokens=clean.tokens,
        read_position=places.read,
        settings={**settings.to_json(), "intervention": intervention.name},
        steps=settings.steps,
        pairs=tuple(pairs),
        overall={
            method: replace(
                agreement(
                    Aligned.joined(parts[method]),
                    k,
                    labels,
                    sum(pair.methods[method].seconds for pair in pairs),
                ),
                verdict=_worst([pair.methods[method].verdict for pair in pairs]),
            )
            for method in methods
        },
    )


def _joined(depth: int, blocks: Iterator[Effects]) -> Effects:
    nowhere = torch.zeros(0, dtype=torch.int32).numpy()
    nothing = Effects(depth, nowhere, nowhere, nowhere, nowhere, torch.zeros(0).numpy())
    return Effects.joined([nothing, *blocks])


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = get_args(Verdict)
    return max(verdicts, key=order.index)
