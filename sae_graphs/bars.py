"""The bar of `progress=True`: on a terminal, and in a notebook."""

from __future__ import annotations

import functools
import html
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from sae_graphs.errors import SaeGraphsError
from sae_graphs.late import found

Progress = Callable[[int, int], None]
"""`progress(done, total)` is told how far something is."""

Drawn = Callable[[str, int, int | None], None]  # what is done, how far, of how many


class Bar:
    """A bar on show: a `Progress` that says what is done, one step after another."""

    def __init__(self, draw: Drawn, what: str) -> None:
        self._draw, self._what = draw, what

    def __call__(self, done: int, total: int) -> None:
        self._draw(self._what, done, total)

    def step(self, what: str) -> None:
        """Begin another step."""
        self._what = what
        self._draw(what, 0, None)


def on_task(shown: Any, task: Any) -> Drawn:
    """Draws on a task of rich's `Progress`; where a step begins, so does the clock of what is left.

    Else rich takes a step of as many parts as the one before it for done.
    """

    def draw(what: str, done: int, total: int | None) -> None:
        if done == 0:
            (it,) = (it for it in shown.tasks if it.id == task)
            it.total = total  # `reset` takes None for: as it was
            shown.reset(task, description=what)
        else:
            shown.update(task, description=what, completed=done, total=total)

    return draw


def step(told: Progress | None, what: str) -> None:
    """Say which step begins, where a bar is told; a mere function hears numbers alone."""
    if isinstance(told, Bar):
        told.step(what)


Function = TypeVar("Function", bound=Callable[..., Any])
PAUSE = 0.1  # seconds between two drawings in a notebook


def with_bar(what: str) -> Callable[[Function], Function]:
    """For a function with an option `progress`: True is a bar that says `what` is done."""

    def decorated(function: Function) -> Function:
        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            if given.get("progress") is not True:
                return function(*args, **given)
            with bar(what) as told:
                return function(*args, **{**given, "progress": told})

        return cast(Function, called)

    return decorated


def heard(progress: Progress | bool | None) -> Progress | None:
    """What is to be told, if anything is; raises `SaeGraphsError` for what cannot be."""
    if progress is None or progress is False:
        return None
    if callable(progress):
        return progress
    raise SaeGraphsError(
        f"progress is {progress!r:.40}; expected True for a bar, or a function of the number done "
        "and of all"
    )


@contextmanager
def bar(what: str) -> Iterator[Bar]:
    """A bar that is gone when all is done: on standard error, where that is a terminal, or below
    the notebook's cell."""
    from rich.console import Console

    console = Console(stderr=True)
    with _in_notebook(what) if console.is_jupyter else _on_terminal(what, console) as told:
        yield told


@contextmanager
def _on_terminal(what: str, console: Any) -> Iterator[Bar]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    quiet = not console.is_terminal
    with Bars(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet
    ) as shown:
        task = shown.add_task(what, total=None)
        yield Bar(on_task(shown, task), what)


@contextmanager
def _in_notebook(what: str) -> Iterator[Bar]:
    """HTML's own bar, drawn anew: rich's needs ipywidgets, which few notebooks have."""
    display, markup = found("IPython.display:display"), found("IPython.display:HTML")
    shown = display(markup(_drawn(what, 0, 0)), display_id=True)
    last = 0.0

    def draw(what: str, done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if shown is not None and (done in (0, total) or now - last >= PAUSE):
            last = now
            shown.update(markup(_drawn(what, done, total or 0)))

    try:
        yield Bar(draw, what)
    finally:
        if shown is not None:
            shown.update(markup(""))


def _drawn(what: str, done: int, total: int) -> str:
    size = f' value="{done}" max="{total}"' if total else ""
    told = f" {done:,} of {total:,}" if total else ""
    return f"<div>{html.escape(what)} <progress{size}></progress>{told}</div>"
