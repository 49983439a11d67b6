"""F by hand and beside statsmodels; scores and their permutations one by one; the lag."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.tsa.stattools import grangercausalitytests
from statsmodels.tsa.vector_ar.var_model import VAR

from sae_graphs.editing.granger import algebra
from sae_graphs.editing.granger.algebra import Filtered, compared, filtered, swaps_of
from sae_graphs.editing.granger.pairs import chosen_lag, granger_pairs
from sae_graphs.editing.granger.panel import (
    REACH,
    Array,
    Panel,
    at_lags,
    beside,
    freed,
    panel_of,
    without_trend,
)
from sae_graphs.editing.granger.settings import Detrend, GrangerSettings
from tests.support.series import one_long, two_series

LAG = 2
CLOSE = 1e-6


def columns(*values: Array, kind: Detrend = "linear") -> Filtered:
    """Columns `[M, R, C]`, a group each."""
    return filtered(values, kind)


def nothing_own(like: Array, kind: Detrend = "linear") -> Filtered:
    return columns(np.zeros((*like.shape[:2], 0)), kind=kind)


# -- by hand ---------------------------------------------------------------------------------------


def test_four_tokens_by_hand() -> None:
    """x'y = 8, x'x = 4, y'y = 20: of 20, 16 are explained, and 4 left for 4 - 1 - 1 tokens."""
    y, x = (np.array(it, dtype=float).reshape(1, 4, 1) for it in ([4, 2, 0, -2], [5, 5, 3, 3]))
    target, source = (columns(it, kind="constant") for it in (y, x))
    found = compared(
        target,
        nothing_own(y, "constant"),
        source,
        swaps_of([1], count=19, seed=0),
        trends=1,
        seed=0,
    )
    assert found is not None
    np.testing.assert_allclose([found.share, found.f, *found.weights], [0.8, 8.0, 2.0])
    assert found.p == 1 and found.wald == pytest.approx(1), "one text is one observation"
    assert doctest.testmod(algebra).failed == 0


# -- scores, one by one ----------------------------------------------------------------------------


def scores_of(target: Filtered, own: Filtered, source: Filtered, orders: list[Any]) -> Array:
    """Scores `[N, Q]` with the texts' sources in other orders, by least squares and loops."""

    def flat(parts: tuple[Array, ...]) -> Array:
        return np.vstack([text for part in parts for text in part])

    w, freed_w = flat(own.within), flat(own.freed)
    slopes = np.linalg.solve(w.T @ freed_w, w.T @ flat(target.freed))
    told = np.linalg.solve(freed_w.T @ w, freed_w.T @ flat(source.within))
    found = []
    for number, order in enumerate(orders):
        for text, other in enumerate(order):
            left = target.freed[number][text] - own.freed[number][text] @ slopes
            new = source.within[number][other] - own.within[number][other] @ told
            found.append((new.T @ left)[:, 0])
    return np.array(found)


def plain_wald(scores: Array) -> float:
    total = scores.sum(axis=0)
    return float(total @ np.linalg.solve(scores.T @ scores, total))


@pytest.mark.parametrize("there", [0.0, 0.3])
def test_scores_and_their_swaps_are_those_of_each_text(there: float) -> None:
    panel = two_series(5, there=there, texts=30, tokens=12)
    assert len(panel.groups) == 1 or len(panel.groups) == 2
    target, own, source = (
        columns(*(at_lags(group[series], lags, LAG) for group in panel.groups))
        for series, lags in ((1, [0]), (1, [1, 2]), (0, [1, 2]))
    )
    sizes = [group.shape[1] for group in panel.groups]
    swaps = swaps_of(sizes, count=29, seed=3)
    found = compared(target, own, source, swaps, trends=60, seed=8)
    assert found is not None
    scores = scores_of(target, own, source, [*map(np.arange, sizes)])
    observed = plain_wald(scores)
    np.testing.assert_allclose(found.wald, observed, rtol=CLOSE)
    swapped = [
        plain_wald(scores_of(target, own, source, [orders[k] for orders in swaps]))
        for k in range(29)
    ]
    signs = np.random.default_rng(8).choice([-1.0, 1.0], (29, len(scores)))
    turned = [plain_wald(scores * sign[:, None]) for sign in signs]
    by_hand = [(1 + sum(it >= observed for it in those)) / 30 for those in (swapped, turned)]
    assert found.p == max(by_hand)


