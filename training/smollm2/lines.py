"""How far a long run is, in lines of a log: where no terminal shows a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 60.0  # seconds between lines


@contextmanager
def lines(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A line every minute, and one at the end, with an estimate of the time left."""
    started = last = time.monotonic()
    first: int | None = None

    def report(done: int, total: int) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = done if first is None else first
        if now - last < EVERY and done < total:
            return
        last = now
        pace = (done - first) / (now - started) if done > first else 0.0
        left = f", about {(total - done) / pace / 60:.0f} minutes left" if pace else ""
        print(f"{time.strftime('%H:%M:%S')} {what}: {done:,} of {total:,} {unit}{left}", flush=True)

    yield report
