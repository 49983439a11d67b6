"""What is measured: prompt lengths, numbers of active features, and how long each may take."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.shapes import GPT2_SMALL, TINY, Sizes
from sae_graphs.effects.settings import Ablate
from sae_graphs.validation.settings import SNIPPETS


class Cell(NamedTuple):
    """One prompt length and number of active features, ablated in one mode.

    All methods are timed on it in turns, for about `budget` seconds. Where there are many
    ablations, only every `stride`-th layer pair is measured, in it one ablation `of` so many, and
    the time scaled up. Gradients at 10 points are left out where they would take minutes.
    """

    tokens: int
    active: int
    mode: Ablate
    passes: int  # of the public method, a round
    budget: float
    stride: int = 1
    of: int = 1
    integrated: bool = True
    sizes: Sizes | None = None  # by default those of the plan

    @property
    def key(self) -> str:
        """Its name in the files."""
        at = "" if self.sizes is None else f" {self.sizes.n_layers} layers {self.sizes[1:4]}"
        return f"{self.mode} {self.tokens} tokens {self.active} active{at}"


class Turns(NamedTuple):
    """Prompt lengths that take turns, ablated at the last token alone."""

    lengths: tuple[int, ...]
    active: int
    budget: float  # seconds, for the ablations and for the clean runs


class Validated(NamedTuple):
    """What is validated on the bundled model: `units` paths (one a whole component), each beside
    `controls` controls, on each of the `threads`. `passes` full passes are timed a round."""

    prompts: tuple[str, ...]
    units: int
    controls: int
    threads: tuple[int, ...]
    passes: int
    snippets: int = SNIPPETS
    rounds: int = 1
    budget: float = 0.0


class Answered(NamedTuple):
    """Effects on the answer: all of a prompt on the bundled model, and one `of` so many of one of
    `tokens` tokens at the plan's sizes. `passes` full passes are timed a round."""

    prompt: str = "When Mary and John went to the store, John gave a drink to"
    tokens: int = 16
    active: int = 40
    of: int = 8
    passes: int = 10
    budget: float = 120.0


class Plan(NamedTuple):
    """Everything that one run measures."""

    name: str
    sizes: Sizes
    cells: tuple[Cell, ...]
    memory: tuple[tuple[str, Ablate, int], ...]  # method, mode, tokens
    profiled: tuple[Ablate, int]  # mode, tokens
    turns: Turns
    shaped: tuple[Cell, ...]  # other models, for how the time grows
    prompts: int  # on which precisions are compared
    validated: Validated
    answered: Answered = Answered()


ACTIVE = 40
SMALL = Sizes(n_layers=4, d_model=384, n_heads=6, n_features=6144, vocabulary=5_001)


def _shaped(active: int, budget: float, *sizes: Sizes) -> tuple[Cell, ...]:
    return tuple(Cell(16, active, "all", 1, budget, integrated=False, sizes=one) for one in sizes)


FULL = Plan(
    "full",
    GPT2_SMALL,
    (
        Cell(4, ACTIVE, "read", 4, 20),
        Cell(16, ACTIVE, "read", 4, 20),
        Cell(128, ACTIVE, "read", 2, 25),
        Cell(1024, ACTIVE, "read", 1, 30),
        Cell(4, ACTIVE, "all", 4, 25),
        Cell(16, ACTIVE, "all", 4, 60),
        Cell(64, ACTIVE, "all", 2, 60, stride=4),
        Cell(256, ACTIVE, "all", 1, 40, stride=11, integrated=False),
        Cell(1024, ACTIVE, "all", 1, 30, stride=12, integrated=False),
        Cell(16, 10, "all", 3, 20),
        Cell(16, 100, "all", 3, 45, stride=3),
        Cell(16, 300, "all", 2, 45, stride=5, integrated=False),
        Cell(16, 1000, "all", 2, 45, stride=11, integrated=False),
    ),
    (
        ("full pass", "all", 16),
        ("ours", "all", 16),
        ("integrated gradients", "all", 16),
        ("full pass", "all", 1024),
        ("ours", "all", 1024),
        ("ours", "read", 1024),
    ),
    ("all", 16),
    Turns((4, 16, 128, 1024), ACTIVE, 30),
    _shaped(
        ACTIVE,
        10,
        SMALL,
        SMALL._replace(n_layers=8),
        SMALL._replace(d_model=768, n_heads=12),
        SMALL._replace(n_features=24_576),
    ),
    6,
    Validated(
        (
            "Copyright (C",
            "Foreign Direct Investment (F",
        ),
        units=100,
        controls=200,
        threads=(1, 2),
        passes=100,
    ),
)

QUICK = Plan(
    "quick",
    GPT2_SMALL,
    (
        Cell(4, ACTIVE, "read", 2, 5),
        Cell(16, ACTIVE, "read", 2, 5),
        Cell(16, ACTIVE, "all", 2, 15, stride=4),
    ),
    (("ours", "all", 16),),
    ("all", 16),
    Turns((4, 256), ACTIVE, 5),
    _shaped(ACTIVE, 2, SMALL, SMALL._replace(n_features=24_576)),
    2,
    Validated(("Copyright (C",), units=10, controls=200, threads=(1,), passes=20),
    Answered(of=64, passes=5, budget=5),
)

SMALLEST = Plan(
    "tiny",
    TINY,
    (Cell(4, 8, "read", 1, 0.1), Cell(16, 8, "all", 1, 0.1, stride=2)),
    (("ours", "all", 16),),
    ("all", 16),
    Turns((4, 16), 8, 0.1),
    _shaped(8, 0.1, TINY, TINY._replace(n_layers=4)),
    1,
    Validated(("Copyright (C",), units=2, controls=5, threads=(1,), passes=2, snippets=1),
    Answered("The letter [", active=8, of=4, passes=2, budget=0.1),
)