def test_swaps_stay_within_their_group() -> None:
    for orders, size in zip(swaps_of([5, 3], count=40, seed=0), (5, 3), strict=True):
        assert (np.sort(orders, axis=1) == np.arange(size)).all()
        assert len({tuple(order) for order in orders}) > 3


def test_nothing_to_test_is_none() -> None:
    rng = np.random.default_rng(0)
    y, x = (rng.normal(size=(8, 10, 1)) for _ in range(2))
    swaps, zeros = swaps_of([8], count=19, seed=0), np.zeros((8, 10, 1))

    def tested(target: Array, own: Array | None, source: Array, trends: int = 16) -> Any:
        side = nothing_own(y) if own is None else columns(own)
        return compared(columns(target), side, columns(source), swaps, trends=trends, seed=0)

    assert tested(y, None, x) is not None
    assert tested(y, None, zeros) is None, "the source does not vary"
    assert tested(zeros, None, x) is None, "nor does the target"
    assert tested(y, y, x) is None, "its own past tells all of it"
    assert tested(y, x, 3 * x) is None, "what is given tells all of the source"
    assert tested(y, None, x, trends=79) is None, "no degree of freedom"


# -- without the bias of short texts ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize("rows", [9, 12, 22, 60])
def test_what_a_series_drives_does_not_drive_it_back(rows: int, kind: Detrend) -> None:
    """For x that is e of `back` tokens ago, e white noise of size 1: the mean of the score."""
    unit = np.eye(rows)[None]  # what a filter does to each token of e
    plain, fair = without_trend(unit, kind)[0], freed(unit, kind)[0]
    for back in range(1, min(REACH, rows - 4) + 1):
        driven = without_trend(np.eye(rows, k=-back)[None], kind)[0]
        assert abs(np.trace(driven @ fair.T)) < 1e-9
        bias = np.trace(driven @ plain.T)
        assert back > 1 or bias < -0.5, "what it is there for"


def test_freed_series_have_no_mean_and_slope() -> None:
    rng = np.random.default_rng(1)
    values, line = rng.normal(size=(3, 15, 2)), np.arange(15.0)[None, :, None]
    found = freed(values, "linear")
    np.testing.assert_allclose(freed(values + 7 - 3 * line, "linear"), found, atol=1e-10)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-10)


# -- statsmodels -----------------------------------------------------------------------------------


def test_two_groups_as_statsmodels_with_a_mean_and_a_slope_for_each_text() -> None:
    panel = two_series(9, there=0.1, texts=30, tokens=10)
    assert len(panel.groups) == 1
    short = two_series(10, there=0.1, texts=12, tokens=9)
    both = Panel(panel.names, panel.depths, (*panel.groups, *short.groups))
    (pair,) = granger_pairs(both, [("x", "y")], GrangerSettings(lag=LAG, permutations=19))
    rows, texts = [], []
    for group in both.groups:
        for text in range(group.shape[1]):
            x, y = group[:, text]
            texts.append(len(y) - LAG)
            rows += [[y[t], y[t - 1], y[t - 2], x[t - 1], x[t - 2]] for t in range(LAG, len(y))]
    table = np.array(rows)
    dummies = np.zeros((len(table), 2 * len(texts)))
    for text, (start, count) in enumerate(zip(np.cumsum([0, *texts]), texts, strict=False)):
        dummies[start : start + count, 2 * text] = 1
        dummies[start : start + count, 2 * text + 1] = np.arange(count)
    full = OLS(table[:, 0], np.hstack([table[:, 1:], dummies])).fit()
    restricted = OLS(table[:, 0], np.hstack([table[:, 1:3], dummies])).fit()
    f, p, _ = full.compare_f_test(restricted)
    assert pair.forward is not None
    np.testing.assert_allclose([pair.forward.f, pair.forward.p_parametric], [f, p], rtol=CLOSE)
    np.testing.assert_allclose(pair.forward.coefficients, full.params[2:4], rtol=CLOSE)
    np.testing.assert_allclose(pair.forward.share, 1 - full.ssr / restricted.ssr, rtol=CLOSE)


