"""How much of the answer the kept features account for together, beside random ones."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Collection, Sequence

import torch

from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.flows import selected
from sae_graphs.effects.answer.measure import Asked
from sae_graphs.effects.answer.probe import Table
from sae_graphs.graph.answer import Coverage
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.joint import run_sets

DRAWS = 16  # random graphs of the same size and places


@torch.no_grad()
def coverage_of(
    asked: Asked,
    table: Table,
    kept: Collection[Spot],
    intervention: Intervention,
    *,
    draws: int = DRAWS,
) -> Coverage:
    """The scores, in nats, without the kept features, with them alone, and of random ones alike.

    Ablated are features that are active and rarely on, together at their tokens; dense features,
    the first token and the SAEs' errors are left as they are. Without `draws` nothing is random.
    """
    every = table.rare()
    rare = [spot for spot in kept if spot in every]
    randoms = random_sets(table, rare, draws, seed_of(asked)) if draws else []
    sets: list[Collection[Spot]] = [rare, every - set(rare), every]
    sets += [part for drawn in randoms for part in (drawn, every - set(drawn))]
    found = scores_without(asked, sets, intervention)
    draws = len(randoms)
    return Coverage(
        clean=asked.score,
        without_kept=found[0],
        only_kept=found[1],
        without_any=found[2],
        draws=draws,
        random_without=statistics.median(found[3::2]) if draws else None,
        random_only=statistics.median(found[4::2]) if draws else None,
    )


def scores_without(
    asked: Asked, sets: Sequence[Collection[Spot]], intervention: Intervention
) -> list[float]:
    """The answer's score, in nats, after each set of features at tokens is ablated together."""
    clean, device = asked.clean, asked.clean.logits.device
    chosen = selected(sets, len(clean), device)
    if not chosen:
        return [asked.score] * len(sets)
    logits, _ = run_sets(
        asked.model, clean, chosen, len(sets), asked.read, intervention=intervention
    )
    return [float(score) for score in asked.answer.score(logits)]


def random_sets(
    table: Table, spots: Collection[Spot], draws: int, seed: int
) -> list[tuple[Spot, ...]]:
    """As many other rarely-on features of the same layers and tokens, drawn at random.

    None where a layer has too few others at a token.
    """
    generator = torch.Generator().manual_seed(seed)
    pools: dict[tuple[int, int], list[Spot]] = {}
    for spot in sorted(table.rare() - set(spots)):
        pools.setdefault((spot.depth, spot.position), []).append(spot)
    needed: dict[tuple[int, int], int] = {}
    for spot in spots:
        needed[spot.depth, spot.position] = needed.get((spot.depth, spot.position), 0) + 1
    if any(len(pools.get(place, ())) < count for place, count in needed.items()):
        return []
    found = []
    for _ in range(draws):
        drawn: list[Spot] = []
        for place, count in sorted(needed.items()):
            order = torch.randperm(len(pools[place]), generator=generator)[:count].tolist()
            drawn += [pools[place][number] for number in order]
        found.append(tuple(sorted(drawn)))
    return found


def seed_of(asked: Asked) -> int:
    """One for each prompt and answer, so that the same run draws the same."""
    facts = f"{asked.clean.token_ids} {asked.answer} {asked.read}"
    return int.from_bytes(hashlib.blake2b(facts.encode(), digest_size=7).digest(), "big")
