"""Known arrows are found, each verdict; p is uniform where there is none; power grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from sae_graphs.editing.granger.pairs import granger_pairs, with_q
from sae_graphs.editing.granger.panel import Panel, panel_of
from sae_graphs.editing.granger.records import GrangerTest, Pair, Verdict
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.errors import SaeGraphsError
from tests.support import nulls
from tests.support.nulls import FAILURES, SYSTEMS, Rates, null_rates
from tests.support.series import bent, three_series, two_series
from tests.support.slow import only
from tests.support.stacks import one_line

FEW = GrangerSettings(lag=1, permutations=199)
BENT = replace(FEW, test="nonlinear")
SURE = 0.001  # p of a test that must not fail by chance; seeds are fixed


def pair_of(panel: Panel, settings: GrangerSettings = FEW) -> Pair:
    (pair,) = granger_pairs(panel, [("x", "y")], settings)
    return pair


def p_values(
    make: Callable[[int], Panel], way: str, runs: Sequence[int], settings: GrangerSettings = FEW
) -> tuple[np.ndarray, np.ndarray]:
    """Of one direction, over seeds: those of the swaps, and those of the F distribution."""
    found: list[GrangerTest] = [getattr(pair_of(make(seed), settings), way) for seed in runs]
    return np.array([it.p for it in found]), np.array([it.p_parametric for it in found])


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "back", "verdict"),
    [(0.5, 0.0, "forward"), (0.0, 0.5, "backward"), (0.3, 0.3, "both"), (0.0, 0.0, "none")],
)
def test_each_verdict_is_found(there: float, back: float, verdict: Verdict) -> None:
    panels = [two_series(seed, there=there, back=back, texts=60) for seed in range(20)]
    found = [pair_of(panel).verdict(0.05) for panel in panels]
    assert found.count(verdict) >= 17, "all but what a level of 5 % lets pass"


@pytest.mark.parametrize("seed", range(3))
def test_a_bent_arrow_is_found_by_the_nonlinear_test_alone(seed: int) -> None:
    panel = two_series(seed, there=0.4, arrow=bent)
    assert pair_of(panel, BENT).verdict(0.05) == "forward"
    straight, bowed = (pair_of(panel, how).forward for how in (FEW, BENT))
    assert straight is not None and bowed is not None
    assert bowed.share > 0.15 > 0.05 > straight.share


def test_a_third_series_explains_a_shared_past_away() -> None:
    """`z` drives both: so `x` predicts `y`, unless `z` is given. Over seeds."""
    alone, given, whole = [], [], []
    for seed in range(60):
        panel = three_series(seed)
        alone.append(pair_of(panel).forward)
        given.append(pair_of(panel, replace(FEW, given=("z",))).forward)
        every = replace(FEW, multivariate=True)
        whole.append(granger_pairs(panel, [("x", "y"), ("z", "y")], every)[0].forward)
    rates = [np.mean([it is not None and it.p <= 0.05 for it in tests]) for tests in (alone, given)]
    assert rates[0] > 0.9 and rates[1] <= 0.12
    assert [it and it.f for it in whole] == pytest.approx([it and it.f for it in given])


def test_the_same_token_counts_where_the_source_stands_before() -> None:
    panel = two_series(0)
    together = tuple(np.stack([g[0], g[0] + g[1]]) for g in panel.groups)
    below = Panel(("x", "y"), (0, 1), together)
    found = pair_of(below)
    assert found.verdict(0.05) in ("forward", "both")
    assert found.forward is not None and found.forward.lags == (0, 1)
    assert found.forward.coefficients[0] == pytest.approx(1, abs=0.1)
    assert found.backward is not None and found.backward.lags == (1,)
    later = pair_of(below, replace(FEW, same_token=False)).forward
    assert later is not None and later.lags == (1,) and later.share < found.forward.share / 10


def test_what_cannot_be_tested_says_why() -> None:
    panel = two_series(0)
    still = Panel(("x", "y"), (0, 0), tuple(np.stack([g[0], 0 * g[1]]) for g in panel.groups))
    assert "does not vary" in pair_of(still).reason
    (pair,) = granger_pairs(panel, [("x", "y")], FEW, rarely=lambda name: f"{name} sleeps")
    assert (pair.verdict(0.05), pair.reason) == ("untestable", "x sleeps")


def test_a_way_that_could_not_be_tested_has_its_own_reason() -> None:
    """`y` is `x` a token ago: its own past tells all of neither, and `x` all of it."""
    panel = two_series(0)
    copies = Panel(("x", "y"), (0, 1), tuple(np.stack([g[0], 2 * g[0]]) for g in panel.groups))
    pair = pair_of(copies)
    assert pair.forward is not None and not pair.reason
    assert pair.backward is None and "the other ones tell all of it" in pair.reason_back
    assert pair.verdict(0.05) == "forward"
    none = replace(pair, forward=replace(pair.forward, q=0.9))
    assert none.verdict(0.05) == "untestable"


def test_the_source_counts_among_the_parameters() -> None:
    """8 texts of 6 rows: 17 of the own past, 16 trends, and 18 of the source are more than 48."""
    rng = np.random.default_rng(0)
    panel = panel_of([rng.normal(size=(8, 2)) for _ in range(8)], names=["x", "y"])
    with pytest.raises(SaeGraphsError, match="parameters for 48 tokens") as caught:
        pair_of(panel, replace(BENT, lag=2))
    one_line(caught)


def test_q_is_over_all_tests_both_ways() -> None:
    def test(p: float) -> GrangerTest:
        return GrangerTest(1.0, 0.1, 4.0, p, p, p, (1,))

    pairs = [
        Pair("a", "b", test(0.01), test(0.04)),
        Pair("b", "c", None, None, "why"),
        Pair("a", "c", test(0.02), test(0.9)),
    ]
    found = with_q(pairs)
    values = [it.q for pair in found for it in (pair.forward, pair.backward) if it is not None]
    np.testing.assert_allclose(values, [0.04, 0.16 / 3, 0.04, 0.9])
    assert found[1] == pairs[1]
    assert [pair.verdict(0.05) for pair in found] == ["forward", "untestable", "forward"]


# -- where there is no arrow -----------------------------------------------------------------------


HARDEST = "by topic, 100 texts, a tenth of them loud", "the same, spikes", "nonlinear: nothing"


@cache
def few_runs(name: str) -> Rates:
    return null_rates(SYSTEMS[name], range(60))


@pytest.mark.parametrize("name", only(SYSTEMS, *HARDEST))
def test_p_holds_its_level_where_there_is_no_arrow(name: str) -> None:
    """Few runs, all systems: enough to see what rejects three times too often."""
    found = few_runs(name)
    assert found.at_5 <= 0.12 and found.uniform > SURE / len(SYSTEMS), found


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_p_holds_its_level_in_many_runs(name: str) -> None:
    found = null_rates(SYSTEMS[name], range(1000, 1300))
    assert found.at_5 <= 0.08 and found.at_1 <= 0.03, found


@pytest.mark.slow
def test_known_failures_are_still_failures() -> None:
    """Of the nonlinear test: its reports say so."""
    for name, system in FAILURES.items():
        found = null_rates(system, range(1000, 1200))
        assert found.at_5 > 0.08, f"{name} holds: say so in docs/granger.md"


def test_f_alone_would_see_arrows_where_there_are_none() -> None:
    for name in ("an arrow of 0.6 the other way", "by topic"):
        found = few_runs(name)
        assert found.f_at_5 > 0.2 > found.at_5, name


# -- power -----------------------------------------------------------------------------------------


def power(settings: GrangerSettings, runs: int, **options: Any) -> float:
    p, _ = p_values(lambda seed: two_series(seed, **options), "forward", range(runs), settings)
    return float((p <= 0.05).mean())


def test_the_table_of_power_finds_a_strong_arrow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = "a straight arrow"
    monkeypatch.setattr(nulls, "STRENGTHS", (0.0, 0.6))
    monkeypatch.setattr(nulls, "ARROWS", {arrow: nulls.ARROWS[arrow]})
    *_, row = nulls.power_table(range(4))
    *named, none, strong = row.strip("| ").split(" | ")
    assert named == [arrow] and float(none.strip("%")) <= 25 < float(strong.strip("%")) == 100


@pytest.mark.slow
@pytest.mark.parametrize("spikes", [False, True])
def test_power_grows_with_a_straight_arrow(spikes: bool) -> None:
    """Between spikes a few large products hold most of both sums: that takes a stronger arrow."""
    strengths = (0.0, 0.05, 0.1, 0.6 if spikes else 0.2)
    found = [power(FEW, 100, there=it, spikes=spikes) for it in strengths]
    assert found[0] < 0.12 and found[-1] > 0.95
    assert found == sorted(found)


@pytest.mark.slow
def test_power_grows_with_texts() -> None:
    found = [power(FEW, 100, there=0.1, texts=texts) for texts in (10, 40, 120)]
    assert found == sorted(found) and found[0] < 0.6 < 0.9 < found[-1]


@pytest.mark.slow
def test_power_grows_with_a_bent_arrow_where_lines_see_little() -> None:
    found = [power(BENT, 60, there=it, arrow=bent) for it in (0.0, 0.1, 0.3)]
    lines = [power(FEW, 60, there=it, arrow=bent) for it in (0.1, 0.3)]
    assert found[0] < 0.15 and found[-1] > 0.95 and found == sorted(found)
    assert max(lines) < 0.6 and lines[1] < found[2] - 0.3


# -- names -----------------------------------------------------------------------------------------


def test_a_series_that_the_panel_lacks_is_one_line() -> None:
    for asked in (replace(FEW, given=("norm:9",)), FEW):
        ends = ("x", "y") if asked.given else ("x", "w")
        with pytest.raises(SaeGraphsError, match=r"no series .* in the panel") as caught:
            granger_pairs(two_series(0), [ends], asked)
        one_line(caught)
