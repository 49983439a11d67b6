"""The floor below which an effect is rounding: it is 0 then, exactly, and makes no edge.

The two activations (or logits) whose difference an effect is were rounded on the way, each by some
machine precisions of what was added up. Measured against float64 on tiny models of six families
and the bundled one: in float32 effects are off by at most 10 precisions of the strongest activation
of their target's layer at that token, and those that are 0 in float64 by at most 2; effects on the
answer by at most 8 of the largest logit.

Letters: `T` tokens, `P` positions, `C` rows, `F` features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae_graphs.model.clean_run import CleanRun

ROUNDINGS = 8  # machine precisions of the largest value
IN_HALF = 2  # of half precisions, where so many roundings seldom add up, and 8 would hide much


def relative_floor(dtype: torch.dtype) -> float:
    """The floor as a part of the target's scale, in the model's precision."""
    eps = torch.finfo(dtype).eps
    return (ROUNDINGS if eps < 1e-4 else IN_HALF) * eps


def floor_of_features(clean: CleanRun, depth: int, positions: Tensor) -> Tensor:
    """The floor `[P]` of effects on the features of a layer at some positions.

    In activation units, of the strongest activation there; where none is active, of the layer's.
    """
    strongest = clean.activations[depth].rows(positions).abs().amax(-1)
    held = clean.activations[depth].values.abs()
    anywhere = held.max() if len(held) else strongest.new_zeros(())
    dtype = max(clean.logits.dtype, held.dtype, key=lambda kind: torch.finfo(kind).eps)
    return relative_floor(dtype) * torch.where(strongest > 0, strongest, anywhere)


def floor_of_logits(clean: CleanRun, positions: Tensor) -> Tensor:
    """The floor `[P]` of effects on logits, log-odds and logit differences there, in nats."""
    dtype = clean.logits.dtype
    return relative_floor(dtype) * clean.logits[positions].abs().amax(-1).float()


def above(effects: Tensor, floor: Tensor) -> Tensor:
    """The effects, 0 where they are rounding; the floor has their shape, or broadcasts."""
    return torch.where(effects.abs() > floor, effects, torch.zeros_like(effects))
