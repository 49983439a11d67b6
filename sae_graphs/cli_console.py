"""Where the commands print, and the bar that shows how far they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    quiet = not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=quiet) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
