"""Response curves: a feature or a path multiplied by coefficients, and what follows it.

The method's source swept one feature's activation and watched another's; here the cause may be a
whole path, and the curve is fitted, and set against the gradient at the clean run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.keywords import with_model
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import (
    Ran,
    Sets,
    activations_of,
    changing,
    logits_of,
    packs,
    run_edits,
    scaled_by,
)
from sae_graphs.model.next_token import Question, token_id
from sae_graphs.significance import fit_line
from sae_graphs.validation.controls import Member, active_members, selected
from sae_graphs.validation.evidence import Curve
from sae_graphs.validation.path_ablation import Tick
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import Subject, subject

COEFFICIENTS = tuple(step / 4 for step in range(-4, 9))  # -1 to 2
WIDER = 10.0  # how many times wider the second curve is

Response = Callable[[Ran], Tensor]  # one number for each copy, [B]


@with_model
def response_curve(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    cause: str | FeatureId,
    effect: str | FeatureId,
    *,
    coefficients: Sequence[float] = COEFFICIENTS,
) -> Curve:
    """How a downstream feature's activation, or a token's logit, follows a feature.

    `cause` is multiplied by the coefficients at every position but the first, in one joint change
    each, or at its own as in `3.953@2`; `effect` is read at the last position, or at its own: a
    feature, in activation units, or a token by its text, its logit in nats. Raises
    `SaeGraphsError` where the effect is not above the cause.
    """
    source, along = FeatureId.parse(cause), _ascending(coefficients)
    here = subject(model, prompt, "discovery", GraphSettings(), ValidationSettings(), own=True)
    target = effect_of(model, effect)
    check_curve(here, source, target)
    return curve(here, [source], target, coefficients=along)


def effect_of(model: InstrumentedModel, effect: str | FeatureId) -> FeatureId | int:
    """What is read: a feature, or a token's id; raises where the text is neither."""
    try:
        return FeatureId.parse(effect)
    except SaeGraphsError:
        return token_id(model, str(effect))


def _ascending(coefficients: Sequence[float]) -> list[float]:
    found = sorted({float(coefficient) for coefficient in coefficients})
    if len(found) < 2 or not all(map(math.isfinite, found)):
        raise SaeGraphsError(
            f"the coefficients are {quoted(coefficients)}; expected at least 2 different numbers"
        )
    return found


def check_curve(here: Subject, cause: FeatureId, effect: FeatureId | int) -> None:
    """Raises where a feature does not exist, the cause is inactive, or the effect is not above."""
    features = [cause, effect] if isinstance(effect, FeatureId) else [cause]
    for feature in features:
        _check(here.model, feature)
        if feature.position is not None and feature.position >= len(here.clean):
            raise UnknownFeatureError(
                f"{feature}: the prompt has positions 0 to {len(here.clean) - 1}"
            )
    if cause.is_output:
        raise SaeGraphsError(f"{cause} is an output token; the cause of a curve is a feature")
    depths = here.model.stack.depths
    inside = isinstance(effect, FeatureId) and not effect.is_output
    if inside and depths[effect.layer] <= depths[cause.layer]:  # type: ignore[union-attr]
        raise SaeGraphsError(f"{effect} is not above {cause}; a response is read at a higher layer")
    if not active_members(here.clean, here.ablated, here.members([cause])):
        raise SaeGraphsError(
            f"{cause} is inactive at every ablated position of this prompt, so scaling it changes "
            "nothing; give a feature that is active"
        )


