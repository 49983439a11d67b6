"""What a feature's activation becomes where it is ablated: nothing, a multiple, another's.

Letters: `T` tokens, `F` features of the SAE, `S` features of a selection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel, with_saes
from sae_graphs.model.stream import StreamPoint

Value = TypeVar("Value")


def _none(point: StreamPoint) -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class Intervention:
    """What a feature's activation becomes where it is ablated.

    `replace(point, features, activations)` gives the new activations `[T, S]` of some features
    `[S]` of the SAE at that point of the stream, from those that they have, `[T, S]`, or in joint
    ablation those of several copies, `[B, T, S]`. `also(point)` names silent features that it may
    wake. `name` goes into the record and tells what is replaced by what.
    """

    name: str
    replace: Callable[[StreamPoint, Tensor, Tensor], Tensor]
    also: Callable[[StreamPoint], Tensor] = _none


ZERO = Intervention("zero", lambda point, features, acts: torch.zeros_like(acts))


def scale(coefficient: float) -> Intervention:
    """Multiply the activation: 0 is zero-ablation, 1 changes nothing."""
    return Intervention(f"scale {coefficient:g}", lambda point, features, acts: acts * coefficient)


def mean_over(model: InstrumentedModel, prompts: Sequence[str]) -> Intervention:
    """Replace by the feature's mean activation over reference prompts, first tokens left out."""
    if not prompts:
        raise SaeGraphsError("no reference prompts given; a mean needs at least one")
    runs = [with_saes(model).clean_run(prompt) for prompt in prompts]
    if all(len(run) == 1 for run in runs):
        raise SaeGraphsError("the reference prompts have one token each; give longer ones")
    return mean_of(model, runs, f"mean of {len(prompts)} prompts ({_digest(prompts)})")


def mean_of(model: InstrumentedModel, runs: Sequence[CleanRun], name: str) -> Intervention:
    """Replace by the feature's mean activation over clean runs, first tokens left out."""
    n_rows = sum(len(run) - 1 for run in runs)
    means = {
        layer.point: torch.stack([run.activations[depth].sum_from(1) for run in runs]).sum(0)
        / n_rows
        for depth, layer in enumerate(model.stack.layers)
    }
    return Intervention(
        name,
        lambda point, features, acts: _at(point, means)[features].expand_as(acts),
        lambda point: _at(point, means).nonzero()[:, 0],
    )


def mean_where_active(means: Mapping[StreamPoint, Tensor], name: str) -> Intervention:
    """Replace each activation that is not 0 by the feature's mean `[F]` at that point.

    Silent features stay silent, so ablating one changes nothing.
    """

    def replace(point: StreamPoint, features: Tensor, acts: Tensor) -> Tensor:
        mean = _at(point, means).to(acts.device)[features].to(acts.dtype)  # [S]
        return torch.where(acts != 0, mean, acts)

    return Intervention(name, replace)


def resample(
    model: InstrumentedModel, prompt: str, *, n_tokens: int, prepend_bos: bool | None = None
) -> Intervention:
    """Replace by the activation in another prompt, of the same number of tokens."""
    other = model.clean_run(prompt, prepend_bos=prepend_bos)
    if len(other) != n_tokens:
        raise SaeGraphsError(
            f"the other prompt has {len(other)} tokens, this one {n_tokens}; resampling goes "
            "position by position, so give a prompt of the same length"
        )
    return resample_of(model, other, f"resample ({_digest([prompt])})")


def resample_of(model: InstrumentedModel, run: CleanRun, name: str) -> Intervention:
    """Replace by the activation in another clean run, of as many tokens."""
    found = {
        layer.point: activations
        for layer, activations in zip(model.stack.layers, run.activations, strict=True)
    }
    return Intervention(
        name,
        lambda point, features, acts: _at(point, found).of(features),
        lambda point: _at(point, found).features.unique(),
    )


def _at(point: StreamPoint, values: Mapping[StreamPoint, Value]) -> Value:
    if point not in values:
        raise SaeGraphsError(
            f"the intervention knows no SAE on {point.hook_name}; make it with this model"
        )
    return values[point]


def _digest(prompts: Sequence[str]) -> str:
    """A few letters that tell sets of prompts apart."""
    return hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()[:8]
