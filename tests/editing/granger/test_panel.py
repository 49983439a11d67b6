"""Texts in groups, lags within a text, trends, waves."""

from __future__ import annotations

import numpy as np

from sae_graphs.editing.granger.panel import (
    WAVES,
    behind,
    gathered,
    lagged,
    panel_of,
    trends,
    waves,
    without_trend,
)


def numbered() -> list[np.ndarray]:
    """Texts whose values say where they stand: 100 times the text plus the token."""
    lengths = (9, 5, 8, 9, 4, 8)
    return [
        np.array([[100.0 * n + t, -(100.0 * n + t)] for t in range(length)])
        for n, length in enumerate(lengths)
    ]


def test_groups_hold_the_first_tokens_of_long_enough_texts() -> None:
    panel = panel_of(numbered(), names=["up", "down"], together=2, least=5)
    assert [group.shape for group in panel.groups] == [(2, 2, 9), (2, 3, 5)]
    assert panel.groups[0][0, :, 0].tolist() == [0, 300]
    assert panel.groups[1][0, :, 0].tolist() == [200, 500, 100]
    assert (panel.groups[1][1] == -panel.groups[1][0]).all()
    assert (panel.n_texts, panel.n_tokens, panel.n_rows(2)) == (5, 33, 23)
    assert trends(panel, "linear") == 10 and trends(panel, "constant") == 5
    assert panel.on(0) == (32, 5), "one token is numbered 0"


def test_a_last_few_texts_join_the_others() -> None:
    assert [len(it.texts) for it in gathered([9] * 6, together=5, least=1)] == [6]
    assert [len(it.texts) for it in gathered([9] * 7, together=5, least=1)] == [5, 2]
    assert gathered([3, 3], together=5, least=4) == []


def test_no_lag_crosses_into_another_text() -> None:
    panel = panel_of(numbered(), names=["up", "down"], together=2, least=5)
    for part in lagged(panel, 0, [0, 1, 3], 3):
        now, before, long_before = np.moveaxis(part, -1, 0)
        assert (now - before == 1).all() and (now - long_before == 3).all()
        assert (now // 100 == long_before // 100).all()


def test_means_and_slopes_are_taken_out_of_each_text() -> None:
    panel = panel_of(numbered(), names=["up", "down"], together=2, least=5)
    columns = lagged(panel, 0, [0, 1], 1)
    for part in columns:
        np.testing.assert_allclose(without_trend(part, "linear"), 0, atol=1e-10)
        part = without_trend(part, "constant")
        np.testing.assert_allclose(part.mean(axis=1), 0, atol=1e-10)
        assert abs(part).max() > 1


def test_waves_are_a_gaussian_kernel_on_average() -> None:
    rng = np.random.default_rng(0)
    points = 2.0 * rng.normal(size=(1, 40, 1))
    kernels = []
    for seed in range(400):
        (drawn,) = waves((points,), scale=2.0, seed=seed)
        assert drawn.shape == (1, 40, 2 * WAVES)
        kernels.append(drawn[0] @ drawn[0].T / WAVES)
    apart = (points[0] - points[0].T) / 2.0
    np.testing.assert_allclose(np.mean(kernels, axis=0), np.exp(-(apart**2) / 2), atol=0.06)


def test_what_lies_behind_holds_nothing_of_later_tokens() -> None:
    values = np.array([[4.0, 2.0, 6.0, 0.0]])[..., None]
    np.testing.assert_allclose(behind(values)[0, :, 0], [0, -1, 2, -3])
