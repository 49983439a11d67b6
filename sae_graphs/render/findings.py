"""What validation found of parts of a graph, in the words and numbers that a page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sae_graphs.graph.records import FeatureId

Ends = tuple[FeatureId, FeatureId]


@dataclass(frozen=True)
class Finding:
    """A component or a path that was tested: `verdict` in a word or two, `words` in full.

    `needed` is, for each feature, the share of the whole change that is gone where it alone is left
    in place; `carried`, for each arrow, the share of what its source does that flows through it.
    Both 1 for all of it; empty where they were not measured. `anchor` leads to it in the report.
    """

    name: str
    kind: Literal["component", "path"]
    component: int
    features: tuple[FeatureId, ...]
    verdict: str
    supported: bool
    words: str
    needed: Mapping[FeatureId, float] = field(default_factory=dict)
    carried: Mapping[Ends, float] = field(default_factory=dict)
    anchor: str = ""
