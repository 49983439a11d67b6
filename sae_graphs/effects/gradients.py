"""Effects of one layer on the next estimated from gradients, instead of measured.

Two estimates, as in Marks et al., "Sparse Feature Circuits" (2024):

- *gradient* (attribution patching): the target's gradient at the clean point, times the change of
  the source's activation, summed over the positions where it is changed;
- *integrated gradients*: the same with the gradient's mean over points on the straight line from
  the clean activations to those where all features of the layer are changed together, the line
  divided into `steps` parts and the gradient taken where each part begins (a left Riemann sum).
  Unlike in the authors' code, where zero-ablation moves an SAE's error to zero along with its
  features, the error stays here: the line ends where ablating all features of the layer would.

`x = decode(a) + error` with the error held constant, so the gradient is taken at the stream's rows
and multiplied by what the change of a feature makes of the row: the decoder is affine. The target
SAE's `encode` passes the gradients that it passes: through the values of active features alone.
What decides which features are active has none: the threshold of a JumpReLU, a gate, the choice of
a TopK. A target that is silent at every point where a gradient is taken gets the estimate 0,
although an ablation may wake it.

Letters: `A` estimated targets (a read position and a feature each), `C` of them in a pack, `K`
points of the line, `P` changed positions, `R` read positions, `D` d_model, `F` features, `S`
ablations, `N` changed activations, `V'` output tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_graphs.effects.ablations import Ablations, Places
from sae_graphs.effects.arrays import NOWHERE, Effects
from sae_graphs.effects.exact import changed_rows, of_tokens, packs
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.answer import Answer
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.replay import PACK_ROWS
from sae_graphs.model.rows import ENCODED_ROWS, Rows, Where
from sae_graphs.model.stream import StreamPoint

LINE_ROWS = 64  # token rows of several points that are run at once: beyond, running dominates
PACKED_ROWS = 2048  # of gradients in a pack, where memory is not short


class Line(NamedTuple):
    """The stream's rows on the way from clean to all features of the layer changed together."""

    positions: Tensor  # [P] ascending
    clean: Tensor  # [P, D]
    change: Tensor  # [P, D] from one end to the other
    points: Tensor  # [K] where gradients are taken; 0 is the clean end, 1 the other

    def until(self, last: int) -> Line:
        """The rows up to the position `last`."""
        some = self.positions <= last
        return Line(self.positions[some], self.clean[some], self.change[some], self.points)

    def parts(self) -> list[Line]:
        """The line with a few of its points each: as many rows as are worth running at once."""
        some = max(1, LINE_ROWS // len(self.positions))
        return [self._replace(points=points) for points in self.points.split(some)]

    def rows(self) -> Rows:
        """The rows at the line's points, one copy for each."""
        streams = self.clean + self.points[:, None, None] * self.change  # [K, P, D]
        copies = torch.arange(len(self.points), device=self.positions.device)
        where = Where(
            copies.repeat_interleave(len(self.positions)), self.positions.repeat(len(copies))
        )
        return Rows(where, streams.flatten(0, 1))


class Moves(NamedTuple):
    """What each changed activation does to its row of the stream, ordered by row."""

    rows: Tensor  # [N] rows of the line, ascending
    ablations: Tensor  # [N]
    changes: Tensor  # [N, D]


class Stretch(NamedTuple):
    """The model between the stream that is changed and the values that effects are on.

    `values` makes `[R, F]`, or logits `[R, V']`, of streams `[R, D]` at its end, row by row;
    `silent` says that a value of 0 has no gradient.
    """

    model: InstrumentedModel
    clean: CleanRun
    start: StreamPoint
    stop: StreamPoint
    stream: Tensor  # [T, D] the clean one at the end
    values: Callable[[Tensor], Tensor]
    silent: bool

    def onward(self, change: Rows, reads: Tensor) -> Tensor:
        """The stream `[K, R, D]` of each copy at the end, where it is read; gradients flow."""
        n_copies = change.where.n_copies
        copies = torch.arange(n_copies, device=reads.device)
        where = Where(copies.repeat_interleave(len(reads)), reads.repeat(n_copies))
        rows = change
        for _, reached in self.model.walk(self.clean, self.start, self.stop, change, where):
            rows = reached
        return rows.at(where, self.stream).unflatten(0, (n_copies, len(reads)))


@torch.no_grad()
def estimate(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    places: Places,
    *,
    steps: int | None = None,
    together: Ablations | None = None,
    rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Effects]:
    """Estimated effects of a layer's ablations on the features of the next one.

    The counterpart of `ablation.measure`: same units, sign and entries. Without `steps` from the
    gradient at the clean point; with them from integrated gradients, on the line to where all of
    `together` are changed: the ablations, or more of the same layer, these included. A pack of
    targets holds about `rows` token rows; `progress` is told the ablations done, as if they went
    with the targets.
    """
    _check_gradients(model)
    depth = ablations.depth
    target = model.stack.layers[depth + 1]
    stream = clean.streams[depth + 1]
    start, stop = clean.points[depth], target.point
    stretch = Stretch(model, clean, start, stop, stream, target.encode, silent=True)
    line = _line(stretch, ablations if together is None else together, places, steps)
    yield from _estimate(stretch, line, ablations, places, rows, progress)


@torch.no_grad()
def estimate_outputs(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    places: Places,
    tokens: Tensor,
    contrast: int | None = None,
    *,
    steps: int | None = None,
    together: Ablations | None = None,
    rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Effects]:
    """Estimated effects of a layer's ablations on the logits of some tokens `[V']`, in nats.

    The counterpart of `ablation.measure_outputs`; the options are those of `estimate`.
    """

    def asked(streams: Tensor) -> Tensor:
        return of_tokens(model.unembed(streams), tokens, contrast)

    _check_gradients(model)
    start = clean.points[ablations.depth]
    stretch = Stretch(model, clean, start, model.end, clean.inputs[-1], asked, silent=False)
    line = _line(stretch, ablations if together is None else together, places, steps)
    ids = tokens.cpu().numpy().astype(np.int32)
    for block in _estimate(stretch, line, ablations, places, rows, progress):
        yield replace(block, targets=ids[block.targets])


@torch.no_grad()
def estimate_answer(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    places: Places,
    answer: Answer,
    *,
    steps: int | None = None,
) -> Tensor:
    """Estimated effects `[S]` of a layer's ablations on the answer's score, in nats.

    The answer is read at the last of the places; `steps` as in `estimate`.
    """

    def asked(streams: Tensor) -> Tensor:
        return answer.score(model.unembed(streams))[:, None]

    _check_gradients(model)
    if len(ablations) == 0:
        return ablations.before.new_zeros(0)
    start = clean.points[ablations.depth]
    stretch = Stretch(model, clean, start, model.end, clean.inputs[-1], asked, silent=False)
    line = _line(stretch, ablations, places, steps)
    target = torch.zeros(1, 2, dtype=torch.int64, device=places.reads.device)
    last = places._replace(reads=places.reads[-1:])
    parts = (_gradients(stretch, part, last, target) for part in line.parts())
    gradient = reduce(Tensor.add_, parts) / len(line.points)  # [1, P, D]
    return _along(_moves(stretch, line, ablations, last), gradient, len(ablations))[:, 0]


def _check_gradients(model: InstrumentedModel) -> None:
    made_without = any(weights.is_inference() for weights in model.model.parameters())
    if torch.is_inference_mode_enabled() or made_without:
        raise SaeGraphsError(
            "gradients are off: the model is used, or was loaded, under torch.inference_mode; "
            "leave that context, or use the method 'exact'"
        )


def _estimate(
    stretch: Stretch,
    line: Line,
    ablations: Ablations,
    places: Places,
    rows: int | None,
    progress: Callable[[int], None] | None,
) -> Iterator[Effects]:
    """The estimates, pack by pack of the targets."""
    if len(ablations) == 0:
        return
    moves = _moves(stretch, line, ablations, places)
    targets = _targets(stretch, line, places)  # [A, 2]
    room = stretch.model.rows_at_once(len(stretch.clean))
    limit = rows or (PACKED_ROWS if room == PACK_ROWS else room)
    n_rows = max(part.points.numel() for part in line.parts()) * len(line.positions)
    done = 0
    for pack in targets.split(max(1, limit // n_rows)):
        parts = (_gradients(stretch, part, places, pack) for part in line.parts())
        gradient = reduce(Tensor.add_, parts)  # [C, P, D]
        effects = _along(moves, gradient / len(line.points), len(ablations))  # [S, C]
        yield _entries(ablations, places, pack, effects)
        done += len(pack)
        if progress is not None:
            progress(len(ablations) * done // len(targets))


def _line(stretch: Stretch, together: Ablations, places: Places, steps: int | None) -> Line:
    """The line along which all features move, and the points of it for so many steps."""
    if steps is not None and steps < 1:
        raise SaeGraphsError(f"steps is {steps}; expected a whole number of at least 1")
    positions = together.positions.unique()
    clean = stretch.clean.streams[together.depth][positions]
    change = torch.zeros_like(clean)
    change.index_add_(
        0,
        torch.searchsorted(positions, together.positions),
        _changes(stretch, together, places),
    )
    points = torch.arange(steps or 1, dtype=clean.dtype, device=clean.device) / (steps or 1)
    return Line(positions, clean, change, points)


def _moves(stretch: Stretch, line: Line, ablations: Ablations, places: Places) -> Moves:
    rows = torch.searchsorted(line.positions, ablations.positions)
    rows, order = rows.sort(stable=True)
    changes = _changes(stretch, ablations, places)[order]
    return Moves(rows, ablations.copies[order], changes)


def _changes(stretch: Stretch, ablations: Ablations, places: Places) -> Tensor:
    """What each changed activation does to its row of the stream, `[N, D]`."""
    model, clean = stretch.model, stretch.clean
    stream = clean.streams[ablations.depth]
    parts = [
        changed_rows(model, clean, pack).streams - stream[pack.positions]
        for _, pack in packs(model, clean, ablations, places, stretch.stop)
    ]
    return torch.cat([stream[:0], *parts])


def _targets(stretch: Stretch, line: Line, places: Places) -> Tensor:
    """`[A, 2]`: read rows and targets, ordered, of those with a gradient anywhere on the line."""
    found: Tensor | None = None
    for part in line.parts():
        streams = stretch.onward(part.rows(), places.reads)  # [K, R, D]
        for copy in streams:
            values = torch.cat([stretch.values(some) != 0 for some in copy.split(ENCODED_ROWS)])
            if not stretch.silent:
                return torch.ones_like(values).nonzero()
            found = values if found is None else found | values  # [R, F]
    assert found is not None, "a line has a point"
    return found.nonzero()


def _gradients(stretch: Stretch, line: Line, places: Places, targets: Tensor) -> Tensor:
    """The gradients `[C, P, D]` of some targets in the changed rows, summed over the points.

    Rows after the last that is read here cannot reach it and keep the gradient 0.
    """
    rows, columns = targets.unbind(1)
    reads, row_of = places.reads[rows].unique(return_inverse=True)
    gradient = line.clean.new_zeros(len(targets), *line.clean.shape)
    line = line.until(int(reads[-1]))
    if len(line.positions) == 0:
        return gradient
    change = line.rows()
    with torch.enable_grad():
        change.streams.requires_grad_()
        onward = stretch.onward(change, reads)  # [K, R, D]
        if not onward.requires_grad:
            return gradient
        directions = onward.new_zeros(len(targets), *onward.shape)  # [C, K, R, D]
        for row in range(len(reads)):
            here = (row_of == row).nonzero()[:, 0]
            directions[here, :, row] = _at_end(stretch, onward[:, row].detach(), columns[here])
        (found,) = torch.autograd.grad(onward, change.streams, directions, is_grads_batched=True)
    by_point = found.unflatten(1, (len(line.points), -1))  # [C, K, P', D]
    gradient[:, : len(line.positions)] = by_point.sum(1)
    return gradient


def _at_end(stretch: Stretch, streams: Tensor, columns: Tensor) -> Tensor:
    """The gradients `[C, K, D]` of some values where they are read, in the streams `[K, D]`."""
    ends = streams.clone().requires_grad_()
    values = stretch.values(ends)  # [K, F], row by row: so the sum over K keeps them apart
    if not values.requires_grad:
        raise SaeGraphsError(
            f"the SAE on {stretch.stop.hook_name} passes no gradients; use the method 'exact'"
        )
    found: list[Tensor] = []
    for some in columns.split(ENCODED_ROWS):
        asked = values[:, some].sum(0)  # [C]
        each = torch.eye(len(some), dtype=asked.dtype, device=asked.device)
        found += torch.autograd.grad(asked, ends, each, retain_graph=True, is_grads_batched=True)
    return torch.cat(found)


def _along(moves: Moves, gradient: Tensor, n_ablations: int) -> Tensor:
    """`[S, C]`: each ablation's moves times the gradients `[C, P, D]` where it moves."""
    counts = torch.bincount(moves.rows, minlength=gradient.shape[1]).tolist()
    effects = gradient.new_zeros(n_ablations, len(gradient))
    for row, (ablations, changes) in enumerate(
        zip(moves.ablations.split(counts), moves.changes.split(counts), strict=True)
    ):
        effects.index_add_(0, ablations, changes @ gradient[:, row].T)
    return effects


def _entries(ablations: Ablations, places: Places, targets: Tensor, effects: Tensor) -> Effects:
    """The effects `[S, C]` that are not 0, with the ends of each; moved to the CPU."""
    which, columns = effects.nonzero(as_tuple=True)
    rows, indices = targets[columns].unbind(1)
    values = effects[which, columns]
    nowhere = torch.full_like(indices, NOWHERE)
    precision = torch.promote_types(values.dtype, torch.float32)
    return Effects(
        ablations.depth,
        _array(ablations.features[which]),
        _array(ablations.first_positions()[which] if places.each else nowhere),
        _array(indices),
        _array(places.reads[rows] if places.each else nowhere),
        values.to(precision).cpu().numpy(),
    )


def _array(indices: Tensor) -> NDArray[np.int32]:
    return indices.to(torch.int32).cpu().numpy()
