"""Drawing controls in tests: prompts, sets and what they take from the stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from hypothesis import HealthCheck
from torch import Tensor

from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import run_sets
from sae_graphs.validation import controls
from sae_graphs.validation.controls import Controls, Member, matched, selected
from tests.support.slow import examples

# Hypothesis runs a test many times with one model, which no test changes.
rarely = examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])


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


def classes_of(clean: CleanRun, members: Collection[Member]) -> Counter[tuple[int, bool]]:
    """How many of each layer are active in the last row, and how many are not."""
    return Counter(
        (member.depth, bool(clean.activations[member.depth].of(torch.tensor([member.feature]))[-1]))
        for member in members
    )


def regions(moved: Tensor) -> Tensor:
    """Norms at the last row and at the others, `[..., 2]`, of what is taken by row, `[..., T]`."""
    return torch.stack([moved[..., -1], moved[..., :-1].norm(dim=-1)], dim=-1)


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
    return matched(model, clean, ablated, len(clean) - 1, members, taken, n, seeded(seed))


def pool_of(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    places: Tensor,
    members: Collection[Member] = (),
) -> controls._Pool:
    return controls._pool(model, clean, depth, places, len(clean) - 1, members, seeded())
