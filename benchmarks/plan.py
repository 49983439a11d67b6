"""What is measured: prompt lengths, numbers of active features, and how long each may take."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.shapes import GPT2_SMALL, TINY, Sizes
from sae_graphs.settings import Ablate


class Cell(NamedTuple):
    """One prompt length and number of active features, ablated in one mode.

    All methods are timed on it in turns, for about `budget` seconds. Where there are many
    ablations, only every `stride`-th layer pair is measured and the time scaled up.
    """

    tokens: int
    active: int
    mode: Ablate
    passes: int  # of the public method, a round
    budget: float
    stride: int = 1

    @property
    def key(self) -> str:
        """Its name in the files."""
        return f"{self.mode} {self.tokens} tokens {self.active} active"


class Plan(NamedTuple):
    """Everything that one run measures."""

    name: str
    sizes: Sizes
    cells: tuple[Cell, ...]
    memory: tuple[tuple[str, Ablate, int], ...]  # method, mode, tokens
    profiled: tuple[Ablate, int]  # mode, tokens


ACTIVE = 40
_REMEMBERED: tuple[tuple[str, Ablate], ...] = (
    ("full pass", "all"),
    ("clean run", "all"),
    ("ours", "all"),
    ("ours", "read"),
    ("floor", "all"),
    ("gradient", "all"),
    ("integrated gradients", "all"),
)

FULL = Plan(
    "full",
    GPT2_SMALL,
    (
        Cell(4, ACTIVE, "read", 4, 20),
        Cell(16, ACTIVE, "read", 4, 20),
        Cell(128, ACTIVE, "read", 2, 25),
        Cell(1024, ACTIVE, "read", 1, 60),
        Cell(4, ACTIVE, "all", 4, 30),
        Cell(16, ACTIVE, "all", 4, 60),
        Cell(64, ACTIVE, "all", 3, 60, stride=2),
        Cell(256, ACTIVE, "all", 2, 60, stride=5),
        Cell(1024, ACTIVE, "all", 2, 60, stride=11),
        Cell(16, 10, "all", 3, 30),
        Cell(16, 100, "all", 3, 60, stride=2),
        Cell(16, 300, "all", 3, 60, stride=5),
        Cell(16, 1000, "all", 3, 60, stride=11),
    ),
    tuple((method, mode, tokens) for tokens in (16, 1024) for method, mode in _REMEMBERED),
    ("all", 16),
)

QUICK = Plan(
    "quick",
    GPT2_SMALL,
    (
        Cell(4, ACTIVE, "read", 2, 3),
        Cell(16, ACTIVE, "read", 2, 3),
        Cell(16, ACTIVE, "all", 2, 12, stride=4),
    ),
    (("ours", "all", 16),),
    ("all", 16),
)

SMALLEST = Plan(
    "tiny",
    TINY,
    (Cell(4, 8, "read", 1, 0.1), Cell(16, 8, "all", 1, 0.1, stride=2)),
    (("ours", "all", 16),),
    ("all", 16),
)
