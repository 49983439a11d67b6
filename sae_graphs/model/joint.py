"""Many features changed together, layer after layer, in many copies of a prompt at once.

A copy goes up the stream from the first layer at which it is changed. At each SAE layer an edit
sees the stream *as it is then*, already changed upstream, encodes it again and changes it further:
the same as nested hooks in full forward passes. All of a copy's rows from its first change to the
row that is read are run; copies that an edit leaves as they were stay the clean run, exactly.

Letters: `B` copies, `T` tokens, `R` rows of all copies, `D` d_model, `U` features of an edit, `L`
SAE layers, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention
from sae_graphs.model.preactivations import one_by_one
from sae_graphs.model.rows import ENCODED_ROWS, Rows, Where
from sae_graphs.model.saes import SAELayer
from sae_graphs.model.stream import StreamPoint

ROWS_AT_ONCE = 2048  # token rows of the copies that are run as one batch
ENCODED_AT_ONCE = 2**21  # activations that an SAE makes at once, but never fewer rows than usual


class Selected(NamedTuple):
    """Features of one layer, and in which copies and at which positions they are chosen."""

    features: Tensor  # [U], each once
    chosen: Tensor  # [B, T, U] bool

    def part(self, start: int, stop: int) -> Selected:
        """Some of the copies, without the features that none of them chooses."""
        chosen = self.chosen[start:stop]
        used = chosen.any(1).any(0)
        return Selected(self.features[used], chosen[:, :, used])


Sets = Mapping[int, Selected]  # by depth: sets of features, one a copy


class Edit(NamedTuple):
    """What is done to the stream at one SAE layer: the rows that it touches, and what they become.

    `change` is given all rows that differ from the clean run or are touched, as they are then.
    """

    where: Where
    change: Callable[[Rows], Tensor]  # -> [R, D]


class Ran(NamedTuple):
    """Copies at the end of their way, and how much each edit moved them.

    `streams` are those at the read row; `changed` tells which copies differ from the clean run
    there; `moved` holds the norms of what each edit took from the stream or added to it.
    """

    streams: Tensor  # [B, D]
    changed: Tensor  # [B] bool
    moved: Tensor  # [B, L, T]


def run_edits(
    model: InstrumentedModel,
    clean: CleanRun,
    edits: Mapping[int, Edit],
    n_copies: int,
    read: int,
    stop: StreamPoint | None = None,
) -> Ran:
    """Run copies of the clean run up the stream, with an edit at some of its layers (by depth).

    To the end, or to `stop`: then edits there and above are left out. Gradients flow through to
    what the edits depend on; copies that have any are run even where nothing is changed.
    """
    stream = clean.streams[0]
    moved = stream.new_zeros(n_copies, len(clean.streams), len(clean))
    none = torch.zeros(n_copies, len(clean), dtype=torch.bool, device=stream.device)
    rows, at = Rows(Where.of(none), stream[:0]), None
    for depth in sorted(edits):
        point, edit = clean.points[depth], edits[depth]
        if stop is not None and point.depth >= stop.depth:
            break
        if at is not None:
            rows = _onward(model, clean, rows, at, point, read)
        at = point
        before = rows.where.mask(n_copies, len(clean))
        where = Where.of(before | edit.where.mask(n_copies, len(clean)))
        if not len(where):
            continue  # an SAE cannot be asked about no rows
        rows = Rows(where, rows.at(where, clean.streams[depth]))
        streams = edit.change(rows)
        shift = (streams - rows.streams).detach().norm(dim=-1)
        moved[where.copies, depth, where.positions] = shift
        kept = before[where.copies, where.positions] | (shift != 0)
        if streams.requires_grad:  # at coefficient 1 nothing moves, but might
            kept = torch.ones_like(kept)
        rows = Rows(where, streams).chosen(kept)
    changed = rows.where.mask(n_copies, len(clean)).any(1)
    reads = Where.of(changed[:, None] & (torch.arange(len(clean), device=changed.device) == read))
    end = stop or model.end
    ends = model.replay.stream_at(clean, end)[read].repeat(n_copies, 1)
    if at is not None and len(reads):
        found = _advance(model, clean, at, end, rows, reads)
        ends = ends.index_copy(0, reads.copies, found)
    if not ends.requires_grad:
        changed = (ends != model.replay.stream_at(clean, end)[read]).any(1)
    return Ran(ends, changed, moved)


def _onward(
    model: InstrumentedModel,
    clean: CleanRun,
    rows: Rows,
    start: StreamPoint,
    stop: StreamPoint,
    read: int,
) -> Rows:
    """All rows from each copy's first change to the read row, at another point."""
    if not len(rows.where):
        return rows
    changed = rows.where.mask(rows.where.n_copies, len(clean))
    reached = changed.cummax(1).values
    reached[:, read + 1 :] = False
    reads = Where.of(reached)
    return Rows(reads, _advance(model, clean, start, stop, rows, reads))


