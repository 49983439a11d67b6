"""Effects of every active feature on the next layer's features, measured one by one.

For a pair of neighbouring SAE layers: 1. find the activations that the intervention changes (all
others are exact no-ops); 2. in packs, change one feature in each copy of the stream, the SAE's
error passing through untouched; 3. re-run the blocks between the two layers on the rows that this
reaches; 4. encode at the rows that are read; effect = changed minus clean.

Letters: `B` copies in a pack, `T` tokens, `D` d_model, `F` features, `S` ablations of a layer,
`N` entries that are not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_graphs.effects.ablations import Ablations, Places
from sae_graphs.effects.arrays import NOWHERE, Effects
from sae_graphs.effects.rounding import floor_of_features, floor_of_logits
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.preactivations import nearby
from sae_graphs.model.replay import steps_between
from sae_graphs.model.rows import ENCODED_ROWS, Rows, Where
from sae_graphs.model.saes import SAELayer
from sae_graphs.model.stream import StreamPoint

LEAST_FOR_NEARBY = 200  # ablations of a layer: for fewer, sorting the features out costs more
EXPRESSED_SAMPLE = 16  # sources per layer on which `effect_in_features` is measured


def changed_rows(model: InstrumentedModel, clean: CleanRun, ablations: Ablations) -> Rows:
    """The stream's rows that the ablations change, one copy for each.

    `x' = x - (decode(a) - decode(a with the feature changed))`: the SAE's error stays. The
    decoder is affine, so all other activations cancel and only the feature's own is decoded.
    """
    depth, copies, positions = ablations.depth, ablations.copies, ablations.positions
    stream = clean.streams[depth][positions]  # [N, D]
    decode = model.stack.layers[depth].decoder_of(ablations.features)
    alone = ablations.before.new_zeros(len(copies), len(ablations))  # [N, B]
    alone[torch.arange(len(copies), device=copies.device), copies] = 1
    without = decode(alone * ablations.before[:, None], stream)
    removed = without - decode(alone * ablations.after[:, None], stream)
    return Rows(Where(copies, positions), stream - removed.to(stream.dtype))


def reads_of(ablations: Ablations, places: Places) -> Where:
    """The rows to read in each copy: those of `places` that its change can reach."""
    reached = places.reads >= ablations.first_positions()[:, None]  # [B, P]
    copies, which = reached.nonzero(as_tuple=True)
    return Where(copies, places.reads[which])


@torch.no_grad()
def measure(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    places: Places,
    *,
    rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Effects]:
    """Effects of a layer's ablations on every feature of the next one, pack by pack.

    Units: activation of the target's SAE; sign: changed minus clean. A pack has at most `rows`
    token rows, or one ablation; the default is what the memory allows. `progress` is told the
    ablations done.
    """
    target = model.stack.layers[ablations.depth + 1]
    start, stop = clean.points[ablations.depth], target.point
    encode = _effects_on(target, clean, ablations, places)
    floor = floor_of_features(clean, ablations.depth + 1, torch.arange(len(clean)).to(places.reads))
    for first, pack in packs(model, clean, ablations, places, stop, rows):
        reads = reads_of(pack, places)
        onward = model.advance(clean, start, stop, changed_rows(model, clean, pack), reads)
        for which, effects, features in encode(onward, reads.positions):
            found = _entries(pack, places, reads.chosen(which), effects, floor)
            yield found if features is None else _renamed(found, features)
        if progress is not None:
            progress(first + len(pack))


Encoded = Iterator[tuple[Tensor, Tensor, Tensor | None]]


def _effects_on(
    target: SAELayer, clean: CleanRun, ablations: Ablations, places: Places
) -> Callable[[Tensor, Tensor], Encoded]:
    """How changed rows are encoded: parts of them, with effects `[C, F]` on all features or some.

    Given rows `[N, D]` and their positions `[N]`, gives which rows a part has, their effects, and
    the features these belong to, None being all.
    """
    depth = ablations.depth + 1
    before = clean.activations[depth].rows(places.reads)  # [P, F]
    row_of = torch.zeros(len(clean), dtype=torch.int64, device=places.reads.device)
    row_of[places.reads] = torch.arange(len(places.reads), device=places.reads.device)
    clean_row = clean.streams[depth][places.read]
    near = None
    if len(places.reads) == 1 and len(ablations) >= LEAST_FOR_NEARBY:
        near = nearby(target, clean_row)

    def encode(rows: Tensor, positions: Tensor) -> Encoded:
        far = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        if near is not None:
            far = (rows - clean_row).norm(dim=-1) >= near.reach
            close = (~far).nonzero()[:, 0]
            if len(close):
                yield close, near.encode(rows[close]) - before[:, near.features], near.features
        for which in far.nonzero()[:, 0].split(ENCODED_ROWS):
            yield which, target.encode(rows[which]) - before[row_of[positions[which]]], None

    return encode


@torch.no_grad()
def measure_outputs(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    places: Places,
    tokens: Tensor,
    contrast: int | None = None,
    *,
    rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Effects]:
    """Effects of a layer's ablations on the logits of some tokens `[V']`, pack by pack.

    In nats, changed minus clean. With a `contrast`, on the differences to this token's logit.
    """
    start = clean.points[ablations.depth]

    before = of_tokens(clean.logits, tokens, contrast)  # [T, V']
    floor = floor_of_logits(clean, torch.arange(len(clean), device=tokens.device))
    for first, pack in packs(model, clean, ablations, places, model.end, rows):
        reads = reads_of(pack, places)
        change = changed_rows(model, clean, pack)
        after = model.advance(clean, start, model.end, change, reads)
        for which in torch.arange(len(reads), device=tokens.device).split(ENCODED_ROWS):
            part = reads.chosen(which)
            logits = model.unembed(after[which])
            effects = of_tokens(logits, tokens, contrast) - before[part.positions]
            yield _renamed(_entries(pack, places, part, effects, floor), tokens)
        if progress is not None:
            progress(first + len(pack))


def of_tokens(logits: Tensor, tokens: Tensor, contrast: int | None) -> Tensor:
    """The logits `[..., V']` of some tokens, or their differences to that of the contrast."""
    found = logits[..., tokens]
    return found if contrast is None else found - logits[..., contrast, None]


def _entries(
    pack: Ablations, places: Places, reads: Where, effects: Tensor, floor: Tensor
) -> Effects:
    """The effects `[C, F]` at some rows that are above the floor `[T]`, with their ends.

    Moved to the CPU.
    """
    rows, targets = effects.nonzero(as_tuple=True)
    more = effects[rows, targets].abs() > floor[reads.positions[rows]]
    rows, targets = rows[more], targets[more]
    values = effects[rows, targets]
    copies, positions = reads.copies[rows], reads.positions[rows]
    nowhere = torch.full_like(targets, NOWHERE)
    resolved = places.each
    return Effects(
        pack.depth,
        _array(pack.features[copies]),
        _array(pack.first_positions()[copies] if resolved else nowhere),
        _array(targets),
        _array(positions if resolved else nowhere),
        values.to(torch.promote_types(values.dtype, torch.float32)).cpu().numpy(),
    )


def _renamed(effects: Effects, features: Tensor) -> Effects:
    """Effects whose targets number some features `[K]`, with the features themselves."""
    return replace(effects, targets=_array(features)[effects.targets])


def _array(indices: Tensor) -> NDArray[np.int32]:
    return indices.to(torch.int32).cpu().numpy()


@torch.no_grad()
def effect_in_features(
    model: InstrumentedModel, clean: CleanRun, ablations: Ablations, places: Places
) -> float | None:
    """How much of the change of the next layer's stream its SAE expresses: 1 is all of it.

    `1 - sum |dx - dx_hat|^2 / sum |dx|^2` at the rows that are read, over the ablations that change
    activations most (16 at most). What is left over flows on in the SAE's error, out of the
    graph's sight.
    """
    if len(ablations) == 0:
        return None
    strength = ablations.before.new_zeros(len(ablations))
    sizes = (ablations.after - ablations.before).abs()
    strength.scatter_reduce_(0, ablations.copies, sizes, "amax")
    strongest = strength.argsort(descending=True, stable=True)[:EXPRESSED_SAMPLE]
    chosen = ablations.chosen(strongest.sort().values)
    reads = reads_of(chosen, places)
    target = model.stack.layers[ablations.depth + 1]
    before = clean.streams[ablations.depth + 1][reads.positions]  # [N, D]
    change = changed_rows(model, clean, chosen)
    after = model.advance(clean, clean.points[ablations.depth], target.point, change, reads)
    expressed = target.decode(target.encode(after), after)
    expressed = expressed - target.decode(target.encode(before), before)
    moved = after - before
    total = float(moved.double().square().sum())
    if total == 0.0:
        return None
    return 1.0 - float((moved - expressed).double().square().sum()) / total


def packs(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    places: Places,
    stop: StreamPoint,
    rows: int | None = None,
) -> Iterator[tuple[int, Ablations]]:
    """The ablations in packs of at most so many rows, each with the number of its first."""
    limit = rows or model.rows_at_once(len(clean))
    first_changed = ablations.first_positions()
    if not model.replay.rows_alone:
        needed = torch.full_like(first_changed, len(clean))
    elif len(steps_between(clean.points[ablations.depth], stop)) > 1:  # and all rows in between
        needed = places.read + 1 - first_changed
    else:
        changed = torch.bincount(ablations.copies, minlength=len(ablations))
        needed = changed + (places.reads >= first_changed[:, None]).sum(1)
    counts = needed.tolist()
    start, held = 0, 0
    for number, count in enumerate(counts):
        if held and held + count > limit:
            yield start, ablations.part(start, number)
            start, held = number, 0
        held += count
    if counts:
        yield start, ablations.part(start, len(ablations))
