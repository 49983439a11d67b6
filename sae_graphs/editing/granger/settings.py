"""`GrangerSettings`: how series are set beside each other, and tested. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sae_graphs.errors import SaeGraphsError, quoted

Detrend = Literal["linear", "constant"]
DETRENDS: tuple[Detrend, ...] = ("linear", "constant")
Regression = Literal["linear", "nonlinear"]
KINDS: tuple[Regression, ...] = ("linear", "nonlinear")
LEAST_TEXTS = 8  # of a panel: with fewer, too few swaps differ
# Whole numbers, and the least that each may be.
_COUNTS = {
    "features": 1,
    "max_lag": 1,
    "permutations": 19,
    "least_on": 1,
    "length": 8,
    "together": 2,
}


@dataclass(frozen=True)
class GrangerSettings:
    """What a Granger test does.

    `features` is how many of each layer's features are taken where no pair is named: those that are
    on most often, dense ones aside. `lag` None is chosen once for all pairs, by BIC, up to
    `max_lag`. With `same_token`, a source that stands in an earlier layer may predict at lag 0, the
    same token: the order of layers gives the direction.

    Every text keeps a mean of its own and, where `detrend` is `linear`, a slope over its tokens.
    `test` is `linear` least squares, or `nonlinear`: random Fourier features of all pasts beside
    them. `given` names further series that both models have; `multivariate` gives all others that
    are tested: a vector autoregression.

    p-values are calibrated by `permutations` of the source's series between texts of (nearly)
    one length, `together` of which are cut to the shortest, and by as many turned signs of texts.
    `level` is that of q. A feature must be on at `least_on` tokens to be tested. Of each text the
    first `length` tokens are read.
    """

    features: int = 4
    lag: int | None = None
    max_lag: int = 5
    same_token: bool = True
    detrend: Detrend = "linear"
    test: Regression = "linear"
    given: tuple[str, ...] = ()
    multivariate: bool = False
    permutations: int = 999
    level: float = 0.05
    least_on: int = 30
    length: int = 128
    together: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", tuple(map(str, each(self.given, "given"))))
        for name, least in _COUNTS.items():
            _check_count(name, getattr(self, name), least)
        if self.lag is not None:
            _check_count("lag", self.lag, 1)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SaeGraphsError(f"seed is {self.seed!r:.40}; expected a whole number, 0 or more")
        if self.detrend not in DETRENDS:
            raise SaeGraphsError(
                f"detrend is {self.detrend!r:.40}; expected one of {quoted(DETRENDS)}"
            )
        if self.test not in KINDS:
            raise SaeGraphsError(f"test is {self.test!r:.40}; expected one of {quoted(KINDS)}")
        if not isinstance(self.level, int | float) or not 0 < self.level < 1:
            raise SaeGraphsError(f"level is {self.level!r:.40}; expected a number between 0 and 1")


def each(names: Any, what: str) -> tuple[Any, ...]:
    """One name, or several, as several; raises `SaeGraphsError` where they are neither."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        names = (names,)
    found = tuple(names)
    for it in found:
        if not isinstance(it, str) and not hasattr(it, "layer"):
            raise SaeGraphsError(f"{what}: {it!r:.40} is no name of a series, such as 2.232")
    return found


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SaeGraphsError(f"{name} is {value!r:.40}; expected a whole number, {least} or more")
