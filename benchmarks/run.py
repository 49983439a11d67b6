"""Measure everything of a plan: times cell by cell, memory in fresh processes, one profile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.floor import Floor
from benchmarks.measure import Method, Timing, interleaved, profile_of
from benchmarks.memory import memory_in_child
from benchmarks.methods import BY_MODE, Case, case_of, floor_of, ours, run_of
from benchmarks.plan import Cell, Plan
from benchmarks.progress import Progress
from benchmarks.shapes import TINY, Shapes, Workload, make_shapes, prepare

Told = Callable[[str, int, int], None]
"""`told(what is next, steps done, steps in all)`."""


class Step(NamedTuple):
    """One thing to measure, under the name that its result is kept by."""

    name: str
    measure: Callable[[], Any]


@torch.no_grad()
def measure_plan(plan: Plan, threads: int, progress: Progress, told: Told) -> dict[str, Any]:
    """Results by step, those of an earlier, interrupted run included."""
    torch.set_num_threads(threads)
    made: list[Shapes] = []  # once, and only if something is left to time

    def shapes() -> Shapes:
        if not made:
            made.append(make_shapes(plan.sizes))
        return made[0]

    steps = [
        Step(f"memory {method} {mode} {tokens}", _memory_step(plan, threads, method, mode, tokens))
        for method, mode, tokens in plan.memory
    ]
    steps += [Step(cell.key, partial(_timed, shapes, cell)) for cell in plan.cells]
    steps.append(Step("profile", lambda: profile_ours(shapes(), plan)))
    for done, step in enumerate(steps):
        told(step.name, done, len(steps))
        if step.name not in progress.found:
            progress.keep(step.name, step.measure())
    told("done", len(steps), len(steps))
    return {step.name: progress.found[step.name] for step in steps}


def time_cell(shapes: Shapes, cell: Cell) -> dict[str, Any]:
    """Seconds of every method on one workload, with what was active."""
    workload = prepare(shapes, cell.tokens, cell.active)
    n_pairs = len(shapes.saes) - 1
    case = case_of(workload, range(0, n_pairs, cell.stride))
    multiplied = floor_of(case, cell.mode)
    timings = interleaved(_methods(case, cell, multiplied), budget=cell.budget)
    rows = workload.rows(cell.mode)
    ablations = sum(len(counts) for counts in rows)
    measured = sum(len(rows[pair]) for pair in case.pairs)
    return {
        **cell._asdict(),
        "ablations": ablations,
        "measured": measured,
        "features": sum(int(sae.cfg.d_sae) for sae in shapes.saes[:-1]),
        "active": _active(workload),
        "floor_operations": multiplied.operations(),
        "seconds": {
            name: _scaled(timing, ablations / measured if name in BY_MODE else 1)._asdict()
            for name, timing in timings.items()
        },
    }


def profile_ours(shapes: Shapes, plan: Plan) -> list[dict[str, Any]]:
    """Where the time of ours goes, by operation, on one layer pair."""
    mode, tokens = plan.profiled
    workload = prepare(shapes, tokens, plan.cells[0].active)
    run = ours(case_of(workload, [shapes.sizes.n_layers // 2]), mode)
    run()
    return profile_of(run)


# -- inside ----------------------------------------------------------------------------------------


def _timed(shapes: Callable[[], Shapes], cell: Cell) -> dict[str, Any]:
    return time_cell(shapes(), cell)


def _methods(case: Case, cell: Cell, multiplied: Floor) -> list[Method]:
    found = []
    first = case._replace(pairs=case.pairs[:1])  # warms up what the others use as well
    for name in ("full pass", "clean run", *BY_MODE):
        run = multiplied.run if name == "floor" else run_of(case, name, cell.mode)
        warm = (lambda: multiplied.run([0])) if name == "floor" else run_of(first, name, cell.mode)
        if run is not None and warm is not None:
            found.append(Method(name, run, warm, cell.passes if name == "full pass" else 1))
    return found


def _scaled(timing: Timing, factor: float) -> Timing:
    return Timing(factor * timing.best, factor * timing.median, factor * timing.worst, timing.runs)


def _active(workload: Workload) -> dict[str, Any]:
    rows = workload.rows("all")
    return {
        "wanted": workload.active,
        "l0": [round(layer.l0, 1) for layer in workload.layers],
        "at_read": [int(layer.at_read.sum()) for layer in workload.layers],
        "anywhere": [len(layer.sources) for layer in workload.layers],
        "rows_an_ablation": [round(float(counts.double().mean()), 2) for counts in rows],
    }


def _memory_step(
    plan: Plan, threads: int, method: str, mode: str, tokens: int
) -> Callable[[], dict[str, Any] | None]:
    def measure() -> dict[str, Any] | None:
        found = memory_in_child(
            method,
            mode,
            tokens=tokens,
            active=plan.cells[0].active,
            threads=threads,
            tiny=plan.sizes == TINY,
        )
        if found is None:
            return None
        return {"method": method, "mode": mode, "tokens": tokens, **found._asdict()}

    return measure
