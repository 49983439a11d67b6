"""From the features that the answer hangs on to how they hang together.

1. Edges between kept features of neighbouring SAE layers. 2. Ends: what reaches the answer from
the last layer, and what reaches it past the SAEs. 3. Relays, where a kept feature would lead
nowhere: the feature of the next layer that carries most of its effect, again until something kept
is met. 4. What flows to the answer along each edge (path patching, Goldowsky-Dill et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.effects.ablations import Ablations
from sae_graphs.effects.answer.measure import (
    Asked,
    Changes,
    changes_after,
    direct_effects,
    effects_on_answer,
    setting,
)

LEAST_RELATIVE = 0.05  # of the target's clean activation: a smaller effect is no edge
LEAST_DIRECT = 0.1  # of a feature's effect: a smaller direct one is no edge to the answer
RELAYS_TRIED = 32  # features of the next layer whose flow is measured, to find a relay


class Spot(NamedTuple):
    """A feature of the SAE layer at `depth`, at one token."""

    depth: int
    feature: int
    position: int


class Link(NamedTuple):
    """An edge: the effect of the source, ablated alone, on the target's activation.

    `relative` is its share of the target's clean activation, -1 where that falls silent; `flow`
    what it does to the answer through the target alone, in nats.
    """

    source: Spot
    target: Spot
    effect: float
    relative: float
    flow: float


class Circuit(NamedTuple):
    """Kept features and relays, edges between them, and those to the answer, in nats.

    `direct` is the part of each one's effect that no feature of a later SAE layer carries.
    """

    kept: tuple[Spot, ...]
    relays: tuple[Spot, ...]
    links: tuple[Link, ...]
    ends: dict[Spot, float]
    direct: dict[Spot, float]

    @property
    def stranded(self) -> tuple[Spot, ...]:
        """The kept features that reach nothing."""
        sources = {link.source for link in self.links}
        return tuple(s for s in self.kept if s not in sources and s not in self.ends)

    @property
    def at_once(self) -> tuple[Spot, ...]:
        """The kept features that have an edge to the answer itself."""
        return tuple(spot for spot in self.kept if spot in self.ends)


@dataclass(frozen=True, eq=False)
class Table:
    """Every ablation that was measured, by depth, and its effect on the answer `[S]`.

    `dense` `[S]` tells the features that are on at many tokens of any text.
    """

    ablations: tuple[Ablations, ...]
    effects: tuple[Tensor, ...]
    dense: tuple[Tensor, ...]

    def strongest(self, count: int, *, dense: bool = False) -> list[Spot]:
        """The features at tokens with the largest |effect on the answer|, strongest first.

        Rarely-on ones alone, or with the dense ones.
        """
        return self._strongest(count, [~each | dense for each in self.dense])

    def strongest_dense(self, count: int) -> list[Spot]:
        """The same of the dense ones alone."""
        return self._strongest(count, self.dense)

    def rare(self) -> set[Spot]:
        """All that are rarely on."""
        return {
            Spot(found.depth, feature, position)
            for found, dense in zip(self.ablations, self.dense, strict=True)
            for feature, position in zip(
                found.features[~dense].tolist(), found.positions[~dense].tolist(), strict=True
            )
        }

    def _strongest(self, count: int, which: Sequence[Tensor]) -> list[Spot]:
        found = []
        for depth, effects in enumerate(self.effects):
            allowed = which[depth]
            sizes = torch.where(allowed & (effects != 0), effects.abs(), -1.0)
            top = sizes.topk(min(count, len(sizes)))
            found += [
                (-size, self.spot(depth, row))
                for size, row in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                if size > 0
            ]
        return [spot for _, spot in sorted(found)[:count]]

    def spot(self, depth: int, row: int) -> Spot:
        """The feature at a token that a row of a layer's ablations stands for."""
        found = self.ablations[depth]
        return Spot(depth, int(found.features[row]), int(found.positions[row]))

    def row(self, spot: Spot) -> int:
        """The row of a feature at a token among its layer's ablations; raises `KeyError`."""
        found = self.ablations[spot.depth]
        rows = ((found.features == spot.feature) & (found.positions == spot.position)).nonzero()
        if not len(rows):
            raise KeyError(spot)
        return int(rows[0, 0])

    def of(self, spots: Sequence[Spot]) -> Ablations:
        """The ablations of some features at tokens of one layer, in this order."""
        found, rows = self.ablations[spots[0].depth], [self.row(spot) for spot in spots]
        return setting(
            spots[0].depth,
            [spot.feature for spot in spots],
            [spot.position for spot in spots],
            found.before[rows],
            found.after[rows],
        )

    def effect(self, spot: Spot) -> float:
        """A feature's effect on the answer at a token, in nats."""
        return float(self.effects[spot.depth][self.row(spot)])

    def activation(self, spot: Spot) -> float:
        """Its clean activation there."""
        return float(self.ablations[spot.depth].before[self.row(spot)])


