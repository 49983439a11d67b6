"""`python -m training.demo train`, `... evaluate`, `... phenomena`, `... prompts`, `... facts`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sae_graphs.errors import SaeGraphsError

app = typer.Typer(help="Build and measure the bundled model.", no_args_is_help=True)
DEFAULT_OUT = Path("autoencoders/demo")

OutOption = Annotated[Path, typer.Option(help="Folder of the bundled model.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Processor threads to use.")]


@app.command()
def train(
    out: OutOption = DEFAULT_OUT,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    scale: Annotated[float, typer.Option(help="Length of the training, 1 being the full one.")] = 1,
    until: Annotated[str, typer.Option(help="The last stage to run.")] = "manifest",
    threads: ThreadsOption = 2,
) -> None:
    """Rebuild the model, its SAEs and what ships with them; an interrupted run is resumed."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from training.demo.plan import Plan
    from training.demo.train import train as run

    if scale <= 0:
        raise SaeGraphsError(f"--scale {scale} is not above 0")
    _prepare(threads)
    plan = Plan(seed=seed) if scale == 1 else Plan(seed=seed).scaled(scale)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        notes = run(out, plan, progress, until=until)
    for stage, note in notes.items():
        typer.echo(f"{stage}: {note['seconds']} s")


@app.command()
def evaluate(
    out: OutOption = DEFAULT_OUT,
    cases: Annotated[int, typer.Option(min=1, help="Held-out cases of each phenomenon.")] = 1000,
    tokens: Annotated[int, typer.Option(min=1, help="Fresh tokens to measure on.")] = 1_000_000,
    threads: ThreadsOption = 2,
) -> None:
    """Measure the model and its SAEs on held-out cases and fresh text; print and save a table."""
    from training.demo.evaluation import evaluate as run
    from training.demo.evaluation import require_model
    from training.demo.evaluation_table import print_tables
    from training.demo.shipping import write_readme

    require_model(out)
    _prepare(threads)
    report = run(out, cases=cases, tokens=tokens)
    print_tables(report)
    write_readme(out, report)


@app.command()
def phenomena(
    out: OutOption = DEFAULT_OUT,
    cases: Annotated[int, typer.Option(min=1, help="Held-out prompts of each phenomenon.")] = 64,
    threads: ThreadsOption = 1,
) -> None:
    """Validate the graphs of held-out prompts; print and save what is found of each phenomenon."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from training.demo.evaluation import require_model
    from training.demo.phenomena import measure
    from training.demo.phenomena_table import print_tables, summary
    from training.demo.shipping import rewrite_readme

    require_model(out)
    _prepare(threads)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task("starting", total=None)
        report = measure(
            out,
            cases=cases,
            told=lambda name, done, total: progress.update(
                task, description=name, completed=done, total=total
            ),
        )
    print_tables(report)
    rewrite_readme(out)
    typer.echo("For docs/validation.md:\n\n" + summary(report))


@app.command()
def prompts(
    out: Annotated[Path, typer.Option(help="File to write, JSON lines.")] = Path("prompts.jsonl"),
    count: Annotated[int, typer.Option(min=1, help="About so many, of all phenomena.")] = 2000,
) -> None:
    """Write held-out prompts for an atlas, with what is right and the phenomenon of each."""
    from training.demo.atlas_prompts import write_prompts

    typer.echo(f"wrote {out}: {write_prompts(out, count=count)} prompts")


@app.command()
def facts(threads: ThreadsOption = 1) -> None:
    """Choose facts that the model knows, to be rewritten; write them as cases of `edit`."""
    _prepare(threads)
    from sae_graphs.pretrained.loading import load_model
    from training.demo.edit_cases import OUT, write

    typer.echo(f"wrote {write(load_model())} cases to {OUT}")


def _keep_memory() -> None:
    """Tells glibc to keep freed memory: giving it back after every step costs a sixth of the time.

    Without glibc nothing happens.
    """
    import ctypes

    trim_threshold, mmap_max = -1, -4  # from malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def _prepare(threads: int) -> None:
    """Sets the threads and the memory, and keeps the libraries' own bars out of ours."""
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TQDM_DISABLE", "1")
    _keep_memory()
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.disable_progress_bar()


def main() -> None:
    """Runs the command; a user's mistake is one line and exit status 2."""
    try:
        app()
    except SaeGraphsError as mistake:
        typer.echo(str(mistake), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
