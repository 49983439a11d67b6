"""What validation found: plain records, from a token's change to the whole report.

Signs are those of the whole project: a change is *ablated minus clean*. Probabilities run from 0
to 1, logits and log-probabilities are in nats, Kullback-Leibler divergences in nats, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.late import view
from sae_graphs.significance import Spread

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["discovery", "test"]
NullKind = Literal["matched", "scaled", "directions", "shuffles"]
UnitKind = Literal["component", "path"]

LEAST_CHANGE = 0.01  # nats of the metric: shares of less are not given


@dataclass(frozen=True)
class TokenChange:
    """What happens to one next token: its probability, and its logit change in nats."""

    token: str
    token_id: int
    before: float
    after: float
    logit_change: float
    log_probability_change: float

    @property
    def points(self) -> float:
        """The change of the probability in percentage points."""
        return 100.0 * (self.after - self.before)

    @property
    def relative_change(self) -> float:
        """The change of the probability relative to the clean one; -1 where it is lost."""
        return self.after / self.before - 1.0 if self.before else math.inf


@dataclass(frozen=True)
class Match:
    """How well controls match a path: norms of what they take from the stream, over the path's.

    `low`, `middle` and `high` are the 5 %, 50 % and 95 % quantiles over the controls.
    """

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Null:
    """A null distribution: what other interventions of the same size do.

    `changes` are those of the score (see `PromptResult`), one per control, `kls` their divergences.
    `p` and `p_kl` are (1 + number at least as large) / (1 + K), of |change| and of the divergence.
    `distinct` tells how many different controls there are among them, and `match` how well they
    match the path. `narrowest` is the number of sets in the layer that allows fewest: if that
    layer alone does it all, no p below 1 / (1 + narrowest) can be earned, whatever K. Where the
    null cannot differ, `refused` says why, and there are no numbers.
    """

    kind: NullKind
    changes: tuple[float, ...] = ()
    kls: tuple[float, ...] = ()
    p: float | None = None
    p_kl: float | None = None
    distinct: int | None = None
    narrowest: int | None = None
    match: Match | None = None
    refused: str | None = None

    @property
    def median_change(self) -> float | None:
        """The median |change| of the score."""
        return median(abs(value) for value in self.changes) if self.changes else None


@dataclass(frozen=True)
class FeatureZero:
    """The method's source's control: feature 0 of the same layers, `active` of `n` active."""

    n: int
    active: int
    change: float
    kl: float


@dataclass(frozen=True)
class PromptResult:
    """A path ablated in one prompt, beside its controls.

    `score` is the clean value of what is tested: the target's log-odds, or, with a contrast, the
    target's logit minus the contrast's, in nats (the target's probability in reports of before,
    see `ValidationReport.log_odds`); `change` is ablated minus clean. `active` of
    the path's features are active at the ablated positions. `top` are the clean next tokens,
    `lowered` and `raised` those whose probability changes most.
    """

    prompt: str
    role: Role
    tokens: tuple[str, ...]
    active: int
    target: TokenChange
    rank_before: int
    rank_after: int
    kl: float
    score: float
    change: float
    top: tuple[TokenChange, ...]
    lowered: tuple[TokenChange, ...]
    raised: tuple[TokenChange, ...]
    nulls: tuple[Null, ...] = ()
    feature_zero: FeatureZero | None = None
    contrast: TokenChange | None = None

    def null(self, kind: NullKind) -> Null | None:
        """The null distribution of that kind."""
        return next((null for null in self.nulls if null.kind == kind), None)


@dataclass(frozen=True)
class Tested:
    """One path's numbers over the prompts that decide: those of `role`.

    `change` is the mean |change| of the score, `signed` with its sign, `low` to `high` its 95 %
    bootstrap interval where there are several prompts. The others speak of the `n_controlled`
    prompts that have matched controls: `p` is that of the prompt, or twice the mean over prompts,
    `q` the same after Benjamini-Hochberg over all paths tested, `control_median` the mean over
    prompts of the controls' median |change|, and `ratio` the mean |change| there over it (None
    where it is 0).
    """

    role: Role
    n_prompts: int
    change: float
    signed: float
    low: float | None
    high: float | None
    p: float | None
    q: float | None
    control_median: float | None
    ratio: float | None
    n_controlled: int = 1


@dataclass(frozen=True)
class EdgeMediation:
    """How much of what the source does to the metric flows through this edge's target alone.

    In nats of the metric (see `Mediation`): `total` with everything free to change, `mediated`
    with only the target of the next layer's features free.
    """

    source: FeatureId
    target: FeatureId
    effect: float
    total: float
    mediated: float

    @property
    def fraction(self) -> float | None:
        """`mediated / total`; None where the source does next to nothing."""
        return _share(self.mediated, self.total)


@dataclass(frozen=True)
class Mediation:
    """Path patching, minimality and interaction, in nats of the metric.

    The metric is the target's logit minus the contrast's, without one the likeliest other token's.
    `total`: its sources (features that none of its edges reaches) ablated, everything else free;
    `mediated`: only the path's features free, all others held clean. `joint`: all of the path
    ablated together; `without` the same with one feature left out; `singles` each feature alone.
    """

    edges: tuple[EdgeMediation, ...]
    total: float
    mediated: float
    joint: float
    without: Mapping[FeatureId, float]
    singles: Mapping[FeatureId, float]

    @property
    def fraction(self) -> float | None:
        """`mediated / total` of the whole path."""
        return _share(self.mediated, self.total)

    @property
    def interaction(self) -> float:
        """Joint minus the sum of singles: 0 where the features act independently."""
        return self.joint - math.fsum(self.singles.values())

    def needed(self, feature: FeatureId) -> float | None:
        """The share of the joint change that is gone when this feature is left in place."""
        return _share(self.joint - self.without[feature], self.joint)


@dataclass(frozen=True)
class Kept:
    """The metric in nats, and the target's probability, under one keep-only intervention."""

    metric: float
    probability: float


