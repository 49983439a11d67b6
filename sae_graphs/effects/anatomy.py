"""How each kept edge reached its target: through the skip connection, attention, or the MLPs.

For a pair of layers: 1. the sources of its kept edges are ablated once more; 2. on the way to the
next layer, what every block writes differently is read at the target's row; 3. the encoder, which
is linear before its activation, takes each of these changes by itself.

Letters: `N` rows that are read, `P` parts, `S` target features, `H` heads, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from sae_graphs.effects.ablations import Ablations, Places
from sae_graphs.effects.exact import changed_rows, packs
from sae_graphs.errors import CannotSplitError
from sae_graphs.graph.anatomy import Anatomy, BlockAnatomy
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge
from sae_graphs.model.block_parts import BlockChange, CleanWrites, changes_by_block
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.preactivations import LinearPart, linear_part
from sae_graphs.model.rows import Where

Writes = CleanWrites[InstrumentedModel, CleanRun]
OUTPUTS = "the norm before the logits is not linear"


class Anatomies(NamedTuple):
    """Edges with their anatomies where there are any; and by layer label, why not elsewhere."""

    edges: list[Edge]
    reasons: dict[str, str]
    warnings: tuple[str, ...]


@torch.no_grad()
def with_anatomy(
    writes: Writes, edges: Sequence[Edge], ablations: Sequence[Ablations], places: Places
) -> Anatomies:
    """The edges, each with the change of its target's pre-activation by the way that it took.

    Changed minus clean, in activation units of the target's SAE; where the target is active before
    and after, and its activation is a ReLU or alike, they add up to the edge's effect.
    `ablations`, one for each layer with edges, are those that the effects were measured with;
    `writes` has at least the positions that are read, and says whether heads are told apart.
    """
    model = writes.model
    found: dict[tuple[FeatureId, FeatureId], Anatomy] = {}
    reasons: dict[str, str] = {}
    for depth, layer in enumerate(model.stack.layers):
        here = [edge for edge in edges if edge.source.layer == layer.label]
        if not here:
            continue
        if depth == len(model.stack.layers) - 1:
            reasons[layer.label] = OUTPUTS
            continue
        try:
            found |= _of_pair(writes, here, ablations[depth], places)
        except CannotSplitError as reason:
            reasons[layer.label] = str(reason)
    split = [
        replace(edge, anatomy=found.get((edge.source, edge.target), edge.anatomy)) for edge in edges
    ]
    whole = writes.heads and any(not block.heads for way in found.values() for block in way.blocks)
    warning = (
        f"attention of {model.name} is not split by head: what its heads give does not add up to "
        "what attention writes (in Gemma 2 and 3 a norm follows it)"
    )
    return Anatomies(split, reasons, (warning,) if whole else ())


def numbers_of(ablations: Ablations, places: Places) -> dict[tuple[int, int | None], int]:
    """The number of each ablation by its feature's index and position, where it has one."""
    features = ablations.features.tolist()
    at = ablations.first_positions().tolist() if places.each else [None] * len(features)
    return {key: number for number, key in enumerate(zip(features, at, strict=True))}


def _of_pair(
    writes: Writes, edges: Sequence[Edge], ablations: Ablations, places: Places
) -> dict[tuple[FeatureId, FeatureId], Anatomy]:
    """The anatomies of one layer's edges; raises `CannotSplitError` where there are none."""
    stop = writes.clean.points[ablations.depth + 1]
    numbers = numbers_of(ablations, places)
    sources = sorted({numbers[edge.source.index, edge.source.position] for edge in edges})
    chosen = ablations.chosen(torch.tensor(sources, device=ablations.features.device))
    copy_of = {number: copy for copy, number in enumerate(sources)}
    by_copy: dict[int, list[Edge]] = {}
    for edge in edges:
        copy = copy_of[numbers[edge.source.index, edge.source.position]]
        by_copy.setdefault(copy, []).append(edge)
    found: dict[tuple[FeatureId, FeatureId], Anatomy] = {}
    for first, pack in packs(writes.model, writes.clean, chosen, places, stop):
        here = {copy: by_copy[first + copy] for copy in range(len(pack))}
        found |= _of_pack(writes, pack, here, places)
    return found


def _of_pack(
    writes: Writes, pack: Ablations, edges: dict[int, list[Edge]], places: Places
) -> dict[tuple[FeatureId, FeatureId], Anatomy]:
    """The anatomies of some ablations' edges, by the copy that has the ablation."""
    model, clean, depth = writes.model, writes.clean, pack.depth
    device = pack.features.device

    def row(copy: int, edge: Edge) -> tuple[int, int]:
        at = edge.target.position
        return copy, places.read if at is None else at

    rows = sorted({row(copy, edge) for copy, some in edges.items() for edge in some})
    targets = sorted({edge.target.index for some in edges.values() for edge in some})
    reads = Where(*torch.tensor(rows, device=device).T)
    stream = clean.streams[depth + 1]
    encode = linear_part(
        model.stack.layers[depth + 1], torch.tensor(targets, device=device), stream
    )
    changes = changes_by_block(
        writes,
        clean.points[depth],
        clean.points[depth + 1],
        changed_rows(model, clean, pack),
        reads,
    )
    skip = encode(changes.skip).tolist()  # [N, S]
    blocks = [_encoded(block, encode) for block in changes.blocks]
    row_of = {place: number for number, place in enumerate(rows)}
    column_of = {index: number for number, index in enumerate(targets)}
    found = {}
    for copy, some in edges.items():
        for edge in some:
            n, s = row_of[row(copy, edge)], column_of[edge.target.index]
            ways = tuple(block.to_target(n, s) for block in blocks)
            found[edge.source, edge.target] = Anatomy(skip=skip[n][s], blocks=ways)
    return found


class _Encoded(NamedTuple):
    """The changes of pre-activations by way of one block."""

    block: int
    attention: list[list[float]]  # [N, S]
    mlp: list[list[float]]  # [N, S]
    heads: list[list[list[float]]]  # [N, S, H], with no head where they are not told apart

    def to_target(self, row: int, column: int) -> BlockAnatomy:
        return BlockAnatomy(
            self.block,
            self.attention[row][column],
            self.mlp[row][column],
            tuple(self.heads[row][column]),
        )


def _encoded(change: BlockChange, encode: LinearPart) -> _Encoded:
    attention = encode(change.attention)
    heads = attention.new_zeros(*attention.shape, 0)
    if change.heads is not None:
        heads = encode(change.heads.flatten(0, 1)).unflatten(0, change.heads.shape[:2]).mT
    return _Encoded(change.block, attention.tolist(), encode(change.mlp).tolist(), heads.tolist())
