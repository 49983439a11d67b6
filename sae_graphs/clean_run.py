"""`CleanRun`: what one undisturbed forward pass leaves for the measurements.

Letters: `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.activations import Activations
from sae_graphs.recording import BlockCall
from sae_graphs.rows import KeysAndValues
from sae_graphs.saes import SAELayer
from sae_graphs.stream import StreamPoint

ENCODED_ROWS = 128  # rows that an SAE encodes at once: more gain nothing, and spill the caches
SAME = 1e-8  # of the squared norm: a spread below this is rounding


class Fit(NamedTuple):
    """How well an SAE fits its stream on a prompt (see `LayerReport`)."""

    fvu: float
    l0: float


@dataclass(frozen=True, eq=False)
class CleanRun:
    """One undisturbed forward pass over one prompt.

    `points`, `streams`, `activations` and `fits` have one entry per SAE layer: where it sits, the
    stream there `[T, D]`, its features' activations, how well it fits; `inputs` the stream before
    each block and after the last `[T, D]`; `kept` the keys and values of each block's attention,
    None where rows cannot be run alone; `logits` is `[T, V]`.
    """

    prompt: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    points: tuple[StreamPoint, ...]
    streams: tuple[Tensor, ...]
    activations: tuple[Activations, ...]
    fits: tuple[Fit, ...]
    inputs: tuple[Tensor, ...]
    calls: tuple[BlockCall, ...]
    kept: tuple[KeysAndValues | None, ...]
    logits: Tensor

    def __len__(self) -> int:
        return len(self.token_ids)


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