@dataclass(frozen=True)
class KeepOnly:
    """How much of the clean behaviour is left where only the path's features stay.

    Ablated are all other active features of SAE layers `first` to `last`, those that the path
    spans. `clean`: nothing; `kept`: all but the path; `none`: all; `complement`: the path alone.
    `_bare`: without the SAEs' errors as well; `all_bare` keeps every feature, only errors go.
    """

    first: str
    last: str
    clean: Kept
    kept: Kept
    none: Kept
    complement: Kept
    all_bare: Kept
    kept_bare: Kept
    none_bare: Kept

    @property
    def faithfulness(self) -> float | None:
        """`(kept - none) / (clean - none)`: 1 where the path alone does it all."""
        return _share(self.kept.metric - self.none.metric, self.clean.metric - self.none.metric)

    @property
    def completeness(self) -> float | None:
        """`(complement - none) / (clean - none)`: 0 where nothing but the path does it."""
        above = self.complement.metric - self.none.metric
        return _share(above, self.clean.metric - self.none.metric)


@dataclass(frozen=True)
class Curve:
    """A response curve: `responses` of `effect` where the cause is multiplied by `coefficients`.

    `cause` and `effect` are words for it, `unit` is that of the responses. Coefficient 1 is clean.
    `slope` is that of the least-squares line, `gradient` the derivative at 1; `r_squared` how
    linear it is; `largest_jump` the largest step between neighbouring coefficients, as a share of
    the whole range (1 / (number of steps) on a straight line).
    """

    cause: str
    effect: str
    unit: str
    coefficients: tuple[float, ...]
    responses: tuple[float, ...]
    r_squared: float | None
    slope: float
    gradient: float
    largest_jump: float
    jump_at: float

    def _repr_svg_(self) -> str:
        drawn: str = view("curve_svg")(self)
        return drawn

    def plot(self) -> Any:
        """The plot, which a notebook shows; `str` of it is the SVG."""
        return view("curve_picture")(self)


