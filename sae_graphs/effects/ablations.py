"""What is ablated, where, and where effects are read.

Letters: `T` tokens, `F` features, `S` ablations of a layer, `N` activations that they change, `P`
positions that are read.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.interventions import ZERO, Intervention


class Places(NamedTuple):
    """Where features are changed and where effects are read."""

    ablated: Tensor  # [T] bool
    reads: Tensor  # [P] positions
    each: bool  # one position at a time, or all that are ablated together

    @property
    def read(self) -> int:
        """The position whose next token is asked for: the last that is read."""
        return int(self.reads[-1])


class Ablations(NamedTuple):
    """The ablations of one layer, and the activations that each of them changes."""

    depth: int
    features: Tensor  # [S] feature indices
    copies: Tensor  # [N] the ablation, 0 to S - 1, in order
    positions: Tensor  # [N] in order within an ablation
    before: Tensor  # [N] activations
    after: Tensor  # [N]

    def __len__(self) -> int:  # not the number of fields
        return len(self.features)

    def first_positions(self) -> Tensor:
        """The first position `[S]` that each ablation changes."""
        starts = torch.searchsorted(self.copies, torch.arange(len(self), device=self.copies.device))
        return self.positions[starts]

    def part(self, start: int, stop: int) -> Ablations:
        """Some of them, counted from 0 again."""
        inside = (self.copies >= start) & (self.copies < stop)
        return Ablations(
            self.depth,
            self.features[start:stop],
            self.copies[inside] - start,
            self.positions[inside],
            self.before[inside],
            self.after[inside],
        )

    def chosen(self, which: Tensor) -> Ablations:
        """Those that are true in `[S]`, or named by ascending indices, counted from 0 again."""
        which = which.nonzero()[:, 0] if which.dtype == torch.bool else which
        number = torch.full((len(self),), -1, device=which.device)
        number[which] = torch.arange(len(which), device=which.device)
        copies = number[self.copies]
        inside = copies >= 0
        return Ablations(
            self.depth,
            self.features[which],
            copies[inside],
            self.positions[inside],
            self.before[inside],
            self.after[inside],
        )


def places_of(clean: CleanRun, settings: GraphSettings) -> Places:
    """The positions that the settings speak of; raises where `read` is outside the prompt."""
    n = len(clean)
    device = clean.logits.device
    positions = torch.arange(n, device=device)
    read = settings.read
    reads = positions if read == "all" else positions[read_at(read, n)][None]
    if settings.ablate == "read":
        ablated = positions == reads[-1]
    else:
        ablated = positions <= reads[-1]  # later positions cannot reach the one that is read
        ablated[0] = settings.ablate_first or n == 1
    if not ablated.any():
        raise SaeGraphsError(
            "the token that is read is the first, and there no feature is ablated by default: "
            "add --ablate-first, or --ablate read, or read another token"
        )
    return Places(ablated, reads, each=settings.ablate == "each")


def read_at(read: int, n_tokens: int) -> int:
    """A position counted from the start; raises `SaeGraphsError` where it is outside the prompt."""
    if isinstance(read, bool) or not hasattr(read, "__index__"):
        raise SaeGraphsError(f"read is {read!r:.40}; expected a whole number, the token's place")
    if not -n_tokens <= read < n_tokens:
        raise SaeGraphsError(
            f"read position {read} is outside the prompt of {n_tokens} tokens; expected "
            f"0 to {n_tokens - 1}, or negative from the end"
        )
    return operator.index(read) % n_tokens


def ablations_of(
    clean: CleanRun,
    depth: int,
    places: Places,
    intervention: Intervention = ZERO,
    features: Tensor | None = None,
) -> Ablations:
    """The ablations of the layer at `depth` that change anything, ordered by feature, position.

    Of all features, or of some `[S]` alone, given in ascending order.
    """
    activations = clean.activations[depth]
    if features is None:
        also = intervention.also(clean.points[depth]).to(activations.features.device)
        features = torch.cat([activations.active(places.ablated), also]).unique()
    before = activations.of(features)  # [T, S]
    after = intervention.replace(clean.points[depth], features, before)
    changed = ((after != before) & places.ablated[:, None]).T  # [S, T]
    copies, positions = changed.nonzero(as_tuple=True)
    before, after = before[positions, copies], after[positions, copies]
    if places.each:
        each = torch.arange(len(copies), device=copies.device)
        return Ablations(depth, features[copies], each, positions, before, after)
    alive = changed.any(1)
    number = alive.cumsum(0) - 1
    return Ablations(depth, features[alive], number[copies], positions, before, after)


def pinned(ablations: Ablations, pin: Sequence[FeatureId], label: str) -> Ablations:
    """Those of the pinned features of this layer; a pin that changes nothing raises.

    Where ablations have a position each, a pin without one means all of them.
    """
    first = ablations.first_positions()
    chosen = torch.zeros(len(ablations), dtype=torch.bool, device=first.device)
    for feature in pin:
        if feature.layer != label:
            continue
        found = ablations.features == feature.index
        if feature.position is not None:
            found &= first == feature.position
        if not found.any():
            raise inactive_pin(feature)
        chosen |= found
    return ablations.chosen(chosen)


def inactive_pin(feature: FeatureId) -> UnknownFeatureError:
    """The error for a pinned feature that no ablation of this prompt changes."""
    return UnknownFeatureError(
        f"pinned feature {feature} is inactive at every ablated position of this prompt, so "
        "ablating it changes nothing; pin a feature that is active"
    )
