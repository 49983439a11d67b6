"""A progress bar, in a terminal or a notebook, for functions that are told how far they are."""

from __future__ import annotations

from collections.abc import Callable


def bar(name: str) -> Callable[..., None]:
    """What is told how much is done, and of how much: it shows a bar, which ends when all is done.

    What comes after a full bar gets another one.
    """
    shown = None

    def told(done: int, total: int | None = None) -> None:
        nonlocal shown
        from tqdm.auto import tqdm  # slow to import in a notebook

        if shown is None and done == total:
            return  # said again, or nothing to do
        if shown is None:
            shown = tqdm(total=total, desc=name.replace("_", " "), leave=False)
        shown.total = total
        shown.n = done
        shown.refresh()
        if done == total:
            shown.close()
            shown = None

    return told
