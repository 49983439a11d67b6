"""The few features that a small change of the stream can reach; all others stay silent, exactly.

An encoder that is affine before its activation turns a change `d` of the stream into a change of
at most `|w| |d|` of each pre-activation, `w` being the feature's encoder direction. A feature that
is further from its threshold than that stays silent. Most ablations change the row that is read
little, and then a few per cent of the features are all that has to be encoded.

Letters: `D` d_model, `F` features of the SAE, `K` features near their thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.recording import outputs_of
from sae_graphs.saes import SAELayer

KINDS = ("standard", "jumprelu")  # a feature is active where its pre-activation passes a threshold
SHARE = 24  # one feature in so many is near
ROUNDING = 64  # machine precisions of what is added up in a pre-activation, as a margin


class Nearby(NamedTuple):
    """The features that are active on a row of the stream, or nearest to it.

    Changes of the row that are shorter than `reach` wake no other feature. `encode` gives the
    activations `[..., K]` of these alone.
    """

    features: Tensor  # [K]
    reach: float
    encode: Callable[[Tensor], Tensor]


def one_by_one(layer: SAELayer) -> bool:
    """Whether each feature's activation depends on its own weights and the stream alone."""
    return layer.cfg.architecture() in KINDS and layer.cfg.normalize_activations == "none"


def nearby(layer: SAELayer, row: Tensor) -> Nearby | None:
    """The features near their thresholds on a clean row `[D]`; None where kinds do not allow it."""
    if not one_by_one(layer):
        return None
    sae = layer.sae
    with outputs_of(sae.hook_sae_acts_pre) as seen:
        clean = layer.encode(row[None])[0]  # [F]
    before, lengths = seen[0][0], _lengths(sae.W_enc)
    threshold = getattr(sae, "threshold", torch.zeros_like(clean)).clamp(min=0)
    # What rounding may do to a pre-activation, in lengths of the stream:
    sizes = (before.abs() + threshold + sae.b_enc.abs()) / lengths + row.norm() + sae.b_dec.norm()
    margin = ROUNDING * torch.finfo(row.dtype).eps * sizes  # [F]
    distance = (threshold - before) / lengths - margin  # [F], below 0 where active
    n_near = min(max(1, layer.n_features // SHARE), layer.n_features - 1)
    nearest = distance.topk(n_near + 1, largest=False, sorted=True)
    reach = float(nearest.values[-1])
    features = nearest.indices[:-1].sort().values
    encode = layer.encoder_of(features)
    alike = torch.allclose(encode(row[None])[0], clean[features], rtol=1e-3, atol=1e-3)
    silent = int((clean != 0).sum()) == int((clean[features] != 0).sum())
    return Nearby(features, reach, encode) if reach > 0 and alike and silent else None


def _lengths(directions: Tensor) -> Tensor:
    """The norms `[F]` of the columns of `[D, F]`, taken row by row as they lie in memory."""
    total = torch.zeros_like(directions[0])
    for rows in directions.split(64):
        total += rows.square().sum(0)
    return total.sqrt()
