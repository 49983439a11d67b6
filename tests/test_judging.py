"""One p-value a path, over the prompts that decide; and q-values over all paths."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sae_graphs.evidence import Null, PromptResult, Role, TokenChange, UnitReport
from sae_graphs.graph import FeatureId
from sae_graphs.judging import judged
from sae_graphs.significance import spread


def result(change: float, controls: tuple[float, ...], role: Role = "discovery") -> PromptResult:
    null = Null("matched", controls) if controls else Null("matched", refused="too few")
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
    assert tested.low is None and tested.high is None


def test_test_prompts_decide_alone() -> None:
    own = result(-0.9, (0.1, 0.1, 0.1))
    tests = [result(0.2, (0.1, -0.3, 0.1), "test"), result(-0.4, (0.1, 0.5, -0.7), "test")]
    (found,) = judged([unit(own, *tests)], seed=0)
    tested = found.tested
    assert tested is not None
    assert (tested.role, tested.n_prompts) == ("test", 2)
    assert tested.change == pytest.approx(0.3) and tested.signed == pytest.approx(-0.1)
    # mean |controls|: (0.1, 0.4, 0.4); two of three are at least 0.3
    assert tested.p == 3 / 4 and tested.control_median == pytest.approx(0.4)
    assert tested.ratio == pytest.approx(0.75)


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
    assert found.tested.p == 1 / 4 and found.tested.ratio == pytest.approx(4.0)


def test_all_controls_refused() -> None:
    (found,) = judged([unit(result(-0.4, ()))], seed=0)
    tested = found.tested
    assert tested is not None and tested.change == 0.4
    assert (tested.p, tested.q, tested.ratio, tested.control_median) == (None, None, None, None)


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
