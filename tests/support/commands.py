"""Commands as a user types them, run in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from sae_graphs import cli
from sae_graphs.cli.console import err, out


class Answer(NamedTuple):
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


class Commands:
    """`commands("graph", "text")` in an empty folder."""

    def __init__(
        self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self._patch, self._capture = patch, capture
        patch.chdir(folder)
        patch.setenv("COLUMNS", "160")
        for console in (out, err):  # xdist's workers begin with 80 columns, and they keep those
            patch.setattr(console, "_width", None)

    def __call__(self, *arguments: str) -> Answer:
        self._patch.setattr(sys, "argv", ["sae-graphs", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = self._capture.readouterr()
        return Answer(int(ended.value.code or 0), printed.out, printed.err)