def _advance(
    model: InstrumentedModel,
    clean: CleanRun,
    start: StreamPoint,
    stop: StreamPoint,
    rows: Rows,
    reads: Where,
) -> Tensor:
    """`InstrumentedModel.advance`, through which gradients flow."""
    for _, reached in model.walk(clean, start, stop, rows, reads):
        rows = reached
    return rows.at(reads, model.replay.stream_at(clean, stop))


def logits_of(model: InstrumentedModel, clean: CleanRun, ran: Ran, read: int) -> Tensor:
    """The logits `[B, V]` at the read row; the clean run's own where nothing changed."""
    logits = model.unembed(ran.streams)
    return torch.where(ran.changed[:, None], logits, clean.logits[read])


# -- what is done at a layer -----------------------------------------------------------------------

Become = Callable[[Tensor, Tensor], Tensor]
"""`become(features [U], activations [B, T, U])` gives what the activations become."""


def becoming(intervention: Intervention, point: StreamPoint) -> Become:
    """What an intervention makes of a layer's activations."""
    return lambda features, acts: intervention.replace(point, features, acts).expand_as(acts)


def scaled_by(coefficients: Tensor) -> Become:
    """Each copy's activations times its own coefficient, given as `[B]`."""
    return lambda features, acts: (acts * coefficients[:, None, None]).to(acts.dtype)


def changing(
    model: InstrumentedModel, clean: CleanRun, depth: int, selected: Selected, become: Become
) -> Edit:
    """Chosen activations become others: `x' = x - (decode(a) - decode(a with them changed))`.

    The SAE's error stays. A selection that is masked after the fact, not selected again: see
    DESIGN.md on TopK.
    """
    layer, (features, chosen) = model.stack.layers[depth], selected

    def change(rows: Rows) -> Tensor:
        copies, positions = rows.where
        decode = layer.decoder_of(features)
        mask = chosen[copies, positions]  # [R, U]
        before = activations_of(layer, features, rows.streams) * mask
        dense = before.new_zeros(chosen.shape)
        dense = dense.index_put((copies, positions), before)
        after = become(features, dense)[copies, positions] * mask
        removed = decode(before, rows.streams) - decode(after, rows.streams)
        return rows.streams - removed.to(rows.streams.dtype)

    return Edit(Where.of(chosen.any(-1)), change)


def holding_others(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    selected: Selected,
    silenced: Tensor | None = None,
) -> Edit:
    """Everything is held clean but the chosen activations, which are what they have become.

    `x' = x_clean + decode(a_clean with them as they are now) - decode(a_clean)`. Those that are
    `silenced`, `[U]` or by position `[T, U]`, become 0 instead.
    """
    layer, (features, chosen) = model.stack.layers[depth], selected

    def change(rows: Rows) -> Tensor:
        copies, positions = rows.where
        decode = layer.decoder_of(features)
        stream = clean.streams[depth][positions]  # [R, D]
        mask = chosen[copies, positions]
        now = activations_of(layer, features, rows.streams) * mask
        if silenced is not None:
            now = now * ~(silenced if silenced.ndim == 1 else silenced[positions])
        # Encoded again, in the same way: a row that is clean then stays so to the last digit.
        then = activations_of(layer, features, stream) * mask
        return stream + (decode(now, stream) - decode(then, stream)).to(stream.dtype)

    return Edit(Where.of(chosen.any(-1)), change)


def keeping_only(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    selected: Selected,
    ablated: Tensor,
    *,
    errors: bool,
) -> Edit:
    """All activations but the chosen ones become 0, at the `ablated` positions `[T]`.

    With `errors`, the SAE's error stays: `x' = x - (decode(a) - decode(a, only the chosen))`;
    without, `x' = decode(a, only the chosen)`.
    """
    layer, (features, chosen) = model.stack.layers[depth], selected

    def change(rows: Rows) -> Tensor:
        copies, positions = rows.where
        decode = layer.decoder_of(features)
        out = []
        for part in torch.arange(len(copies), device=copies.device).split(_rows_encoded(layer)):
            stream = rows.streams[part]
            acts = layer.encode(stream)
            kept = acts[:, features] * chosen[copies[part], positions[part]]
            left = decode(kept, stream).to(stream.dtype)
            if errors:
                left = stream - (layer.decode(acts, stream).to(stream.dtype) - left)
            out.append(torch.where(ablated[positions[part], None], left, stream))
        return torch.cat(out)

    return Edit(Where.of(ablated.repeat(len(chosen), 1)), change)


