"""What a change of the stream does to the pre-activations of some features, part by part.

An encoder that is affine before its activation takes each part of a change by itself: the effects
of the parts add up to the effect of the whole. Whether it is affine is asked of the SAE's own
`encode`, never assumed.

Letters: `R` rows, `D` d_model, `F` features of the SAE, `S` features of a selection.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from sae_lens import SAE
from torch import Tensor, nn

from sae_graphs.errors import CannotSplitError
from sae_graphs.model.recording import outputs_of
from sae_graphs.model.sae_setup import normalise_without_cycle
from sae_graphs.model.saes import SAELayer, of_features

KINDS = ("standard", "jumprelu")  # a feature is active where its pre-activation passes a threshold
SHARE = 24  # one feature in so many is near
ROUNDING = 64  # machine precisions of what is added up in a pre-activation, as a margin


CHECKED_ROWS = 8
AFFINE_TOLERANCE = 1e-6  # of the largest pre-activation; a norm before the encoder misses by all

LinearPart = Callable[[Tensor], Tensor]


def linear_part(layer: SAELayer, features: Tensor, stream: Tensor) -> LinearPart:
    """The function from changes of the stream `[R, D]` to those of pre-activations `[R, S]`.

    Of the `features` `[S]`, in activation units, as float64 where the device has it: `pre(d) -
    pre(0)`. Raises `CannotSplitError` with the reason where it differs from point to point, which
    is checked on the clean `stream` `[T, D]`.
    """
    if layer.cfg.architecture() == "gated":
        raise CannotSplitError("gated SAEs: each feature has two pre-activations")
    pre = _preactivations(layer.sae, features)
    rows = stream[-CHECKED_ROWS:]
    nothing = pre(torch.zeros_like(rows[:1]))
    once, twice = pre(rows), pre(2 * rows)
    size = (once - nothing).abs().max()
    if not (twice - once - (once - nothing)).abs().max() <= AFFINE_TOLERANCE * size:
        norm = layer.cfg.normalize_activations
        raise CannotSplitError(
            f"the SAE of layer {layer.label} divides its input by its norm ({norm}): its "
            "pre-activations are not linear in the stream"
            if norm in ("layer_norm", "constant_norm_rescale")
            else f"the pre-activations of the SAE of layer {layer.label} are not linear"
        )
    return lambda changes: pre(changes) - nothing


def _preactivations(sae: SAE[Any], features: Tensor) -> Callable[[Tensor], Tensor]:
    """Pre-activations `[R, S]` by the SAE's own `encode`, run on a copy with these features alone.

    The copy has the precision of float64, so that small parts of large streams keep their digits.
    """
    least = math.ceil(getattr(sae.cfg, "k", 1))  # a TopK SAE chooses among so many
    others = torch.arange(min(least, sae.cfg.d_sae), device=features.device)
    kept = torch.cat([features, others])
    part = copy.copy(sae)
    part.__dict__ = dict(sae.__dict__)
    dtype = sae.dtype if sae.W_enc.device.type == "mps" else torch.float64
    part._parameters = {
        name: nn.Parameter(of_features(name, weights, kept).to(dtype), requires_grad=False)
        for name, weights in sae._parameters.items()
        if weights is not None
    }
    part.dtype = dtype
    normalise_without_cycle(part)
    # Such SAEs choose, and answer, in units of their decoder's rows.
    scale = part.W_dec.norm(dim=-1) if getattr(sae.cfg, "rescale_acts_by_decoder_norm", 0) else 1.0

    def pre(streams: Tensor) -> Tensor:
        with outputs_of(sae.hook_sae_acts_pre) as seen:
            part.encode(streams)
        if len(seen) != 1:
            raise CannotSplitError(f"SAEs of kind {sae.cfg.architecture()} show no pre-activations")
        return (seen[0] * scale)[..., : len(features)]

    return pre


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
