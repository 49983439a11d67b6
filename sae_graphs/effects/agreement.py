"""How far estimated effects are from exact ones: `Agreement`, and the records that hold it.

Nothing here knows torch. Effects have the units and signs of `Effects`; those that an array does
not list are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.effects.arrays import NOWHERE, Effects
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.late import view
from sae_graphs.schema import plain
from sae_graphs.significance import rank_correlation
from sae_graphs.words import percent

Verdict = Literal["safe", "rough", "not safe"]  # in order

WIDE = 10  # times k: the second, wider list of the strongest edges
LEADERS = 100  # edges whose ranks are compared by themselves
MISSES = 5  # edges listed as examples
SAFE_OVERLAP, ROUGH_OVERLAP = 0.9, 0.6  # of the exact k strongest edges, among the estimate's k


@dataclass(frozen=True)
class Miss:
    """An edge on which exact effect and estimate differ."""

    source: FeatureId
    target: FeatureId
    exact: float
    estimate: float

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}: {self.exact:+.4g}, estimated {self.estimate:+.4g}"


@dataclass(frozen=True)
class Agreement:
    """Exact effects and one method's estimates of them, in a layer pair or over all.

    - `n_exact` and `n_estimated` effects are not 0;
    - `rank_correlation` is Spearman's, of the signed effects, over those that either has, and
      `leaders_correlation` over the exact 100 strongest of each pair; None where it is undefined;
    - `overlap` is the share of the exact `k` strongest edges of each pair that are among the
      estimate's, `wide_overlap` that of the 10 k strongest; None where no effect is exact;
    - of the exact k strongest, `wrong_sign` have an estimate of the other sign, and `unseen` one
      of 0, as shares; `unseen_effect` is the share of all |exact effect| whose estimate is 0;
    - `worst` are the edges with the largest |estimate - exact|, `strongest_unseen` the strongest
      whose estimate is 0;
    - `seconds` the estimates took.
    """

    k: int
    n_exact: int
    n_estimated: int
    rank_correlation: float | None
    leaders_correlation: float | None
    overlap: float | None
    wide_overlap: float | None
    wrong_sign: float
    unseen: float
    unseen_effect: float
    worst: tuple[Miss, ...]
    strongest_unseen: tuple[Miss, ...]
    seconds: float
    verdict: Verdict


@dataclass(frozen=True)
class PairComparison:
    """One layer pair: how long exact effects took, and each method's agreement with them."""

    source: str
    target: str
    exact_seconds: float
    methods: Mapping[str, Agreement]


@dataclass(frozen=True)
class MethodComparison:
    """What `compare_methods` found on one prompt, by layer pair and over all of them.

    The verdict over all is the worst of the pairs'. `settings` are those of the exact run. Of an
    answer graph a pair is a layer and the answer, its edges are the effects on the answer, and
    over all the strongest are those of all layers.
    """

    model: str
    saes: str
    tokens: tuple[str, ...]
    read_position: int
    settings: Mapping[str, Any]
    steps: int
    pairs: tuple[PairComparison, ...]
    overall: Mapping[str, Agreement]

    def _repr_html_(self) -> str:
        shown: str = view("comparison_html")(self)
        return shown

    @property
    def of_answer(self) -> bool:
        """Whether effects on the answer are compared, not those of one layer on the next."""
        return self.settings.get("select") == "answer"

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The figures in words: the head, then a row for each layer pair and method, then all."""
        k = next(iter(self.overall.values())).k
        head = ("layers", "by", "correlation", f"same {k}", "wrong sign", "unseen", "verdict")
        pairs = [(f"{pair.source} → {pair.target}", pair.methods) for pair in self.pairs]
        rows: list[tuple[str, ...]] = [
            (
                layers,
                method,
                "" if figures.rank_correlation is None else f"{figures.rank_correlation:.2f}",
                "" if figures.overlap is None else percent(figures.overlap),
                percent(figures.wrong_sign),
                percent(figures.unseen),
                figures.verdict,
            )
            for layers, methods in [*pairs, ("all", self.overall)]
            for method, figures in methods.items()
        ]
        return head, rows

    @property
    def exact_seconds(self) -> float:
        """How long the exact effects of all layer pairs took."""
        return sum(pair.exact_seconds for pair in self.pairs)

    def with_verdict(self, method: str, verdict: Verdict) -> list[str]:
        """The layer pairs where a method has this verdict, such as `3 -> 4`."""
        return [
            f"{pair.source} -> {pair.target}"
            for pair in self.pairs
            if pair.methods[method].verdict == verdict
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values; features by their names."""
        return {**plain(self, {FeatureId: str}), "exact_seconds": self.exact_seconds}


