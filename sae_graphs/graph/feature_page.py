"""What Neuronpedia says of a feature: the small types that a node and the cache hold.

Whoever makes them has checked what came over the network; here they check themselves once more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sae_graphs.errors import SaeGraphsError
from sae_graphs.schema import rebuilt

Status = Literal["found", "missing", "unavailable"]


@dataclass(frozen=True)
class LogitToken:
    """A token that a feature's direction promotes or suppresses, straight through the unembedding.

    `weight` is Neuronpedia's: the feature's decoder direction times the token's unembedding, per
    unit of activation, positive where the feature promotes the token. Unlike a `TokenEffect` it is
    of no prompt, and not measured here.
    """

    token: str
    weight: float

    def __post_init__(self) -> None:
        if not isinstance(self.token, str) or not _is_number(self.weight):
            raise SaeGraphsError(f"not a token and its weight: {self.token!r:.60}, {self.weight!r}")


@dataclass(frozen=True)
class FeaturePage:
    """A feature's page on Neuronpedia.

    `found` pages have what the service knows: `explanation` in words (None where there is none),
    `density`, the fraction of tokens on which the feature is active, 0 to 1, `max_activation`, the
    largest seen there, in activation units, and the tokens at either end of its direct effect on
    the logits, strongest first. `missing`: the service has no such feature; `unavailable`: it
    could not be asked. `gave_contexts` says that the node's contexts are the page's.
    """

    status: Status
    explanation: str | None = None
    density: float | None = None
    max_activation: float | None = None
    top_logits: tuple[LogitToken, ...] = ()
    bottom_logits: tuple[LogitToken, ...] = ()
    gave_contexts: bool = False

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise SaeGraphsError(
                f"a page is {self.status!r:.60}; expected one of {', '.join(get_args(Status))}"
            )
        said = (self.explanation, self.density, self.max_activation)
        if self.status != "found" and (said != (None,) * 3 or self.top_logits + self.bottom_logits):
            raise SaeGraphsError(f"a page that is {self.status} says nothing, got {said!r:.80}")
        if not isinstance(self.explanation, str | None) or type(self.gave_contexts) is not bool:
            raise SaeGraphsError(f"not an explanation: {self.explanation!r:.60}")
        for name, value in (("density", self.density), ("max_activation", self.max_activation)):
            if value is not None and not _is_number(value):
                raise SaeGraphsError(f"the {name} of a page is a number, got {value!r:.60}")
        if not 0 <= (self.density or 0.0) <= 1:
            raise SaeGraphsError(f"a density is a fraction, 0 to 1, got {self.density}")


MISSING, UNAVAILABLE = FeaturePage("missing"), FeaturePage("unavailable")


def page_from(values: Any) -> FeaturePage | None:
    """The inverse of `dataclasses.asdict`, None for None; `SaeGraphsError` where it is damaged."""
    page: FeaturePage | None = rebuilt(
        FeaturePage | None,
        values,
        "a page",
        remedy="ask again",
        may_lack=frozenset(),
        skips_unknown=True,
    )
    return page


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
