"""What needs a layout, made in a process of its own.

Graphviz holds Python's one lock while it works: in the server's own process, a graph that takes it
half a minute would keep every other page waiting, whatever threads there are.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.skeleton import Page

Kind = Literal["explorer", "comparison", "thumbnail"]
_PACKAGES = Path(__file__).parents[2]
# No module is looked for in the folder that the user is in: runs of others' may lie there.
_CODE = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sae_graphs.gallery.drawing import serve; serve()"
)


class Artist:
    """A process that draws, one thing at a time; it starts when it is first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def draw(self, folder: Path, kind: Kind, names: Sequence[str], *, summed: bool = False) -> Page:
        """A page, or a picture, of the runs with these names in a folder.

        Raises `SaeGraphsError` as what draws it does, and where the process ends over it;
        `OSError` where a run is replaced while it is read.
        """
        asked = {"folder": str(folder), "kind": kind, "names": list(names), "summed": summed}
        with self._lock:
            answer = self._asked(asked)
        if "problem" in answer:
            raise SaeGraphsError(answer["problem"])
        if "unread" in answer:
            raise OSError(0, answer["unread"])
        if "bug" in answer:
            raise RuntimeError(answer["bug"])
        return Page(answer["html"], answer["policy"])

    def _asked(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        line = b""
        with suppress(OSError):
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line.endswith(b"\n"):
            self._end()
            raise SaeGraphsError(
                "what draws graphs ended unexpectedly, perhaps for want of memory; try again, or "
                "keep fewer edges"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE, str(_PACKAGES)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # Graphviz's remarks; what matters comes as an answer
            )
        return self._process

    def close(self) -> None:
        """End the process, also in the middle of a drawing."""
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


# -- in the other process --------------------------------------------------------------------------


def serve() -> None:
    """Answer requests, one a line, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever prints spoils no answer
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        answers.flush()


def _answer(asked: Mapping[str, Any]) -> dict[str, str]:
    try:
        made = drawn(Path(asked["folder"]), asked["kind"], asked["names"], summed=asked["summed"])
    except SaeGraphsError as problem:
        return {"problem": str(problem)}
    except OSError as problem:
        return {"unread": str(problem.strerror)}
    except Exception as problem:  # our bug: the server says so
        return {"bug": f"{problem!r:.300}"}
    return made._asdict()


def drawn(folder: Path, kind: Kind, names: Sequence[str], *, summed: bool = False) -> Page:
    """What `Artist.draw` returns, made here and now."""
    from sae_graphs.gallery.comparison import comparison
    from sae_graphs.gallery.explorer import explorer
    from sae_graphs.gallery.library import graph_of, runs_in
    from sae_graphs.gallery.thumbnail import thumbnail

    runs = runs_in(folder)
    if not set(names) <= runs.keys():
        raise SaeGraphsError("the run is gone; go back to all runs")
    first = runs[names[0]]
    if kind == "comparison":
        return comparison(first, runs[names[1]], list(runs.values()), summed=summed)
    if kind == "explorer":
        return explorer(first, [run for run in runs.values() if run.name != first.name])
    return Page(thumbnail(graph_of(first)), "")
