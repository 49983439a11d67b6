"""What a run measures: its layers, what is ablated in each, and their effects by its method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from sae_graphs.ablation import measure, measure_outputs
from sae_graphs.ablations import Ablations, Places, ablations_of, pinned
from sae_graphs.clean_run import CleanRun
from sae_graphs.effects import Effects
from sae_graphs.errors import UnknownFeatureError, quoted
from sae_graphs.gradients import estimate, estimate_outputs
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.interventions import ZERO, Intervention
from sae_graphs.output_tokens import token_id
from sae_graphs.records import OutputToken
from sae_graphs.settings import GraphSettings


def in_scope(model: InstrumentedModel, settings: GraphSettings) -> InstrumentedModel:
    """The model with the layers asked for, once the pinned features are known to exist there."""
    if settings.layers is not None:
        model = model.between(*settings.layers)
    layers = model.stack.layers
    for pin in settings.pin:
        if pin.layer not in model.stack.depths:
            raise UnknownFeatureError(
                f"pinned feature {pin}: no SAE layer {pin.layer!r}; the layers measured are "
                f"{quoted(model.stack.depths, 40)}"
            )
        depth = model.stack.depths[pin.layer]
        if pin.index >= layers[depth].n_features:
            raise UnknownFeatureError(
                f"pinned feature {pin}: layer {pin.layer} has features 0 to "
                f"{layers[depth].n_features - 1}"
            )
        if pin.position is not None and settings.ablate != "each":
            raise UnknownFeatureError(
                f"pinned feature {pin}: leave the position out, or ablate at each position"
            )
        if depth == len(layers) - 1 and not settings.has_outputs:
            raise UnknownFeatureError(
                f"pinned feature {pin} is in the last layer measured, where nothing follows; "
                "pin a feature of an earlier layer"
            )
    return model


def ablations_in(
    model: InstrumentedModel,
    clean: CleanRun,
    places: Places,
    intervention: Intervention,
    settings: GraphSettings,
) -> list[Ablations]:
    """What to ablate at every layer; at the last only where outputs are asked for."""
    found = []
    for depth, layer in enumerate(model.stack.layers):
        if depth == len(model.stack.layers) - 1 and not settings.has_outputs:
            break
        ablations = ablations_of(clean, depth, places, intervention)
        found.append(pinned(ablations, settings.pin, layer.label) if settings.pin else ablations)
    return found


def layer_effects(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Ablations,
    places: Places,
    settings: GraphSettings,
    outputs: Sequence[OutputToken] = (),
    intervention: Intervention = ZERO,
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Effects]:
    """Effects of a layer's ablations, measured or estimated as the settings' `method` says.

    On the features of the next layer; after the last one, on the logits of the `outputs`.
    Integrated gradients move all features of the layer, also where only some are pinned.
    """
    exact = settings.method == "exact"
    steps = settings.steps if settings.method == "integrated-gradients" else None
    together = ablations
    if settings.pin and steps is not None and len(ablations):
        together = ablations_of(clean, ablations.depth, places, intervention)
    if ablations.depth < len(model.stack.layers) - 1:
        if exact:
            return measure(model, clean, ablations, places, progress=progress)
        return estimate(
            model, clean, ablations, places, steps=steps, together=together, progress=progress
        )
    ids = [output.token_id for output in outputs]
    tokens = torch.tensor(ids, device=clean.logits.device)
    contrast = outputs[0].contrast
    minus = None if contrast is None else token_id(model, contrast)
    if exact:
        return measure_outputs(model, clean, ablations, places, tokens, minus, progress=progress)
    return estimate_outputs(
        model,
        clean,
        ablations,
        places,
        tokens,
        minus,
        steps=steps,
        together=together,
        progress=progress,
    )


def method_warnings(settings: GraphSettings) -> tuple[str, ...]:
    """What a reader should know of effects that were not measured."""
    if settings.method == "exact":
        return ()
    name = settings.method.replace("-", " ")
    return (
        f"effects are estimates by {name}, not measured, and features that an ablation wakes up "
        "are missed; `sae-graphs compare` shows how far off they are",
    )