class Aligned(NamedTuple):
    """Exact and estimated effects of the same edges, and which are the strongest by either."""

    edges: list[Effects]  # the ends, with the exact values: one block for each layer pair
    exact: NDArray[np.float64]  # [N]
    estimate: NDArray[np.float64]  # [N]
    top: NDArray[np.bool_]  # [2, N] among the k strongest: exact, estimated
    wide: NDArray[np.bool_]  # [2, N] among the 10 k strongest
    leaders: NDArray[np.bool_]  # [N] among the exact 100 strongest

    @classmethod
    def joined(cls, parts: Sequence[Aligned]) -> Aligned:
        """Several layer pairs as one."""
        return cls(
            [block for part in parts for block in part.edges],
            *(np.concatenate(held, axis=-1) for held in zip(*(p[1:] for p in parts), strict=True)),
        )

    def ranked(self, k: int) -> Aligned:
        """The same, with the strongest of them all, not of each part."""
        values = self.exact, self.estimate
        return self._replace(
            top=np.stack([_strongest(held, k) for held in values]),
            wide=np.stack([_strongest(held, WIDE * k) for held in values]),
            leaders=_strongest(self.exact, LEADERS),
        )


def aligned(exact: Effects, estimated: Effects, k: int) -> Aligned:
    """The effects of one layer pair that either has, ordered by source, then target."""
    positions = [
        block.arrays[name]
        for block in (exact, estimated)
        for name in ("source_positions", "target_positions")
    ]
    places = 2 + max((int(held.max(initial=NOWHERE)) for held in positions), default=0)
    width = 1 + max(int(block.targets.max(initial=0)) for block in (exact, estimated))

    def codes(block: Effects) -> NDArray[np.int64]:
        code = block.sources.astype(np.int64) * places + block.source_positions + 1
        code = code * width + block.targets
        return code * places + block.target_positions + 1

    ours, theirs = codes(exact), codes(estimated)
    every, first = np.unique(np.concatenate([ours, theirs]), return_index=True)
    values = np.zeros((2, len(every)))
    values[0, np.searchsorted(every, ours)] = exact.values
    values[1, np.searchsorted(every, theirs)] = estimated.values
    edges = Effects.joined([exact, estimated]).chosen(first)
    return Aligned(
        [edges],
        values[0],
        values[1],
        np.stack([_strongest(held, k) for held in values]),
        np.stack([_strongest(held, WIDE * k) for held in values]),
        _strongest(values[0], LEADERS),
    )


def agreement(
    found: Aligned, k: int, labels: Sequence[str], seconds: float, target: FeatureId | None = None
) -> Agreement:
    """The figures of some aligned effects; `labels` are those of the layers by depth.

    Targets are features of the next layer, or all the same one.
    """
    exact, estimate = found.exact, found.estimate
    top, unseen = found.top[0], (estimate == 0) & (exact != 0)
    n_top, total = max(1, int(top.sum())), float(np.abs(exact).sum())
    overlap = _share(found.top)
    wrong_sign = float((top & (exact * estimate < 0)).sum() / n_top)
    silent = float((top & unseen).sum() / n_top)

    def misses(sizes: NDArray[np.float64]) -> tuple[Miss, ...]:
        order = np.argsort(-sizes, kind="stable")[:MISSES]
        return tuple(_miss(found, int(i), labels, target) for i in order if sizes[i] > 0)

    return Agreement(
        k=k,
        n_exact=int((exact != 0).sum()),
        n_estimated=int((estimate != 0).sum()),
        rank_correlation=rank_correlation(exact, estimate, fewest=2),
        leaders_correlation=rank_correlation(
            exact[found.leaders], estimate[found.leaders], fewest=2
        ),
        overlap=overlap,
        wide_overlap=_share(found.wide),
        wrong_sign=wrong_sign,
        unseen=silent,
        unseen_effect=float(np.abs(exact[unseen]).sum() / total) if total else 0.0,
        worst=misses(np.abs(estimate - exact)),
        strongest_unseen=misses(np.abs(exact) * unseen),
        seconds=seconds,
        verdict=_verdict(overlap, wrong_sign + silent),
    )


def _strongest(values: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """Which are the k of largest size; 0 is never among them, and the first of equals is."""
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.argsort(-np.abs(values), kind="stable")[:k]] = True
    return chosen & (values != 0)


def _share(chosen: NDArray[np.bool_]) -> float | None:
    """The share of the first row's choice that is also in the second's."""
    n = int(chosen[0].sum())
    return float(chosen.all(0).sum() / n) if n else None


def _verdict(overlap: float | None, failed: float) -> Verdict:
    """`failed` is the share of the exact top k with no estimate, or one of the wrong sign."""
    if overlap is None or (overlap >= SAFE_OVERLAP and failed == 0):
        return "safe"
    return "rough" if overlap >= ROUGH_OVERLAP else "not safe"


def _miss(found: Aligned, number: int, labels: Sequence[str], target: FeatureId | None) -> Miss:
    exact, estimate = float(found.exact[number]), float(found.estimate[number])
    for block in found.edges:
        if number < len(block):
            ends = {name: int(held[number]) for name, held in block.arrays.items()}
            break
        number -= len(block)
    at, read = (
        None if ends[name] == NOWHERE else ends[name]
        for name in ("source_positions", "target_positions")
    )
    return Miss(
        FeatureId(labels[block.depth], ends["sources"], at),
        target or FeatureId(labels[block.depth + 1], ends["targets"], read),
        exact,
        estimate,
    )
