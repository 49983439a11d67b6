"""The statistics of validation, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import (
    Spread,
    adjusted,
    combined,
    fit_line,
    p_value,
    rank_correlation,
    spread,
    unit_ranks,
)

finite = st.floats(-1e6, 1e6)
chances = st.floats(0.001, 1.0)

# -- p-values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "controls", "expected"),
    [
        (3.0, [1.0, 2.0], 1 / 3),
        (3.0, [1.0, 2.0, 4.0], 2 / 4),
        (3.0, [3.0, 3.0, 1.0], 3 / 4),  # equal ones count
        (0.0, [0.0], 1.0),
        (0.0, [0.0, 0.5], 1.0),
        (1.0, [1.0 - 1e-12], 1.0),  # rounding is no difference
        (1.0, [1.0 - 1e-6], 1 / 2),
        (1e-6, [0.5e-6], 1 / 2),  # and small changes are still told apart
        (2e-16, [1e-16], 1.0),  # as long as they are changes
        (1.0, [0.0] * 199, 1 / 200),
    ],
)
def test_p_values(observed: float, controls: list[float], expected: float) -> None:
    assert p_value(observed, controls) == expected


def test_what_is_no_number_counts_against_the_path() -> None:
    assert p_value(1.0, [0.5, math.nan]) == 2 / 3
    assert p_value(math.nan, [0.5, 0.5]) == 1.0
    assert p_value(1.0, [math.inf, 0.5]) == 2 / 3


def test_no_controls() -> None:
    with pytest.raises(SaeGraphsError, match="no controls"):
        p_value(1.0, [])


@given(finite, st.lists(finite, min_size=1, max_size=30))
def test_p_values_are_counts_of_a_whole(observed: float, controls: list[float]) -> None:
    p = p_value(observed, controls)
    assert round(p * (1 + len(controls)), 9) in range(1, len(controls) + 2)
    assert p_value(observed, controls[::-1]) == p
    assert p_value(max(controls), controls) <= p or observed >= max(controls)


# -- many prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], None),
        ([0.03], 0.03),
        ([1.0], 1.0),
        ([1 / 200, 1 / 200], 2 / 200),
        ([0.25, 0.375], 0.625),  # twice the mean, 0.3125
        ([0.1, 0.2, 0.3], 0.4),
        ([0.5, 0.5], 1.0),
        ([0.9, 0.9], 1.0),  # at most
        ([0.01, 1.0], 1.0),
    ],
)
def test_p_values_combined(p_values: list[float], expected: float | None) -> None:
    assert combined(p_values) == pytest.approx(expected)


@given(st.lists(chances, min_size=2, max_size=9))
def test_what_is_combined_is_a_p_value(p_values: list[float]) -> None:
    found = combined(p_values)
    assert found is not None and min(p_values) <= found <= 1.0
    assert found == combined(p_values[::-1])


def too_often(p_values: np.ndarray, level: float) -> bool:
    """Whether so many of them at or below a level are no accident: one in a thousand, or less."""
    from scipy.stats import binom

    n = int((p_values <= level).sum())
    return bool(binom.sf(n - 1, len(p_values), level) < 0.001)


def dependent(how: str, generator: np.random.Generator, trials: int = 20_000) -> np.ndarray:
    """Uniform p-values `[trials, prompts]` that depend on each other."""
    u = generator.uniform(size=trials)
    match how:
        case "alike":
            return np.stack([u] * 5, axis=1)
        case "opposed":
            return np.stack([u, 1 - u], axis=1)
        case "half alike":
            return np.stack([u, u, generator.uniform(size=trials)], axis=1)
        case "apart":
            return generator.uniform(size=(trials, 8))
        case "worst":
            # Rueschendorf (1982): u + v is exactly 2 x 0.025 whenever both are at most 0.05
            return np.stack([u, np.where(u <= 0.05, 0.05 - u, u)], axis=1)
    raise AssertionError(how)


DEPENDENCE = ("alike", "opposed", "half alike", "apart", "worst")


@pytest.mark.parametrize("how", DEPENDENCE)
def test_combined_p_values_are_valid_however_they_depend(how: str) -> None:
    """`P(p <= level) <= level`; twice the mean is needed where they make the worst of it."""
    each = dependent(how, np.random.default_rng(0))
    for column in each.T:
        assert not too_often(column, 0.05) and not too_often(1 - column, 0.05)  # uniform
    found = np.array([combined(row) for row in each.tolist()])
    for level in (0.05, 0.2):
        assert not too_often(found, level)


def test_means_of_dependent_p_values_would_not_be_valid() -> None:
    """All of the smallest 5 % have the mean 0.025: that is twice too often."""
    each = dependent("worst", np.random.default_rng(0))
    assert too_often(each.mean(axis=1), 0.025 + 1e-12)


# -- many tests ------------------------------------------------------------------------------------


def test_benjamini_and_hochberg_by_hand() -> None:
    # Of 4, in order .01 .02 .04 .5: .01*4/1 = .04, .02*4/2 = .04, .04*4/3 = .0533, .5*4/4 = .5.
    q = adjusted([0.04, 0.01, None, 0.5, 0.02])
    assert q[2] is None
    assert [value for value in q if value is not None] == pytest.approx([0.16 / 3, 0.04, 0.5, 0.04])


def test_a_larger_p_can_lower_its_neighbour() -> None:
    assert adjusted([0.04, 0.05]) == pytest.approx((0.05, 0.05))  # not 0.08


def test_nothing_to_adjust() -> None:
    assert adjusted([]) == ()
    assert adjusted([None, None]) == (None, None)


@given(st.lists(st.none() | chances, max_size=12))
def test_adjusted_values(p_values: list[float | None]) -> None:
    q_values = adjusted(p_values)
    pairs = []
    for p, q in zip(p_values, q_values, strict=True):
        assert (p is None) == (q is None)
        if p is not None and q is not None:
            assert p - 1e-12 <= q <= 1.0
            pairs.append((p, q))
    in_order = [q for _, q in sorted(pairs)]
    assert in_order == sorted(in_order)


# -- intervals -------------------------------------------------------------------------------------


def test_spreads_of_few_values() -> None:
    assert spread([], 0) == Spread(0, None, None, None)
    assert spread([2.0], 0) == Spread(1, 2.0, None, None)
    assert spread([1.0, 2.0], 0) == Spread(2, 1.5, None, None)
    assert spread([2.0] * 5, 0) == Spread(5, 2.0, 2.0, 2.0)


def test_a_bootstrap_interval() -> None:
    """Of 0 and 1 in equal parts, 100 of each: the mean's deviation is 0.5 / sqrt(200) = 0.0354."""
    found = spread([0.0, 1.0] * 100, 0)
    assert found.mean == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 * 0.0354, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.0354, abs=0.01)


