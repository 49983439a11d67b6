"""From the features that the answer hangs on to how they hang together.

1. Edges between kept features of neighbouring SAE layers. 2. Ends: what reaches the answer from
the last layer, and what reaches it past the SAEs. 3. Relays, where a kept feature would lead
nowhere: the feature of the next layer that carries most of its effect, again until something kept
is met. 4. What flows to the answer along each edge (path patching, Goldowsky-Dill et al. 2023).

Nothing here knows torch: what is asked of the features is measured, or was and is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

LEAST_RELATIVE = 0.05  # of the target's clean activation: a smaller effect is no edge
LEAST_DIRECT = 0.1  # of a feature's effect: a smaller direct one is no edge to the answer


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


class Change(NamedTuple):
    """What an ablation makes of a target's activation."""

    before: float
    after: float

    @property
    def effect(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def relative(self) -> float:
        """The effect as a share of the clean activation: -1 where it falls silent."""
        return self.effect / self.before


class Facts(Protocol):
    """What is asked of features at tokens: measured (`probe`), or read (`saved`). In nats."""

    def look(self, spots: Iterable[Spot], /) -> None:
        """These are going to be asked of."""

    def effect(self, spot: Spot, /) -> float:
        """The effect on the answer."""

    def direct_effect(self, spot: Spot, /) -> float:
        """The part of it that no feature of a later SAE layer carries."""

    def at_the_end(self, spot: Spot, /) -> bool:
        """Whether it is one of the last SAE layer, at the answer's token."""

    def change(self, source: Spot, target: Spot, /) -> Change:
        """What the source's ablation makes of the target's activation."""

    def flows(self, pairs: Sequence[tuple[Spot, Spot]], /) -> list[float]:
        """What each source does to the answer through the target alone."""

    def relay(self, spot: Spot, /) -> Spot | None:
        """The feature of the next layer through which most of its effect on the answer flows."""


def circuit(facts: Facts, kept: Sequence[Spot], *, top_k: int) -> Circuit:
    """How the kept features hang together, with as many relays as there are of them at most."""
    facts.look(kept)
    nodes, relayed = list(kept), dict[Spot, Spot]()  # from what would lead nowhere, to its relay
    looked = set[Spot]()
    while True:
        links = _links(facts, nodes, relayed, top_k)
        leading = {link.source for link in links}
        loose = [spot for spot in nodes if spot not in leading and spot not in looked]
        if not loose:
            break
        spot = min(loose)
        looked.add(spot)
        relay = facts.relay(spot)
        if relay is None:
            continue
        if relay not in nodes:
            if len(nodes) == 2 * len(kept):
                continue
            nodes.append(relay)
            facts.look([relay])
        relayed[spot] = relay
    ends = _ends(facts, nodes, links)
    useful = _leading_on(links, ends, kept)
    return Circuit(
        tuple(kept),
        tuple(relay for relay in nodes[len(kept) :] if relay in useful),
        tuple(link for link in links if link.source in useful and link.target in useful),
        {spot: effect for spot, effect in ends.items() if spot in useful},
        {spot: facts.direct_effect(spot) for spot in nodes if spot in useful},
    )


# -- the steps -------------------------------------------------------------------------------------


def _links(
    facts: Facts, nodes: Sequence[Spot], relayed: Mapping[Spot, Spot], top_k: int
) -> list[Link]:
    """The edges into each node that are strong enough, at most `top_k`, and those to relays."""
    found: list[tuple[Spot, Spot]] = []
    for target in nodes:
        into = [
            (source, facts.change(source, target))
            for source in nodes
            if source.depth == target.depth - 1 and source.position <= target.position
        ]
        strong = [(s, change) for s, change in into if abs(change.relative) >= LEAST_RELATIVE]
        strong.sort(key=lambda item: (-abs(item[1].effect), item[0]))
        chosen = {source for source, _ in strong[:top_k]}
        chosen |= {source for source, relay in relayed.items() if relay == target}
        found += [(source, target) for source in sorted(chosen)]
    links = []
    for (source, target), flow in zip(found, facts.flows(found), strict=True):
        change = facts.change(source, target)
        links.append(Link(source, target, change.effect, change.relative, flow))
    return links


def _ends(facts: Facts, nodes: Sequence[Spot], links: Sequence[Link]) -> dict[Spot, float]:
    """The effect on the answer of those that reach it with no SAE feature in between.

    From the last layer at the answer's token: all of it. From elsewhere the direct one, where it
    is a tenth of all and more than what flows along any of the feature's edges.
    """
    widest: dict[Spot, float] = {}
    for link in links:
        widest[link.source] = max(widest.get(link.source, 0.0), abs(link.flow))
    ends: dict[Spot, float] = {}
    for spot in nodes:
        total, direct = facts.effect(spot), facts.direct_effect(spot)
        if facts.at_the_end(spot):
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