def circuit(asked: Asked, table: Table, kept: Sequence[Spot], *, top_k: int) -> Circuit:
    """How the kept features hang together, with as many relays as there are of them at most."""
    probe = Probe(asked, table)
    probe.look(kept)
    nodes, relayed = list(kept), dict[Spot, Spot]()  # from what would lead nowhere, to its relay
    looked = set[Spot]()
    while True:
        links = _links(probe, nodes, relayed, top_k)
        leading = {link.source for link in links}
        loose = [spot for spot in nodes if spot not in leading and spot not in looked]
        if not loose:
            break
        spot = min(loose)
        looked.add(spot)
        relay = probe.relay(spot)
        if relay is None:
            continue
        if relay not in nodes:
            if len(nodes) == 2 * len(kept):
                continue
            nodes.append(relay)
            probe.look([relay])
        relayed[spot] = relay
    ends = _ends(probe, nodes, links)
    useful = _leading_on(links, ends, kept)
    return Circuit(
        tuple(kept),
        tuple(relay for relay in nodes[len(kept) :] if relay in useful),
        tuple(link for link in links if link.source in useful and link.target in useful),
        {spot: effect for spot, effect in ends.items() if spot in useful},
        {spot: effect for spot, effect in probe.direct.items() if spot in useful},
    )


# -- the steps -------------------------------------------------------------------------------------


class _Change(NamedTuple):
    before: float
    after: float

    @property
    def effect(self) -> float:
        return self.after - self.before

    @property
    def relative(self) -> float:
        return self.effect / self.before


def _links(
    probe: Probe, nodes: Sequence[Spot], relayed: Mapping[Spot, Spot], top_k: int
) -> list[Link]:
    """The edges into each node that are strong enough, at most `top_k`, and those to relays."""
    found: list[tuple[Spot, Spot]] = []
    for target in nodes:
        into = [
            (source, probe.change(source, target))
            for source in nodes
            if source.depth == target.depth - 1 and source.position <= target.position
        ]
        strong = [(s, change) for s, change in into if abs(change.relative) >= LEAST_RELATIVE]
        strong.sort(key=lambda item: (-abs(item[1].effect), item[0]))
        chosen = {source for source, _ in strong[:top_k]}
        chosen |= {source for source, relay in relayed.items() if relay == target}
        found += [(source, target) for source in sorted(chosen)]
    links = []
    for (source, target), flow in zip(found, probe.flows(found), strict=True):
        change = probe.change(source, target)
        links.append(Link(source, target, change.effect, change.relative, flow))
    return links


def _ends(probe: Probe, nodes: Sequence[Spot], links: Sequence[Link]) -> dict[Spot, float]:
    """The effect on the answer of those that reach it with no SAE feature in between.

    From the last layer at the answer's token: all of it. From elsewhere the direct one, where it
    is a tenth of all and more than what flows along any of the feature's edges.
    """
    last = len(probe.asked.model.stack.layers) - 1
    widest: dict[Spot, float] = {}
    for link in links:
        widest[link.source] = max(widest.get(link.source, 0.0), abs(link.flow))
    ends: dict[Spot, float] = {}
    for spot in nodes:
        total, direct = probe.table.effect(spot), probe.direct[spot]
        if spot.depth == last and spot.position == probe.asked.read:
            ends[spot] = total
        elif abs(direct) >= max(LEAST_DIRECT * abs(total), widest.get(spot, 0.0)) and direct:
            ends[spot] = direct
    return ends


