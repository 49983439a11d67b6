"""F beside plain least squares and statsmodels; swaps beside swaps made by hand; the lag."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.tsa.api import VAR
from statsmodels.tsa.stattools import grangercausalitytests

from sae_graphs.editing.granger.algebra import compared, follows, swaps_of
from sae_graphs.editing.granger.pairs import chosen_lag, granger_pairs
from sae_graphs.editing.granger.panel import (
    Array,
    Panel,
    Parts,
    at_lags,
    beside,
    detrended,
    panel_of,
    trends,
)
from sae_graphs.editing.granger.settings import Detrend, GrangerSettings
from tests.support.series import one_long, two_series

LAG = 2
CLOSE = 1e-6


# -- plain least squares, with every swap made by hand ---------------------------------------------


def plainly(own: Array, source: Array) -> float:
    """F of one regression with a mean and a slope for each text: own and source `[M, R, C]`."""
    texts, rows, _ = own.shape
    slopes = np.zeros((texts, rows, 2 * texts))
    for text in range(texts):
        slopes[text, :, 2 * text] = 1
        slopes[text, :, 2 * text + 1] = np.arange(rows)
    flat = [part.reshape(texts * rows, -1) for part in (own, slopes, source)]
    y, restricted = flat[0][:, 0], np.hstack([flat[0][:, 1:], flat[1]])
    full = np.hstack([restricted, flat[2]])
    less, more = (
        float(((y - side @ np.linalg.lstsq(side, y)[0]) ** 2).sum()) for side in (restricted, full)
    )
    count = source.shape[2]
    return (less - more) / count / (more / (len(y) - full.shape[1]))


@pytest.mark.parametrize("there", [0.0, 0.3])
def test_every_swap_is_the_regression_of_swapped_texts(there: float) -> None:
    panel = two_series(5, there=there, texts=10, tokens=12)
    (group,) = panel.groups
    own = np.concatenate([at_lags(group[1], [0], LAG), at_lags(group[1], [1, 2], LAG)], axis=-1)
    source = at_lags(group[0], [1, 2], LAG)
    swaps = swaps_of([len(own)], count=20, seed=3)
    none: Parts = (np.zeros_like(source),)
    found = compared(
        detrended((own,), "linear"),
        none,
        detrended((source,), "linear"),
        swaps,
        trends=trends(panel, "linear"),
    )
    assert found is not None
    orders = swaps.matrix.indices.reshape(-1, len(own)) % len(own)
    assert orders[0].tolist() == list(range(len(own)))
    by_hand = [plainly(own, source[order]) for order in orders]
    np.testing.assert_allclose(found.f, by_hand[0], rtol=CLOSE)
    at_least = sum(value >= by_hand[0] for value in by_hand[1:])
    assert found.p == (1 + at_least) / 21


def test_what_stays_in_place_is_not_swapped() -> None:
    panel = two_series(6, texts=9, tokens=12)
    (group,) = panel.groups
    own = np.concatenate([at_lags(group[1], [0, 1, 2], LAG)], axis=-1)
    fixed, moved = (at_lags(values, [1, 2], LAG) for values in (0.3 * group[1] ** 2, group[0]))
    swaps = swaps_of([len(own)], count=30, seed=1)
    one, two, three = (detrended((part,), "linear") for part in (own, fixed, moved))
    found = compared(one, two, three, swaps, trends=trends(panel, "linear"))
    assert found is not None
    orders = swaps.matrix.indices.reshape(-1, len(own)) % len(own)
    by_hand = [plainly(own, fixed + moved[order]) for order in orders]
    np.testing.assert_allclose(found.f, by_hand[0], rtol=CLOSE)
    assert found.p == (1 + sum(value >= by_hand[0] for value in by_hand[1:])) / 31


def test_nothing_to_test_is_none() -> None:
    rng = np.random.default_rng(0)
    y, x = (rng.normal(size=(8, 10, 1)) for _ in range(2))
    swaps = swaps_of([8], count=19, seed=0)
    nothing = (np.zeros_like(x),)
    for own, moved in (((y,), nothing), (nothing, (x,)), ((np.concatenate([y, y], -1),), (x,))):
        assert compared(own, nothing, moved, swaps, trends=8) is None
    assert compared((y,), nothing, (x,), swaps, trends=80) is None, "no degree of freedom"
    assert compared((y,), nothing, (x,), swaps, trends=8) is not None


def test_what_follows_is_the_driven_part() -> None:
    panel = two_series(2, there=0.7, texts=200, tokens=40)
    past = tuple(at_lags(group[1], [0, 1], 1) for group in panel.groups)
    other = tuple(at_lags(group[0], [1], 1) for group in panel.groups)
    found = follows(detrended(past, "constant"), detrended(other, "constant"), "constant")
    rest = [group[1] - part for group, part in zip(panel.groups, found, strict=True)]
    x = np.concatenate(
        [(g[0][:, 10:] - g[0][:, 10:].mean(1)[:, None]).ravel() for g in panel.groups]
    )
    y, left = (
        np.concatenate([(it[:, 10:] - it[:, 10:].mean(1)[:, None]).ravel() for it in those])
        for those in ([group[1] for group in panel.groups], rest)
    )
    assert np.corrcoef(x[:-1], y[1:])[0, 1] > 0.5
    assert abs(np.corrcoef(x[:-1], left[1:])[0, 1]) < 0.06


# -- statsmodels -----------------------------------------------------------------------------------


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


def test_columns_stand_beside_each_other() -> None:
    one, other = (np.arange(12.0).reshape(2, 3, 2), np.ones((2, 3, 1)))
    (found,) = beside((one,), (other,))
    assert found.shape == (2, 3, 3) and (found[..., 2] == 1).all()