def test_a_seed_gives_one_interval() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert spread(values, 3) == spread(values.tolist(), 3)
    assert spread(values, 3) != spread(values, 4)


@given(st.lists(finite, min_size=3, max_size=8))
def test_intervals_lie_within_the_values(values: list[float]) -> None:
    found = spread(values, 0)
    assert found.mean is not None and found.low is not None and found.high is not None
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


# -- lines -----------------------------------------------------------------------------------------


def test_a_line_by_hand() -> None:
    # Around the means, 1 and 4/3: slope ((-1)(-4/3) + 0 + (1)(2/3)) / 2 = 1.
    line = fit_line([0.0, 1.0, 2.0], [0.0, 2.0, 2.0])
    assert line.slope == pytest.approx(1.0)
    # missed: (-1/3)^2 + (2/3)^2 + (-1/3)^2 = 2/3; whole: (4/3)^2 + 2 (2/3)^2 = 8/3
    assert line.r_squared == pytest.approx(1 - (2 / 3) / (8 / 3))
    assert (line.largest_jump, line.jump_at) == (1.0, 0.5)


def test_a_jump_is_found_where_it_is() -> None:
    line = fit_line([-1.0, 0.0, 1.0, 2.0], [0.0, 0.0, -3.0, -4.0])
    assert (line.largest_jump, line.jump_at) == (0.75, 0.5)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e-30, -1e9])
def test_flat_lines(value: float) -> None:
    line = fit_line([0.0, 1.0, 2.0], [value, value * (1 + 1e-14), value])
    assert line.r_squared is None and line.largest_jump == 0.0
    assert line.slope == pytest.approx(0.0, abs=1e-5)


@given(finite, st.floats(0.01, 100.0), st.integers(2, 20))
def test_a_straight_line_has_equal_steps(start: float, slope: float, steps: int) -> None:
    x = [number / 4 for number in range(steps + 1)]
    line = fit_line(x, [start + slope * value for value in x])
    assert line.slope == pytest.approx(slope, rel=1e-3)
    assert line.r_squared == pytest.approx(1.0, abs=1e-3)
    assert line.largest_jump == pytest.approx(1 / steps, abs=1e-3)


# -- ranks -----------------------------------------------------------------------------------------


def test_rank_correlations_by_hand() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 25]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    # 1 - 6 (0 + 1 + 1 + 0) / (4 * 15)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_dot_products_of_unit_ranks_are_rank_correlations() -> None:
    rows = np.random.default_rng(0).integers(0, 5, (6, 9)).astype(float)  # with ties
    ranks = unit_ranks(rows)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert ranks[i] @ ranks[j] == pytest.approx(rank_correlation(one, other))
    assert unit_ranks(np.ones((2, 4))).tolist() == [[0.0] * 4] * 2
