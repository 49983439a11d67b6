"""Controls that could have said no: what else might be ablated in a path's place.

- *matched*: as many other features of each layer, active at the ablated positions (and at the row
  that is read where the path's are), drawn so that what their ablation takes from the stream has
  about the same norm;
- *scaled*: the same features, with what is taken multiplied at each layer so that its norm is the
  path's (more than ablation where they are weaker);
- *directions*: random directions of the same norm at each layer and position;
- *shuffles*: other features of the graph itself, as many in each layer: the nodes without the path;
- *feature zero*: feature 0 of each layer, the control of the method's source, mostly inactive.

Letters: `T` tokens, `D` d_model, `C` features that may be drawn, `K` controls, `L` SAE layers, `n`
features of one layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import Selected, Sets

GATHERED = 2**22  # inner products that are added up at once
TRIES = 32  # draws of which the one that matches the norm best is taken
POOL = 2048  # features of a layer to draw from: of more, so many at random
LEAST_CHOICE = 20  # sets of a layer that the choice of the best match leaves to chance
LEAST_DISTINCT = 19  # different controls: with fewer, no p below 0.05 can be earned


class Member(NamedTuple):
    """A feature of a set: at one position, or (None) at all that are ablated."""

    depth: int
    feature: int
    position: int | None = None


class Controls(NamedTuple):
    """`n` sets of features, one a copy. Where they cannot differ, `refused` says why.

    `distinct` of them differ; the layer that allows the fewest sets allows `narrowest`.
    """

    sets: Sets
    n: int
    distinct: int = 0
    narrowest: int | None = None
    refused: str | None = None


def refusal(why: str) -> Controls:
    """No controls, and why."""
    return Controls({}, 0, refused=why)


def selected(
    model: InstrumentedModel, ablated: Tensor, sets: Sequence[Collection[Member]]
) -> dict[int, Selected]:
    """Sets of features by depth, one a copy, chosen at their own or at all `ablated` positions."""
    found: dict[int, Selected] = {}
    device = ablated.device
    for depth in sorted({member.depth for members in sets for member in members}):
        entries = [
            (copy, member.feature, member.position)
            for copy, members in enumerate(sets)
            for member in members
            if member.depth == depth
        ]
        features = sorted({feature for _, feature, _ in entries})
        column = {feature: number for number, feature in enumerate(features)}
        chosen = torch.zeros(len(sets), len(ablated), len(features), dtype=torch.bool)
        everywhere = ablated.cpu()
        for copy, feature, position in entries:
            where = everywhere if position is None else position
            chosen[copy, where, column[feature]] = True
        found[depth] = Selected(torch.tensor(features, device=device), chosen.to(device))
    return found


def active_members(
    clean: CleanRun, ablated: Tensor, members: Collection[Member]
) -> tuple[Member, ...]:
    """Those that are active in the clean run at a position where they are ablated."""
    found = []
    for depth in sorted({member.depth for member in members}):
        here = [member for member in members if member.depth == depth]
        features = sorted({member.feature for member in here})
        acts = clean.activations[depth].of(torch.tensor(features, device=ablated.device)) != 0
        column = {feature: number for number, feature in enumerate(features)}
        for member in here:
            at = ablated if member.position is None else member.position
            if bool(acts[at, column[member.feature]].any()):
                found.append(member)
    return tuple(found)


# -- matched sets ----------------------------------------------------------------------------------


def matched(
    model: InstrumentedModel,
    clean: CleanRun,
    ablated: Tensor,
    read: int,
    members: Collection[Member],
    taken: Tensor,
    n: int,
    generator: torch.Generator,
) -> Controls:
    """`n` sets of other active features, as many in each layer, matched on norm.

    Drawn for the members that are active: where one is active at the row that is read, so is what
    takes its place, as a feature that is not there acts through attention alone, and in the last
    layer not at all. `taken` `[L, T]` are the norms of what the members' ablation takes from the
    stream: matched at the read row and elsewhere. Refused where a layer has too few others.
    """
    active = active_members(clean, ablated, members)
    if not active:
        return refusal("none of its features is active here")
    found: dict[int, Selected] = {}
    drawn: list[Tensor] = []
    narrowest, possible = 10**9, 1
    for depth in sorted({member.depth for member in active}):
        parts, in_layer = [], 1
        for places, features in _groups(active, depth, ablated):
            pool = _pool(model, clean, depth, places, read, members, generator)
            own = torch.tensor(features, device=places.device)
            there = int(_active_at(clean, depth, own, places, read).sum())
            wanted = _Wanted(there, len(features) - there, *_norms(taken[depth], places, read))
            if why := _too_few(pool, wanted):
                return refusal(f"layer {model.stack.layers[depth].label} has {why}")
            in_layer *= pool.sets(wanted)
            picked = _draw(pool, wanted, n, generator)  # [K, n]
            drawn.append(pool.features[picked])
            parts.append(_chosen(pool, picked, places))
        narrowest, possible = min(narrowest, in_layer), possible * in_layer
        found[depth] = _merged(parts)
    if possible < min(n, LEAST_DISTINCT):
        return refusal(f"only {possible} different control sets can be drawn")
    return Controls(found, n, _distinct(drawn), narrowest)


def shuffled(
    model: InstrumentedModel,
    clean: CleanRun,
    ablated: Tensor,
    members: Collection[Member],
    nodes: Collection[Member],
    n: int,
    generator: torch.Generator,
) -> Controls:
    """`n` sets of the graph's own active nodes, as many in each layer as the path has.

    The path's own nodes may be among them, not the whole path.
    """
    active = active_members(clean, ablated, members)
    others = active_members(clean, ablated, nodes)
    if not active:
        return refusal("none of its features is active here")
    pools, possible = [], 1
    for depth in sorted({member.depth for member in active}):
        pool = sorted(node for node in others if node.depth == depth)
        count = sum(member.depth == depth for member in active)
        pools.append((pool, count))
        possible *= math.comb(len(pool), count)
    if possible - 1 < min(n, LEAST_DISTINCT):
        return refusal(f"the graph's nodes make only {possible - 1} other sets")
    sets: list[frozenset[Member]] = []
    while len(sets) < n:
        drawn: list[Member] = []
        for pool, count in pools:
            order = torch.randperm(len(pool), generator=generator)[:count]
            drawn += [pool[number] for number in order.tolist()]
        if set(drawn) != set(active):
            sets.append(frozenset(drawn))
    return Controls(selected(model, ablated, sets), n, len(set(sets)))


def random_directions(
    clean: CleanRun, moved: Tensor, n: int, generator: torch.Generator
) -> dict[int, Tensor]:
    """By depth, `[K, T, D]` to add: one random direction a layer, of the norms `moved` `[L, T]`."""
    found = {}
    for depth, norms in enumerate(moved):
        if not bool(norms.any()):
            continue
        stream = clean.streams[depth]
        towards = torch.randn(n, stream.shape[1], generator=generator, dtype=torch.float64)
        towards = towards / towards.norm(dim=1, keepdim=True)
        found[depth] = towards.to(stream)[:, None, :] * norms[None, :, None]
    return found


def feature_zero(members: Collection[Member]) -> tuple[Member, ...]:
    """Feature 0 of the layers (and positions) of a path."""
    return tuple(sorted({member._replace(feature=0) for member in members}))


# -- drawing ---------------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    """What is drawn for a path's features in one layer: how many that are active at the read row,
    how many that are not, and the norms to match there and elsewhere."""

    at_read: int
    elsewhere: int
    norm_at_read: float
    norm_elsewhere: float


class _Pool(NamedTuple):
    """Features of one layer that may be drawn, and the inner products of what ablating each of
    them takes from the stream, at the read row and elsewhere. On the CPU, but for `features`."""

    features: Tensor  # [C]
    at_read: Tensor  # [C] bool: active at the read row
    gram_at_read: Tensor  # [C, C]
    gram_elsewhere: Tensor  # [C, C]

    def sets(self, wanted: _Wanted) -> int:
        """How many different sets can be drawn."""
        there = int(self.at_read.sum())
        return math.comb(there, wanted.at_read) * math.comb(
            len(self.features) - there, wanted.elsewhere
        )


def _too_few(pool: _Pool, wanted: _Wanted) -> str | None:
    """What a layer has too few of, if it has."""
    there = int(pool.at_read.sum())
    if there < wanted.at_read:
        return (
            f"{there} other features active at the token that is read, and {wanted.at_read} are "
            "needed"
        )
    if len(pool.features) - there < wanted.elsewhere:
        return (
            f"{len(pool.features) - there} other features active at other ablated tokens alone, "
            f"and {wanted.elsewhere} are needed"
        )
    return None


def _active_at(clean: CleanRun, depth: int, features: Tensor, places: Tensor, read: int) -> Tensor:
    """Which features `[S]` are active at the read row, if that is one of the places."""
    return (clean.activations[depth].of(features)[read] != 0) & places[read]


def _norms(taken: Tensor, places: Tensor, read: int) -> tuple[float, float]:
    """Of what is taken at some places, `[T]`: at the read row, and elsewhere."""
    here = taken.double() * places
    there = float(here[read])
    return there, max(float(here.square().sum()) - there**2, 0.0) ** 0.5


def _groups(
    active: Sequence[Member], depth: int, ablated: Tensor
) -> list[tuple[Tensor, list[int]]]:
    """The members of a layer by where they are ablated: a mask `[T]`, and their features."""
    by_position: dict[int | None, list[int]] = {}
    for member in active:
        if member.depth == depth:
            by_position.setdefault(member.position, []).append(member.feature)
    groups = []
    for position, features in by_position.items():
        places = ablated
        if position is not None:
            places = torch.zeros_like(ablated)
            places[position] = True
        groups.append((places, sorted(features)))
    return groups


def _pool(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    places: Tensor,
    read: int,
    members: Collection[Member],
    generator: torch.Generator,
) -> _Pool:
    excluded = {member.feature for member in members if member.depth == depth}
    active = clean.activations[depth].active(places)
    others = active[~torch.isin(active, torch.tensor(sorted(excluded), device=places.device))]
    if len(others) > POOL:
        order = torch.randperm(len(others), generator=generator)[:POOL]
        others = others[order.sort().values.to(others.device)]
    at_read = _active_at(clean, depth, others, places, read).cpu()
    if not len(others):
        none = torch.zeros(0, 0, dtype=torch.float64)
        return _Pool(others, at_read, none, none)
    acts = clean.activations[depth].of(others)[places]  # [P, C]
    directions, sizes = _decoded(model, clean, depth, others, places)
    weighted = (acts * sizes[:, None]).double()
    is_read = (places.nonzero()[:, 0] == read)[:, None]  # [P, 1]
    alike = directions @ directions.T
    there, elsewhere = weighted * is_read, weighted * ~is_read
    return _Pool(
        others, at_read, (there.T @ there * alike).cpu(), (elsewhere.T @ elsewhere * alike).cpu()
    )


def _decoded(
    model: InstrumentedModel, clean: CleanRun, depth: int, features: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """What each feature at activation 1 writes `[C, D]`, and how large at each position `[P]`.

    A decoder is affine; some undo a normalisation of their input, which scales what all features
    write at that position.
    """
    decode = model.stack.layers[depth].decoder_of(features)
    streams = clean.streams[depth][places]
    one = torch.eye(len(features), dtype=streams.dtype, device=streams.device)
    first = streams[:1].expand(len(features), -1)
    directions = decode(one, first) - decode(torch.zeros_like(one), first)
    largest = int(directions.norm(dim=1).argmax())
    alike = one[largest][None].expand(len(streams), -1)
    written = decode(alike, streams) - decode(torch.zeros_like(alike), streams)
    sizes = written.norm(dim=1) / directions[largest].norm().clamp(min=1e-30)
    return directions.double(), sizes


def set_norms(gram: Tensor, picked: Tensor) -> Tensor:
    """The norms `[M]` of what sets of features `[M, n]` take from the stream."""
    rows = max(1, GATHERED // max(1, picked.shape[1]) ** 2)
    squares = [gram[p[:, :, None], p[:, None, :]].sum((1, 2)) for p in picked.split(rows)]
    return torch.cat(squares).clamp(min=0).sqrt()


def _draw(pool: _Pool, wanted: _Wanted, n: int, generator: torch.Generator) -> Tensor:
    """`n` sets `[K, count]` of the pool, in ascending order: of several draws the best match."""
    # a pool that is searched too long gives the same few sets again and again
    tries = max(1, min(TRIES, pool.sets(wanted) // LEAST_CHOICE))
    parts = []
    for group, count in ((pool.at_read, wanted.at_read), (~pool.at_read, wanted.elsewhere)):
        numbers = group.nonzero()[:, 0]
        parts.append(numbers[subsets(len(numbers), count, n * tries, generator)])
    picked = torch.cat(parts, dim=1)  # [K * tries, count]
    there = set_norms(pool.gram_at_read, picked) - wanted.norm_at_read
    elsewhere = set_norms(pool.gram_elsewhere, picked) - wanted.norm_elsewhere
    best = (there.square() + elsewhere.square()).view(n, tries).argmin(1)
    count = wanted.at_read + wanted.elsewhere
    return picked.view(n, tries, count)[torch.arange(n), best].sort(1).values


def subsets(total: int, size: int, n: int, generator: torch.Generator) -> Tensor:
    """Random subsets `[n, size]` of `total` things, each equally likely."""
    if size == 0:
        return torch.zeros(n, 0, dtype=torch.int64)
    if size * 4 > total or size > 64:  # many things would be drawn twice
        return torch.rand(n, total, generator=generator).topk(size, dim=1).indices
    drawn = torch.randint(total, (n, size), generator=generator)
    while True:
        ordered = drawn.sort(1).values
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(1)
        if not bool(twice.any()):
            return drawn
        drawn[twice] = torch.randint(total, (int(twice.sum()), size), generator=generator)


def _chosen(pool: _Pool, picked: Tensor, places: Tensor) -> Selected:
    """Drawn sets as a selection at some positions."""
    used = picked.unique()  # [U]
    member = torch.zeros(len(picked), len(used), dtype=torch.bool)
    member.scatter_(1, torch.searchsorted(used, picked), True)
    member = member.to(places.device)
    features = pool.features[used.to(places.device)]
    return Selected(features, member[:, None, :] & places[None, :, None])


def _merged(parts: Sequence[Selected]) -> Selected:
    """Selections of one layer's features as one."""
    if len(parts) == 1:
        return parts[0]
    features = torch.cat([part.features for part in parts]).unique()
    chosen = parts[0].chosen.new_zeros(*parts[0].chosen.shape[:2], len(features))
    for part in parts:
        chosen[:, :, torch.searchsorted(features, part.features)] |= part.chosen
    return Selected(features, chosen)


def _distinct(drawn: Sequence[Tensor]) -> int:
    """How many of the sets, given as the features `[K, n]` of each layer, differ."""
    return len(torch.cat([part.cpu() for part in drawn], dim=1).unique(dim=0))
