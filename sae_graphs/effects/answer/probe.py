"""What is asked of features at tokens, to see how they hang together: measured, each once.

Letters: `S` ablations of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_graphs.effects.ablations import Ablations
from sae_graphs.effects.answer.circuit import Change, Spot
from sae_graphs.effects.answer.measure import (
    Asked,
    Changes,
    changes_after,
    direct_effects,
    effects_on_answer,
    setting,
)

RELAYS_TRIED = 32  # features of the next layer whose flow is measured, to find a relay


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


@dataclass(eq=False)
class Probe:
    """What was asked of some features at tokens, each once: `circuit`'s facts."""

    asked: Asked
    table: Table
    changes: dict[Spot, Changes] = field(default_factory=dict)
    direct: dict[Spot, float] = field(default_factory=dict)
    _places: dict[Spot, dict[tuple[int, int], Change]] = field(default_factory=dict)
    _flows: dict[tuple[Spot, Spot], float] = field(default_factory=dict)

    def look(self, spots: Iterable[Spot]) -> None:
        """Measure what these do to the next layer, and to the answer directly."""
        by_depth: dict[int, list[Spot]] = {}
        for spot in dict.fromkeys(spots):
            if spot in self.direct:
                continue
            by_depth.setdefault(spot.depth, []).append(spot)
        for depth, here in by_depth.items():
            ablations = self.table.of(here)
            if depth < len(self.asked.model.stack.layers) - 1:
                self.changes |= zip(here, changes_after(self.asked, ablations), strict=True)
            direct = direct_effects(self.asked, ablations).tolist()
            self.direct |= zip(here, direct, strict=True)

    def effect(self, spot: Spot) -> float:
        """The effect on the answer, in nats."""
        return self.table.effect(spot)

    def direct_effect(self, spot: Spot) -> float:
        """The part of it that no feature of a later SAE layer carries."""
        return self.direct[spot]

    def at_the_end(self, spot: Spot) -> bool:
        """Whether it is one of the last SAE layer, at the answer's token."""
        last = len(self.asked.model.stack.layers) - 1
        return spot.depth == last and spot.position == self.asked.read

    def change(self, source: Spot, target: Spot) -> Change:
        """What the source's ablation makes of the target's activation."""
        if source not in self._places:
            columns = (column.tolist() for column in self.changes[source])
            self._places[source] = {
                (feature, position): Change(before, after)
                for position, feature, before, after in zip(*columns, strict=True)
            }
        found = self._places[source].get((target.feature, target.position))
        if found is None:
            clean = self.table.activation(target)
            found = Change(clean, clean)
        return found

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
        (found,) = self.relays([spot])
        return found

    def relays(self, spots: Sequence[Spot]) -> list[Spot | None]:
        """`relay` of each, measured together."""
        tried = [
            self._promising(spot.depth + 1, self.changes[spot]) if spot in self.changes else []
            for spot in spots
        ]
        pairs = [
            (spot, candidate)
            for spot, candidates in zip(spots, tried, strict=True)
            for candidate in candidates
        ]
        flows = dict(zip(pairs, self.flows(pairs), strict=True))
        found: list[Spot | None] = []
        for spot, candidates in zip(spots, tried, strict=True):
            sign = 1 if self.table.effect(spot) > 0 else -1
            ways = [(sign * flows[spot, candidate], candidate) for candidate in candidates]
            most, relay = max(ways, default=(0.0, None))
            found.append(relay if most > max(sign * self.direct[spot], 0.0) else None)
        return found

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
