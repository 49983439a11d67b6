"""What validation found of an answer graph: plain records, without torch.

Scores are those of the answer, in nats: its log-odds, or with a contrast the difference of two
logits. A change is *ablated minus clean*. Probabilities stand beside, and nothing is tested on one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.late import view
from sae_graphs.validation.evidence import Match

if TYPE_CHECKING:
    import pandas as pd

UnitKind = Literal["graph", "path"]
Verdict = Literal["supported", "not supported", "cannot be said"]
NullKind = Literal["matched", "scaled", "directions", "shuffles"]


@dataclass(frozen=True)
class Score:
    """The answer's score, in nats, and its probability, 0 to 1."""

    nats: float
    probability: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.nats) or not 0 <= self.probability <= 1:
            raise SaeGraphsError(f"a score of {self.nats} nats, probability {self.probability}")


@dataclass(frozen=True)
class Null:
    """A null distribution: the answer's score, in nats, after each of its interventions.

    `p` is (1 + how many do at least as much) / (1 + all of them), one-sided. Of matched sets
    `match` tells the norm of what they take from the stream, over the unit's, and `narrowest` how
    many sets there are to draw at the layer and token that allows the fewest: if that place alone
    does it all, no p below 1 / (1 + narrowest) is earned, whatever their number. Where there can be
    no fair controls, `refused` says why.
    """

    kind: NullKind
    scores: tuple[float, ...] = ()
    p: float | None = None
    match: Match | None = None
    narrowest: int | None = None
    refused: str | None = None

    def __post_init__(self) -> None:
        if bool(self.scores) == (self.refused is not None) or bool(self.scores) == (self.p is None):
            raise SaeGraphsError(f"{self.kind} controls have scores and a p, or were refused")


@dataclass(frozen=True)
class KeepOnly:
    """The score where all other rarely-on active features are ablated, beside that of matched
    sets kept in the same way."""

    score: Score
    null: Null


@dataclass(frozen=True)
class Flow:
    """What the ablation of a path's first feature does to the answer, in nats: `total` with
    everything free to change, `along` the path alone (path patching)."""

    along: float
    total: float

    @property
    def share(self) -> float | None:
        """How much of it flows along the path; None where the feature does nothing."""
        return self.along / self.total if self.total else None


@dataclass(frozen=True)
class Single:
    """One feature of a unit, changes in nats: ablated `alone`; and all of the unit but it."""

    feature: FeatureId
    alone: float
    without: float


@dataclass(frozen=True)
class Outcome:
    """What the numbers of a unit allow us to say; None where that cannot be said, or is not asked.

    - `necessary`: ablating it lowers the score, more than controls do;
    - `sufficient`, of a graph: keeping it alone leaves a higher score than keeping controls;
    - `mediates`, of a path: what its first feature does flows along it.

    `q` is the p against matched sets, corrected for all units. `reason` is what decides, in one
    line, `words` the outcomes in two sentences at most.
    """

    q: float | None = None
    necessary: bool | None = None
    sufficient: bool | None = None
    mediates: bool | None = None
    reason: str = ""
    words: str = ""


NOT_JUDGED = Outcome()


