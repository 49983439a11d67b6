"""What a run measures: a prompt, its layers, what is ablated in each, and their effects.

`prepare` makes an `Experiment`; `measure_all` gives its effects, by the method of its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_graphs.bars import Progress
from sae_graphs.effects.ablations import Ablations, Places, ablations_of, pinned, places_of
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.exact import measure, measure_outputs
from sae_graphs.effects.gradients import estimate, estimate_outputs
from sae_graphs.effects.intervention_kinds import parse_intervention
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.settings import GraphSettings, Method
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.features.reference import mean_intervention, references_of
from sae_graphs.graph.records import OutputToken
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel, with_saes
from sae_graphs.model.interventions import ZERO, Intervention, resample, scale
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.next_token import token_id


@dataclass(frozen=True, eq=False)
class Experiment:
    """One prompt, and what is measured on it.

    `model` has the layers that are measured; `ablations` has one entry for every layer with a
    target after it: all but the last, and the last, too, where `outputs` are asked for.
    """

    model: InstrumentedModel
    clean: CleanRun
    places: Places
    ablations: tuple[Ablations, ...]
    outputs: tuple[OutputToken, ...]
    intervention: Intervention
    settings: GraphSettings

    @property
    def labels(self) -> list[str]:
        """The labels of the SAE layers by depth."""
        return [layer.label for layer in self.model.stack.layers]

    @property
    def min_path_edges(self) -> int:
        """The shortest path that is kept."""
        return self.settings.path_edges(len(self.ablations))

    @property
    def output_places(self) -> Places:
        """Where effects on outputs are read: at the last position alone, so that they do not
        compete with each other."""
        return self.places._replace(reads=self.places.reads[-1:])

    @property
    def contrast_id(self) -> int | None:
        """The token whose logit is taken from those of the outputs."""
        text = self.settings.contrast
        return None if text is None else token_id(self.model, text)


def prepare(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    settings: GraphSettings,
    intervention: Intervention | str = ZERO,
) -> Experiment:
    """Run the prompt, and see what is to be ablated and read.

    Raises `SaeGraphsError` for settings that do not fit the prompt or the stack.
    """
    model = with_saes(model)
    settings = settings.located({x.label: x.neuronpedia_id for x in model.stack.layers})
    scope = in_scope(model, settings)
    settings.path_edges(len(scope.stack.layers) - 1 + settings.has_outputs)  # it raises early
    clean = scope.clean_run(prompt, prepend_bos=settings.prepend_bos)
    places = places_of(clean, settings)
    outputs = chosen_outputs(scope, clean, settings, places.read)
    intervention = chosen_intervention(scope, intervention, clean, settings)
    ablations = []
    for depth, layer in enumerate(scope.stack.layers):
        if depth == len(scope.stack.layers) - 1 and not outputs:
            break
        found = ablations_of(clean, depth, places, intervention)
        ablations.append(pinned(found, settings.pins, layer.label) if settings.pins else found)
    return Experiment(scope, clean, places, tuple(ablations), outputs, intervention, settings)


def ids_given(
    model: InstrumentedModel, clean: CleanRun, prepend_bos: bool | None
) -> Mapping[str, Any]:
    """For the record: the `token_ids` of a prompt whose text alone would be run as others."""
    try:
        same = model.tokenize(clean.prompt, prepend_bos=prepend_bos) == clean.token_ids
    except SaeGraphsError:  # no tokenizer, say
        same = False
    return {} if same else {"token_ids": list(clean.token_ids)}


def chosen_intervention(
    model: InstrumentedModel,
    intervention: Intervention | str,
    clean: CleanRun,
    settings: GraphSettings,
) -> Intervention:
    """An intervention, or what `parse_intervention` reads out of its name."""
    if isinstance(intervention, Intervention):
        return intervention
    kind = parse_intervention(intervention)
    if kind.name == "mean":
        return mean_intervention(model, references_of(model))
    if kind.name == "resample":
        length, bos = len(clean), settings.prepend_bos
        return resample(model, kind.prompt, n_tokens=length, prepend_bos=bos)
    return ZERO if kind.name == "zero" else scale(kind.coefficient)


def in_scope(model: InstrumentedModel, settings: GraphSettings) -> InstrumentedModel:
    """The model with the layers asked for, once the pinned features are known to exist there."""
    if settings.layers is not None:
        model = model.between(*settings.layers)
    layers = model.stack.layers
    for pin in settings.pins:
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
                f"pinned feature {pin}: a position needs ablate='each' (--ablate each), and "
                f"ablate is {settings.ablate!r}; leave the position out, or give that"
            )
        answered = settings.has_outputs or settings.select == "answer"
        if depth == len(layers) - 1 and not answered:
            raise UnknownFeatureError(
                f"pinned feature {pin} is in the last layer measured, where nothing follows; "
                "pin a feature of an earlier layer"
            )
    return model


def measure_all(
    experiment: Experiment, progress: Progress | None = None, partial: Partial | None = None
) -> Iterator[Effects]:
    """Layer by layer; those that an earlier run left in `partial` are read, not measured.

    `progress` is told the ablations done and their number.
    """
    done, total = 0, sum(len(found) for found in experiment.ablations)
    for depth, found in enumerate(experiment.ablations):

        def report(within: int, before: int = done) -> None:
            if progress is not None:
                progress(before + within, total)

        def blocks(depth: int = depth, report: Callable[[int], None] = report) -> Iterator[Effects]:
            return layer_effects(experiment, depth, progress=report)

        yield from blocks() if partial is None else partial.layer(depth, blocks)
        report(len(found))
        done += len(found)


def layer_effects(
    experiment: Experiment,
    depth: int,
    *,
    method: Method | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Effects]:
    """Effects of a layer's ablations, measured or estimated; by the settings' method, or this one.

    On the features of the next layer; after the last one, on the logits of the outputs at the last
    position that is read.
    Integrated gradients move all features of the layer, also where only some are pinned.
    """
    model, clean, places = experiment.model, experiment.clean, experiment.places
    settings, ablations = experiment.settings, experiment.ablations[depth]
    method = method or settings.method
    steps = settings.steps if method == "integrated-gradients" else None
    together = ablations
    if settings.pin and steps is not None and len(ablations):
        together = ablations_of(clean, depth, places, experiment.intervention)
    if depth < len(model.stack.layers) - 1:
        if method == "exact":
            return measure(model, clean, ablations, places, progress=progress)
        return estimate(
            model, clean, ablations, places, steps=steps, together=together, progress=progress
        )
    ids = [output.token_id for output in experiment.outputs]
    tokens = torch.tensor(ids, device=clean.logits.device)
    minus, places = experiment.contrast_id, experiment.output_places
    if method == "exact":
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


def chosen_outputs(
    model: InstrumentedModel, clean: CleanRun, settings: GraphSettings, read: int
) -> tuple[OutputToken, ...]:
    """The tokens whose logits are targets, likeliest first, with clean values at `read`.

    Raises `SaeGraphsError` where a text that was given is not one token.
    """
    if not settings.has_outputs:
        return ()
    logits = clean.logits[read]
    probabilities = logits.float().softmax(-1)
    contrast = None if settings.contrast is None else token_id(model, settings.contrast)
    ids = [token_id(model, text) for text in settings.target]
    if not ids:
        ids = probabilities.topk(min(settings.outputs or 1, len(probabilities))).indices.tolist()
    ids = sorted(set(ids) - {contrast}, key=lambda i: (-float(probabilities[i]), i))
    if not ids:
        raise SaeGraphsError("the contrast is the only target; give another token to compare")
    return tuple(output_token(model, logits, i, contrast) for i in ids)


def output_token(
    model: LanguageModel, logits: Tensor, token_id: int, contrast: int | None
) -> OutputToken:
    """A token with its clean logit among `logits` `[V]`, less the contrast's, and probability."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    minus = 0.0 if contrast is None else float(logits[contrast])
    return OutputToken(
        token_id=token_id,
        token=model.token_string(token_id),
        logit=float(logits[token_id]) - minus,
        probability=float(logits.softmax(-1)[token_id]),
        contrast=None if contrast is None else model.token_string(contrast),
    )
