"""Where the commands print, and the bar that shows how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from sae_graphs.bars import Bar, on_task
from sae_graphs.checkpoint import Checkpoint
from sae_graphs.runs import PAGE
from sae_graphs.text import visible
from sae_graphs.words import counted

NARROW = 80  # columns: with fewer, the layers' hooks are left out


out = Console()
err = Console(stderr=True)


def warn(message: str) -> None:
    """A line on standard error for what went wrong without stopping the command."""
    line = f"warning: {message}"
    err.print(line, markup=False, highlight=False, soft_wrap=True, style="yellow")


@contextmanager
def progress(what: str, unit: str = "features") -> Iterator[Any]:
    """A bar on standard error with an estimate of the time left; yields `report(done, total)`."""
    with _bar(what, MofNCompleteColumn(), TextColumn(unit)) as report:
        yield report


@contextmanager
def progress_of_bytes(what: str) -> Iterator[Any]:
    """The same for bytes, with their speed."""
    with _bar(what, DownloadColumn(binary_units=True), TransferSpeedColumn()) as report:
        yield report


@contextmanager
def _bar(what: str, *amount: ProgressColumn) -> Iterator[Any]:
    described = TextColumn("{task.description}", markup=False)
    columns = (described, BarColumn(), *amount, TimeRemainingColumn())
    quiet = not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=None)
        yield Bar(on_task(bar, task), what)


@contextmanager
def resumable(done: Callable[[], str]) -> Iterator[None]:
    """Say after Ctrl-C what is `done`, unless that is "", and how to go on from there."""
    try:
        yield
    except KeyboardInterrupt:
        if told := done():
            line = f"{told}; run the same command again to go on from there"
            err.print(line, highlight=False, markup=False, soft_wrap=True)
        raise


def parts_kept(partial: Checkpoint[Any, Any], what: str) -> str:
    """ "3 of 12 layers are measured", `what` being "layers are measured"; "" where none is kept."""
    return f"{partial.n_kept} of {partial.n_parts} {what}" if partial.n_kept else ""


def prompt_line(tokens: Sequence[str], read_position: int) -> Text:
    """The prompt as it was read, the token where effects are read highlighted."""
    words = Text()
    for position, piece in enumerate(tokens):
        read = position == read_position
        words.append(visible(piece, space=" "), style="bold reverse" if read else "")
    return words


def print_files(console: Console, folder: Path, names: Sequence[str]) -> None:
    """Where the run's files are."""
    console.print(Text(f"wrote {folder}/", style="bold"), soft_wrap=True)
    plots = [name for name in names if name.startswith("plot-")]
    shown = [name for name in names if name not in plots]
    if plots:
        shown.append(f"and {counted(len(plots), 'plot')}")
    console.print(Text("  " + "  ".join(shown)), soft_wrap=True)
    if PAGE in names:
        console.print(Text(f"explore it: open {folder / PAGE} in a browser", "dim"), soft_wrap=True)
