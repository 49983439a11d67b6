"""Measure everything of a plan: times cell by cell, memory in fresh processes, one profile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.answer import bundled_case, shaped_case, time_answer
from benchmarks.floor import Floor
from benchmarks.measure import Method, Run, Timing, interleaved, profile_of
from benchmarks.memory import memory_in_child
from benchmarks.methods import (
    METHODS,
    Case,
    case_of,
    clean_run,
    dense_floor_of,
    floor_of,
    ours,
    work_of,
)
from benchmarks.plan import Cell, Plan, Turns
from benchmarks.precision import PROMPTS, bundled_precision, shaped_precision
from benchmarks.progress import Progress
from benchmarks.shapes import TINY, Shapes, Sizes, Workload, make_shapes, prepare, take_turn
from benchmarks.validation import time_validation
from benchmarks.work import reads_in, reads_near

Told = Callable[[str, int, int], None]
"""`told(what is next, steps done, steps in all)`."""

LONG = 256  # tokens, from which on a run takes seconds and needs no warming up
TURNS, PRECISION, PROFILE = "read in turns", "precision", "profile"


class Step(NamedTuple):
    """One thing to measure, under the name that its result is kept by."""

    name: str
    measure: Callable[[], Any]


class Made:
    """Model and SAEs, made when they are first needed; only the last ones are held."""

    def __init__(self) -> None:
        self.held: Shapes | None = None

    def of(self, sizes: Sizes) -> Shapes:
        """Those of some sizes."""
        if self.held is None or self.held.sizes != sizes:
            self.held = None
            self.held = make_shapes(sizes)
        return self.held


@torch.no_grad()
def measure_plan(
    plan: Plan, threads: int, progress: Progress, told: Told, *, only: str | None = None
) -> dict[str, Any]:
    """Results by step, those of an earlier, interrupted run included; of one part, or all."""
    torch.set_num_threads(threads)
    parts = {"validation": validation_steps, "answer": answer_steps}
    steps = steps_of(plan, threads) if only is None else parts[only](plan)
    for done, step in enumerate(steps):
        told(step.name, done, len(steps))
        if step.name not in progress.found:
            progress.keep(step.name, step.measure())
    told("done", len(steps), len(steps))
    return {step.name: progress.found[step.name] for step in steps}


def steps_of(plan: Plan, threads: int) -> list[Step]:
    """All there is to measure, in order."""
    made = Made()
    steps = [
        Step(f"memory {method} {mode} {tokens}", _memory_step(plan, threads, method, mode, tokens))
        for method, mode, tokens in plan.memory
    ]
    steps.append(Step(PRECISION, lambda: precisions(made.of(plan.sizes), plan)))
    steps += [
        Step(cell.key, partial(_timed, made, cell.sizes or plan.sizes, cell)) for cell in plan.cells
    ]
    steps.append(Step(TURNS, lambda: time_turns(made.of(plan.sizes), plan.turns)))
    steps.append(Step(PROFILE, lambda: profile_ours(made.of(plan.sizes), plan)))
    steps += [
        Step(cell.key, partial(_timed, made, cell.sizes or plan.sizes, cell))
        for cell in plan.shaped
    ]
    return [*steps, *answer_steps(plan), *validation_steps(plan)]


def answer_steps(plan: Plan) -> list[Step]:
    """Effects on the answer: on the bundled model, and at the shapes of the plan."""
    asked = plan.answered

    def shaped() -> dict[str, Any]:
        return time_answer(shaped_case(make_shapes(plan.sizes), asked), asked)

    return [
        Step("answer bundled", lambda: time_answer(bundled_case(asked.prompt), asked)),
        Step("answer shapes", shaped),
    ]


def validation_steps(plan: Plan) -> list[Step]:
    """One for each prompt; they set the threads themselves, and set them back."""
    return [
        Step(f"validation {prompt}", partial(time_validation, prompt, plan.validated))
        for prompt in plan.validated.prompts
    ]


def answered_in(plan: Plan, results: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """What was found of effects on the answer, and where."""
    return {"machine": machine, "cases": [results[step.name] for step in answer_steps(plan)]}


def validated_in(plan: Plan, results: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """What was found of validation, and where: it may have been measured by itself."""
    prompts = [results[step.name] for step in validation_steps(plan)]
    where = {name: value for name, value in machine.items() if name != "threads"}
    return {"machine": where, "prompts": prompts}


def precisions(shapes: Shapes, plan: Plan) -> list[dict[str, Any]]:
    """Precisions against float64: the bundled model, and the shapes of the plan."""
    tokens = plan.profiled[1]
    return [
        *bundled_precision(PROMPTS[: plan.prompts]),
        *shaped_precision(shapes, tokens, plan.cells[0].active),
    ]


def time_cell(shapes: Shapes, cell: Cell) -> dict[str, Any]:
    """Seconds of every method on one workload, with what was active."""
    workload = prepare(shapes, cell.tokens, cell.active)
    n_pairs = len(shapes.saes) - 1
    case = case_of(workload, cell.mode, range(0, n_pairs, cell.stride), cell.of)
    work = work_of(case)
    floor, dense = floor_of(case, work), dense_floor_of(case, work)
    timings = interleaved(_methods(case, cell, floor, dense), budget=cell.budget)
    ablations = sum(len(counts) for counts in workload.rows(cell.mode))
    measured = sum(len(case.ablations(pair)) for pair in case.pairs)
    by_ablations, by_pairs = ablations / measured, n_pairs / len(case.pairs)
    factors = {
        **dict.fromkeys(("ours", "floor", "dense floor"), by_ablations),
        **dict.fromkeys(("gradient", "integrated gradients"), by_pairs),
    }
    return {
        **cell._asdict(),
        "sizes": shapes.sizes._asdict(),
        "ablations": ablations,
        "measured": measured,
        "pairs": len(case.pairs),
        "features": sum(int(sae.cfg.d_sae) for sae in shapes.saes[:-1]),
        "active": _active(workload),
        "near_reads": sum(reads_near(done, shapes.sizes.n_features) for done in work),
        "reads": sum(reads_in(done) for done in work),
        "floor_operations": floor.operations(),
        "dense_floor_operations": dense.operations(),
        "floor_gflop_per_second": floor.operations() / timings["floor"].median / 1e9,
        "seconds": {
            name: _scaled(timing, factors.get(name, 1))._asdict()
            for name, timing in timings.items()
        },
    }


def time_turns(shapes: Shapes, turns: Turns) -> dict[str, Any]:
    """Ours by prompt length, ablating at the last token: all lengths in the same rounds.

    The SAEs' weights are the same for all; before each run they get the biases that belong to
    its prompt, which is not timed. The clean runs take turns in rounds of their own.
    """
    ablations, cleans = [], []
    for tokens in turns.lengths:
        workload = prepare(shapes, tokens, turns.active)
        case = case_of(workload, "read")
        turn, run = partial(take_turn, workload), ours(case)
        ablations.append(Method(str(tokens), run, run, before=turn))
        cleans.append(Method(str(tokens), clean_run(case), lambda: None, before=turn))
    found = {
        "ours": interleaved(ablations, budget=turns.budget, rounds=9),
        "clean run": interleaved(cleans, budget=turns.budget, rounds=5),
    }
    return {
        name: {tokens: timing._asdict() for tokens, timing in timings.items()}
        for name, timings in found.items()
    }


def profile_ours(shapes: Shapes, plan: Plan) -> list[dict[str, Any]]:
    """Where the time of ours goes, by operation, on one layer pair."""
    mode, tokens = plan.profiled
    workload = prepare(shapes, tokens, plan.cells[0].active)
    run = ours(case_of(workload, mode, [shapes.sizes.n_layers // 2]))
    run()
    return profile_of(run)


# -- inside ----------------------------------------------------------------------------------------


def _timed(made: Made, sizes: Sizes, cell: Cell) -> dict[str, Any]:
    return time_cell(made.of(sizes), cell)


def _methods(case: Case, cell: Cell, floor: Floor, dense: Floor) -> list[Method]:
    """All of them, warmed up on one layer pair; ours is warm: the floor's work was its own."""
    first = case._replace(pairs=case.pairs[:1])
    found = [
        Method("floor", floor.run, lambda: floor.run([0])),
        Method("dense floor", dense.run, lambda: dense.run([0])),
    ]
    for name, method in METHODS.items():
        if name == "integrated gradients" and not cell.integrated:
            continue
        run = method(case)
        warm: Run = _nothing
        if cell.tokens < LONG and name not in ("ours", "clean run"):
            warm = run if name == "full pass" else method(first)
        found.append(Method(name, run, warm, cell.passes if name == "full pass" else 1))
    return found


def _nothing() -> None:
    pass


def _scaled(timing: Timing, factor: float) -> Timing:
    return Timing(factor * timing.best, factor * timing.median, factor * timing.worst, timing.runs)


def _active(workload: Workload) -> dict[str, Any]:
    rows = workload.rows("all")
    return {
        "wanted": workload.active,
        "l0": [round(layer.l0, 1) for layer in workload.layers],
        "at_read": [int(layer.at_read.sum()) for layer in workload.layers],
        "anywhere": [len(layer.sources) for layer in workload.layers],
        "positions_a_feature": [
            round(float(layer.n_active.double().mean()), 2) for layer in workload.layers
        ],
        "rows_an_ablation": [round(float(counts.double().mean()), 2) for counts in rows],
    }


def _memory_step(
    plan: Plan, threads: int, method: str, mode: str, tokens: int
) -> Callable[[], dict[str, Any]]:
    def measure() -> dict[str, Any]:
        found = memory_in_child(
            method,
            mode,
            tokens=tokens,
            active=plan.cells[0].active,
            threads=threads,
            tiny=plan.sizes == TINY,
        )
        return {"method": method, "mode": mode, "tokens": tokens, **found._asdict()}

    return measure
