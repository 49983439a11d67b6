"""`compare_methods`: exact effects and their estimates from gradients, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, get_args

import torch

from sae_graphs.bars import Progress, heard, with_bar
from sae_graphs.effects.agreement import (
    Aligned,
    MethodComparison,
    PairComparison,
    Verdict,
    agreement,
    aligned,
)
from sae_graphs.effects.answer.comparison import compare_on_answer
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.experiment import layer_effects, prepare
from sae_graphs.effects.settings import (
    TOP_K,
    Ablate,
    GraphSettings,
    Layers,
    Method,
    Pins,
    Read,
    Select,
)
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.feature_id import OUTPUT_LAYER
from sae_graphs.keywords import with_settings
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention

ESTIMATES: tuple[Method, ...] = ("gradient", "integrated-gradients")


class Timed(NamedTuple):
    """All effects of a layer pair, and how long they took."""

    effects: Effects
    seconds: float


@with_bar("layer pairs")
@with_settings(GraphSettings, own=("steps",), renamed={"targets": "target"})
@torch.no_grad()
def compare_methods(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    settings: GraphSettings | None = None,
    methods: Sequence[str] = ESTIMATES,
    steps: int | None = None,
    *,
    select: Select = "answer",
    nodes: int | None = None,
    dense: bool = False,
    top_k: int | None = None,
    ablate: Ablate | None = None,
    ablate_first: bool = False,
    intervention: Intervention | str | None = None,
    read: Read = -1,
    layers: Layers = None,
    pin: Pins = (),
    outputs: int = 0,
    target: str | Sequence[str] = (),
    contrast: str | None = None,
    prepend_bos: bool | None = None,
    progress: Progress | bool | None = None,
) -> MethodComparison:
    """Measure every effect, estimate it by each of the methods, and say how far they are apart.

    With `select="answer"` the effects of features at tokens on the answer, of which a graph keeps
    the `nodes` strongest; with `"effect"` those of one layer on the next, of which it keeps `top_k`
    of each layer pair: of so many it is told whether the estimates name the same. The options are
    those of `causal_graph`, or `settings` has them; a `method` in `settings` is not looked at, and
    `steps`, if given, replaces theirs, 10. `progress` is told the layer pairs done by a method and
    their number, or True for a bar. Raises `SaeGraphsError` for options that do not fit the prompt
    or the stack, and for unknown methods.
    """
    settings, told = settings or GraphSettings(), heard(progress)
    unknown = [name for name in methods if name not in ESTIMATES]
    if unknown or not methods:
        raise SaeGraphsError(f"methods {list(methods)}: expected some of {quoted(ESTIMATES)}")
    settings = replace(settings, method="exact", steps=settings.steps if steps is None else steps)
    if settings.select == "answer":
        return compare_on_answer(model, prompt, settings, intervention, methods, told)
    experiment = prepare(model, prompt, settings, intervention or "zero")
    labels = [*experiment.labels, OUTPUT_LAYER]

    def timed(depth: int, method: str) -> Timed:
        started = time.perf_counter()
        blocks = layer_effects(experiment, depth, method=method)  # type: ignore[arg-type]
        return Timed(_joined(depth, blocks), time.perf_counter() - started)

    k, done, n_tasks = settings.top_k or TOP_K, 0, len(experiment.ablations) * (1 + len(methods))
    pairs: list[PairComparison] = []
    parts: dict[str, list[Aligned]] = {method: [] for method in methods}
    for depth in range(len(experiment.ablations)):
        exact, agreements = timed(depth, "exact"), {}
        for method in methods:
            estimated = timed(depth, method)
            parts[method].append(aligned(exact.effects, estimated.effects, k))
            agreements[method] = agreement(parts[method][-1], k, labels, estimated.seconds)
        ends = labels[depth : depth + 2]
        pairs.append(PairComparison(ends[0], ends[1], exact.seconds, agreements))
        done += 1 + len(methods)
        if told is not None:
            told(done, n_tasks)
    return MethodComparison(
        model=experiment.model.name,
        saes=experiment.model.stack.name,
        tokens=experiment.clean.tokens,
        read_position=experiment.places.read,
        settings={**settings.to_json(), "intervention": experiment.intervention.name},
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
