"""Time and memory of a piece of work, and the machine that did it."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

Run = Callable[[], object]


@dataclass(frozen=True)
class Method:
    """Something to time. `warm` is run first, untimed: all of it, or a part where that is long.

    `times` is how often it runs in one round; `before` goes before each run, untimed.
    """

    name: str
    run: Run
    warm: Run
    times: int = 1
    before: Run = lambda: None


class Timing(NamedTuple):
    """Seconds of one run: the best, the median and the worst of several."""

    best: float
    median: float
    worst: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(min(seconds), statistics.median(seconds), max(seconds), len(seconds))


class Memory(NamedTuple):
    """Bytes: all the process held at its peak, and how much of it came with the work."""

    peak: int
    added: int


def interleaved(methods: Sequence[Method], *, budget: float, rounds: int = 7) -> dict[str, Timing]:
    """Time the methods round by round, so that a drift of the machine hits all alike.

    At most so many rounds, at least one, and no new one that would end after `budget` seconds.
    """
    for method in methods:
        method.before()
        method.warm()
    seconds: dict[str, list[float]] = {method.name: [] for method in methods}
    gc.collect()
    start = time.perf_counter()
    for done in range(1, rounds + 1):
        for method in methods:
            for _ in range(method.times):
                method.before()
                seconds[method.name].append(seconds_of(method.run))
        spent = time.perf_counter() - start
        if spent * (done + 1) / done > budget:
            break
    return {name: Timing.of(times) for name, times in seconds.items()}


def seconds_of(run: Run) -> float:
    """One run, by the wall clock."""
    before = time.perf_counter()
    run()
    return time.perf_counter() - before


def memory_of(run: Run) -> Memory:
    """The peak of this process during a run, and its growth over what was held before.

    Exact where the system lets the peak be set back (Linux). Elsewhere the peak may be that of
    an earlier moment: use a fresh process.
    """
    gc.collect()
    _give_back()
    _forget_peak()
    before = psutil.Process().memory_info().rss
    run()
    peak = _peak()
    return Memory(peak, max(0, peak - before))


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def profile_of(run: Run, *, limit: int = 12) -> list[dict[str, Any]]:
    """Where the time of a run goes: the operations that take most of it, and their share.

    An operation's time does not hold that of the operations it calls.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        run()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    events = sorted(events, key=lambda event: -event.self_cpu_time_total)
    return [
        {
            "operation": event.key,
            "calls": event.count,
            "seconds": event.self_cpu_time_total / 1e6,
            "share": event.self_cpu_time_total / total,
        }
        for event in events[:limit]
    ]


# -- inside ----------------------------------------------------------------------------------------


def _cpu_name() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _give_back() -> None:
    """Hand memory that is free, but held for later, back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _forget_peak() -> None:
    switch = Path(f"/proc/{os.getpid()}/clear_refs")
    if switch.exists():
        switch.write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
