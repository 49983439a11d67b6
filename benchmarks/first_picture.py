"""`python -m benchmarks.first_picture`: how long the first picture takes, beside what must be paid.

What must be paid is importing torch and transformers, and loading the same model with them. Both
are whole processes, in turns, after one of each that is not counted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Annotated

import typer

from sae_graphs.files import bundled_folder

PROMPT = "Copyright (C"
LOADED = """
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained({folder!r})
tokenizer = transformers.AutoTokenizer.from_pretrained({folder!r})
"""


def commands(out: str) -> dict[str, list[str]]:
    """What is timed, by name."""
    loaded = LOADED.format(folder=str(bundled_folder() / "model"))
    graph = ["-m", "sae_graphs", "graph", PROMPT, "--out", out]
    return {"import and load": [sys.executable, "-c", loaded], "graph": [sys.executable, *graph]}


def seconds(command: Sequence[str]) -> float:
    """The wall time of a process that must end well."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def report(taken: dict[str, list[float]]) -> str:
    """Medians in seconds, and the median of the ratios of each turn.

    >>> report({"import and load": [4.0, 5.0], "graph": [6.0, 8.0]})
    'import and load 4.5 s, graph 7.0 s: 1.55 times'
    """
    base, graph = taken["import and load"], taken["graph"]
    ratios = [ours / theirs for theirs, ours in zip(base, graph, strict=True)]
    return (
        f"import and load {median(base):.1f} s, graph {median(graph):.1f} s: "
        f"{median(ratios):.2f} times"
    )


def main(turns: Annotated[int, typer.Option(help="Of each process.", min=1)] = 5) -> None:
    """Time the first picture beside loading the same model without us."""
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(f"{folder}/run")
        taken: dict[str, list[float]] = {name: [] for name in todo}
        for turn in range(turns + 1):
            for name, command in todo.items():
                found = seconds(command)
                if turn:
                    taken[name].append(found)
    typer.echo(report(taken))


if __name__ == "__main__":
    typer.run(main)