@dataclass(frozen=True)
class AnswerUnit:
    """A graph, or one of its paths, and what was found of it.

    `ablated` is the score with all its features ablated together. `keep_only` is measured of the
    graph, `flow` of paths, `singles` in the full report. In another prompt than the graph's own
    there is a `flow` only where each feature of the path stands at the same position; `features`
    are named by their places in the graph's prompt, without a position where they are ablated at
    every token, and so many as are not active are left out: `inactive`.
    """

    name: str
    kind: UnitKind
    features: tuple[FeatureId, ...]
    ablated: Score
    nulls: tuple[Null, ...]
    keep_only: KeepOnly | None = None
    flow: Flow | None = None
    singles: tuple[Single, ...] = ()
    outcome: Outcome = NOT_JUDGED
    inactive: int = 0

    def __post_init__(self) -> None:
        if not self.features:
            raise SaeGraphsError(f"{self.name} has no features; nothing can be ablated")
        is_graph = self.kind == "graph"
        if (self.keep_only is not None) != is_graph or (is_graph and self.flow is not None):
            raise SaeGraphsError(f"{self.name}: a graph is kept alone, and a path is patched")

    def null(self, kind: NullKind) -> Null | None:
        """The null distribution of that kind."""
        return next((null for null in self.nulls if null.kind == kind), None)

    @property
    def necessary(self) -> bool | None:
        """Whether ablating it lowers the score, more than controls do."""
        return self.outcome.necessary

    @property
    def sufficient(self) -> bool | None:
        """Whether it alone keeps the score up, more than controls do; None of a path."""
        return self.outcome.sufficient

    @property
    def mediates(self) -> bool | None:
        """Whether what its first feature does flows along it; None of a graph."""
        return self.outcome.mediates

    @property
    def supported(self) -> bool:
        """True where it is necessary and, if it is a path, mediates."""
        return bool(self.necessary and (self.kind == "graph" or self.mediates))

    @property
    def verdict(self) -> Verdict:
        """`supported`, `not supported`, or `cannot be said` where what would decide is missing."""
        if self.supported:
            return "supported"
        asked = (self.necessary,) if self.kind == "graph" else (self.necessary, self.mediates)
        return "not supported" if False in asked else "cannot be said"

    @property
    def reason(self) -> str:
        """What decides whether it is supported, in one line."""
        return self.outcome.reason

    @property
    def words(self) -> str:
        """The outcomes in two sentences at most."""
        return self.outcome.words


@dataclass(frozen=True, repr=False)
class AnswerReport:
    """What `validate` found of an answer graph, in its own prompt, and in others (`tests`).

    `clean` is the score with nothing ablated, `without_any` that with all rarely-on active features
    ablated: what lies between is what is lost with them. `intervention` says what ablation puts in
    a feature's place, `settings` are those of the validation.
    `discovery` are the prompts that the graph was found on, where these are several. Each of the
    `tests` is of the same graph in another prompt, about that prompt's own answer; `aligned` says
    there which of its tokens were taken for those of the graph's prompt.
    """

    model: str
    saes: str
    prompt: str
    tokens: tuple[str, ...]
    target: str
    contrast: str | None
    intervention: str
    clean: Score
    without_any: Score
    settings: Mapping[str, Any]
    units: tuple[AnswerUnit, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    discovery: tuple[str, ...] = ()
    aligned: str | None = None
    tests: tuple[AnswerReport, ...] = ()

    def lost(self, unit: AnswerUnit) -> float | None:
        """Of what is lost with all rarely-on features, the share that is lost with the unit."""
        return self._share(self.clean.nats - unit.ablated.nats)

    def left(self, unit: AnswerUnit) -> float | None:
        """Of the same, the share that is left with the unit alone; None of a path."""
        if unit.keep_only is None:
            return None
        return self._share(unit.keep_only.score.nats - self.without_any.nats)

    def _share(self, part: float) -> float | None:
        whole = self.clean.nats - self.without_any.nats
        return part / whole if whole else None

    def __repr__(self) -> str:
        supported = sum(unit.supported for unit in self.units)
        return f"AnswerReport({self.prompt!r}: {supported} of {len(self.units)} supported)"

    def to_pandas(self) -> pd.DataFrame:
        """One row for the graph and each path: its verdict and reason, the outcomes, the score
        before and after and the effect (ablated minus clean) in nats, the shares lost, left and
        mediated, p against matched controls, q, and the larger p against nulls of its norm.
        `sg.verdicts` has a table of many reports."""
        found: pd.DataFrame = view("answer_report_table")(self)
        return found

    def _repr_html_(self) -> str:
        shown: str = view("answer_report_html")(self)
        return shown