def _leading_on(links: Iterable[Link], ends: Iterable[Spot], kept: Iterable[Spot]) -> set[Spot]:
    """The kept features, and those from which edges lead to one of them or to the answer."""
    reached = {*ends, *kept}
    for link in sorted(links, reverse=True):
        if link.target in reached:
            reached.add(link.source)
    return reached


@dataclass(eq=False)
class Probe:
    """What was asked of some features at tokens, each once."""

    asked: Asked
    table: Table
    changes: dict[Spot, Changes] = field(default_factory=dict)
    direct: dict[Spot, float] = field(default_factory=dict)
    _flows: dict[tuple[Spot, Spot], float] = field(default_factory=dict)

    def look(self, spots: Iterable[Spot]) -> None:
        """Measure what these do to the next layer, and to the answer directly."""
        by_depth: dict[int, list[Spot]] = {}
        for spot in spots:
            by_depth.setdefault(spot.depth, []).append(spot)
        for depth, here in by_depth.items():
            ablations = self.table.of(here)
            if depth < len(self.asked.model.stack.layers) - 1:
                self.changes |= zip(here, changes_after(self.asked, ablations), strict=True)
            direct = direct_effects(self.asked, ablations).tolist()
            self.direct |= zip(here, direct, strict=True)

    def change(self, source: Spot, target: Spot) -> _Change:
        """What the source's ablation makes of the target's activation."""
        found = self.changes[source]
        at = (found.features == target.feature) & (found.positions == target.position)
        rows = at.nonzero()
        if not len(rows):
            clean = self.table.activation(target)
            return _Change(clean, clean)
        return _Change(float(found.before[rows[0, 0]]), float(found.after[rows[0, 0]]))

    def flows(self, pairs: Sequence[tuple[Spot, Spot]]) -> list[float]:
        """What each source does to the answer through the target alone, in nats."""
        asked = [pair for pair in dict.fromkeys(pairs) if pair not in self._flows]
        for depth in sorted({target.depth for _, target in asked}):
            here = [pair for pair in asked if pair[1].depth == depth]
            changes = [self.change(*pair) for pair in here]
            like = self.table.ablations[depth].before
            effects = effects_on_answer(
                self.asked,
                setting(
                    depth,
                    [target.feature for _, target in here],
                    [target.position for _, target in here],
                    like.new_tensor([change.before for change in changes]),
                    like.new_tensor([change.after for change in changes]),
                ),
            )
            self._flows |= zip(here, effects.tolist(), strict=True)
        return [self._flows[pair] for pair in pairs]

    def relay(self, spot: Spot) -> Spot | None:
        """The feature of the next layer through which most of its effect on the answer flows.

        Among the rarely-on ones that are active; tried are those of which a straight line through
        their own effect promises most. None where more of it goes past the SAEs.
        """
        if spot not in self.changes:
            return None
        candidates = self._promising(spot.depth + 1, self.changes[spot])
        flows = self.flows([(spot, candidate) for candidate in candidates])
        sign = 1 if self.table.effect(spot) > 0 else -1
        ways = [(sign * flow, c) for flow, c in zip(flows, candidates, strict=True)]
        most, relay = max(ways, default=(0.0, None))
        return relay if most > max(sign * self.direct[spot], 0.0) else None

    def _promising(self, depth: int, changes: Changes) -> list[Spot]:
        found, effects = self.table.ablations[depth], self.table.effects[depth]
        n_features = self.asked.model.stack.layers[depth].n_features
        keys = found.positions * n_features + found.features
        order = keys.argsort()
        wanted = changes.positions * n_features + changes.features
        at = torch.searchsorted(keys[order], wanted).clamp(max=len(keys) - 1)
        rows = order[at]
        known = keys[rows] == wanted
        rows = rows[known]
        moved = (changes.after - changes.before)[known]
        step = found.after[rows] - found.before[rows]
        estimate = (moved / step * effects[rows]).abs()
        estimate = torch.where(self.table.dense[depth][rows], -1.0, estimate)
        top = estimate.topk(min(RELAYS_TRIED, len(estimate)))
        chosen = top.indices[top.values > 0]
        return [self.table.spot(depth, row) for row in rows[chosen].tolist()]
