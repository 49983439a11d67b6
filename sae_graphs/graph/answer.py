"""What a run found of its answer: the score, what was measured, how much the kept ones account for.

Torch-free data. Effects are ablated minus clean, in nats of the score: below 0 speaks for the
answer. The score is the answer's log-odds, or the difference of its logit and the contrast's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.what_if import WhatIf

DENSE = 0.3  # share of the reference tokens: a feature that is on at so many is a dense one
MEDIATES = 0.5, 1.5  # the shares of a source's effect that speak for a path along which they flow


@dataclass(frozen=True)
class Coverage:
    """How much of the answer the kept features account for together, in nats of its score.

    Scores after reference ablation of features at their tokens, all at once: `without_kept` of
    those that the graph keeps, `only_kept` of all rarely-on active ones but these, `without_any` of
    all of these. `random_without` and `random_only` are the same for as many others of the same
    layers and tokens, at the median of `draws` random sets; None where there were too few.
    """

    clean: float
    without_kept: float
    only_kept: float
    without_any: float
    draws: int = 0
    random_without: float | None = None
    random_only: float | None = None

    def __post_init__(self) -> None:
        _check_finite(self)

    @property
    def lost(self) -> float | None:
        """Of what is lost with all of them, the share that is lost with the kept: necessity."""
        return self._share(self.clean - self.without_kept)

    @property
    def left(self) -> float | None:
        """Of the same, the share that is left with the kept alone: sufficiency."""
        return self._share(self.only_kept - self.without_any)

    @property
    def random_lost(self) -> float | None:
        """`lost` of random features of the same layers and tokens."""
        return (
            None if self.random_without is None else self._share(self.clean - self.random_without)
        )

    @property
    def random_left(self) -> float | None:
        """`left` of the same."""
        return (
            None if self.random_only is None else self._share(self.random_only - self.without_any)
        )

    def _share(self, part: float) -> float | None:
        whole = self.clean - self.without_any
        return part / whole if whole else None


@dataclass(frozen=True)
class FoldedFeature:
    """A dense feature at a token, left out of the graph: on at a `density` share of any text."""

    feature: str
    effect_on_answer: float
    density: float

    def __post_init__(self) -> None:
        _check_finite(self)


@dataclass(frozen=True)
class AnswerPath:
    """A chain of features to the answer.

    `flow` is what the ablation of the first does to the answer along the chain alone (path
    patching), `total` what it does altogether.
    """

    features: tuple[str, ...]
    flow: float
    total: float

    def __post_init__(self) -> None:
        _check_finite(self)
        if not self.features:
            raise SaeGraphsError("a path to the answer has at least one feature")

    @property
    def share(self) -> float:
        """How much of the first feature's effect flows along the path."""
        return self.flow / self.total if self.total else 0.0


@dataclass(frozen=True)
class AnswerRecord:
    """The answer of a run: its first output token.

    `score` is clean, in nats. Of `measured` features at tokens,
    `exact` ones were ablated, the others estimated by gradients and passed over. `dense` are the
    strongest of those left out, `paths` those that carry most, `stranded` kept features from which
    no edge leads on. A graph of other nodes than its run's, drawn from saved effects, has neither
    `coverage` nor `paths`: these need the model. `what_if` is what the next token would be without
    drawn features; None where a run did not measure it.
    """

    score: float
    measured: int
    exact: int
    coverage: Coverage | None
    dense: tuple[FoldedFeature, ...] = ()
    paths: tuple[AnswerPath, ...] = ()
    stranded: tuple[str, ...] = ()
    missed: float | None = None
    what_if: WhatIf | None = None

    def __post_init__(self) -> None:
        _check_finite(self)


def _check_finite(record: Any) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SaeGraphsError(f"{field.name} of the answer is not finite: {value}")