def whole(values: Array) -> Panel:
    """One long text as a panel."""
    names = ["x", "y", "z"][: values.shape[1]]
    return panel_of([values], names=names)


@pytest.mark.parametrize(("ends", "way"), [((0, 1), "forward"), ((1, 0), "backward")])
def test_two_series_as_statsmodels_tests_them(ends: tuple[int, int], way: str) -> None:
    values = one_long(1)
    source, target = ends
    theirs = grangercausalitytests(values[:, [target, source]], [3])[3][0]["ssr_ftest"]
    settings = GrangerSettings(lag=3, detrend="constant", permutations=19)
    (pair,) = granger_pairs(whole(values[:, :2]), [("x", "y")], settings)
    ours = getattr(pair, way)
    np.testing.assert_allclose([ours.f, ours.p_parametric], theirs[:2], rtol=CLOSE)


@pytest.mark.parametrize(("detrend", "trend"), [("constant", "c"), ("linear", "ct")])
def test_given_all_others_it_is_the_autoregression_of_statsmodels(
    detrend: Detrend, trend: str
) -> None:
    values = one_long(2)
    fitted = VAR(values).fit(2, trend=trend)
    settings = GrangerSettings(lag=2, detrend=detrend, multivariate=True, permutations=19)
    pairs = [("x", "y"), ("y", "z"), ("x", "z")]
    found = granger_pairs(whole(values), pairs, settings)
    for pair in found:
        at = ["xyz".index(name) for name in (pair.source, pair.target)]
        for test, (source, target) in ((pair.forward, at), (pair.backward, at[::-1])):
            theirs = fitted.test_causality(target, source, kind="f")
            assert test is not None
            np.testing.assert_allclose(test.f, theirs.test_statistic, rtol=CLOSE)
            first = fitted.coefs[:, target, source]
            np.testing.assert_allclose(test.coefficients, first, rtol=CLOSE, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_lag_is_the_one_of_statsmodels(seed: int) -> None:
    values = one_long(seed)[:, :2]
    theirs = VAR(values).select_order(5, trend="c").selected_orders["bic"]
    settings = GrangerSettings(max_lag=5, detrend="constant")
    lag, criteria = chosen_lag(whole(values), [("x", "y")], settings)
    assert (lag, len(criteria)) == (theirs, 5)
    assert theirs == 2, "two tokens back is where the arrow comes from"
    assert chosen_lag(whole(values), [("x", "y")], GrangerSettings(lag=4)) == (4, ())


def test_copies_tell_of_no_lag() -> None:
    """Of two series one of which is a line in the other: alone, and beside a pair that tells."""
    values = one_long(0)[:, :2]
    copies = panel_of([np.column_stack([values, 3.7 * values[:, 0] + 1])], names=["x", "y", "c"])
    settings = GrangerSettings(max_lag=5, detrend="constant")
    assert chosen_lag(copies, [("x", "c")], settings) == (1, ())
    alone = chosen_lag(copies, [("x", "y")], settings)
    assert alone[0] == 2 and chosen_lag(copies, [("x", "c"), ("x", "y")], settings) == alone


def test_columns_stand_beside_each_other() -> None:
    one, other = (np.arange(12.0).reshape(2, 3, 2), np.ones((2, 3, 1)))
    (found,) = beside((one,), (other,))
    assert found.shape == (2, 3, 3) and (found[..., 2] == 1).all()
