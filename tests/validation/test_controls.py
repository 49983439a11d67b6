"""Controls: who may be drawn, how many, and whether what they take is what is said of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import run_sets
from sae_graphs.validation import controls
from sae_graphs.validation.controls import Member, active_members, matched
from tests.conftest import BridgeOf
from tests.support.control_sets import (
    all_but_first,
    classes_of,
    copies_of,
    drawn_for,
    features_of,
    pool_of,
    rarely,
    regions,
    seeded,
    some_active,
    taken_by,
)
from tests.support.linear_model import linear_model
from tests.support.models import KINDS, PROMPT, STACKS, random_stack
from tests.support.slow import first

# -- what ablation takes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", first(1, KINDS))
def test_norms_are_what_ablation_takes(bridge_of: BridgeOf, kind: str) -> None:
    """Against the stream before and after, in every layer, at all positions and at one."""
    bridge = bridge_of("gpt2", "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], [kind]))
    clean = model.clean_run(PROMPT)
    everywhere, row = all_but_first(clean), torch.arange(len(clean))
    for depth in range(4):
        for places, size in ((everywhere, 3), (row == 4, 2), (row == len(clean) - 1, 2)):
            pool = pool_of(model, clean, depth, places)
            size = min(size, len(pool.features))
            picked = controls.subsets(len(pool.features), size, 6, seeded(depth))
            grams = pool.gram_at_read, pool.gram_elsewhere
            said = torch.stack([controls.set_norms(gram, picked) for gram in grams], dim=1)
            sets = {depth: controls._chosen(pool, picked, places)}
            _, moved = run_sets(model, clean, sets, 6, len(clean) - 1)
            torch.testing.assert_close(said, regions(moved[:, depth]), rtol=1e-5, atol=1e-5)
            assert float(said.norm(dim=1).min()) > 0.01


def test_norms_by_hand() -> None:
    """0.0 and 0.2 of the linear model are (1, 2) and (0, 3) at a and b; b is read."""
    model = linear_model()
    clean = model.clean_run("ab")
    pool = pool_of(model, clean, 0, all_but_first(clean), (Member(0, 1),))
    assert pool.features.tolist() == [0, 2]
    assert pool.at_read.tolist() == [True, True]
    assert pool.gram_at_read.tolist() == [[4.0, 0.0], [0.0, 9.0]]
    assert pool.gram_elsewhere.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    backwards = model.clean_run("ba")
    pool = pool_of(model, backwards, 0, all_but_first(backwards))
    assert pool.features.tolist() == [0, 1, 2]
    assert pool.at_read.tolist() == [True, True, False]  # 0.2 is 0 at a
    both = torch.tensor([[0, 1], [1, 2]])  # (1, 2, 0) at a, which is read; (2, 1, 3) at b
    assert controls.set_norms(pool.gram_at_read, both).tolist() == [5**0.5, 2.0]
    assert controls.set_norms(pool.gram_elsewhere, both).tolist() == [5**0.5, 10**0.5]


def test_norms_of_a_path_by_region() -> None:
    """Rows 1, 2 and 4 are ablated, of which 4 is read: 5 there, and 3 and 4 elsewhere."""
    taken, places = torch.tensor([7.0, 3.0, 4.0, 7.0, 5.0]), torch.tensor([0, 1, 1, 0, 1]).bool()
    assert controls._norms(taken, places, 4) == (5.0, 5.0)
    assert controls._norms(taken, places, 2) == (4.0, pytest.approx(34**0.5))
    assert controls._norms(taken, places, 3) == (0.0, pytest.approx(50**0.5))


def test_a_dead_decoder_row_spoils_no_other(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["pre"], ["layer_norm"])
    model = InstrumentedModel(bridge, saes)
    clean = model.clean_run(PROMPT)
    places = all_but_first(clean)
    first = int(clean.activations[1].active(places)[0])
    with torch.no_grad():
        saes[1].W_dec[first] = 0.0
    pool = pool_of(model, clean, 1, places)
    norms = pool.gram_at_read.diagonal() + pool.gram_elsewhere.diagonal()
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
    if found.refused:
        assert "different control sets" in found.refused or "are needed" in found.refused
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
        assert classes_of(clean, features) == classes_of(clean, members)
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
    """In both regions, beside sets of the same classes: the best of about ten draws each."""
    clean = tiny.clean_run(PROMPT)
    ablated = all_but_first(clean)
    members = some_active(clean, ablated, (0, 3), 2)
    assert classes_of(clean, members) == {(1, True): 2, (1, False): 1}
    wanted = regions(taken_by(tiny, clean, ablated, members)[1])
    assert float(wanted.min()) > 0
    found = drawn_for(tiny, clean, members, 60)
    _, moved = run_sets(tiny, clean, found.sets, 60, len(clean) - 1)
    away = (regions(moved[:, 1]) - wanted).abs()  # [K, 2]
    pool = pool_of(tiny, clean, 1, ablated, members)
    anyone = controls._Wanted(2, 1, 0.0, 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "TRIES", 1)
        picked = controls._draw(pool, anyone, 500, seeded())
    grams = pool.gram_at_read, pool.gram_elsewhere
    norms = torch.stack([controls.set_norms(gram, picked) for gram in grams], dim=1)
    by_chance = (norms - wanted).abs()
    assert 8 <= pool.sets(anyone) // controls.LEAST_CHOICE <= controls.TRIES
    assert (away.median(0).values < 0.65 * by_chance.median(0).values).all()


def test_one_seed_gives_one_draw(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    members = some_active(clean, all_but_first(clean), (2, 2, 1), 0)

    def drawn(seed: int) -> list[list[Member]]:
        return copies_of(drawn_for(tiny, clean, members, 25, seed))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def by_class(clean: CleanRun, depth: int) -> tuple[list[Member], list[Member]]:
    """A layer's active features: those that are active in the last row, and the others."""
    acts = clean.activations[depth].of(torch.arange(40)) != 0
    there, elsewhere = acts[-1], acts[1:].any(0) & ~acts[-1]
    return tuple(  # type: ignore[return-value]
        [Member(depth, feature) for feature in group.nonzero()[:, 0].tolist()]
        for group in (there, elsewhere)
    )


