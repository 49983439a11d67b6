"""What the first picture takes: a ratio of turns, of processes that end well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.first_picture import commands, report, seconds


def test_the_ratio_is_that_of_each_turn() -> None:
    taken = {"import and load": [4.0, 2.0, 10.0], "graph": [6.0, 4.0, 11.0]}
    assert report(taken) == "import and load 4.0 s, graph 6.0 s: 1.50 times"


def test_both_load_the_bundled_model_and_one_draws(tmp_path: Path) -> None:
    made = commands(str(tmp_path))
    assert "from_pretrained" in made["import and load"][-1]
    assert made["graph"][1:] == [
        "-m",
        "sae_graphs",
        "graph",
        "Copyright (C",
        "--out",
        str(tmp_path),
    ]


def test_a_process_that_fails_is_not_timed() -> None:
    assert seconds([sys.executable, "-S", "-c", ""]) > 0
    with pytest.raises(subprocess.CalledProcessError):
        seconds([sys.executable, "-S", "-c", "raise SystemExit(2)"])