def curve(
    here: Subject,
    causes: Sequence[FeatureId],
    effect: FeatureId | int | None,
    *,
    name: str | None = None,
    coefficients: Sequence[float] = COEFFICIENTS,
    tick: Tick = lambda n: None,
) -> Curve:
    """The curve of features multiplied together.

    `effect` is a feature, a token's id, or None for the target's logit (less the contrast's); see
    `check_curve` for what it must be.
    `name` is what the causes are called together.
    """
    if here.own and isinstance(effect, FeatureId) and effect.position is not None:
        here = replace(here, read=effect.position)
    members = here.members(causes)
    stop = None
    if isinstance(effect, FeatureId) and not effect.is_output:
        stop = here.clean.points[here.model.stack.depths[effect.layer]]
    response, words, unit = _response(here, effect)
    along = torch.tensor(coefficients, dtype=torch.float64)
    with torch.no_grad():
        values = torch.cat(
            [
                response(_scaled(here, members, along[start:end], stop))
                for start, end in packs(here.model, here.clean, len(along))
            ]
        )
    tick(len(coefficients))
    line = fit_line(coefficients, values.tolist())
    return Curve(
        cause=name or str(causes[0]),
        effect=words,
        unit=unit,
        coefficients=tuple(coefficients),
        responses=tuple(values.tolist()),
        r_squared=line.r_squared,
        slope=line.slope,
        gradient=_gradient(here, members, stop, response),
        largest_jump=line.largest_jump,
        jump_at=line.jump_at,
    )


def _scaled(here: Subject, members: Collection[Member], coefficients: Tensor, stop: object) -> Ran:
    """Copies in which the members are multiplied by one coefficient each."""
    model, clean, n = here.model, here.clean, len(coefficients)
    one: Sets = selected(model, here.ablated, [members])
    edits = {
        depth: changing(
            model,
            clean,
            depth,
            chosen._replace(chosen=chosen.chosen.expand(n, -1, -1)),
            scaled_by(coefficients.to(clean.streams[depth])),
        )
        for depth, chosen in one.items()
    }
    return run_edits(model, clean, edits, n, here.read, stop)  # type: ignore[arg-type]


def _gradient(
    here: Subject, members: Collection[Member], stop: object, response: Response
) -> float:
    """The derivative of the response to the coefficient, at 1."""
    with torch.enable_grad():
        one = torch.ones(1, dtype=here.clean.logits.dtype, requires_grad=True)
        value = response(_scaled(here, members, one, stop))
        if not value.requires_grad:  # nothing of the cause is active, or nothing reaches the effect
            return 0.0
        (slope,) = torch.autograd.grad(value.sum(), one)
    return float(slope)


def _response(here: Subject, effect: FeatureId | int | None) -> tuple[Response, str, str]:
    """How the response is read, what it is called, and its unit."""
    model, question = here.model, here.question
    if isinstance(effect, FeatureId) and not effect.is_output:
        layer = model.stack.layers[model.stack.depths[effect.layer]]
        column = torch.tensor([effect.index], device=here.ablated.device)

        def activation(ran: Ran) -> Tensor:
            return activations_of(layer, column, ran.streams)[:, 0].double()

        return activation, str(effect), "activation"
    token = effect.index if isinstance(effect, FeatureId) else effect
    asked = question if token is None else Question(question.logits, token)

    def logit(ran: Ran) -> Tensor:
        logits = logits_of(model, here.clean, ran, here.read).double()
        found = logits[:, asked.target]
        return found if asked.contrast is None else found - logits[:, asked.contrast]

    words = f"logit of {model.token_string(asked.target)!r}"
    if asked.contrast is not None:
        words += f" less that of {model.token_string(asked.contrast)!r}"
    return logit, words, "nats"


def _check(model: InstrumentedModel, feature: FeatureId) -> None:
    if feature.is_output:
        width, what = int(model.model.cfg.d_vocab), "tokens"
    elif feature.layer in model.stack.depths:
        width = model.stack.layers[model.stack.depths[feature.layer]].n_features
        what = f"layer {feature.layer} has features"
    else:
        raise UnknownFeatureError(
            f"{feature}: no SAE layer {feature.layer!r}; choose from "
            f"{quoted(model.stack.depths, 40)}"
        )
    if feature.index >= width:
        raise UnknownFeatureError(f"{feature}: {what} 0 to {width - 1}")