def test_matched_sets_that_cannot_differ_are_refused(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    there, elsewhere = by_class(clean, 1)

    def refused(*members: Member) -> str | None:
        return drawn_for(tiny, clean, members, 20).refused

    n = len(there) - 1
    assert refused(*there[1:]) == (
        f"layer 1 has 1 other features active at the token that is read, and {n} are needed"
    )
    n = len(elsewhere) - 2
    assert refused(*elsewhere[2:]) == (
        f"layer 1 has 2 other features active at other ablated tokens alone, and {n} are needed"
    )
    silent = [Member(1, i) for i in range(40) if Member(1, i) not in {*there, *elsewhere}]
    assert refused(*silent) == "none of its features is active here"


def test_how_many_sets_there_are(tiny: InstrumentedModel) -> None:
    """Of `m` that are active there and `k` that are not, one of each is taken: `(m-1)(k-1)`."""
    clean = tiny.clean_run(PROMPT)
    sizes = []
    for depth in (1, 2):
        there, elsewhere = by_class(clean, depth)
        found = drawn_for(tiny, clean, [there[0], elsewhere[0]], 20)
        sizes.append((len(there) - 1) * (len(elsewhere) - 1))
        assert found.refused is None and found.narrowest == sizes[-1]
    firsts = [group[0] for depth in (1, 2) for group in by_class(clean, depth)]
    assert drawn_for(tiny, clean, firsts, 20).narrowest == min(sizes)  # not their product


@pytest.mark.parametrize("depth", range(4))
def test_what_acts_at_the_read_row_is_replaced_by_what_does(
    tiny: InstrumentedModel, depth: int
) -> None:
    clean = tiny.clean_run(PROMPT)
    acts = clean.activations[depth].of(torch.arange(40)) != 0
    for group, is_there in zip(by_class(clean, depth), (True, False), strict=True):
        if len(group) < 3:
            continue
        found = drawn_for(tiny, clean, group[:1], 1)
        assert found.refused is None and found.narrowest == len(group) - 1
        many = controls._pool(
            tiny, clean, depth, all_but_first(clean), len(clean) - 1, group[:1], seeded()
        )
        wanted = controls._Wanted(int(is_there), int(not is_there), 1.0, 1.0)
        picked = many.features[controls._draw(many, wanted, 200, seeded())[:, 0]]
        assert acts[-1, picked].tolist() == [is_there] * 200
        assert len(picked.unique()) > 1


@pytest.mark.parametrize("read", [3, 5])
def test_the_row_that_is_read_counts_and_no_other(tiny: InstrumentedModel, read: int) -> None:
    """Rows up to `read` are ablated, and what is active at the last row does not matter."""
    clean = tiny.clean_run(PROMPT)
    ablated = (torch.arange(len(clean)) <= read) & all_but_first(clean)
    acts = clean.activations[1].of(torch.arange(40)) != 0
    here, last = acts[read], acts[-1]
    member = Member(1, int((here & ~last).nonzero()[0, 0]))
    taken = taken_by(tiny, clean, ablated, [member])
    found = matched(tiny, clean, ablated, read, [member], taken, 10, seeded())
    pool = here.clone()
    pool[member.feature] = False
    if found.refused is None:
        drawn = {feature.feature for copy in copies_of(found) for feature in copy}
        assert drawn <= set(pool.nonzero()[:, 0].tolist())
        assert found.narrowest == int(pool.sum())
    else:
        assert found.refused == f"only {int(pool.sum())} different control sets can be drawn"
    # where the row that is read is not ablated, nothing is active there
    short = ablated.clone()
    short[read] = False
    early = controls._active_at(clean, 1, torch.arange(40), short, read)
    assert not early.any() and here.any()
    assert torch.equal(controls._active_at(clean, 1, torch.arange(40), ablated, read), here)


def test_the_best_match_in_both_regions_by_hand() -> None:
    """Four features take (3, 0), (4, 0), (0, 3), (5, 5) of the read row and the others."""
    there, elsewhere = torch.tensor([3.0, 4.0, 0.0, 5.0]), torch.tensor([0.0, 0.0, 3.0, 5.0])
    pool = controls._Pool(
        torch.tensor([10, 11, 12, 13]),
        torch.tensor([True, True, False, True]),
        there.square().diag().double(),
        elsewhere.square().diag().double(),
    )
    assert pool.sets(controls._Wanted(1, 0, 0.0, 0.0)) == 3
    assert pool.sets(controls._Wanted(2, 1, 0.0, 0.0)) == 3
    assert pool.sets(controls._Wanted(0, 2, 0.0, 0.0)) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "LEAST_CHOICE", 3 / 64)  # 32 draws: all three, almost surely

        def best(*wanted: float) -> list[list[int]]:
            drawn = controls._draw(pool, controls._Wanted(*wanted), 3, seeded())  # type: ignore[arg-type]
            return drawn.tolist()

        assert best(1, 0, 3.2, 0.0) == [[0]] * 3
        assert best(1, 0, 3.8, 0.0) == [[1]] * 3
        # 7 in all, and 6 elsewhere: 5 and 5 is nearer than 4 and 0, though 4 is nearer to 3.6
        assert best(1, 0, 3.6, 6.0) == [[3]] * 3
        # with 2 always there, (3, 3), (4, 3) and (5, 34 ** 0.5)
        assert best(1, 1, 4.2, 3.0) == [[1, 2]] * 3
        assert best(1, 1, 4.2, 5.0) == [[2, 3]] * 3


def test_few_features_make_few_sets() -> None:
    """Of 0.1, there is 0.0 and 0.2 to draw: two sets, too few for twenty controls."""
    model = linear_model()
    clean = model.clean_run("ab")
    refused = drawn_for(model, clean, [Member(0, 1)], 20)
    assert refused.refused == "only 2 different control sets can be drawn"
    assert drawn_for(model, clean, [Member(0, 1)], 1).refused is None
