"""Controls: who may be drawn, how many, and whether what they take is what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as how_often
from hypothesis import strategies as st
from torch import Tensor

from sae_graphs import controls
from sae_graphs.clean_run import CleanRun
from sae_graphs.controls import (
    Controls,
    Member,
    active_members,
    feature_zero,
    matched,
    random_directions,
    selected,
    shuffled,
)
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.joint import run_sets
from tests.conftest import BridgeOf
from tests.linear_model import linear_model
from tests.models import KINDS, OTHER_PROMPT, PROMPT, STACKS, random_stack

# Hypothesis runs a test many times with one model, which no test changes.
rarely = how_often(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_but_first(clean: CleanRun) -> Tensor:
    ablated = torch.ones(len(clean), dtype=torch.bool)
    ablated[0] = False
    return ablated


def taken_by(
    model: InstrumentedModel, clean: CleanRun, ablated: Tensor, members: Collection[Member]
) -> Tensor:
    """What ablating them takes from the stream, `[L, T]`."""
    return run_sets(model, clean, selected(model, ablated, [members]), 1, len(clean) - 1)[1][0]


def copies_of(found: Controls) -> list[list[Member]]:
    """The sets of features, one a copy, with the position of each."""
    sets: list[list[Member]] = [[] for _ in range(found.n)]
    for depth, chosen in found.sets.items():
        assert len(chosen.features.unique()) == len(chosen.features)
        for copy, position, column in chosen.chosen.nonzero().tolist():
            sets[copy].append(Member(depth, int(chosen.features[column]), position))
    return sets


def features_of(members: Sequence[Member]) -> set[Member]:
    return {member._replace(position=None) for member in members}


def some_active(clean: CleanRun, ablated: Tensor, counts: Sequence[int], seed: int) -> list[Member]:
    """So many active features of each layer."""
    members = []
    for depth, count in enumerate(counts):
        active = clean.activations[depth].active(ablated)
        order = torch.randperm(len(active), generator=seeded(seed))[:count]
        members += [Member(depth, feature) for feature in active[order].tolist()]
    return members


def drawn_for(
    model: InstrumentedModel, clean: CleanRun, members: Sequence[Member], n: int, seed: int = 0
) -> Controls:
    ablated = all_but_first(clean)
    taken = taken_by(model, clean, ablated, members)
    return matched(model, clean, ablated, members, taken, n, seeded(seed))


# -- what ablation takes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_what_ablation_takes(bridge_of: BridgeOf, kind: str) -> None:
    """Against the stream before and after, in every layer, at all positions and at one."""
    bridge = bridge_of("gpt2", "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], [kind]))
    clean = model.clean_run(PROMPT)
    one = torch.arange(len(clean)) == 4
    for depth in range(4):
        for places, size in ((all_but_first(clean), 3), (one, 2), (all_but_first(clean), 1)):
            pool = controls._pool(model, clean, depth, places, (), seeded())
            size = min(size, len(pool.features))
            picked = controls._subsets(len(pool.features), size, 6, seeded(depth))
            said = controls._squared_norms(pool.gram, picked).sqrt()
            sets = {depth: controls._chosen(pool, picked, places)}
            _, moved = run_sets(model, clean, sets, 6, len(clean) - 1)
            torch.testing.assert_close(
                said.double(), moved[:, depth].norm(dim=1), rtol=1e-5, atol=1e-5
            )
            assert float(said.min()) > 0.01


def test_norms_by_hand() -> None:
    """0.0 and 0.2 of the linear model are (1, 0) and (2, 3) at a and b: 1 + 4, and with 9 more."""
    model = linear_model()
    clean = model.clean_run("ab")
    pool = controls._pool(model, clean, 0, all_but_first(clean), (Member(0, 1),), seeded())
    assert pool.features.tolist() == [0, 2]
    assert pool.gram.tolist() == [[5.0, 0.0], [0.0, 9.0]]


def test_a_dead_decoder_row_spoils_no_other(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["pre"], ["layer_norm"])
    model = InstrumentedModel(bridge, saes)
    clean = model.clean_run(PROMPT)
    places = all_but_first(clean)
    first = int(clean.activations[1].active(places)[0])
    with torch.no_grad():
        saes[1].W_dec[first] = 0.0
    pool = controls._pool(model, clean, 1, places, (), seeded())
    norms = pool.gram.diagonal()
    assert float(norms[0]) == 0.0 and float(norms[1:].min()) > 0.0


# -- matched ---------------------------------------------------------------------------------------


@rarely
@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any),
    st.integers(1, 30),
    st.integers(0, 99),
)
def test_matched_sets(tiny: InstrumentedModel, counts: list[int], n: int, seed: int) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    members = some_active(clean, ablated, counts, seed)
    found = drawn_for(tiny, clean, members, n, seed)
    assert found.refused is None or "different control sets" in found.refused
    if found.refused:
        return
    sets = copies_of(found)
    assert len(sets) == n
    for drawn in sets:
        features = features_of(drawn)
        assert not features & set(members)
        assert Counter(member.depth for member in features) == Counter(
            member.depth for member in members
        )
        assert set(active_members(clean, ablated, features)) == features
        assert {member.position for member in drawn} <= set(range(1, len(clean)))
    assert found.distinct == len({frozenset(drawn) for drawn in sets})


def test_inactive_features_are_neither_matched_nor_drawn(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    active = some_active(clean, ablated, (2, 0, 1), 0)
    lively = set(clean.activations[0].active(ablated).tolist())
    silent = [Member(0, index) for index in range(40) if index not in lively]
    assert silent
    members = [*active, *silent]
    assert active_members(clean, ablated, members) == tuple(sorted(active))
    for drawn in copies_of(drawn_for(tiny, clean, members, 30)):
        assert Counter(m.depth for m in features_of(drawn)) == {0: 2, 2: 1}
        assert not features_of(drawn) & set(members)


def test_features_at_positions_are_matched_there(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    acts = {depth: clean.activations[depth].of(torch.arange(40)) > 0 for depth in (1, 2)}
    busy = acts[1].sum(1)[1:].argsort(descending=True)[:2].add(1).tolist()
    last = int(acts[2].sum(1)[1:].argmax()) + 1
    members = [  # some that are active there
        *[Member(1, feature, busy[0]) for feature in acts[1][busy[0]].nonzero()[:2, 0].tolist()],
        Member(1, int(acts[1][busy[1]].nonzero()[-1, 0]), busy[1]),
        Member(2, int(acts[2][last].nonzero()[0, 0]), last),
    ]
    places = [(member.depth, member.position) for member in members]
    own = {(member.depth, member.feature) for member in members}
    found = drawn_for(tiny, clean, members, 40)
    assert found.refused is None
    for drawn in copies_of(found):
        assert sorted((member.depth, member.position) for member in drawn) == sorted(places)
        assert not {(member.depth, member.feature) for member in drawn} & own
        assert all(acts[member.depth][member.position, member.feature] for member in drawn)


def test_activity_at_a_position(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    acts = clean.activations[1].of(torch.arange(40)) != 0
    feature = next(i for i in range(40) if acts[3, i] and not acts[4, i])
    here, there, first = (Member(1, feature, at) for at in (3, 4, 0))
    assert active_members(clean, all_but_first(clean), [here, there]) == (here,)
    only_first = torch.arange(len(clean)) == 0
    everywhere = [Member(1, feature)]
    assert bool(active_members(clean, only_first, everywhere)) == bool(acts[0, feature])
    assert bool(active_members(clean, only_first, [first])) == bool(acts[0, feature])


def test_the_search_matches_norms_better_than_chance(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    members = some_active(clean, ablated, (0, 3), 2)
    wanted = float(taken_by(tiny, clean, ablated, members)[1].norm())
    found = drawn_for(tiny, clean, members, 60)
    _, moved = run_sets(tiny, clean, found.sets, 60, len(clean) - 1)
    away = (moved[:, 1].norm(dim=1) / wanted).log().abs()
    pool = controls._pool(tiny, clean, 1, ablated, members, seeded())
    anyone = controls._subsets(len(pool.features), 3, 500, seeded())
    norms = controls._squared_norms(pool.gram, anyone).sqrt()
    by_chance = (norms / wanted).log().abs()
    assert float(away.median()) < 0.4 * float(by_chance.median())


def test_scales_give_the_norm_of_the_path(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    members = some_active(clean, ablated, (2, 1), 0)
    taken = taken_by(tiny, clean, ablated, members)
    found = drawn_for(tiny, clean, members, 20)
    for depth in (0, 1):
        alone = {depth: found.sets[depth]}
        _, moved = run_sets(tiny, clean, alone, 20, len(clean) - 1)
        norms = moved[:, depth].norm(dim=1) * found.scale[depth]
        torch.testing.assert_close(
            norms, taken[depth].norm().expand(20).to(norms), rtol=1e-5, atol=0.0
        )


def test_one_seed_gives_one_draw(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    members = some_active(clean, all_but_first(clean), (2, 2, 1), 0)

    def drawn(seed: int) -> list[list[Member]]:
        return copies_of(drawn_for(tiny, clean, members, 25, seed))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_matched_sets_that_cannot_differ_are_refused(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    active = clean.activations[1].active(ablated).tolist()
    most = [Member(1, feature) for feature in active[:-3]]
    found = drawn_for(tiny, clean, most, 20)
    assert found.refused == f"layer 1 has 3 other active features, and {len(most)} are needed"
    assert found.n == 0 and not found.sets
    half = [Member(1, feature) for feature in active[: len(active) // 2]]
    rest = len(active) - len(half)
    if rest == len(half):
        assert "only 1 different" in str(drawn_for(tiny, clean, half, 20).refused)
    silent = [Member(1, i) for i in range(40) if i not in active]
    assert drawn_for(tiny, clean, silent, 20).refused == "none of its features is active here"


def test_few_features_make_few_sets() -> None:
    """Of 0.1, there is 0.0 and 0.2 to draw: two sets, too few for twenty controls."""
    model = linear_model()
    clean = model.clean_run("ab")
    refused = drawn_for(model, clean, [Member(0, 1)], 20)
    assert refused.refused == "only 2 different control sets can be drawn"
    assert drawn_for(model, clean, [Member(0, 1)], 1).refused is None


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
    found = controls._subsets(total, size, 20, seeded(total))
    assert found.shape == (20, size)
    assert all(len(set(row)) == size for row in found.tolist())
    assert int(found.min()) >= 0 and int(found.max()) < total


@pytest.mark.parametrize(("total", "size"), [(12, 2), (5, 2)])
def test_subsets_are_equally_likely(total: int, size: int) -> None:
    """Each thing is in `size / total` of 6000 sets, give or take four deviations."""
    found = controls._subsets(total, size, 6000, seeded())
    share = size / total
    deviation = (share * (1 - share) / 6000) ** 0.5
    often = torch.bincount(found.flatten(), minlength=total) / 6000
    assert float((often - share).abs().max()) < 4 * deviation


def test_a_large_pool_is_sampled(tiny: InstrumentedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "POOL", 9)
    clean = tiny.clean_run(OTHER_PROMPT)
    ablated = all_but_first(clean)
    members = some_active(clean, ablated, (2,), 0)
    pool = controls._pool(tiny, clean, 0, ablated, members, seeded(3))
    chosen = pool.features.tolist()
    assert len(chosen) == 9 == len(pool.gram) and chosen == sorted(set(chosen))
    assert not {Member(0, feature) for feature in chosen} & set(members)
