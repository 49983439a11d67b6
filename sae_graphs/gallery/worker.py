"""A process of its own for what takes long: asked and answering in lines of JSON, one at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError

_PACKAGES = Path(__file__).parents[2]


class WorkerEnded(SaeGraphsError):
    """The process ended over a question."""


class Worker:
    """A process that answers; it starts when it is first asked.

    `module` is the one whose `serve` runs there, `what` is said where the process ends.
    `concurrent.futures` cannot end one that is at work, and looks for modules in the folder that
    the user is in, where runs of others' may lie; this one does not.
    """

    def __init__(self, module: str, what: str) -> None:
        start = f"from {module} import serve; serve()"
        self._code = f"import sys; sys.path.append(sys.argv[1]); {start}"
        self._what = what
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer; raises `WorkerEnded` where the process ends over it."""
        with self._lock:
            return self._asked(asked)

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
            raise WorkerEnded(self._what)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", self._code, str(_PACKAGES)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # libraries' remarks; what matters comes as an answer
            )
        return self._process

    def close(self) -> None:
        """End the process, also in the middle of its work."""
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


def answering(answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """In the other process: answer requests, one a line, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever prints spoils no answer
    for line in sys.stdin.buffer:
        answers.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        answers.flush()
