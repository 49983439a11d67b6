"""Controls that could have said no: what else might be ablated in a path's place.

- *matched*: as many other features of each layer, active at the ablated positions, drawn so that
  what their ablation takes from the stream has about the same norm;
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
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.clean_run import CleanRun
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.joint import Selected, Sets

TINY = 1e-6  # norms below this are none
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

    `distinct` of them differ; the layer that allows the fewest sets allows `narrowest`. `scale`
    holds, by depth, what multiplies that which each copy takes from the stream to give it the
    path's norm there, `[K]`.
    """

    sets: Sets
    n: int
    distinct: int = 0
    narrowest: int | None = None
    scale: Mapping[int, Tensor] = {}
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
    members: Collection[Member],
    taken: Tensor,
    n: int,
    generator: torch.Generator,
) -> Controls:
    """`n` sets of other active features, as many in each layer, matched on norm.

    Drawn for the members that are active. `taken` `[L, T]` are the norms of what their ablation
    takes from the stream. Refused where a layer has too few others.
    """
    active = active_members(clean, ablated, members)
    if not active:
        return refusal("none of its features is active here")
    found: dict[int, Selected] = {}
    scale: dict[int, Tensor] = {}
    drawn: list[Tensor] = []
    narrowest, possible = 10**9, 1
    for depth in sorted({member.depth for member in active}):
        parts, wanted, had = [], 0.0, torch.zeros(n)
        for places, features in _groups(active, depth, ablated):
            pool = _pool(model, clean, depth, places, members, generator)
            if len(pool.features) < len(features):
                label = model.stack.layers[depth].label
                return refusal(
                    f"layer {label} has {len(pool.features)} other active features, and "
                    f"{len(features)} are needed"
                )
            size = float(taken[depth][places].double().norm())
            here = math.comb(len(pool.features), len(features))
            narrowest, possible = min(narrowest, here), possible * here
            picked = _draw(pool, len(features), size, n, generator)  # [K, n]
            wanted += size**2
            had += _squared_norms(pool.gram, picked)
            drawn.append(pool.features[picked])
            parts.append(_chosen(pool, picked, places))
        found[depth] = _merged(parts)
        scale[depth] = (wanted**0.5 / had.sqrt().clamp(min=TINY)).to(ablated.device)
    if possible < min(n, LEAST_DISTINCT):
        return refusal(f"only {possible} different control sets can be drawn")
    return Controls(found, n, _distinct(drawn), narrowest, scale)


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


class _Pool(NamedTuple):
    """Features of one layer that may be drawn, and the inner products of what ablating each of
    them takes from the stream at some positions."""

    features: Tensor  # [C]
    gram: Tensor  # [C, C], on the CPU


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
    members: Collection[Member],
    generator: torch.Generator,
) -> _Pool:
    excluded = {member.feature for member in members if member.depth == depth}
    active = clean.activations[depth].active(places)
    others = active[~torch.isin(active, torch.tensor(sorted(excluded), device=places.device))]
    if len(others) > POOL:
        order = torch.randperm(len(others), generator=generator)[:POOL]
        others = others[order.sort().values.to(others.device)]
    if not len(others):
        return _Pool(others, torch.zeros(0, 0, dtype=torch.float64))
    acts = clean.activations[depth].of(others)[places]  # [P, C]
    directions, sizes = _decoded(model, clean, depth, others, places)
    weighted = (acts * sizes[:, None]).double()
    gram = (weighted.T @ weighted) * (directions @ directions.T)
    return _Pool(others, gram.cpu())


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


def _squared_norms(gram: Tensor, picked: Tensor) -> Tensor:
    """Of what sets of features `[M, n]` take from the stream, `[M]`."""
    return gram[picked[:, :, None], picked[:, None, :]].sum((1, 2)).clamp(min=0).float()


def _draw(pool: _Pool, count: int, norm: float, n: int, generator: torch.Generator) -> Tensor:
    """`n` sets `[K, count]` of the pool, in ascending order: of several draws the best match."""
    # a pool that is searched too long gives the same few sets again and again
    possible = math.comb(len(pool.features), count)
    tries = max(1, min(TRIES, possible // LEAST_CHOICE))
    picked = _subsets(len(pool.features), count, n * tries, generator)  # [K * tries, count]
    norms = torch.cat([_squared_norms(pool.gram, part) for part in picked.split(8192)]).sqrt()
    away = (norms.clamp(min=TINY).log() - math.log(max(norm, TINY))).abs().view(n, tries)
    best = away.argmin(1)
    return picked.view(n, tries, count)[torch.arange(n), best].sort(1).values


def _subsets(total: int, size: int, n: int, generator: torch.Generator) -> Tensor:
    """Random subsets `[n, size]` of `total` things, each equally likely."""
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
