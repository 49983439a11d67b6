"""What else might be ablated in the place of features at tokens: as much, at the same places.

- *matched*: other rarely-on active features of the same layers and tokens, as many at each, drawn
  so that what their ablation takes from the stream there has about the norm of what the unit takes;
- *scaled*: the same, with what is taken multiplied at each layer and token so that its norm is the
  unit's there, exactly: within the edit, on the stream as it is then;
- *directions*: a random direction at each layer and token, of exactly the unit's norm there;
- *shuffles*: other features of the graph itself, wherever they are.

Letters: `T` tokens, `D` d_model, `C` features that may be drawn, `K` controls, `L` SAE layers, `n`
features at one layer and token, `U` features of a selection, `R` rows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.measure import Asked
from sae_graphs.effects.answer.probe import Table
from sae_graphs.model.joint import Selected, Sets
from sae_graphs.validation.controls import LEAST_DISTINCT, TRIES, set_norms, subsets

Place = tuple[int, int]  # a layer's depth, a token's position

LEFT_TO_CHANCE = 10  # sets of a place that the choice of the best match leaves to chance, at least
ROUNDS = 8  # of drawing anew what was drawn before


class Drawn(NamedTuple):
    """`K` different sets: the features of each at each place. Where there are too few, `refused`
    says why. The place that allows the fewest sets allows `narrowest`."""

    places: Mapping[Place, Tensor]  # [K, n] each, ascending
    n: int
    narrowest: int | None = None
    refused: str | None = None

    def part(self, n: int) -> Drawn:
        """The first `n` of them."""
        places = {place: features[:n] for place, features in self.places.items()}
        return self._replace(places=places, n=min(n, self.n))


def matched(
    asked: Asked,
    table: Table,
    spots: Collection[Spot],
    taken: Tensor,
    n: int,
    generator: torch.Generator,
) -> Drawn:
    """`n` different sets of other rarely-on active features, as many at each layer and token.

    `taken` `[L, T]` are the norms of what the unit's ablation takes from the stream. Fewer where
    fewer differ; refused where a place has too few others, or all of them make too few sets.
    """
    pools = []
    for place, own in _by_place(spots).items():
        pool = _pool(asked, table, place, own, float(taken[place]))
        if len(pool.features) < pool.needed:
            label = asked.model.stack.layers[place[0]].label
            return Drawn(
                {},
                0,
                refused=(
                    f"layer {label} has {len(pool.features)} other rarely-on active features at "
                    f"token {place[1]}, and {pool.needed} are needed"
                ),
            )
        pools.append(pool)
    possible = math.prod(pool.sets for pool in pools)
    if possible < min(n, LEAST_DISTINCT):
        return Drawn({}, 0, refused=f"only {possible} different matched sets can be drawn")
    columns = _different(pools, min(n, possible), generator)
    if len(columns[0]) < min(n, LEAST_DISTINCT):
        return Drawn({}, 0, refused=f"only {len(columns[0])} different matched sets were drawn")
    places = {
        pool.place: pool.features[picked.to(pool.features.device)]
        for pool, picked in zip(pools, columns, strict=True)
    }
    return Drawn(places, len(columns[0]), min(pool.sets for pool in pools))


def shuffled(
    spots: Sequence[Spot], others: Sequence[Spot], n: int, generator: torch.Generator
) -> list[tuple[Spot, ...]] | None:
    """`n` different sets of the graph's features, as many as the unit has; None where too few."""
    possible = math.comb(len(others), len(spots)) - 1
    if possible < min(n, LEAST_DISTINCT):
        return None
    found: dict[tuple[Spot, ...], None] = {}
    while len(found) < min(n, possible):
        order = torch.randperm(len(others), generator=generator)[: len(spots)].tolist()
        drawn = tuple(sorted(others[number] for number in order))
        if set(drawn) != set(spots):
            found[drawn] = None
    return list(found)


# -- as sets and edits -----------------------------------------------------------------------------


def sets_of(drawn: Drawn, n_tokens: int) -> dict[int, Selected]:
    """The drawn features by depth, one set a copy, each chosen at its token."""
    by_depth: dict[int, list[tuple[int, Tensor]]] = {}
    for (depth, position), features in drawn.places.items():
        by_depth.setdefault(depth, []).append((position, features))
    found: dict[int, Selected] = {}
    for depth, parts in sorted(by_depth.items()):
        features = torch.cat([part.flatten() for _, part in parts]).unique()
        chosen = torch.zeros(
            drawn.n, n_tokens, len(features), dtype=torch.bool, device=features.device
        )
        copies = torch.arange(drawn.n, device=features.device)[:, None]
        for position, part in parts:
            chosen[copies, position, torch.searchsorted(features, part)] = True
        found[depth] = Selected(features, chosen)
    return found


