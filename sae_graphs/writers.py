"""Who wrote a feature, and who removes it: the blocks below its layer, and those above.

Written: the clean stream is the embedding plus what attention and MLP of each block below wrote;
the feature's encoder, linear before its activation, takes each by itself. Scrubbed: where a block
above removes a feature from the stream, ablating the feature leaves it nothing to remove; what it
writes then differs along the direction that the ablation took out.

Letters: `N` features, `P` parts, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.ablation import Ablations, Places, ablations_of, changed_rows, packs
from sae_graphs.anatomy import numbers_of
from sae_graphs.block_parts import CleanWrites, changes_by_block
from sae_graphs.errors import CannotSplitError
from sae_graphs.graph import FeatureId
from sae_graphs.instrument import CleanRun, InstrumentedModel, steps_between
from sae_graphs.interventions import ZERO, Intervention
from sae_graphs.preactivations import linear_part
from sae_graphs.records import BlockShare, Part
from sae_graphs.rows import Where
from sae_graphs.saes import StreamPoint

LISTED = 3  # shares that a node names
LEAST = 0.01  # smaller shares are not named
AT_ONCE = 64  # features whose pre-activations are taken apart together
ADDS_UP = 1e-3  # of the stream's norm: what the replayed blocks may miss

Peaks = dict[FeatureId, int]


class Shares(NamedTuple):
    """See `Node`: the strongest of each, strongest first."""

    written_by: tuple[BlockShare, ...] = ()
    scrubbed_by: tuple[BlockShare, ...] = ()


def peaks_of(
    model: InstrumentedModel, clean: CleanRun, features: Collection[FeatureId], places: Places
) -> Peaks:
    """Where each feature is most active among the ablated positions, or its own position.

    Features that are silent there are left out.
    """
    found: Peaks = {}
    for layer, activations in zip(model.stack.layers, clean.activations, strict=True):
        here = [feature for feature in features if feature.layer == layer.label]
        if not here:
            continue
        indices = torch.tensor([feature.index for feature in here], device=places.ablated.device)
        dense = activations.of(indices)  # [T, N]
        strongest = (dense.abs() * places.ablated[:, None]).argmax(0).tolist()
        for number, feature in enumerate(here):
            at = strongest[number] if feature.position is None else feature.position
            if dense[at, number] != 0 and (feature.position is not None or places.ablated[at]):
                found[feature] = at
    return found


@torch.no_grad()
def writers_of(
    writes: CleanWrites, peaks: Peaks, places: Places, intervention: Intervention = ZERO
) -> dict[FeatureId, Shares]:
    """Which parts of the model wrote each feature, and which remove it, as shares of 1.

    Both at the feature's place in `peaks`, positions that `writes` has. Where a model or an encoder
    cannot be taken apart, no part has a share.
    """
    model = writes.model
    found: dict[FeatureId, Shares] = {}
    for depth, layer in enumerate(model.stack.layers):
        here = {feature: at for feature, at in peaks.items() if feature.layer == layer.label}
        if not here:
            continue
        written = written_shares(writes, depth, here)
        scrubbed = scrubbed_shares(writes, depth, here, places, intervention)
        for feature in here:
            scrubs = [share for share in scrubbed.get(feature, ()) if share.share > 0]
            found[feature] = Shares(_strongest(written.get(feature, ())), _strongest(scrubs))
    return found


def written_shares(
    writes: CleanWrites, depth: int, peaks: Peaks
) -> dict[FeatureId, list[BlockShare]]:
    """Every part's share of the clean pre-activations: of each feature they add up to 1.

    A share is negative where the part holds the feature down. The biases of the encoder are no
    part; where they alone make the feature active, there are no shares.
    """
    found: dict[FeatureId, list[BlockShare]] = {}
    features = list(peaks)
    try:
        for first in range(0, len(features), AT_ONCE):
            some = features[first : first + AT_ONCE]
            found |= _written(writes, depth, some, [peaks[feature] for feature in some])
    except CannotSplitError:
        return {}
    return found


def scrubbed_shares(
    writes: CleanWrites,
    depth: int,
    peaks: Peaks,
    places: Places,
    intervention: Intervention = ZERO,
) -> dict[FeatureId, list[BlockShare]]:
    """What each part above puts back of what changing the feature takes out of the stream.

    With `r` the contribution taken out at the row and `dw` how a part's writing changes, the
    share is `dw . r / |r|^2`: 1 removes the feature altogether, negative strengthens it.
    """
    model, clean = writes.model, writes.clean
    device = clean.logits.device
    indices = torch.tensor(sorted({feature.index for feature in peaks}), device=device)
    ablations = ablations_of(clean, depth, places, intervention, indices)
    numbers = numbers_of(ablations, places)
    of_number = {
        numbers[key]: feature
        for feature in peaks
        if (key := (feature.index, feature.position)) in numbers
    }
    if not of_number or clean.points[depth] == model.end:
        return {}
    chosen = ablations.chosen(torch.tensor(sorted(of_number), device=device))
    ordered = [of_number[number] for number in sorted(of_number)]
    found: dict[FeatureId, list[BlockShare]] = {}
    try:
        for first, pack in packs(model, clean, chosen, places, model.end):
            some = ordered[first : first + len(pack)]
            found |= _scrubbed(writes, pack, some, [peaks[feature] for feature in some])
    except CannotSplitError:
        return {}
    return found


# -- inside ----------------------------------------------------------------------------------------


def _written(
    writes: CleanWrites, depth: int, features: Sequence[FeatureId], peaks: Sequence[int]
) -> dict[FeatureId, list[BlockShare]]:
    model, clean = writes.model, writes.clean
    device = clean.logits.device
    at = torch.tensor(peaks, device=device)
    indices = torch.tensor([feature.index for feature in features], device=device)
    stream = clean.streams[depth]
    encode = linear_part(model.stack.layers[depth], indices, stream)
    names: list[tuple[Part, int | None]] = [("embedding", None)]
    parts = [clean.inputs[0][at]]  # [N, D] each
    for step in steps_between(StreamPoint(0, "pre"), clean.points[depth]):
        written = writes.at(step, at)
        names.append(("attention", step.block))
        parts.append(written.attention)
        if step.part == "whole":
            names.append(("mlp", step.block))
            parts.append(written.mlp)
    missed = (torch.stack(parts).sum(0) - stream[at]).norm(dim=-1)
    if not (missed <= ADDS_UP * stream[at].norm(dim=-1)).all():
        raise CannotSplitError("what the blocks write does not add up to the stream")
    values = [encode(part).diagonal() for part in parts]  # [N] each
    whole = torch.stack(values).sum(0)
    activations = clean.activations[depth].of(indices)[at].diagonal()
    shares = (torch.stack(values) / whole).T.tolist()  # [N, P]
    alive = ((whole * activations) > 0).tolist()
    return {
        feature: [
            BlockShare(part, block, share) for (part, block), share in zip(names, row, strict=True)
        ]
        for feature, row, it_is in zip(features, shares, alive, strict=True)
        if it_is
    }


def _scrubbed(
    writes: CleanWrites, pack: Ablations, features: Sequence[FeatureId], peaks: Sequence[int]
) -> dict[FeatureId, list[BlockShare]]:
    model, clean = writes.model, writes.clean
    device = clean.logits.device
    reads = Where(torch.arange(len(pack), device=device), torch.tensor(peaks, device=device))
    change = changed_rows(model, clean, pack)
    changes = changes_by_block(writes, clean.points[pack.depth], model.end, change, reads)
    removed = -changes.skip.double()  # [N, D]
    size = removed.square().sum(-1)

    def shares(difference: Tensor) -> list[float]:
        return ((difference * removed).sum(-1) / size).tolist()

    columns: list[tuple[Part, int, list[float]]] = []
    for block in changes.blocks:
        columns.append(("attention", block.block, shares(block.attention)))
        columns.append(("mlp", block.block, shares(block.mlp)))
    moved = (size > 0).tolist()
    return {
        feature: [BlockShare(part, block, values[n]) for part, block, values in columns]
        for n, feature in enumerate(features)
        if moved[n]
    }


def _strongest(shares: Iterable[BlockShare]) -> tuple[BlockShare, ...]:
    named = [share for share in shares if abs(share.share) > LEAST]
    return tuple(sorted(named, key=lambda share: -abs(share.share))[:LISTED])