def holding_features(model: InstrumentedModel, clean: CleanRun, depth: int) -> Edit:
    """All activations are what they were in the clean run; the SAE's error is what it has become.

    `x' = x - (decode(a) - decode(a_clean))`.
    """
    layer = model.stack.layers[depth]
    none = torch.zeros(0, dtype=torch.int64, device=clean.streams[depth].device)

    def change(rows: Rows) -> Tensor:
        positions, out = rows.where.positions, []
        for part in torch.arange(len(positions), device=positions.device).split(
            _rows_encoded(layer)
        ):
            stream, before = rows.streams[part], clean.streams[depth][positions[part]]
            moved = layer.decode(layer.encode(stream), stream)
            held = layer.decode(layer.encode(before), stream)
            out.append(stream - (moved - held).to(stream.dtype))
        return torch.cat(out)

    return Edit(Where(none, none), change)


def becoming_rows(rows: Rows) -> Edit:
    """Some rows, in order of copy and position, become what they are given as."""

    def change(found: Rows) -> Tensor:
        n_tokens = 1 + int(found.where.positions.max())
        touched = rows.where.mask(found.where.n_copies, n_tokens)
        streams = found.streams.clone()
        streams[touched[found.where.copies, found.where.positions]] = rows.streams
        return streams

    return Edit(rows.where, change)


def by_copy(kinds: Sequence[tuple[Tensor, Edit]]) -> Edit:
    """Each copy has an edit of its own: those true in `[B]` the edit beside; others stay."""

    def change(rows: Rows) -> Tensor:
        streams = rows.streams.clone()
        for mine, edit in kinds:
            here = mine[rows.where.copies]
            if here.any():
                streams[here] = edit.change(rows.chosen(here))
        return streams

    copies, positions = zip(*(edit.where for _, edit in kinds), strict=True)
    return Edit(Where(torch.cat(copies), torch.cat(positions)), change)


def adding(deltas: Tensor) -> Edit:
    """Something `[B, T, D]` is added to the stream."""
    touched = (deltas != 0).any(-1)
    return Edit(
        Where.of(touched),
        lambda rows: rows.streams + deltas[rows.where.copies, rows.where.positions],
    )


def activations_of(layer: SAELayer, features: Tensor, streams: Tensor) -> Tensor:
    """The activations `[R, U]` of some features, through the SAE's own encoder."""
    if not len(features):
        return streams.new_zeros(len(streams), 0)
    if one_by_one(layer):
        return layer.encoder_of(features)(streams)
    parts = streams.split(_rows_encoded(layer))
    return torch.cat([layer.encode(part)[:, features] for part in parts])


def _rows_encoded(layer: SAELayer) -> int:
    return max(ENCODED_ROWS, ENCODED_AT_ONCE // layer.n_features)


# -- sets of features ------------------------------------------------------------------------------


def packs(model: InstrumentedModel, clean: CleanRun, n_copies: int) -> Iterator[tuple[int, int]]:
    """The copies in batches that fit the memory: first and last, the last not included."""
    rows = model.rows_at_once(len(clean)) if not model.replay.together else ROWS_AT_ONCE
    cfg = model.model.cfg
    floats = 30 * int(cfg.d_model) + 2 * int(getattr(cfg, "n_heads", 1)) * len(clean)
    size = next(model.model.parameters()).element_size()
    rows = min(rows, max(1, model.working_memory // (floats * size)))
    step = max(1, rows // len(clean))
    for start in range(0, n_copies, step):
        yield start, min(start + step, n_copies)


def run_packs(
    model: InstrumentedModel,
    clean: CleanRun,
    edits: Callable[[int, int], Mapping[int, Edit]],
    n_copies: int,
    read: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Edited copies in batches: logits `[B, V]`, what was moved `[B, L, T]`.

    `edits(start, stop)` are those of the copies from `start` to `stop`, that one not included.
    `progress` is told how many more copies are done.
    """
    logits, moved = [], []
    for start, stop in packs(model, clean, n_copies):
        ran = run_edits(model, clean, edits(start, stop), stop - start, read)
        logits.append(logits_of(model, clean, ran, read))
        moved.append(ran.moved)
        if progress is not None:
            progress(stop - start)
    return torch.cat(logits), torch.cat(moved)


def run_sets(
    model: InstrumentedModel,
    clean: CleanRun,
    sets: Sets,
    n_copies: int,
    read: int,
    *,
    intervention: Intervention = ZERO,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Joint ablation of one set of features a copy: logits `[B, V]`, what was moved `[B, L, T]`."""

    def edits(start: int, stop: int) -> Mapping[int, Edit]:
        return {
            depth: changing(
                model,
                clean,
                depth,
                selected.part(start, stop),
                becoming(intervention, clean.points[depth]),
            )
            for depth, selected in sets.items()
        }

    return run_packs(model, clean, edits, n_copies, read, progress)
