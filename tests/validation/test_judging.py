"""One p-value a path, over the prompts that decide; and q-values over all paths."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.significance import p_value, spread
from sae_graphs.validation.evidence import Null, PromptResult, Role, TokenChange, UnitReport
from sae_graphs.validation.judging import judged


def result(change: float, controls: tuple[float, ...], role: Role = "discovery") -> PromptResult:
    null = Null("matched", refused="too few")
    if controls:
        null = Null("matched", controls, p=p_value(abs(change), [abs(value) for value in controls]))
    return PromptResult(
        prompt="text",
        role=role,
        tokens=("text",),
        active=1,
        target=TokenChange("a", 1, 0.5, 0.5 + change, 0.0, 0.0),
        rank_before=1,
        rank_after=1,
        kl=0.0,
        score=0.5,
        change=change,
        top=(),
        lowered=(),
        raised=(),
        nulls=(null,),
    )


def unit(*results: PromptResult, name: str = "Graph 1") -> UnitReport:
    return UnitReport(name, "component", 1, (FeatureId("0", 1),), (), results)


def test_one_prompt() -> None:
    (found,) = judged([unit(result(-0.4, (0.1, -0.5, 0.2)))], seed=0)
    tested = found.tested
    assert tested is not None
    assert (tested.role, tested.n_prompts) == ("discovery", 1)
    assert (tested.change, tested.signed) == (0.4, -0.4)
    assert tested.p == 2 / 4 and tested.q == 2 / 4  # -0.5 is larger
    assert tested.control_median == 0.2 and tested.ratio == 2.0
    assert tested.n_controlled == 1
    assert tested.low is None and tested.high is None


def test_test_prompts_decide_alone() -> None:
    """2/8 and 3/8 of as many controls as they are: together 2 * (2/8 + 3/8) / 2 = 5/8."""
    own = result(-0.9, (0.1, 0.1, 0.1))
    tests = [
        result(0.2, (0.1, -0.3, 0.1, 0.1, 0.0, 0.1, 0.1), "test"),
        result(-0.4, (0.1, 0.5, -0.7, 0.3, 0.3, 0.3, 0.0), "test"),
    ]
    (found,) = judged([unit(own, *tests)], seed=0)
    tested = found.tested
    assert tested is not None
    assert (tested.role, tested.n_prompts) == ("test", 2)
    assert tested.change == pytest.approx(0.3) and tested.signed == pytest.approx(-0.1)
    assert tested.p == 5 / 8 and tested.n_controlled == 2
    assert tested.control_median == pytest.approx(0.2)  # of 0.1 and 0.3
    assert tested.ratio == pytest.approx(1.5)


def test_two_prompts_earn_no_less_than_twice_the_least() -> None:
    tests = [result(0.4, (0.1,) * 199, "test"), result(-0.4, (0.0,) * 199, "test")]
    (found,) = judged([unit(*tests)], seed=0)
    assert found.tested is not None and found.tested.p == 2 / 200
    one_fails = [*tests[:1], result(0.1, (0.2,) * 199, "test")]
    (found,) = judged([unit(*one_fails)], seed=0)
    assert found.tested is not None and found.tested.p == 1.0  # 2 * (1/200 + 1) / 2, at most 1


def test_an_interval_over_several_prompts() -> None:
    tests = [result(value, (0.1,), "test") for value in (0.1, -0.2, 0.6)]
    (found,) = judged([unit(*tests)], seed=5)
    expected = spread([0.1, 0.2, 0.6], 5)
    assert found.tested is not None
    assert (found.tested.low, found.tested.high) == (expected.low, expected.high)
    assert found.tested.low is not None and found.tested.low < found.tested.change


def test_prompts_without_controls_have_no_say_in_p() -> None:
    tests = [result(0.0, (), "test"), result(0.4, (0.1, 0.1, 0.1), "test")]
    (found,) = judged([unit(*tests)], seed=0)
    assert found.tested is not None
    assert found.tested.change == pytest.approx(0.2)
    assert found.tested.p == 1 / 4  # of one prompt: not doubled
    assert found.tested.ratio == pytest.approx(4.0)
    assert (found.tested.n_prompts, found.tested.n_controlled) == (2, 1)
    assert found.tested.control_median == pytest.approx(0.1)


def test_a_prompt_whose_controls_do_nothing_counts_in_the_median() -> None:
    """Medians 0 and 0.2: 0.1 in the mean, of which 0.3 is three times as much."""
    tests = [result(0.3, (0.0, 0.0, 0.0), "test"), result(0.3, (0.2, 0.2, 0.2), "test")]
    (found,) = judged([unit(*tests)], seed=0)
    assert found.tested is not None
    assert found.tested.control_median == pytest.approx(0.1)
    assert found.tested.ratio == pytest.approx(3.0)


def test_all_controls_refused() -> None:
    (found,) = judged([unit(result(-0.4, ()))], seed=0)
    tested = found.tested
    assert tested is not None and tested.change == 0.4
    assert (tested.p, tested.q, tested.ratio, tested.control_median) == (None, None, None, None)
    assert tested.n_controlled == 0


def test_a_null_of_zeros_has_no_ratio() -> None:
    (found,) = judged([unit(result(-0.4, (0.0, 0.0, 0.3)))], seed=0)
    assert found.tested is not None
    assert found.tested.ratio is None and found.tested.control_median == 0.0


def test_all_units_are_corrected_together() -> None:
    strong = unit(result(0.9, (0.1, 0.1, 0.1)), name="strong")  # p 1/4
    weak = unit(result(0.1, (0.2, 0.2, 0.2)), name="weak")  # p 1
    refused = unit(result(0.1, ()), name="refused")
    units = [weak, strong, refused]
    found = judged(units, seed=0)
    assert [each.tested.q for each in found if each.tested] == [1.0, 0.5, None]
    assert [replace(each, tested=None) for each in found] == units