def all_but(every: Sets, sets: Sets, n: int) -> dict[int, Selected]:
    """`n` copies of one set, without what is in each of the `sets`."""
    found: dict[int, Selected] = {}
    for depth, (features, chosen) in every.items():
        left = chosen.expand(n, -1, -1).clone()
        if depth in sets:
            other, theirs = sets[depth]
            at = torch.searchsorted(features, other).clamp(max=len(features) - 1)
            known = features[at] == other
            left[:, :, at[known]] &= ~theirs[:, :, known]
        found[depth] = Selected(features, left)
    return found


def directions(
    asked: Asked, moved: Tensor, n: int, generator: torch.Generator
) -> dict[int, Tensor]:
    """By depth, `[K, T, D]` to add: random directions, of the norms `moved` `[L, T]`."""
    found = {}
    for depth, norms in enumerate(moved):
        at = norms.nonzero()[:, 0]
        if not len(at):
            continue
        stream = asked.clean.streams[depth]
        towards = torch.randn(
            n, len(at), stream.shape[1], generator=generator, dtype=torch.float64
        ).to(stream.device)
        towards = towards / towards.norm(dim=-1, keepdim=True) * norms[at].double()[:, None]
        deltas = stream.new_zeros(n, *stream.shape)
        deltas[:, at] = towards.to(stream.dtype)
        found[depth] = deltas
    return found


# -- drawing ---------------------------------------------------------------------------------------


class _Pool(NamedTuple):
    """The rarely-on active features at one place that are not the unit's, and what is to be drawn
    of them: `needed`, of a norm about `wanted`. `gram` holds the inner products of what ablating
    each takes from the clean stream there."""

    place: Place
    features: Tensor  # [C], ascending
    gram: Tensor  # [C, C] float64, on the CPU
    needed: int
    wanted: float

    @property
    def sets(self) -> int:
        """How many different sets can be drawn."""
        return math.comb(len(self.features), self.needed)


def _by_place(spots: Collection[Spot]) -> dict[Place, list[int]]:
    found: dict[Place, list[int]] = {}
    for spot in sorted(spots):
        found.setdefault((spot.depth, spot.position), []).append(spot.feature)
    return found


def _pool(asked: Asked, table: Table, place: Place, own: Sequence[int], wanted: float) -> _Pool:
    depth, position = place
    ablations, dense = table.ablations[depth], table.dense[depth]
    mine = torch.isin(ablations.features, torch.tensor(own, device=ablations.features.device))
    rows = ((ablations.positions == position) & ~dense & ~mine).nonzero()[:, 0]
    features, order = ablations.features[rows].sort()
    if not len(features):
        return _Pool(place, features, torch.zeros(0, 0, dtype=torch.float64), len(own), wanted)
    decode = asked.model.stack.layers[depth].decoder_of(features)
    stream = asked.clean.streams[depth][position].expand(len(features), -1)
    before, after = ablations.before[rows][order], ablations.after[rows][order]
    taken = decode(before.diag(), stream) - decode(after.diag(), stream)  # [C, D]
    taken = taken.double()
    return _Pool(place, features, (taken @ taken.T).cpu(), len(own), wanted)


def _different(pools: Sequence[_Pool], n: int, generator: torch.Generator) -> list[Tensor]:
    """About `n` different sets, as columns `[K, n]` of each pool: matched first, then any."""
    found = [torch.zeros(0, pool.needed, dtype=torch.int64) for pool in pools]
    for number in range(ROUNDS):
        tries = TRIES if number < ROUNDS // 2 else 1
        drawn = [_draw(pool, n, tries, generator) for pool in pools]
        found = [torch.cat(pair) for pair in zip(found, drawn, strict=True)]
        first = _first_of_each(torch.cat(found, dim=1))
        found = [column[first] for column in found]
        if len(first) >= n:
            break
    return [column[:n] for column in found]


def _first_of_each(rows: Tensor) -> Tensor:
    """Where each different row stands first, in order."""
    _, which = rows.unique(dim=0, return_inverse=True)
    first = torch.full((int(which.max()) + 1,), len(rows), dtype=torch.int64)
    first.scatter_reduce_(0, which, torch.arange(len(rows)), "amin")
    return first.sort().values


def _draw(pool: _Pool, n: int, tries: int, generator: torch.Generator) -> Tensor:
    """`n` sets `[K, n]` of a pool, ascending: of several draws the one that matches best."""
    tries = max(1, min(tries, pool.sets // LEFT_TO_CHANCE))
    picked = subsets(len(pool.features), pool.needed, n * tries, generator)
    off = (set_norms(pool.gram, picked) - pool.wanted).abs().view(n, tries)
    return picked.view(n, tries, -1)[torch.arange(n), off.argmin(1)].sort(1).values
