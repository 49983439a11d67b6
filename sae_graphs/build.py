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
from torch import Tensor

from sae_graphs.ablation import (
    ZERO,
    EffectBlock,
    Intervention,
    MeasuredEdge,
    Places,
    effect_in_features,
    keep_top,
    measure,
    places_of,
    source_features,
)
from sae_graphs.contexts import read_contexts, token_effects
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.graph import CausalGraph, Edge, FeatureId, LayerReport, Node, RunRecord, assemble
from sae_graphs.instrument import CleanRun, InstrumentedModel
from sae_graphs.neuronpedia import feature_url
from sae_graphs.paths import longest_path_edges, on_long_paths
from sae_graphs.settings import GraphSettings

NEXT_TOKENS = 8
WORST_FVU = 0.5
SAME = 1e-8  # of the squared norm: a spread below this is rounding

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
    min_path_edges = settings.path_edges(len(scope.stack.layers) - 1)

    clean = scope.clean_run(prompt, prepend_bos=settings.prepend_bos)
    places = places_of(clean, settings)
    sources = _sources(scope, clean, places, intervention, settings)

    blocks = _measure_all(scope, clean, sources, places, intervention, progress)
    measured, totals = keep_top(blocks, settings.top_k, settings.per)

    strongest = _named(scope, measured)
    edges = on_long_paths(strongest, min_path_edges)
    nodes = _describe(scope, clean, edges, places, intervention)
    expressed = [
        effect_in_features(scope, clean, depth, found, places, intervention)
        for depth, found in enumerate(sources)
    ]
    layers = _layer_reports(scope, clean, places, sources, totals, expressed, edges)
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
            *_empty_warnings(strongest, edges, min_path_edges),
        ),
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


def next_tokens(
    model: InstrumentedModel, clean: CleanRun, read: int, limit: int = NEXT_TOKENS
) -> tuple[tuple[str, float], ...]:
    """The likeliest next tokens at the read position, with their probabilities."""
    top = clean.logits[read].float().softmax(-1).topk(min(limit, clean.logits.shape[-1]))
    return tuple(
        (model.token_string(token), probability)
        for token, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    )


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
        if pin.position is not None:
            raise UnknownFeatureError(f"pinned feature {pin}: leave the position out")
        if depth == len(layers) - 1:
            raise UnknownFeatureError(
                f"pinned feature {pin} is in the last layer measured, where nothing follows; "
                "pin a feature of an earlier layer"
            )
    return model


def _sources(
    model: InstrumentedModel,
    clean: CleanRun,
    places: Places,
    intervention: Intervention,
    settings: GraphSettings,
) -> list[Tensor]:
    """The features to ablate, `[S]` for every layer but the last."""
    return [
        source_features(clean, depth, places, intervention, settings.pin, layer.label)
        for depth, layer in enumerate(model.stack.layers[:-1])
    ]


def _measure_all(
    model: InstrumentedModel,
    clean: CleanRun,
    sources: Sequence[Tensor],
    places: Places,
    intervention: Intervention,
    progress: Progress | None,
) -> Iterator[EffectBlock]:
    done, total = 0, sum(len(found) for found in sources)
    for depth, found in enumerate(sources):
        for block in measure(model, clean, depth, found, places, intervention):
            yield block
            done += len(block.sources)
            if progress is not None:
                progress(done, total)


def _named(model: InstrumentedModel, measured: Sequence[MeasuredEdge]) -> list[Edge]:
    labels = [layer.label for layer in model.stack.layers]
    return [
        Edge(
            FeatureId(labels[edge.depth], edge.source),
            FeatureId(labels[edge.depth + 1], edge.target),
            edge.effect,
        )
        for edge in measured
    ]


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
        indices = sorted(f.index for f in features if f.layer == layer.label)
        if not indices:
            continue
        chosen = torch.tensor(indices, device=clean.logits.device)
        effects = token_effects(model, clean, depth, chosen, places, intervention)
        contexts = read_contexts(model, layer, indices)
        activations = clean.activations[depth][:, chosen].T.tolist()  # [S][T]
        for row, index in enumerate(indices):
            nodes.append(
                Node(
                    feature=FeatureId(layer.label, index),
                    activation=activations[row][places.read],
                    activations=tuple(activations[row]),
                    neuronpedia=feature_url(layer.neuronpedia_id, index),
                    contexts=contexts[row],
                    promotes=effects[row].promotes,
                    suppresses=effects[row].suppresses,
                )
            )
    return nodes


def _layer_reports(
    model: InstrumentedModel,
    clean: CleanRun,
    places: Places,
    sources: Sequence[Tensor],
    totals: Mapping[int, float],
    expressed: Sequence[float | None],
    edges: Sequence[Edge],
) -> tuple[LayerReport, ...]:
    """Preflight: how well each SAE fits its stream on this prompt, and what was measured there."""
    reports = []
    last = len(model.stack.layers) - 1
    for depth, layer in enumerate(model.stack.layers):
        kept = math.fsum(abs(edge.effect) for edge in edges if edge.source.layer == layer.label)
        fvu, l0 = _fit(model, clean, depth)
        reports.append(
            LayerReport(
                label=layer.label,
                hook_point=layer.point.hook_name,
                active_features=len(source_features(clean, depth, places)),
                measured_features=len(sources[depth]) if depth < last else None,
                l0=l0,
                fvu=fvu,
                total_abs_effect=totals.get(depth, 0.0) if depth < last else None,
                kept_abs_effect=kept if depth < last else None,
                effect_in_features=expressed[depth] if depth < last else None,
            )
        )
    return tuple(reports)


def _fit(model: InstrumentedModel, clean: CleanRun, depth: int) -> tuple[float, float]:
    """Fraction of variance unexplained and mean active features, the first position left out.

    Where positions do not differ (there is one, or one token repeated under rotary positions)
    there is no variance about the mean: the fraction is then of the squared norm.
    """
    layer, stream = model.stack.layers[depth], clean.streams[depth]
    missed = (stream - layer.decode(clean.activations[depth], stream)).double()  # [T, D]
    start = 1 if len(clean) > 1 else 0
    whole = stream.double()[start:]
    size, spread = whole.square().sum(), (whole - whole.mean(0)).square().sum()
    fvu = float(missed[start:].square().sum() / (spread if spread > SAME * size else size))
    l0 = float((clean.activations[depth][start:] != 0).sum(-1).double().mean())
    return fvu, l0


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


def _empty_warnings(
    strongest: Sequence[Edge], edges: Sequence[Edge], min_path_edges: int
) -> tuple[str, ...]:
    """Why nothing is left to draw, and what would keep something."""
    if edges:
        return ()
    if not strongest:
        return ("no path is left: no ablation changed any feature of the next layer",)
    longest = longest_path_edges(strongest)
    return (
        f"no path of {min_path_edges} edges is left: the {len(strongest)} strongest edges form "
        f"paths of at most {longest}; raise top_k, or lower min_path_edges to {longest}",
    )
