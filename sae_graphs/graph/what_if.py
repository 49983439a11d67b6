"""What the answer would be without some features: the next token's distribution, measured.

Torch-free data. Each set of features at tokens has its own passes through the model; no two are
ever added up.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId


@dataclass(frozen=True)
class Outcome:
    """What comes of ablating these features at their tokens, all together, as the run ablates.

    `score` is the answer's, in nats; `probabilities` are those of `WhatIf.tokens`.
    """

    features: tuple[str, ...]
    score: float
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.features or len(set(self.features)) < len(self.features):
            raise SaeGraphsError(f"an outcome is of features, each once, got {self.features!r:.60}")
        for name in self.features:
            FeatureId.parse(name)
        if not math.isfinite(self.score):
            raise SaeGraphsError(f"the score without {self.features[0]} is not finite")


@dataclass(frozen=True)
class WhatIf:
    """Some next tokens, how likely they are, and how likely without features: `outcomes`.

    `tokens` are the likeliest of the clean run, the answer, what it is compared with, and what is
    likeliest without any of the features; `clean` are their probabilities, 0 to 1.
    """

    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    clean: tuple[float, ...]
    outcomes: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        for name, values in (
            ("token_ids", self.token_ids),
            ("clean", self.clean),
            *((f"the outcome of {it.features[0]}", it.probabilities) for it in self.outcomes),
        ):
            if len(values) != len(self.tokens):
                raise SaeGraphsError(f"{name}: {len(values)} numbers of {len(self.tokens)} tokens")
        every = (self.clean, *(outcome.probabilities for outcome in self.outcomes))
        if not all(0 <= value <= 1 for values in every for value in values):
            raise SaeGraphsError("a probability of a next token is not between 0 and 1")

    def of(self, features: Collection[str]) -> WhatIf:
        """The outcomes of sets of these features alone."""
        kept = tuple(it for it in self.outcomes if set(it.features) <= set(features))
        return replace(self, outcomes=kept)
