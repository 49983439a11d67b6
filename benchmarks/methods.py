"""The rows of the table: each way to get the effects, ready to run on one workload.

- `full pass`: one ablation of the public method; every feature needs one.
- `clean run`: what ours does once for a prompt, before any ablation.
- `ours`: the exact effects of every active feature, and the strongest of them.
- `floor`: the matrix multiplications of `ours` alone; `dense floor`: with every feature encoded.
- `gradient`, `integrated gradients`: approximations of the same effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import torch

from benchmarks.baselines import FullPasses
from benchmarks.floor import Floor
from benchmarks.measure import Run
from benchmarks.shapes import Workload
from benchmarks.work import Ran, Work, every_feature, recorded
from sae_graphs.effects.ablations import Ablations, Places, ablations_of, places_of
from sae_graphs.effects.arrays import keep_top
from sae_graphs.effects.exact import measure
from sae_graphs.effects.gradients import estimate
from sae_graphs.effects.settings import Ablate, GraphSettings
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel

GRADIENT_STEPS = 10


class Case(NamedTuple):
    """A workload, and the model that ours runs on.

    `pairs` are the layer pairs to measure, in each one ablation `of` so many, and the features
    that are ablated at the places of `mode`.
    """

    workload: Workload
    model: InstrumentedModel
    clean: CleanRun
    mode: Ablate
    pairs: tuple[int, ...]
    of: int = 1

    @property
    def places(self) -> Places:
        """Where features are ablated and effects read."""
        return places_of(self.clean, GraphSettings(ablate=self.mode, select="effect"))

    def ablations(self, pair: int) -> Ablations:
        """Those of a layer pair that are measured."""
        found = ablations_of(self.clean, pair, self.places)
        return found.chosen(torch.arange(0, len(found), self.of)) if self.of > 1 else found


def case_of(
    workload: Workload, mode: Ablate, pairs: Sequence[int] | None = None, of: int = 1
) -> Case:
    """The workload with its clean run."""
    shapes = workload.shapes
    model = InstrumentedModel(shapes.bridge, shapes.saes, name="random")
    if pairs is None:
        pairs = range(len(shapes.saes) - 1)
    clean = model.clean_run(workload.prompt.text)
    return Case(workload, model, clean, mode, tuple(pairs), of)


def full_pass(case: Case) -> Run:
    """One ablation at a time, going round the layers and their active features."""
    shapes = case.workload.shapes
    passes = FullPasses(shapes.bridge, shapes.saes, case.workload.prompt.ids)
    layers = case.workload.layers[:-1]
    turns = cycle(
        (depth, int(layer.sources[turn % len(layer.sources)]))
        for turn in range(2)
        for depth, layer in enumerate(layers)
    )
    return lambda: passes.effects(*next(turns))


def clean_run(case: Case) -> Run:
    """Ours, before the ablations: the pass, the features and what is kept of them."""
    return lambda: case.model.clean_run(case.workload.prompt.text)


def ours(case: Case) -> Run:
    """The effects of every active feature in the layer pairs of the case, the strongest kept."""
    return lambda: kept_of(
        block
        for pair in case.pairs
        for block in measure(case.model, case.clean, case.ablations(pair), case.places)
    )


def gradient(case: Case) -> Run:
    """Effects by one gradient, for the same layer pairs and ablations."""
    return _estimated(case, None)


def integrated_gradients(case: Case) -> Run:
    """Effects by gradients at `GRADIENT_STEPS` points."""
    return _estimated(case, GRADIENT_STEPS)


def kept_of(blocks: Any) -> Any:
    """The strongest of the effects, as in every graph."""
    settings = GraphSettings(select="effect")
    return keep_top(blocks, settings.top_k or 1, settings.per or "layer")


def work_of(case: Case) -> list[Work]:
    """What ours multiplies in each layer pair of the case: it is run once."""
    found: list[Work] = []
    for pair in case.pairs:
        with recorded() as work:
            ours(case._replace(pairs=(pair,)))()
        if not any(isinstance(done, Ran) for done in work):
            raise RuntimeError(f"layer pair {pair} ran no block; the floor would be empty")
        found.append(work)
    return found


def floor_of(case: Case, work: Sequence[Work]) -> Floor:
    """The bare products of some work."""
    shapes = case.workload.shapes
    encoders = [shapes.saes[pair + 1].W_enc for pair in case.pairs]
    return Floor(shapes.sizes, len(case.workload.prompt.ids), work, encoders)


def dense_floor_of(case: Case, work: Sequence[Work]) -> Floor:
    """The bare products, with every feature encoded in every row that is read."""
    n_features = case.workload.shapes.sizes.n_features
    return floor_of(case, [every_feature(done, n_features) for done in work])


METHODS: dict[str, Callable[[Case], Run]] = {
    "full pass": full_pass,
    "clean run": clean_run,
    "ours": ours,
    "gradient": gradient,
    "integrated gradients": integrated_gradients,
}
"""All but the floors, which are made of the work of `ours`."""


# -- inside ----------------------------------------------------------------------------------------


def _estimated(case: Case, steps: int | None) -> Run:
    return lambda: kept_of(
        block
        for pair in case.pairs
        for block in estimate(
            case.model, case.clean, case.ablations(pair), case.places, steps=steps
        )
    )
