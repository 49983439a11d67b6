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

from sae_graphs.effects.ablations import Ablations, Places
from sae_graphs.effects.anatomy import Writes, numbers_of
from sae_graphs.errors import CannotSplitError
from sae_graphs.graph.anatomy import BlockShare, Part
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.block_parts import Changes, changes_by_block
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.preactivations import linear_part
from sae_graphs.model.replay import steps_between
from sae_graphs.model.rows import Rows, Where
from sae_graphs.model.stream import StreamPoint

LISTED = 3  # shares that a node names
LEAST = 0.01  # smaller shares are not named
AT_ONCE = 64  # features whose pre-activations are taken apart together
ADDS_UP = 1e-3  # of the stream's norm: what the replayed blocks may miss

Peaks = dict[FeatureId, int]
Found = dict[FeatureId, list[BlockShare]]


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
        named = torch.tensor([feature.index for feature in here], device=places.ablated.device)
        indices, columns = named.unique(return_inverse=True)  # one may be here at many positions
        dense = activations.of(indices)[:, columns]  # [T, N]
        strongest = (dense.abs() * places.ablated[:, None]).argmax(0).tolist()
        for number, feature in enumerate(here):
            at = strongest[number] if feature.position is None else feature.position
            if dense[at, number] != 0 and (feature.position is not None or places.ablated[at]):
                found[feature] = at
    return found


@torch.no_grad()
def writers_of(writes: Writes, peaks: Peaks, scrubbed: Found) -> dict[FeatureId, Shares]:
    """Which parts of the model wrote each feature, and which remove it, as shares of 1.

    Both at the feature's place in `peaks`, positions that `writes` has; `scrubbed` is what
    `Scrubbing` found. Where a model or an encoder cannot be taken apart, no part has a share.
    """
    found: dict[FeatureId, Shares] = {}
    for depth, layer in enumerate(writes.model.stack.layers):
        here = {feature: at for feature, at in peaks.items() if feature.layer == layer.label}
        written = written_shares(writes, depth, here)
        for feature in here:
            scrubs = [share for share in scrubbed.get(feature, ()) if share.share > 0]
            found[feature] = Shares(_strongest(written.get(feature, ())), _strongest(scrubs))
    return found


def written_shares(writes: Writes, depth: int, peaks: Peaks) -> Found:
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


class Scrubbing:
    """Runs ablations on to the end of the model, and listens to what each part above puts back.

    With `r` the contribution of a feature that its ablation takes out of the stream at the row of
    its peak, and `dw` how the writing of the parts so far changes there, `1 - dw . r / |r|^2` is
    what is left of it. A part's share is by how much it brings what is left closer to 0: 1 removes
    the feature altogether, negative brings it back. More than was there at first does not count,
    nor does turning it round. `found` has the shares of all parts.
    """

    def __init__(self, writes: Writes, peaks: Peaks, places: Places) -> None:
        self.found: Found = {}
        self._writes, self._peaks, self._places = writes, peaks, places
        self._split = True

    def advance(self, pack: Ablations, change: Rows, reads: Where) -> Tensor:
        """The changed streams `[N, D]` after the last block at the rows `reads`."""
        model, clean = self._writes.model, self._writes.clean
        start = clean.points[pack.depth]
        label = model.stack.layers[pack.depth].label
        peaks = {
            copy: (feature, self._peaks[feature])
            for (index, at), copy in numbers_of(pack, self._places).items()
            if (feature := FeatureId(label, index, at)) in self._peaks
        }
        if not self._split or not peaks or start == model.end:
            return model.advance(clean, start, model.end, change, reads)
        asked = reads.mask(len(pack), len(clean))
        for copy, (_, at) in peaks.items():
            asked[copy, at] = True
        rows = Where.of(asked)
        try:
            changes = changes_by_block(self._writes, start, model.end, change, rows)
        except CannotSplitError:
            self._split = False
            return self.advance(pack, change, reads)
        number = torch.full(asked.shape, -1, device=asked.device)
        number[rows.copies, rows.positions] = torch.arange(len(rows), device=asked.device)
        for copy, (feature, at) in peaks.items():
            shares = _scrubbed(changes, int(number[copy, at]))
            if shares:
                self.found[feature] = shares
        return changes.streams[number[reads.copies, reads.positions]]


# -- inside ----------------------------------------------------------------------------------------


def _written(
    writes: Writes, depth: int, features: Sequence[FeatureId], peaks: Sequence[int]
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
    distinct, columns = indices.unique(return_inverse=True)  # one may be here at many positions
    activations = clean.activations[depth].of(distinct)[at, columns]  # [N]
    shares = (torch.stack(values) / whole).T.tolist()  # [N, P]
    alive = ((whole * activations) > 0).tolist()
    return {
        feature: [
            BlockShare(part, block, share) for (part, block), share in zip(names, row, strict=True)
        ]
        for feature, row, it_is in zip(features, shares, alive, strict=True)
        if it_is
    }


def _scrubbed(changes: Changes, row: int) -> list[BlockShare]:
    """The shares at one row; none where nothing was taken out there."""
    removed = -changes.skip[row].double()  # [D]
    size = float(removed @ removed)
    if size == 0.0:
        return []
    left, found = 1.0, []
    parts: list[tuple[Part, int, Tensor]] = []
    for block in changes.blocks:
        parts.append(("attention", block.block, block.attention[row]))
        parts.append(("mlp", block.block, block.mlp[row]))
    for part, number, written in parts:
        still = left - float(written.double() @ removed) / size
        found.append(BlockShare(part, number, min(abs(left), 1.0) - min(abs(still), 1.0)))
        left = still
    return found


def _strongest(shares: Iterable[BlockShare]) -> tuple[BlockShare, ...]:
    named = [share for share in shares if abs(share.share) > LEAST]
    return tuple(sorted(named, key=lambda share: -abs(share.share))[:LISTED])
