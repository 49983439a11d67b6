"""`python -m benchmarks`: measure, print the tables, write `results.json` and `results.md`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.progress import HERE, write_text

os.environ["HF_HUB_OFFLINE"] = "1"  # all weights are made here


def main(
    quick: Annotated[bool, typer.Option(help="About a minute: few lengths, few repeats.")] = False,
    tiny: Annotated[bool, typer.Option(help="Seconds, on a tiny model: does it run?")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads of every method.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = HERE,
    resume: Annotated[bool, typer.Option(help="Go on where an interrupted run stopped.")] = True,
) -> None:
    """Time and memory of the exact effects beside those of the other ways to get them."""
    from benchmarks import plan as plans
    from benchmarks.measure import machine
    from benchmarks.progress import Progress as Kept
    from benchmarks.run import measure_plan
    from benchmarks.table import growth_in_read_mode, sheets, with_ratios

    plan = plans.SMALLEST if tiny else plans.QUICK if quick else plans.FULL
    described = machine(threads)
    kept = Kept({"plan": repr(plan), **described})
    if not resume:
        kept.found.clear()
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("starting")
        results = measure_plan(
            plan,
            threads,
            kept,
            lambda name, done, total: bar.update(
                task, description=name, completed=done, total=total
            ),
        )
    for cell in plan.cells:
        results[cell.key] = with_ratios(results[cell.key])
    cells = [results[cell.key] for cell in plan.cells]
    shown = list(sheets(plan, results, described))
    for sheet in shown:
        console.print(sheet.rich())
    summary = {
        "schema": 1,
        "plan": plan.name,
        "machine": described,
        "sizes": plan.sizes._asdict(),
        "read_mode_longest_to_shortest": growth_in_read_mode(cells),
        "cells": cells,
        "memory": [results[f"memory {' '.join(map(str, row))}"] for row in plan.memory],
        "profile": results["profile"],
    }
    name = "results" if plan is plans.FULL else f"results-{plan.name}"
    write_text(out / f"{name}.json", json.dumps(summary, indent=1) + "\n")
    write_text(out / f"{name}.md", "\n".join(sheet.markdown() for sheet in shown))
    console.print(f"wrote {name}.json and {name}.md")


if __name__ == "__main__":
    typer.run(main)
