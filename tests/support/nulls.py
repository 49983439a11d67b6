"""Systems without an arrow in one direction, and how often a Granger test finds one there; and how
often it finds one that is there.

`python -m tests.support.nulls` writes the first table of docs/granger.md, with `--power` the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.stats import kstest

from sae_graphs.editing.granger.pairs import Tester
from sae_graphs.editing.granger.panel import Panel
from sae_graphs.editing.granger.records import GrangerTest
from sae_graphs.editing.granger.settings import GrangerSettings
from tests.support.series import (
    bent,
    by_topic,
    long_and_short,
    same_token,
    three_series,
    two_series,
)

LINEAR = GrangerSettings(lag=1, permutations=99)
WAVES = replace(LINEAR, test="nonlinear")
GIVEN = replace(LINEAR, given=("z",))


class System(NamedTuple):
    """Panels by seed, and the direction, of `x` and `y`, in which there is no arrow."""

    make: Callable[[int], Panel]
    way: str = "backward"
    settings: GrangerSettings = LINEAR


SYSTEMS: dict[str, System] = {
    "nothing": System(two_series),
    "nothing, rare spikes": System(partial(two_series, spikes=True)),
    "by topic": System(by_topic, "forward"),
    "by topic, 100 texts, a tenth of them loud": System(
        partial(by_topic, texts=100, share=0.1), "forward"
    ),
    "by topic, 200 texts, rare spikes": System(
        partial(by_topic, texts=200, share=0.1, spikes=True), "forward"
    ),
    "an arrow of 0.6 the other way": System(partial(two_series, there=0.6)),
    "the same, rare spikes": System(partial(two_series, there=0.6, spikes=True)),
    "the same, lag 3": System(partial(two_series, there=0.6), settings=replace(LINEAR, lag=3)),
    "the same, texts of 9 to 11 tokens": System(partial(two_series, there=0.6, tokens=9)),
    "the same, long and short texts": System(long_and_short),
    "a bent arrow the other way": System(partial(two_series, there=0.4, arrow=bent)),
    "lag 0 the other way, rare spikes": System(same_token),
    "a third drives both, given": System(three_series, "forward", GIVEN),
    "the same, spikes": System(partial(three_series, spikes=True), "forward", GIVEN),
    "a chain y to z to x, given z": System(partial(three_series, chain=True), "forward", GIVEN),
    "nonlinear: nothing": System(two_series, settings=WAVES),
    "nonlinear: a bent arrow the other way": System(
        partial(two_series, there=0.4, arrow=bent), settings=WAVES
    ),
}
FAILURES: dict[str, System] = {
    "nonlinear: an arrow of 0.6 the other way": System(
        partial(two_series, there=0.6), settings=WAVES
    ),
    "nonlinear: by topic": System(by_topic, settings=WAVES),
    "nonlinear: a bent arrow the other way, rare spikes": System(
        partial(two_series, there=0.4, arrow=bent, spikes=True), settings=WAVES
    ),
}
STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6)
ARROWS: dict[str, tuple[Callable[..., Panel], GrangerSettings]] = {  # from `x` to `y`
    "a straight arrow": (two_series, LINEAR),
    "the same, rare spikes": (partial(two_series, spikes=True), LINEAR),
    "a bent arrow": (partial(two_series, arrow=bent), LINEAR),
    "nonlinear: a bent arrow": (partial(two_series, arrow=bent), WAVES),
}


class Rates(NamedTuple):
    """Shares of runs in which p, or p of F alone, is at most so much; p of Kolmogorov and Smirnov's
    one-sided test that p is not smaller than uniform."""

    at_5: float
    at_1: float
    uniform: float
    f_at_5: float
    f_at_001: float


def null_rates(system: System, runs: Sequence[int]) -> Rates:
    """Over seeds."""
    found = _tests(system, runs)
    p = np.array([it.p for it in found])
    alone = np.array([it.p_parametric for it in found])
    return Rates(
        float((p <= 0.05).mean()),
        float((p <= 0.01).mean()),
        float(kstest(p, "uniform", alternative="greater").pvalue),
        float((alone <= 0.05).mean()),
        float((alone <= 0.0001).mean()),
    )


def power(arrow: str, strength: float, runs: Sequence[int]) -> float:
    """The share of seeds at which an arrow of this strength is found: p is at most 0.05."""
    make, settings = ARROWS[arrow]
    found = _tests(System(partial(make, there=strength), "forward", settings), runs)
    return float(np.mean([it.p <= 0.05 for it in found]))


def _tests(system: System, runs: Sequence[int]) -> list[GrangerTest]:
    found: list[GrangerTest] = []
    settings = system.settings
    ends = ("x", "y") if system.way == "forward" else ("y", "x")
    for seed in runs:
        test = Tester(system.make(seed), settings, settings.lag or 1).one(*ends, settings.given)
        assert test is not None, "it could not be tested"
        found.append(test)
    return found


def table(runs: Sequence[int]) -> Iterator[str]:
    """Rows of Markdown; those that are known to fail are marked."""
    yield "| there is | p ≤ 5 % | p ≤ 1 % | Kolmogorov–Smirnov | F alone ≤ 5 % | F ≤ 0.01 % |"
    yield "|---|---|---|---|---|---|"
    for name, system in (SYSTEMS | FAILURES).items():
        at_5, at_1, uniform, f_at_5, f_at_001 = null_rates(system, runs)
        mark = " **(fails)**" if name in FAILURES else ""
        yield (
            f"| {name}{mark} | {at_5:.1%} | {at_1:.1%} | {uniform:.2g} | {f_at_5:.1%} "
            f"| {f_at_001:.1%} |"
        )


def power_table(runs: Sequence[int]) -> Iterator[str]:
    """Rows of Markdown: the share found of each arrow, by its strength."""
    yield f"| there is, of strength | {' | '.join(f'{it:g}' for it in STRENGTHS)} |"
    yield "|---|" + "---:|" * len(STRENGTHS)
    for name in ARROWS:
        shares = (f"{power(name, it, runs):.1%}" for it in STRENGTHS)
        yield f"| {name} | {' | '.join(shares)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--power", action="store_true", help="how often arrows are found")
    given = parser.parse_args()
    rows = power_table if given.power else table
    for line in rows(range(1000, 1000 + given.runs)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
