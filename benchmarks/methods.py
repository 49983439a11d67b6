"""The rows of the table: each way to get the effects, ready to run on one workload.

- `full pass`: one ablation of the public method; every feature needs one.
- `clean run`: what ours does once for a prompt, before any ablation.
- `ours`: the exact effects of every active feature, and the strongest of them.
- `floor`: the matrix multiplications of `ours` alone.
- `gradient`, `integrated gradients`: approximations of the same effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from benchmarks.baselines import FullPasses
from benchmarks.floor import Floor
from benchmarks.measure import Run
from benchmarks.shapes import Workload
from sae_graphs.ablation import ablations_of, measure, places_of
from sae_graphs.effects import keep_top
from sae_graphs.instrument import CleanRun, InstrumentedModel
from sae_graphs.settings import Ablate, GraphSettings

GRADIENT_STEPS = 10


class Case(NamedTuple):
    """A workload, and the model that ours runs on. `pairs` are the layer pairs to measure."""

    workload: Workload
    model: InstrumentedModel
    clean: CleanRun
    pairs: tuple[int, ...]


def case_of(workload: Workload, pairs: Sequence[int] | None = None) -> Case:
    """The workload with its clean run."""
    shapes = workload.shapes
    model = InstrumentedModel(shapes.bridge, shapes.saes, name="random")
    if pairs is None:
        pairs = range(len(shapes.saes) - 1)
    return Case(workload, model, model.clean_run(workload.prompt.text), tuple(pairs))


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


def ours(case: Case, mode: Ablate) -> Run:
    """The effects of every active feature in the layer pairs of the case, the strongest kept."""
    return lambda: ours_on(case.model, case.clean, mode, case.pairs)


def ours_on(model: InstrumentedModel, clean: CleanRun, mode: Ablate, pairs: Sequence[int]) -> Any:
    """The calls into `sae_graphs` that are timed."""
    settings = GraphSettings(ablate=mode)
    places = places_of(clean, settings)
    blocks = (
        block
        for depth in pairs
        for block in measure(model, clean, ablations_of(clean, depth, places), places)
    )
    return keep_top(blocks, settings.top_k, settings.per)


def floor(case: Case, mode: Ablate) -> Run:
    """The bare products for the same layer pairs."""
    return floor_of(case, mode).run


def floor_of(case: Case, mode: Ablate) -> Floor:
    """The floor, its packs as large as ours."""
    shapes = case.workload.shapes
    rows = case.workload.rows(mode)
    return Floor(
        shapes.sizes,
        len(case.workload.prompt.ids),
        [rows[pair] for pair in case.pairs],
        [shapes.saes[pair + 1].W_enc for pair in case.pairs],
    )


def gradient(case: Case, mode: Ablate) -> Run | None:
    """Effects by one gradient; None while there is nothing to time."""
    return None


def integrated_gradients(case: Case, mode: Ablate) -> Run | None:
    """Effects by gradients at `GRADIENT_STEPS` points; None while there is nothing to time."""
    return None


ONCE: dict[str, Callable[[Case], Run]] = {"full pass": full_pass, "clean run": clean_run}
"""Methods that do not depend on where features are ablated."""

BY_MODE: dict[str, Callable[[Case, Ablate], Run | None]] = {
    "ours": ours,
    "floor": floor,
    "gradient": gradient,
    "integrated gradients": integrated_gradients,
}
"""Methods that do."""


def run_of(case: Case, method: str, mode: Ablate) -> Run | None:
    """The work of a row, ready to run; None where it is not there to be timed."""
    return ONCE[method](case) if method in ONCE else BY_MODE[method](case, mode)
