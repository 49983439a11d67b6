"""The q-values of categories: what is planted is found, and shuffled categories find nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.significance import exceeding, mean_interval
from tests.support.atlases import atlas_by_hand

EDGES, PROMPTS, KINDS = 30, 80, ("a", "b", "c", "d")
SHUFFLES = 12


def drawn(seed: int, *, planted: bool = False) -> dict:
    """Prompts that have each edge with a probability of the edge's own, whatever their kind."""
    rng = np.random.default_rng(seed)
    often = rng.uniform(0.1, 0.9, EDGES)
    graphs = {}
    for number in range(PROMPTS):
        kind = KINDS[rng.integers(len(KINDS))]
        chance = often.copy()
        if planted:
            chance[0] = 0.9 if kind == "a" else 0.05
        has = rng.random(EDGES) < chance
        links = [(f"0.{n}@0", f"1.{n}@0", -float(rng.uniform(0.5, 2))) for n in has.nonzero()[0]]
        graphs[f"{number}"] = (kind, links)
    return graphs


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    found = Atlas(atlas_by_hand(tmp_path / "made", drawn(0, planted=True))).recurring_edges()
    found = found.set_index("source")
    assert found.loc["0.0", "category"] == "a" and found.loc["0.0", "q"] < 1e-4
    assert (found.drop(index="0.0")["q"] > 0.05).all()


def test_shuffled_categories_are_called_at_their_rate(tmp_path: Path) -> None:
    """Over independent atlases without an association: any q <= 0.05 in about 5 % at most."""
    called, p = 0, []
    for seed in range(100):
        counts, sizes = _counts(seed)
        each = exceeding(counts, counts.sum(axis=1, keepdims=True), sizes, PROMPTS)
        p.append(each.ravel())
        ordered = np.sort(each.ravel())
        called += bool((ordered * ordered.size / np.arange(1, ordered.size + 1) <= 0.05).any())
    assert called <= 11  # of 100 at a rate of 5 %: exceeded once in 100 times
    shares = [(np.concatenate(p) <= level).mean() for level in (0.05, 0.2, 0.5)]
    assert all(share <= level for share, level in zip(shares, (0.05, 0.2, 0.5), strict=True))
    assert shares[2] > 0.25, "so small would be no test"


def _counts(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.arange(PROMPTS) % len(KINDS))
    has = rng.random((EDGES, PROMPTS)) < rng.uniform(0.1, 0.9, EDGES)[:, None]
    counts = np.stack([has[:, kinds == kind].sum(axis=1) for kind in range(len(KINDS))], axis=1)
    return counts, np.bincount(kinds)


@pytest.mark.slow
def test_an_atlas_with_shuffled_categories_says_little(tmp_path: Path) -> None:
    """In columns that deal out the same categories at random, where one has something planted."""
    rng, graphs = np.random.default_rng(0), drawn(0, planted=True)
    own = [kind for kind, _ in graphs.values()]
    columns = {"kind": own, **{f"shuffle {n}": rng.permutation(own) for n in range(SHUFFLES)}}
    dealt = [
        dict(zip(columns, map(str, each), strict=True))
        for each in zip(*columns.values(), strict=True)
    ]
    made = {
        prompt: (kinds, links)
        for (prompt, (_, links)), kinds in zip(graphs.items(), dealt, strict=True)
    }
    atlas = Atlas(atlas_by_hand(tmp_path / "made", made))
    least = {by: atlas.recurring_edges(by=by)["q"].min() for by in columns}
    assert least.pop("kind") < 1e-4
    assert sum(q <= 0.05 for q in least.values()) <= 3  # of 12 at 5 %: once in 400 times are more


def test_p_is_that_of_all_draws() -> None:
    # 3 of 5 are special, 2 are drawn: both special in 3 of 10 draws, one at least in 9.
    assert exceeding(np.array([2, 1, 0]), np.array([2, 2, 2]), 3, 5).tolist() == pytest.approx(
        [0.3, 0.9, 1.0]
    )


def test_p_is_scipys() -> None:
    from scipy.stats import hypergeom

    rng = np.random.default_rng(0)
    total = 60
    drawn, special = rng.integers(0, total + 1, (2, 3000))
    counts = rng.integers(0, np.minimum(drawn, special) + 1)
    found = exceeding(counts, drawn, special, total)
    expected = hypergeom.sf(counts - 1, total, special, drawn)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-14)
    large = exceeding(np.array([1050, 950, 1300]), np.full(3, 20_000), 5000, 100_000)
    exact = hypergeom.sf(np.array([1049, 949, 1299]), 100_000, 5000, 20_000)
    assert large == pytest.approx(exact, rel=1e-7)


def test_an_interval_needs_three_values() -> None:
    low, high = mean_interval(np.ones(3), np.ones(3), np.array([1, 2, 3]))
    assert np.isnan(low[:2]).all() and np.isnan(high[:2]).all()
    assert low[2] < 1 < high[2]
