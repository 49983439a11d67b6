"""`TraceSettings`: what of a prompt is corrupted, how, and what is restored. Torch-free."""

from __future__ import annotations

import math
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

_SIZE = re.compile(r"auto|(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?s?")
_SIZES: dict[Corruption, tuple[float, float, str]] = {
    "norm": (0.0, math.inf, "the factor of the embeddings' norm, such as 0.5"),
    "blend": (0.0, 1.0, "the share of the way to another token's embedding, 0 to 1"),
}


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
            object.__setattr__(self, "strength", f"{self.strength:.12g}")
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
        for field, least in (("noise_runs", 1), ("rank", 1), ("window", 1), ("seed", 0)):
            value = getattr(self, field)
            if field == "window" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
                raise SaeGraphsError(f"{field} is {value!r:.40}; expected {least} or more, whole")
        self._check_strength()
        if (self.corruption == "interchange") != (self.other is not None):
            raise SaeGraphsError("an interchange takes another prompt, and nothing else does")

    def _check_strength(self) -> None:
        """Raise where the corruption does not take the strength."""
        if self.corruption == "noise":
            return
        if self.corruption not in _SIZES:
            if self.strength != "auto":
                raise SaeGraphsError(
                    f"strength {self.strength!r} (--noise) with corruption {self.corruption}, "
                    "which takes none; leave it out, or choose blend"
                )
            return
        least, most, expected = _SIZES[self.corruption]
        text = self.strength
        value = math.nan if text == "auto" or text.endswith("s") else float(text)
        if not least <= value <= most:
            raise SaeGraphsError(
                f"strength {text!r} (--noise) with corruption {self.corruption}; expected "
                f"{expected}"
            )

    def window_of(self, n_blocks: int) -> int:
        """The blocks that are restored at once in a model of so many: at least one."""
        return self.window or max(1, round(WINDOW * n_blocks / WINDOW_OF))
