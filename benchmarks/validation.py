"""Time of validation: a hundred paths with their controls, on the bundled model.

`validate` as it is, quick and whole, on one thread and on two, in turns; and beside it the obvious
way: a full forward pass with plain hooks for every copy, timed on a sample and scaled up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import sae_graphs as sg
from benchmarks.measure import Method, Run, interleaved
from benchmarks.plan import Validated
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.validate import validate

TOP_K = 24  # edges of each layer pair: enough for a hundred paths
MODES = ("quick", "whole")


class Prepared(NamedTuple):
    """The bundled model, and the first component of a prompt's graph with enough paths."""

    model: InstrumentedModel
    graph: CausalGraph

    @property
    def paths(self) -> tuple[tuple[FeatureId, ...], ...]:
        """Its paths' features, strongest first."""
        return tuple(path.features for path in self.graph.paths())


def prepared(prompt: str, units: int) -> Prepared:
    """Raises `ValueError` where the graph has fewer than `units` things to test."""
    model = sg.load("demo")
    graph = sg.causal_graph(model, prompt, top_k=TOP_K, select="effect").component(1)
    found = len(list(graph.paths(limit=units - 1))) + 1
    if found < units:
        raise ValueError(f"the graph of {prompt!r} has {found} things to test, not {units}")
    return Prepared(model, graph)


def time_validation(prompt: str, plan: Validated) -> dict[str, Any]:
    """Seconds of `validate` and of full passes for as many copies, by threads; medians and more.

    `copies` are those that the quick one runs: paths, controls of every kind and feature zero.
    """
    case = prepared(prompt, plan.units)
    before = torch.get_num_threads()
    try:
        timings = interleaved(
            [
                method
                for threads in plan.threads
                for method in (*_validations(case, plan, threads), _naive(case, plan, threads))
            ],
            budget=plan.budget,
            rounds=plan.rounds,
        )
    finally:
        torch.set_num_threads(before)
    copies = copies_of(case, plan)
    seconds = {name: timing._asdict() for name, timing in timings.items()}
    return {
        "prompt": prompt,
        "tokens": len(case.graph.run.tokens),
        "units": plan.units,
        "controls": plan.controls,
        "copies": copies,
        "seconds": seconds,
        "naive_seconds": {
            str(threads): copies * timings[_name("pass", threads)].median
            for threads in plan.threads
        },
    }


def copies_of(case: Prepared, plan: Validated) -> int:
    """What a quick validation announces to its progress bar."""
    announced: list[int] = []
    settings = settings_of(plan, quick=True)

    def told(done: int, total: int) -> None:
        announced.append(total)
        raise _Enough

    with suppress(_Enough):
        validate(case.model, case.graph, settings=settings, progress=told)
    return announced[0]


def settings_of(plan: Validated, *, quick: bool) -> ValidationSettings:
    """The component and its strongest paths, `plan.units` together."""
    return ValidationSettings(
        controls=plan.controls, paths=plan.units - 1, snippets=plan.snippets, quick=quick
    )


class PlainPasses:
    """Joint ablation in full forward passes with plain hooks, one copy at a time."""

    def __init__(self, case: Prepared) -> None:
        self.model = case.model
        self.tokens = torch.tensor([list(case.model.clean_run(case.graph.run.prompt).token_ids)])

    @torch.no_grad()
    def logits(self, features: Sequence[FeatureId]) -> Tensor:
        """`[V]` at the last token, the features zeroed at all tokens but the first."""
        by_depth: dict[int, list[int]] = {}
        for feature in features:
            depth = self.model.stack.depths[feature.layer]
            by_depth.setdefault(depth, []).append(feature.index)
        hooks = [self._hook(depth, indices) for depth, indices in by_depth.items()]
        found: Tensor = self.model.model.run_with_hooks(self.tokens, fwd_hooks=hooks)[0, -1]
        return found

    def _hook(self, depth: int, indices: list[int]) -> tuple[str, Any]:
        layer = self.model.stack.layers[depth]

        def ablate(stream: Tensor, hook: Any) -> Tensor:
            activations = layer.encode(stream[0])  # [T, F]
            ablated = activations.clone()
            ablated[1:, indices] = 0
            removed = layer.decode(activations, stream[0]) - layer.decode(ablated, stream[0])
            return stream - removed[None]

        return layer.point.hook_name, ablate


def seconds_by_mode(found: Mapping[str, Any], threads: int) -> dict[str, float]:
    """The medians of one prompt, by mode, and those of the full passes, scaled up."""
    medians = {mode: found["seconds"][_name(mode, threads)]["median"] for mode in MODES}
    return {**medians, "naive": found["naive_seconds"][str(threads)]}


# -- inside ----------------------------------------------------------------------------------------


class _Enough(Exception):
    """A validation that has announced its copies is not needed any more."""


def _validations(case: Prepared, plan: Validated, threads: int) -> list[Method]:
    found = []
    for mode in MODES:
        quick = mode == "quick"
        run = partial(validate, case.model, case.graph, settings=settings_of(plan, quick=quick))
        few = ValidationSettings(controls=8, paths=1, snippets=1, quick=quick)
        warm = partial(validate, case.model, case.graph, settings=few)
        found.append(Method(_name(mode, threads), run, warm, before=_with(threads)))
    return found


def _naive(case: Prepared, plan: Validated, threads: int) -> Method:
    passes = PlainPasses(case)
    run = partial(passes.logits, case.paths[0])
    return Method(_name("pass", threads), run, run, plan.passes, _with(threads))


def _with(threads: int) -> Run:
    return partial(torch.set_num_threads, threads)


def _name(mode: str, threads: int) -> str:
    return f"{mode}, {threads}"
