"""Shuffles, directions and feature zero; and subsets drawn at random."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation import controls
from sae_graphs.validation.controls import (
    Member,
    active_members,
    feature_zero,
    random_directions,
    shuffled,
)
from tests.support.control_sets import (
    all_but_first,
    copies_of,
    features_of,
    pool_of,
    rarely,
    seeded,
    some_active,
    taken_by,
)
from tests.support.models import OTHER_PROMPT, PROMPT

# -- shuffles --------------------------------------------------------------------------------------


@rarely
@given(st.integers(0, 99))
def test_shuffles(tiny: InstrumentedModel, seed: int) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    nodes = some_active(clean, ablated, (6, 5, 4, 3), seed)
    members = [*nodes[:2], nodes[6], nodes[11]]
    found = shuffled(tiny, clean, ablated, members, nodes, 40, seeded(seed))
    assert found.refused is None
    sets = [frozenset(features_of(drawn)) for drawn in copies_of(found)]
    for drawn in sets:
        assert drawn <= set(nodes)
        assert Counter(m.depth for m in drawn) == Counter(m.depth for m in members)
        assert drawn != set(members)
    assert found.distinct == len(set(sets)) >= controls.LEAST_DISTINCT
    assert any(drawn & set(members) for drawn in sets)  # its own nodes may be among them


def test_shuffles_that_cannot_differ_are_refused(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    nodes = some_active(clean, ablated, (3, 2), 0)
    found = shuffled(tiny, clean, ablated, nodes, nodes, 40, seeded())
    assert found.refused == "the graph's nodes make only 0 other sets"
    found = shuffled(tiny, clean, ablated, nodes[:1], nodes, 40, seeded())
    assert found.refused == "the graph's nodes make only 2 other sets"
    assert shuffled(tiny, clean, ablated, nodes[:1], nodes, 2, seeded()).refused is None
    asleep = [Member(2, i) for i in range(40)]
    asleep = [each for each in asleep if not active_members(clean, ablated, [each])]
    found = shuffled(tiny, clean, ablated, asleep, nodes, 40, seeded())
    assert found.refused == "none of its features is active here"


# -- directions, feature zero ----------------------------------------------------------------------


def test_random_directions_have_the_norms_of_the_path(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    moved = taken_by(tiny, clean, ablated, some_active(clean, ablated, (2, 0, 3), 0))
    found = random_directions(clean, moved, 7, seeded())
    assert sorted(found) == [0, 2]
    for depth, deltas in found.items():
        expected = moved[depth].expand(7, -1)
        torch.testing.assert_close(deltas.norm(dim=2), expected, rtol=1e-12, atol=0.0)
        touched = moved[depth] > 0
        ways = deltas[:, touched] / moved[depth][None, touched, None]
        torch.testing.assert_close(ways, ways[:, :1].expand_as(ways))  # one a layer and copy
        towards = ways[:, 0]
        assert float((towards @ towards.T - torch.eye(7)).abs().max()) < 0.95
    again = random_directions(clean, moved, 7, seeded())
    other = random_directions(clean, moved, 7, seeded(1))
    assert torch.equal(found[0], again[0]) and not torch.equal(found[0], other[0])


def test_random_directions_are_unbiased(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    moved = torch.zeros(4, len(clean), dtype=torch.float64)
    moved[1, 2] = 1.0
    towards = random_directions(clean, moved, 4000, seeded())[1][:, 2]  # [K, D]
    assert float(towards.mean(0).norm()) < 0.05
    spread = towards.T @ towards / 4000 * towards.shape[1]
    assert float((spread - torch.eye(towards.shape[1])).abs().max()) < 0.15


def test_feature_zero() -> None:
    members = [Member(2, 7), Member(0, 5, 3), Member(0, 6, 3), Member(0, 6, 4)]
    assert feature_zero(members) == (Member(0, 0, 3), Member(0, 0, 4), Member(2, 0))


# -- drawing ---------------------------------------------------------------------------------------


@given(st.integers(1, 120), st.data())
def test_subsets(total: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, total))
    found = controls.subsets(total, size, 20, seeded(total))
    assert found.shape == (20, size)
    assert all(len(set(row)) == size for row in found.tolist())
    assert int(found.min()) >= 0 and int(found.max()) < total


@pytest.mark.parametrize(("total", "size"), [(12, 2), (5, 2)])
def test_subsets_are_equally_likely(total: int, size: int) -> None:
    """Each thing is in `size / total` of 6000 sets, give or take four deviations."""
    found = controls.subsets(total, size, 6000, seeded())
    share = size / total
    deviation = (share * (1 - share) / 6000) ** 0.5
    often = torch.bincount(found.flatten(), minlength=total) / 6000
    assert float((often - share).abs().max()) < 4 * deviation


def test_a_large_pool_is_sampled(tiny: InstrumentedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "POOL", 9)
    clean = tiny.clean_run(OTHER_PROMPT)
    ablated = all_but_first(clean)
    members = some_active(clean, ablated, (2,), 0)
    pool = pool_of(tiny, clean, 0, ablated, members)
    chosen = pool.features.tolist()
    assert len(chosen) == 9 == len(pool.gram_at_read) and chosen == sorted(set(chosen))
    assert not {Member(0, feature) for feature in chosen} & set(members)