@dataclass(frozen=True)
class Background:
    """A path ablated in random snippets of a corpus: divergences in nats, beside controls'.

    `active`: snippets where some feature of the path is active; `inactive`: the others.
    """

    active: Spread
    inactive: Spread
    everywhere: Spread
    controls_active: Spread
    controls_everywhere: Spread


@dataclass(frozen=True)
class UnitReport:
    """One component of the graph, or one of its paths, and all that was found of it.

    `name` is `Graph 1` or `Graph 1, path 2`. The parts that were not asked for are None.
    `kinds` are changes of the metric (see `Mediation`) under zero, mean and resample ablation.
    """

    name: str
    kind: UnitKind
    component: int
    features: tuple[FeatureId, ...]
    edges: tuple[tuple[FeatureId, FeatureId], ...]
    results: tuple[PromptResult, ...]
    tested: Tested | None = None
    mediation: Mediation | None = None
    keep_only: KeepOnly | None = None
    curves: tuple[Curve, ...] = ()
    kinds: Mapping[str, float] | None = None
    background: Background | None = None

    def __post_init__(self) -> None:
        if not self.features:
            raise SaeGraphsError(f"{self.name} has no features; nothing can be ablated")

    @property
    def of_discovery(self) -> PromptResult:
        """The result in the first prompt."""
        return self.results[0]

    @property
    def verdict(self) -> str:
        """`supported`, `norm only`, `not distinguishable`, `no effect`, `inactive` or
        `no controls`: what the numbers allow us to say."""
        return str(view("unit_kind")(self))

    @property
    def supported(self) -> bool:
        """True where the claim that the unit matters is supported."""
        return self.verdict == "supported"

    @property
    def reason(self) -> str:
        """What decides the verdict, in one line."""
        words: str = view("unit_reason")(self)
        return words


@dataclass(frozen=True)
class Noise:
    """How the divergence grows with the number of random features ablated in snippets."""

    n_features: int
    kl: Spread


@dataclass(frozen=True, repr=False)
class ValidationReport:
    """What `validate` found of a graph. `settings` are those of the validation.

    `agreement` are Spearman rank correlations over paths between kinds of ablation, such as
    `zero, mean`. `corpus` says what the snippets were drawn from. `target` is None where it is each
    prompt's likeliest next token, and these differ. `log_odds` tells that these are the scores.
    """

    model: str
    saes: str
    prompt: str
    target: str | None
    contrast: str | None
    discovery: tuple[str, ...]
    test: tuple[str, ...]
    settings: Mapping[str, Any]
    units: tuple[UnitReport, ...]
    noise: tuple[Noise, ...] = ()
    curves: tuple[Curve, ...] = ()
    agreement: Mapping[str, float | None] | None = None
    corpus: str | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    log_odds: bool = False

    @property
    def in_nats(self) -> bool:
        """Whether scores are in nats; in old reports without a contrast they are probabilities."""
        return self.log_odds or self.contrast is not None

    def __repr__(self) -> str:
        n_prompts = len(self.test) or len(self.discovery)
        return f"ValidationReport({self.prompt!r}: {len(self.units)} tested in {n_prompts} prompts)"

    def to_pandas(self) -> pd.DataFrame:
        """One row a component or path: its verdict and reason, the mean score before and after, its
        effect (ablated minus clean), p, q, times the controls' median, the share of what its
        sources do that it mediates. `sg.verdicts` has a table of many reports."""
        found: pd.DataFrame = view("report_table")(self)
        return found

    def _repr_html_(self) -> str:
        shown: str = view("report_html")(self)
        return shown


def _share(part: float, whole: float) -> float | None:
    """A share of a change in nats; None where that is too small for shares to mean anything."""
    return part / whole if abs(whole) >= LEAST_CHANGE else None
