"""`CleanRun`: a run with the features of every SAE layer, for the measurements.

Letters: `T` tokens, `D` d_model, `F` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.model.rows import ENCODED_ROWS
from sae_graphs.model.run import Run
from sae_graphs.model.saes import SAELayer
from sae_graphs.model.stream import StreamPoint

SAME = 1e-8  # of the squared norm: a spread below this is rounding


class Fit(NamedTuple):
    """How well an SAE fits its stream on a prompt (see `LayerReport`)."""

    fvu: float
    l0: float


@dataclass(frozen=True, eq=False)
class CleanRun(Run):
    """A run and the features on it.

    `points`, `streams`, `activations` and `fits` have one entry per SAE layer: where it sits, the
    stream there `[T, D]`, its features' activations, how well it fits.
    """

    points: tuple[StreamPoint, ...]
    streams: tuple[Tensor, ...]
    activations: tuple[Activations, ...]
    fits: tuple[Fit, ...]

    def kept_stream(self, point: StreamPoint) -> Tensor | None:
        """The stream `[T, D]` at a point; None in the middle of a block that has no SAE there."""
        if point.site == "mid" and point in self.points:
            return self.streams[self.points.index(point)]
        return super().kept_stream(point)


def with_features(run: Run, layers: Sequence[SAELayer], streams: Sequence[Tensor]) -> CleanRun:
    """The run and its features, given the stream `[T, D]` at each SAE layer."""
    found = [  # one SAE after the other
        encode_layer(layer, stream) for layer, stream in zip(layers, streams, strict=True)
    ]
    activations, fits = zip(*found, strict=True)
    return CleanRun(
        **{part.name: getattr(run, part.name) for part in fields(Run)},
        points=tuple(layer.point for layer in layers),
        streams=tuple(streams),
        activations=activations,
        fits=fits,
    )


def encode_layer(layer: SAELayer, stream: Tensor) -> tuple[Activations, Fit]:
    """A layer's features on the stream `[T, D]`, and how well they rebuild it.

    The first position is left out of the fit. Where positions do not differ (there is one, or one
    token repeated under rotary positions) there is no variance about the mean: the fraction is
    then of the squared norm.
    """
    parts, missed = [], []
    for rows in stream.split(ENCODED_ROWS):
        acts = layer.encode(rows)
        active = (acts != 0).any(0).nonzero()[:, 0]
        rebuilt = layer.decoder_of(active)(acts[:, active], rows)
        parts.append(Activations.of_dense(acts))
        missed.append((rows - rebuilt).double().square().sum(-1))
    activations = Activations.joined(parts)
    start = 1 if len(stream) > 1 else 0
    whole = stream.double()[start:]
    size, spread = whole.square().sum(), (whole - whole.mean(0)).square().sum()
    fvu = float(torch.cat(missed)[start:].sum() / (spread if spread > SAME * size else size))
    l0 = int((activations.positions >= start).sum()) / len(whole)
    return activations, Fit(fvu, l0)


@dataclass(frozen=True, eq=False)
class Activations:
    """The non-zero entries of `[T, F]`, ordered by position, then feature."""

    positions: Tensor  # [N]
    features: Tensor  # [N]
    values: Tensor  # [N]
    shape: tuple[int, int]  # T, F

    @classmethod
    def of_dense(cls, dense: Tensor) -> Activations:
        """From all activations, `[T, F]`."""
        positions, features = dense.nonzero(as_tuple=True)
        n_tokens, width = dense.shape
        return cls(positions, features, dense[positions, features], (n_tokens, width))

    @classmethod
    def joined(cls, parts: Sequence[Activations]) -> Activations:
        """Activations at the positions of one part after the other."""
        starts = [0, *accumulate(part.shape[0] for part in parts)]
        return cls(
            torch.cat([p.positions + start for p, start in zip(parts, starts, strict=False)]),
            torch.cat([part.features for part in parts]),
            torch.cat([part.values for part in parts]),
            (starts[-1], parts[0].shape[1]),
        )

    def of(self, features: Tensor) -> Tensor:
        """The activations `[T, S]` of some features, each given once."""
        n_tokens, width = self.shape
        column = torch.full((width,), -1, dtype=torch.int64, device=self.values.device)
        column[features] = torch.arange(len(features), device=self.values.device)
        columns = column[self.features]
        wanted = columns >= 0
        found = self.values.new_zeros(n_tokens, len(features))
        found[self.positions[wanted], columns[wanted]] = self.values[wanted]
        return found

    def rows(self, positions: Tensor) -> Tensor:
        """The activations `[P, F]` at some positions, each given once."""
        n_tokens, width = self.shape
        row = torch.full((n_tokens,), -1, dtype=torch.int64, device=self.values.device)
        row[positions] = torch.arange(len(positions), device=self.values.device)
        rows = row[self.positions]
        wanted = rows >= 0
        found = self.values.new_zeros(len(positions), width)
        found[rows[wanted], self.features[wanted]] = self.values[wanted]
        return found

    def dense(self) -> Tensor:
        """All of them, `[T, F]`."""
        return self.rows(torch.arange(self.shape[0], device=self.values.device))

    def active(self, positions: Tensor) -> Tensor:
        """The features `[S]` that are active at any of the positions, given as a mask `[T]`."""
        return self.features[positions[self.positions]].unique()

    def sum_from(self, position: int) -> Tensor:
        """The sum `[F]` over all positions from `position` on."""
        counted = self.positions >= position
        total = self.values.new_zeros(self.shape[1])
        return total.index_add_(0, self.features[counted], self.values[counted])
