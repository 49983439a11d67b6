"""The recipe of SmolLM2's SAEs, what is asked of them, and where a build keeps what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sae_graphs.training.plan import Plan
from sae_graphs.training.train import Place

BLOCKS = (2, 5, 8, 11, 17, 23, 26, 29)  # of thirty, the last included, gaps of three and of six
PLAN = Plan(
    hook_names=tuple(f"blocks.{block}.hook_resid_post" for block in BLOCKS),
    tokens=2_040_000,
    held_out=48_000,
    features=1920,
    active=40,
    passes=2,
    rate=2e-3,
)

# On text that was held out. FVU: at the median SAE, and at every one.
MEDIAN_FVU, MOST_FVU, LEAST_RECOVERED, MOST_DEAD, MOST_L0 = 0.15, 0.25, 0.9, 2.0, 40.0
WEIGHT_BYTES, SHIPPED_BYTES = 45_000_000, 60_000_000

CONTEXT_ROWS = 2_000  # of the rows trained on, from which contexts and means are taken


@dataclass(frozen=True)
class Work:
    """The folder of a build, to be kept until it is shipped."""

    folder: Path

    @property
    def texts(self) -> Path:
        """The texts, one sub-folder for each kind."""
        return self.folder / "texts"

    @property
    def place(self) -> Place:
        """Rows, activations, checkpoints, SAEs."""
        return Place(self.folder / "work")
