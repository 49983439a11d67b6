"""`python -m training.smollm2 train`, `... evaluate`, `... ship`, `... truth`, `... facts`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sae_graphs.errors import SaeGraphsError

app = typer.Typer(help="Train, measure and ship the SAEs of SmolLM2.", no_args_is_help=True)

WorkOption = Annotated[
    Path, typer.Option(help="Folder of the build: texts, activations, checkpoints; to be kept.")
]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Processor threads to use.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")]
WORK = Path("outputs/smollm2")


@app.command()
def train(
    work: WorkOption = WORK, threads: ThreadsOption = 2, device: DeviceOption = "cpu"
) -> None:
    """Fetch texts, keep activations, train the SAEs, measure them; resumes what was stopped.

    Started twice, with one thread each, the two share the work.
    """
    from sae_graphs.cli.console import progress
    from sae_graphs.cli.train_saes import print_evaluation
    from sae_graphs.training.texts import Texts
    from sae_graphs.training.train import Told, train_saes
    from training.smollm2.plan import PLAN, Work
    from training.smollm2.texts import DESCRIBED, make_texts

    place = Work(work)
    if not (place.texts / DESCRIBED).is_file():
        with progress("texts", "packages") as report:
            make_texts(place.texts, work, report)
    model = _load(threads, device)
    told = Told(lambda line: typer.echo(line), _told)
    print_evaluation(train_saes(model, PLAN, Texts(str(place.texts)), place.place.out, told=told))


@app.command()
def evaluate(
    work: WorkOption = WORK, threads: ThreadsOption = 2, device: DeviceOption = "cpu"
) -> None:
    """Measure the SAEs that are there on the text that was held out; print what is missed."""
    from sae_graphs.cli.train_saes import print_evaluation
    from sae_graphs.training.rows import read_rows, rows_file
    from sae_graphs.training.train import Told
    from sae_graphs.training.train import evaluate as run
    from training.smollm2.evaluation import shortfalls
    from training.smollm2.plan import PLAN, Work

    place = Work(work).place
    rows = read_rows(rows_file(place.progress))
    if rows is None:
        raise SaeGraphsError(f"{place.progress} holds no rows; run `train` first")
    report = run(_load(threads, device), PLAN, rows, place, Told(typer.echo, _told))
    print_evaluation(report)
    for line in shortfalls(report):
        typer.echo(f"misses its target: {line}")


@app.command()
def ship(
    work: WorkOption = WORK,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("autoencoders/smollm2"),
    threads: ThreadsOption = 2,
) -> None:
    """Copy the SAEs to where they ship from, with contexts, manifest and README."""
    from sae_graphs.cli.console import progress
    from training.smollm2.plan import Work
    from training.smollm2.shipping import ship as run

    _prepare(threads)
    with progress("contexts", "tokens") as report:
        manifest = run(Work(work), out, report)
    typer.echo(f"{len(manifest['files'])} files, {manifest['total_bytes'] / 1e6:.1f} MB in {out}")


@app.command()
def truth(
    work: WorkOption = WORK,
    out: Annotated[Path, typer.Option(help="Folder of the SAEs, and of what is found.")] = Path(
        "autoencoders/smollm2"
    ),
    memory: Annotated[str | None, typer.Option(help="At most so much, such as 4GiB.")] = None,
    threads: ThreadsOption = 2,
) -> None:
    """Validate the graphs of prompts whose deciding tokens are marked; print and save a table."""
    from sae_graphs.cli.console import progress
    from sae_graphs.pretrained.loading import load
    from sae_graphs.pretrained.smollm2 import NAME
    from training.smollm2.shipping import write_readme
    from training.smollm2.truth import marked, measure
    from training.smollm2.truth_table import print_tables

    _prepare(threads)
    model = load(NAME, saes=str(out / "saes"), memory=memory)
    try:
        with progress("prompts", "prompts") as bar:
            report = measure(model, marked(), work / ".progress", out, told=bar)
    finally:  # after Ctrl-C, too: of the prompts that are done
        write_readme(out)
    print_tables(report)


@app.command()
def facts(threads: ThreadsOption = 2, device: DeviceOption = "cpu") -> None:
    """Choose facts that the model knows, to be rewritten; write them as cases of `edit`."""
    from training.smollm2.edit_cases import OUT, write

    typer.echo(f"wrote {write(_load(threads, device))} cases to {OUT}")


def _load(threads: int, device: str) -> Any:
    from sae_graphs.pretrained.loading import load_model
    from sae_graphs.pretrained.smollm2 import NAME

    _prepare(threads)
    return load_model(NAME, device=device)


def _prepare(threads: int) -> None:
    import os

    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch

    torch.set_num_threads(threads)


def _told(what: str, unit: str) -> Any:
    """A bar on a terminal; elsewhere a line each minute."""
    from sae_graphs.cli.console import err, progress

    if err.is_terminal:
        return progress(what, unit)
    from training.smollm2.lines import lines

    return lines(what, unit)


def main() -> None:
    """Runs the command; a user's mistake is one line and exit status 2."""
    try:
        app()
    except SaeGraphsError as mistake:
        typer.echo(str(mistake), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
