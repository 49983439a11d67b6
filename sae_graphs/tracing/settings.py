"""`TraceSettings`: what of a prompt is corrupted, how, and what is restored. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sae_graphs.errors import SaeGraphsError, quoted

SweepName = Literal["state", "mlp", "attention", "state-mlp-severed", "state-attention-severed"]
SWEEPS: tuple[SweepName, ...] = (
    "state",
    "mlp",
    "attention",
    "state-mlp-severed",
    "state-attention-severed",
)
Corruption = Literal["noise", "interchange", "nearest", "blend", "norm"]
CORRUPTIONS: tuple[Corruption, ...] = ("noise", "interchange", "nearest", "blend", "norm")
WINDOW, WINDOW_OF = 10, 48  # blocks whose MLPs are restored at once, of so many (Meng et al. 2022)

_SIZE = re.compile(r"auto|\d+(\.\d*)?s?|\.\d+s?")


@dataclass(frozen=True)
class TraceSettings:
    """What a trace does.

    `sweeps` are what is restored, one cell a token and layer: `state` the input of each block,
    `mlp` and `attention` what these write in a window of blocks; `severed` sweeps restore a state
    while every later MLP, or attention, at that token is held at its corrupted value.

    `strength` is, for noise, its standard deviation: `"0.5"` absolute, `"3s"` in standard
    deviations of the model's token embeddings, `"auto"` the smallest at which the answer keeps at
    most a tenth of its clean probability. For `blend` it is the share of the way to another
    token's embedding (0 to 1), for `norm` the factor; strength 0, and a factor of 1, change
    nothing, exactly. `nearest` and `interchange` take none: it stays `"auto"`. That other token is
    the `rank`-th nearest. A number is taken for its text.

    The same `noise_runs` draws serve every cell; `seed` draws them. `other` is the prompt of an
    interchange. `window` None is ten blocks of 48, scaled to the depth.
    """

    sweeps: tuple[SweepName, ...] = ("state", "mlp", "attention")
    corruption: Corruption = "noise"
    strength: str = "auto"
    noise_runs: int = 10
    seed: int = 0
    window: int | None = None
    other: str | None = None
    rank: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.sweeps, str):
            object.__setattr__(self, "sweeps", (self.sweeps,))
        object.__setattr__(self, "sweeps", tuple(self.sweeps))
        if isinstance(self.strength, int | float) and not isinstance(self.strength, bool):
            object.__setattr__(self, "strength", format(self.strength, "f").rstrip("0"))
        if not self.sweeps or len(set(self.sweeps)) < len(self.sweeps):
            raise SaeGraphsError(f"sweeps are {self.sweeps!r}; expected some of {quoted(SWEEPS)}")
        for name in self.sweeps:
            if name not in SWEEPS:
                raise SaeGraphsError(f"sweep {name!r:.40}: expected some of {quoted(SWEEPS)}")
        if self.corruption not in CORRUPTIONS:
            raise SaeGraphsError(
                f"corruption {self.corruption!r:.40}: expected one of {quoted(CORRUPTIONS)}"
            )
        if not isinstance(self.strength, str) or not _SIZE.fullmatch(self.strength):
            raise SaeGraphsError(
                f"strength {self.strength!r:.40}: expected auto, a number such as 0.5, or 3s for "
                "three standard deviations of the embeddings"
            )
        if self.noise_runs < 1 or self.rank < 1:
            raise SaeGraphsError(
                f"noise_runs {self.noise_runs}, rank {self.rank}: expected 1 or more"
            )
        if self.window is not None and self.window < 1:
            raise SaeGraphsError(f"window is {self.window}; expected 1 block or more")
        if (self.corruption == "interchange") != (self.other is not None):
            raise SaeGraphsError("an interchange takes another prompt, and nothing else does")

    def window_of(self, n_blocks: int) -> int:
        """The blocks that are restored at once in a model of so many: at least one."""
        return self.window or max(1, round(WINDOW * n_blocks / WINDOW_OF))
