"""`EditSettings`: where a fact is written, and how its key and value are found. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sae_graphs.errors import SaeGraphsError, quoted

Token = Literal["subject-first", "subject-last", "after-subject", "last"]
TOKENS: tuple[Token, ...] = get_args(Token)
Method = Literal["rome", "rome-mixed-keys"]
METHODS: tuple[Method, ...] = get_args(Method)
FINE_TUNING = "fine-tuning"
WAYS = (*METHODS, FINE_TUNING)
# One so many-th of the way up: found by trial. ROME's own layers are 17 of 48 and 5 of 28.
WRITTEN_AT = 8


@dataclass(frozen=True)
class Tuning:
    """How far fine-tuning moves an entry of the matrix, and how fast: in its root mean square.

    ROME's FT+L has an absolute bound, 5e-4, and rate, 5e-4, in 25 steps, for a model of its own.
    """

    bound: float = 0.2
    rate: float = 0.02

    def __post_init__(self) -> None:
        for name in ("bound", "rate"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value > 0):
                raise SaeGraphsError(
                    f"the {name} of fine-tuning is {value!r:.40}; expected a number, more than 0"
                )


@dataclass(frozen=True)
class EditSettings:
    """How a fact is written into one MLP.

    `layer` is the block whose MLP is changed, None for one an eighth of the way up; `token` the
    token whose key it is changed at. `method` is `rome` with the one key in both places, or
    `rome-mixed-keys`, which divides by the key of the prompt without a prefix.

    The key is a mean over `prefixes` pieces of text before the prompt, and the prompt alone; `seed`
    draws them. The value is found in at most `steps` steps of Adam, whose learning rate is `rate`
    times the root mean square of what the MLP writes there: until the loss, the target's mean
    surprisal plus `kl` times what "{subject} is a" says otherwise, both in nats, is below `stop`.
    What is added to the MLP's output stays shorter than `bound` times that output.

    The covariance is that of `tokens` tokens of reference text, as far as there are so many;
    `ridge` times its mean diagonal is added to the diagonal, by default only where its rank is
    short.
    """

    layer: int | None = None
    token: Token = "subject-last"
    method: Method = "rome"
    prefixes: int = 8
    steps: int = 30
    rate: float = 0.03
    stop: float = 0.03
    kl: float = 0.0625
    bound: float = 4.0
    tokens: int = 100_000
    ridge: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("token", TOKENS), ("method", METHODS)):
            if getattr(self, name) not in known:
                raise SaeGraphsError(
                    f"{name} {getattr(self, name)!r:.40}: expected one of {quoted(known)}"
                )
        for name, least in (("layer", 0), ("prefixes", 0), ("steps", 1), ("tokens", 2)):
            self._check_whole(name, least)
        self._check_whole("seed", 0)
        for name in ("rate", "bound", "kl", "stop", "ridge"):
            value = getattr(self, name)
            if name == "ridge" and value is None:
                continue
            may_be_zero = name in ("kl", "stop", "ridge")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            fits = number and math.isfinite(value) and (value > 0 or (may_be_zero and value == 0))
            if not fits:
                more = "0 or more" if may_be_zero else "more than 0"
                raise SaeGraphsError(f"{name} is {value!r:.40}; expected a number, {more}")

    def _check_whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if name == "layer" and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
            raise SaeGraphsError(f"{name} is {value!r:.40}; expected {least} or more, whole")

    def layer_of(self, n_blocks: int) -> int:
        """The block to write into, in a model of so many.

        >>> EditSettings().layer_of(6), EditSettings(layer=3).layer_of(6)
        (0, 3)
        """
        if self.layer is None:
            return n_blocks // WRITTEN_AT
        if self.layer >= n_blocks:
            raise SaeGraphsError(
                f"there is no layer {self.layer}; expected a block of the model, 0 to "
                f"{n_blocks - 1}"
            )
        return self.layer
