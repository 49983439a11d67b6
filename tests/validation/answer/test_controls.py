"""Controls of exactly the unit's norm, and others of the same layers and tokens."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor

from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.flows import selected
from sae_graphs.effects.answer.probe import Table
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import Edit, Sets, adding, run_packs, run_sets
from sae_graphs.validation.answer.controls import (
    Drawn,
    all_but,
    directions,
    matched,
    sets_of,
    shuffled,
)
from sae_graphs.validation.answer.subject import Prepared
from sae_graphs.validation.scaling import scaled_to
from tests.conftest import BridgeOf
from tests.support.answers import ready
from tests.support.models import PROMPT, STACKS, random_stack
from tests.support.slow import only

KINDS = {
    "float64": ["standard", "jumprelu", "topk", "gated"],
    "normalised": ["layer_norm", "constant_norm", "topk_rescaled", "standard"],
    "float32": ["standard", "jumprelu"],
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(bridge_of: BridgeOf, name: str) -> InstrumentedModel:
    dtype = "float32" if name == "float32" else "float64"
    bridge = bridge_of("gpt2", dtype)
    return InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], KINDS[name], dtype=dtype))


def some_spots(found: Prepared, counts: dict[tuple[int, int], int]) -> list[Spot]:
    """So many features of each layer and token."""
    spots = []
    for (depth, position), count in counts.items():
        here = found.table.ablations[depth]
        features = here.features[here.positions == position][:count]
        assert len(features) == count
        spots += [Spot(depth, feature, position) for feature in features.tolist()]
    return spots


def moved_by(found: Prepared, spots: list[Spot]) -> Tensor:
    """`[L, T]`."""
    asked = found.asked
    sets = selected([spots], len(asked.clean), asked.clean.logits.device)
    return run_sets(asked.model, asked.clean, sets, 1, asked.read, intervention=found.intervention)[
        1
    ][0]


def several(found: Prepared) -> list[Spot]:
    """Of each layer two features at the token where most are active, and one at the next such."""
    counts: dict[tuple[int, int], int] = {}
    for here in found.table.ablations:
        tokens = Counter(here.positions.tolist()).most_common(2)
        assert tokens[-1][1] >= 6, "too few to draw controls from"
        counts |= {(here.depth, position): 2 - rank for rank, (position, _) in enumerate(tokens)}
    return some_spots(found, counts)


@pytest.mark.parametrize("mean", [None, 0.3])
@pytest.mark.parametrize("name", only(KINDS, "float64"))
def test_equal_norm_is_equal(bridge_of: BridgeOf, name: str, mean: float | None) -> None:
    """At every layer and token, whatever upstream has done to the features there."""
    found = ready(model_of(bridge_of, name), PROMPT, mean=mean)
    asked, n = found.asked, 25
    spots = several(found)
    norms = moved_by(found, spots)
    assert (norms > 0).sum() > len(found.table.ablations)  # some may have fallen silent
    drawn = matched(asked, found.table, spots, norms, n, seeded())
    assert drawn.n == n
    sets, towards = sets_of(drawn, len(asked.clean)), directions(asked, norms, n, seeded())
    _, took = run_packs(
        asked.model,
        asked.clean,
        lambda start, stop: {
            depth: scaled_to(
                asked.model,
                asked.clean,
                depth,
                s.part(start, stop),
                found.intervention,
                norms[depth],
            )
            for depth, s in sets.items()
        },
        n,
        asked.read,
    )
    _, pushed = run_packs(
        asked.model,
        asked.clean,
        lambda start, stop: {d: adding(deltas[start:stop]) for d, deltas in towards.items()},
        n,
        asked.read,
    )
    relative = 1e-5 if name == "float32" else 1e-10
    for each in (*took, *pushed):
        torch.testing.assert_close(each, norms, rtol=relative, atol=0.0)
    _, plain = run_sets(
        asked.model, asked.clean, sets, n, asked.read, intervention=found.intervention
    )
    assert not torch.allclose(plain, norms.expand_as(plain), rtol=0.05)  # unscaled ones differ


def test_what_has_fallen_silent_is_scaled_along_its_clean_direction(
    tiny: InstrumentedModel,
) -> None:
    """The first layer's whole stream is pushed far away, so that the second's feature is off."""
    found = ready(tiny, PROMPT)
    asked = found.asked
    (spot,) = some_spots(found, {(1, 4): 1})
    sets = selected([[spot]], len(asked.clean), asked.clean.logits.device)
    norms = torch.full((len(asked.clean),), 2.5, dtype=torch.float64)
    direction = tiny.stack.layers[1].sae.W_enc[:, spot.feature]
    far = torch.zeros(1, *asked.clean.streams[0].shape, dtype=torch.float64)
    far[0, 4] = -1e4 * direction
    scaled = scaled_to(tiny, asked.clean, 1, sets[1], found.intervention, norms)

    def both_edits(first: Edit, second: Edit, start: int, stop: int) -> dict[int, Edit]:
        return {0: first, 1: second}

    for deltas in (far, 0 * far):
        _, took = run_packs(
            tiny,
            asked.clean,
            partial(both_edits, adding(deltas), scaled),
            1,
            asked.read,
        )
        assert float(took[0, 1, 4]) == pytest.approx(2.5, rel=1e-6)


def test_matched_sets_are_of_the_same_places(tiny: InstrumentedModel) -> None:
    found = ready(tiny, PROMPT)
    spots = several(found)
    norms = moved_by(found, spots)
    drawn = matched(found.asked, found.table, spots, norms, 200, seeded())
    assert drawn.n == 200 and drawn.refused is None
    sets = as_spots(sets_of(drawn, len(found.asked.clean)), drawn.n)
    rare, places = found.table.rare(), Counter((s.depth, s.position) for s in spots)
    for drawn_spots in sets:
        assert Counter((s.depth, s.position) for s in drawn_spots) == places
        assert set(drawn_spots) <= rare - set(spots)
    assert len({frozenset(each) for each in sets}) == 200
    again = matched(found.asked, found.table, spots, norms, 200, seeded())
    assert all(torch.equal(drawn.places[p], again.places[p]) for p in drawn.places)


def test_they_are_drawn_for_their_norm(tiny: InstrumentedModel) -> None:
    """For a norm that is small, or large, sets are drawn that take little, or much."""
    found = ready(tiny, PROMPT)
    here = found.table.ablations[0]
    ((richest, count),) = Counter(here.positions.tolist()).most_common(1)
    assert count >= 10
    spots = some_spots(found, {(0, richest): 3})
    took = []
    for wanted in (0.0, 1e6):
        norms = torch.full((4, len(found.asked.clean)), wanted)
        drawn = matched(found.asked, found.table, spots, norms, 20, seeded())
        sets = as_spots(sets_of(drawn, len(found.asked.clean)), drawn.n)
        took.append(sum(float(moved_by(found, each).sum()) for each in sets) / drawn.n)
    assert took[1] > 1.5 * took[0]


def test_dense_features_are_not_drawn(tiny: InstrumentedModel) -> None:
    found = ready(tiny, PROMPT)
    spots = some_spots(found, {(0, 5): 1})
    dense = list(found.table.dense)
    here = found.table.ablations[0]
    others = (here.positions == 5).nonzero()[:, 0].tolist()[1:4]
    dense[0] = dense[0].clone()
    dense[0][others] = True
    table = Table(found.table.ablations, (), tuple(dense))
    norms = moved_by(found, spots)
    drawn = matched(found.asked, table, spots, norms, 5, seeded())
    left_out = {int(here.features[row]) for row in others}
    assert not left_out & set(drawn.places[0, 5].flatten().tolist())


def test_too_few_are_refused(tiny: InstrumentedModel) -> None:
    found = ready(tiny, PROMPT)
    here = found.table.ablations[0]
    count = int((here.positions == 5).sum())
    most = some_spots(found, {(0, 5): count - 1})
    norms = moved_by(found, most)
    drawn = matched(found.asked, found.table, most, norms, 200, seeded())
    assert drawn.refused == (
        f"layer 0 has 1 other rarely-on active features at token 5, and {count - 1} are needed"
    )
    one = some_spots(found, {(0, 5): 1})
    few = matched(found.asked, found.table, one, norms, 200, seeded())
    possible = count - 1
    assert possible < 19 and few.refused == f"only {possible} different matched sets can be drawn"
    pair = some_spots(found, {(0, 5): 1, (1, 5): 1})
    some = matched(found.asked, found.table, pair, moved_by(found, pair), 200, seeded())
    other = int((found.table.ablations[1].positions == 5).sum()) - 1
    assert 19 <= some.n == possible * other < 200  # as many as differ
    assert some.narrowest == min(possible, other)


def test_all_but(tiny: InstrumentedModel) -> None:
    found = ready(tiny, PROMPT)
    spots, every = several(found), found.table.rare()
    sets = selected([spots, spots[:2]], len(found.asked.clean), torch.device("cpu"))
    left = as_spots(all_but(found.every, sets, 2), 2)
    assert set(left[0]) == every - set(spots) and set(left[1]) == every - set(spots[:2])


def test_shuffles() -> None:
    others = [Spot(depth, feature, 3) for depth in range(3) for feature in range(4)]
    own = others[:3]
    sets = shuffled(own, others, 100, seeded())
    assert sets is not None and len(set(sets)) == 100
    assert all(len(each) == 3 and set(each) != set(own) for each in sets)
    assert shuffled(own, others[:4], 50, seeded()) is None


def test_part() -> None:
    drawn = Drawn({(0, 1): torch.arange(6).view(3, 2)}, 3)
    assert drawn.part(2).places[0, 1].tolist() == [[0, 1], [2, 3]] and drawn.part(2).n == 2


def as_spots(sets: Sets, n: int) -> list[list[Spot]]:
    found: list[list[Spot]] = [[] for _ in range(n)]
    for depth, (features, chosen) in sets.items():
        for copy, position, column in chosen.nonzero().tolist():
            found[copy].append(Spot(depth, int(features[column]), position))
    return found
