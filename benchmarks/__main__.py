"""`python -m benchmarks`: measure, print the tables, write `results.json` and `results.md`."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.progress import HERE, write_text

if TYPE_CHECKING:
    from benchmarks.plan import Plan

WIDTH = 100  # columns of the tables
os.environ["HF_HUB_OFFLINE"] = "1"  # all weights are made here


class Only(StrEnum):
    """Parts that can be measured by themselves."""

    ANSWER = "answer"
    VALIDATION = "validation"


def main(
    quick: Annotated[bool, typer.Option(help="Minutes: few lengths, few repeats.")] = False,
    tiny: Annotated[bool, typer.Option(help="Seconds, on a tiny model: does it run?")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of every method.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = HERE,
    precision: Annotated[bool, typer.Option(help="Only the table of precisions.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on where an interrupted run stopped.")] = True,
    only: Annotated[
        Only | None, typer.Option(help="Only this part, put into the results that are there.")
    ] = None,
) -> None:
    """Time and memory of the exact effects beside those of the other ways to get them."""
    console = Console(width=WIDTH)
    size = "tiny" if tiny else "quick" if quick else "full"
    console.print(f"measuring, {size}: loading torch and the models")
    import torch

    from benchmarks import plan as plans
    from benchmarks.alone import merge
    from benchmarks.answer_table import answer_sheet
    from benchmarks.measure import machine
    from benchmarks.progress import Progress as Kept
    from benchmarks.run import answered_in, measure_plan, precisions, validated_in
    from benchmarks.shapes import make_shapes
    from benchmarks.table import precision_sheet, sheets, with_ratios
    from benchmarks.validation_table import validation_sheet

    plan = plans.SMALLEST if tiny else plans.QUICK if quick else plans.FULL
    if precision:
        torch.set_num_threads(threads)
        console.print(precision_sheet(precisions(make_shapes(plan.sizes), plan)).rich())
        return
    described = machine(threads)
    kept = Kept({"plan": repr(plan), **described})
    if not resume:
        kept.found.clear()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("starting")

        def told(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)
            if done < total:
                console.print(f"{done + 1} of {total}: {name}", style="dim")

        part_only = None if only is None else only.value
        results = measure_plan(plan, threads, kept, told, only=part_only)
    name = "results" if plan is plans.FULL else f"results-{plan.name}"
    parts = {
        Only.ANSWER: (answered_in, answer_sheet),
        Only.VALIDATION: (validated_in, validation_sheet),
    }
    if only is not None:
        found_in, sheet_of = parts[only]
        part = found_in(plan, results, described)
        sheet = sheet_of(part)
        console.print(sheet.rich(), highlight=False)
        merge(out, name, only.value, part, sheet)
        console.print(f"put into {name}.json and {name}.md")
        return
    for cell in (*plan.cells, *plan.shaped):
        results[cell.key] = with_ratios(results[cell.key])
    beside = {each: found_in(plan, results, described) for each, (found_in, _) in parts.items()}
    shown = [*sheets(plan, results, described), *(parts[each][1](beside[each]) for each in beside)]
    for sheet in shown:
        console.print(sheet.rich(), highlight=False)
    summary = {
        **_summary(plan, results, described),
        **{each.value: beside[each] for each in beside},
    }
    write_text(out / f"{name}.json", json.dumps(summary, indent=1) + "\n")
    write_text(out / f"{name}.md", "\n".join(sheet.markdown() for sheet in shown))
    console.print(f"wrote {name}.json and {name}.md")


def _summary(plan: Plan, results: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """What goes into `results.json`."""
    from benchmarks.growth import growth_of
    from benchmarks.run import PRECISION, PROFILE, TURNS
    from benchmarks.targets import longest_to_shortest, targets

    cells, shaped = ([results[c.key] for c in some] for some in (plan.cells, plan.shaped))
    turns = results[TURNS]
    growth = longest_to_shortest(turns["ours"])
    return {
        "schema": 1,
        "plan": plan.name,
        "machine": described,
        "sizes": plan.sizes._asdict(),
        "targets": [target.to_json() for target in targets(cells, growth)],
        "read_mode_longest_to_shortest": growth,
        "read_mode_in_turns": turns,
        "growth": [one._asdict() for one in growth_of(cells, turns, shaped)],
        "precision": results[PRECISION],
        "cells": cells,
        "other_shapes": shaped,
        "memory": [results[f"memory {' '.join(map(str, row))}"] for row in plan.memory],
        "profile": results[PROFILE],
    }


if __name__ == "__main__":
    typer.run(main)
