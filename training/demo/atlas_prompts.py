"""Held-out prompts of every phenomenon, for an atlas: `sae-graphs atlas build --prompts`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from sae_graphs.files import write_atomically
from training.demo.corpus.stream import PHENOMENA, held_out_cases

SEED = 5  # of the held-out cases: others than those that the graphs are validated on


def write_prompts(file: Path, *, count: int) -> int:
    """So many prompts, in turn of each phenomenon while it has any; returns how many there are.

    A line each: the `prompt`, its `phenomenon`, and what is `right`, whose first token a model that
    knows it writes next.
    """
    most = -(-2 * count // len(PHENOMENA))  # of some there are few: others take their place
    drawn = {name: held_out_cases(name, most, SEED) for name in PHENOMENA}
    turns = (
        {"prompt": case.prompt, "phenomenon": name, "right": case.answer}
        for cases in itertools.zip_longest(*drawn.values())
        for name, case in zip(drawn, cases, strict=True)
        if case is not None
    )
    lines = [json.dumps(row) for row in itertools.islice(turns, count)]
    write_atomically(file, ("\n".join(lines) + "\n").encode())
    return len(lines)
