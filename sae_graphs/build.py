"""From a prompt to its causal graph, start to end: this file is the program's table of contents.

1. Clean run. 2. Measure every active feature's effect on the next layer. 3. Keep the strongest.
4. Filter to paths. 5. Describe the features that are left. 6. Assemble.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from sae_graphs.ablation import (
    Ablations,
    Places,
    ablations_of,
    effect_in_features,
    measure,
    measure_outputs,
    pinned,
    places_of,
)
from sae_graphs.contexts import read_contexts, token_effects
from sae_graphs.effects import Effects
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.graph import CausalGraph, Edge, LayerReport, Node, RunRecord, assemble
from sae_graphs.instrument import CleanRun, InstrumentedModel
from sae_graphs.interventions import ZERO, Intervention
from sae_graphs.neuronpedia import feature_url
from sae_graphs.output_tokens import chosen_outputs, next_tokens, token_id
from sae_graphs.records import OUTPUT_LAYER, OutputToken
from sae_graphs.selection import select
from sae_graphs.settings import GraphSettings

WORST_FVU = 0.5

Progress = Callable[[int, int], None]


@torch.no_grad()
def causal_graph(
    model: InstrumentedModel,
    prompt: str,
    *,
    settings: GraphSettings | None = None,
    intervention: Intervention = ZERO,
    progress: Progress | None = None,
    **options: Any,
) -> CausalGraph:
    """The causal graph of one forward pass.

    Every feature that is active at an ablated position is ablated alone (`intervention` says
    how), and its effect on each feature of the next SAE layer read at the read position: ablated
    minus clean, in activation units of the target. `options` are the fields of `GraphSettings`,
    such as `top_k`; or give `settings` whole. `progress` is told the features done and their
    number. Raises `SaeGraphsError` for options that do not fit the prompt or the stack.

    Method: the post "Causal Graphs of GPT-2-Small's Residual Stream"; here exact, with the SAEs'
    errors kept.
    """
    if settings is not None and options:
        raise SaeGraphsError(f"give settings, or {quoted(options)}, not both")
    settings = settings or settings_from(options)
    scope = _in_scope(model, settings)
    n_layers = len(scope.stack.layers)
    min_path_edges = settings.path_edges(n_layers - 1 + settings.has_outputs)

    clean = scope.clean_run(prompt, prepend_bos=settings.prepend_bos)
    places = places_of(clean, settings)
    outputs = chosen_outputs(scope, clean, settings, places.read)
    ablations = _ablations(scope, clean, places, intervention, settings)

    blocks = _measure_all(scope, clean, ablations, places, outputs, progress)
    chosen = select(
        blocks,
        [layer.label for layer in scope.stack.layers],
        top_k=settings.top_k,
        per=settings.per,
        min_path_edges=min_path_edges,
    )

    edges, totals = chosen.edges, chosen.totals
    nodes = _describe(scope, clean, edges, places, intervention)
    nodes += _output_nodes(clean, edges, outputs, places)
    expressed = [
        effect_in_features(scope, clean, ablated, places) for ablated in ablations[: n_layers - 1]
    ]
    layers = _layer_reports(scope, clean, places, ablations, totals, expressed, edges)
    run = RunRecord(
        model=scope.name,
        saes=scope.stack.name,
        prompt=prompt,
        tokens=clean.tokens,
        read_position=places.read,
        settings={
            **settings.to_json(),
            "min_path_edges": min_path_edges,
            "intervention": intervention.name,
            "dtype": str(clean.logits.dtype).removeprefix("torch."),
        },
        total_abs_effect=sum(totals.values()),
        kept_abs_effect=0.0,
        next_tokens=next_tokens(scope, clean, places.read),
        layers=layers,
        warnings=(
            *_fit_warnings(layers),
            *_stack_warnings(scope),
            *chosen.warnings,
        ),
        outputs=outputs,
    )
    return assemble(run, nodes, edges)


def settings_from(options: Mapping[str, Any]) -> GraphSettings:
    """`GraphSettings` from keywords; an unknown one raises `SaeGraphsError`."""
    unknown = sorted(options.keys() - GraphSettings.__dataclass_fields__.keys())
    if unknown:
        raise SaeGraphsError(
            f"no option {unknown[0]!r}; expected {quoted(GraphSettings.__dataclass_fields__, 20)}"
        )
    return GraphSettings(**options)


# -- the steps -------------------------------------------------------------------------------------


def _in_scope(model: InstrumentedModel, settings: GraphSettings) -> InstrumentedModel:
    """The model with the layers asked for, once the pinned features are known to exist there."""
    if settings.layers is not None:
        model = InstrumentedModel(
            model.model, model.stack.between(*settings.layers), name=model.name
        )
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


def _ablations(
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


def _measure_all(
    model: InstrumentedModel,
    clean: CleanRun,
    ablations: Sequence[Ablations],
    places: Places,
    outputs: Sequence[OutputToken],
    progress: Progress | None,
) -> Iterator[Effects]:
    done, total = 0, sum(len(found) for found in ablations)
    device = clean.logits.device
    for depth, found in enumerate(ablations):

        def report(within: int, before: int = done) -> None:
            if progress is not None:
                progress(before + within, total)

        if depth < len(model.stack.layers) - 1:
            yield from measure(model, clean, found, places, progress=report)
        else:
            tokens = torch.tensor([output.token_id for output in outputs], device=device)
            contrast = outputs[0].contrast
            minus = None if contrast is None else token_id(model, contrast)
            yield from measure_outputs(model, clean, found, places, tokens, minus, progress=report)
        done += len(found)


def _describe(
    model: InstrumentedModel,
    clean: CleanRun,
    edges: Sequence[Edge],
    places: Places,
    intervention: Intervention,
) -> list[Node]:
    """The features that the edges touch, with activations, contexts and token effects."""
    features = {end for edge in edges for end in (edge.source, edge.target)}
    nodes: list[Node] = []
    for depth, layer in enumerate(model.stack.layers):
        here = sorted(
            (f for f in features if f.layer == layer.label),
            key=lambda f: (f.index, f.position or 0),
        )
        if not here:
            continue
        indices = sorted({feature.index for feature in here})
        chosen = torch.tensor(indices, device=clean.logits.device)
        ablations = ablations_of(clean, depth, places, intervention, chosen)
        effects = token_effects(model, clean, ablations, here, places)
        contexts = dict(zip(indices, read_contexts(model, layer, indices), strict=True))
        columns = clean.activations[depth].of(chosen).T.tolist()
        activations = dict(zip(indices, columns, strict=True))  # [T] each
        for feature, effect in zip(here, effects, strict=True):
            index, at = feature.index, feature.position
            nodes.append(
                Node(
                    feature=feature,
                    activation=activations[index][places.read if at is None else at],
                    activations=tuple(activations[index]),
                    neuronpedia=feature_url(layer.neuronpedia_id, index),
                    contexts=contexts[index],
                    promotes=effect.promotes,
                    suppresses=effect.suppresses,
                )
            )
    return nodes


def _output_nodes(
    clean: CleanRun, edges: Sequence[Edge], outputs: Sequence[OutputToken], places: Places
) -> list[Node]:
    """The output tokens that the edges touch, with their clean logits where they are read."""
    by_id = {output.token_id: output for output in outputs}
    nodes = []
    for feature in {edge.target for edge in edges if edge.target.layer == OUTPUT_LAYER}:
        output = by_id[feature.index]
        at = places.read if feature.position is None else feature.position
        logit = output.logit + float(
            clean.logits[at, feature.index] - clean.logits[places.read, feature.index]
        )
        nodes.append(Node(feature=feature, activation=logit, token=output.token))
    return nodes


def _layer_reports(
    model: InstrumentedModel,
    clean: CleanRun,
    places: Places,
    ablations: Sequence[Ablations],
    totals: Mapping[int, float],
    expressed: Sequence[float | None],
    edges: Sequence[Edge],
) -> tuple[LayerReport, ...]:
    """Preflight: how well each SAE fits its stream on this prompt, and what was measured there."""
    reports = []
    for depth, layer in enumerate(model.stack.layers):
        kept = math.fsum(abs(edge.effect) for edge in edges if edge.source.layer == layer.label)
        measured, fit = depth < len(ablations), clean.fits[depth]
        reports.append(
            LayerReport(
                label=layer.label,
                hook_point=layer.point.hook_name,
                active_features=len(clean.activations[depth].active(places.ablated)),
                measured_features=len(ablations[depth]) if measured else None,
                l0=fit.l0,
                fvu=fit.fvu,
                total_abs_effect=totals.get(depth, 0.0) if measured else None,
                kept_abs_effect=kept if measured else None,
                effect_in_features=expressed[depth] if depth < len(expressed) else None,
            )
        )
    return tuple(reports)


def _fit_warnings(layers: Sequence[LayerReport]) -> tuple[str, ...]:
    bad = [layer.label for layer in layers if not layer.fvu <= WORST_FVU]
    if not bad:
        return ()
    worst = max(layer.fvu for layer in layers)
    return (
        f"the SAEs do not fit this model's stream: at layers {quoted(bad, 20)} they leave up to "
        f"{worst:.0%} of the variance unexplained; check the model, the hooks and the weights' "
        "processing before believing this graph",
    )


def _stack_warnings(model: InstrumentedModel) -> tuple[str, ...]:
    """What a reader should know of the stack: layers passed over, numbers of low precision."""
    points = [layer.point for layer in model.stack.layers]
    gaps = [
        f"{below.hook_name} to {above.hook_name}"
        for below, above in pairwise(points)
        if above.depth - below.depth > 2
    ]
    found: list[str] = []
    if gaps:
        found.append(f"no SAE stands between {quoted(gaps)}: edges there span several blocks")
    dtype = next(model.model.parameters()).dtype
    if dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        found.append(f"measured in {name}: effects may be off by some per cent; use float32")
    return tuple(found)
