"""`Asker`: what would the answer be, asked of a process that holds the run's model.

A question is taken up at once and answered when it is; who asked comes back for it.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.runs import Run
from sae_graphs.gallery.worker import Worker, WorkerEnded
from sae_graphs.runs import GRAPH

LARGEST = 2**16  # bytes of a question
MOST_TIMES = 100.0  # a feature may be set to so many times what it is
PATIENCE = 0.8  # seconds that a question is waited for before who asked is told to come back
KEPT = 64  # answers that are kept

_TIMES = re.compile(r"x(-?\d{1,3}(?:\.\d{1,6})?)")
_EXPECTED = 'expected {"changes": {"5.3@2": "off", "4.1@3": "x0.5"}}'

Told = dict[str, Any]


def changes_from(body: bytes) -> dict[str, str]:
    """What is asked: features by name, each `off` or a multiple such as `x0.5`.

    Raises `SaeGraphsError`, in one line, where it is anything else.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise SaeGraphsError(f"the question is not JSON; {_EXPECTED}") from problem
    changes = asked.get("changes") if isinstance(asked, dict) else None
    if not isinstance(changes, dict) or not changes or len(asked) != 1:
        raise SaeGraphsError(f"the question names no changes; {_EXPECTED}")
    for name, value in changes.items():
        if not isinstance(value, str) or not (value == "off" or _is_multiple(value)):
            raise SaeGraphsError(
                f"{name!r:.40} cannot become {value!r:.40}; expected off, or a multiple such as "
                f"x0.5, up to x{MOST_TIMES:g}"
            )
    return changes


def _is_multiple(value: str) -> bool:
    found = _TIMES.fullmatch(value)
    return found is not None and math.fabs(float(found[1])) <= MOST_TIMES


class Asker:
    """Runs' models, in a process of its own that starts with the first question.

    `module` is the one whose `serve` answers there, from a run's folder and changes.
    """

    def __init__(self, module: str) -> None:
        self._worker = Worker(module, "what runs the model ended unexpectedly")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="what-if")
        self._lock = threading.Lock()  # held for a moment, of all below
        self._asked: dict[Any, Future[Told]] = {}
        self._ready: set[str] = set()  # runs that were answered: their model is loaded
        self._closed = False

    def answer(self, run: Run, changes: Mapping[str, str]) -> Told:
        """The answer as the page shows it; `waiting` where it is to be asked for again.

        Never raises: what is wrong is a `problem`, in one line.
        """
        key = run.name, _stamp(run), tuple(sorted(changes.items()))
        try:
            found = self._future(key, run, changes).result(timeout=PATIENCE)
        except (NotYet, CancelledError):  # another question came before it
            return {"waiting": self._doing(run)}
        except Exception as problem:  # our bug: say so, and go on
            closed = "the gallery is closed" if self._closed else f"this is a bug: {problem!r:.300}"
            found = {"problem": closed}
        if "problem" in found:  # told once; who asks again has it tried again
            with self._lock:
                self._asked.pop(key, None)
        return found

    def close(self) -> None:
        """End the process, also in the middle of its work."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._worker.close()

    # -- inside ------------------------------------------------------------------------------------

    def _doing(self, run: Run) -> str:
        with self._lock:
            return "running the model ..." if run.name in self._ready else "loading the model ..."

    def _future(self, key: Any, run: Run, changes: Mapping[str, str]) -> Future[Told]:
        with self._lock:
            held = self._asked.pop(key, None)
            if held is None or held.cancelled():
                for other in self._asked.values():
                    other.cancel()  # whoever still wants it asks again
                held = self._thread.submit(self._ask, run, dict(changes))
            self._asked[key] = held
            done = [each for each, future in self._asked.items() if future.done() and each != key]
            for old in done[: max(len(self._asked) - KEPT, 0)]:
                del self._asked[old]
            return held

    def _ask(self, run: Run, changes: dict[str, str]) -> Told:
        asked = {"name": run.name, "folder": str(run.folder), "changes": changes}
        try:
            found = self._worker.ask(asked)
        except WorkerEnded as first:
            if self._closed:
                return {"problem": "the gallery is closed"}
            with self._lock:
                self._ready.clear()
            try:
                found = self._worker.ask(asked)
            except WorkerEnded:
                return {"problem": f"{first} twice, perhaps for want of memory"}
            found = {**found, "notes": [f"{first}, and was started again"]}
        if "problem" not in found:
            with self._lock:
                self._ready = {run.name}
        return found


def _stamp(run: Run) -> tuple[int, int] | None:
    try:
        found = os.lstat(run.folder / GRAPH)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
