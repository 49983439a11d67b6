"""Preflight: how well a stack fits its model on a prompt, and what a reader should know of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from sae_graphs.effects.exact import effect_in_features
from sae_graphs.effects.experiment import Experiment
from sae_graphs.errors import quoted
from sae_graphs.graph.records import Edge, LayerReport
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel

WORST_FVU = 0.5
NAMED = 2  # gaps between SAEs that are told by name
CENTRED = 1e-3  # mean of a stream's entries by their size; rounding leaves far less, a model more
# Measured on the bundled model against float64, by `python -m benchmarks --precision`.
LOW_PRECISION = {
    torch.bfloat16: "the strongest effects were off by 0.9 % at the median and 59 % at worst",
    torch.float16: "the strongest effects were off by 0.1 % at the median and 1.1 % at worst",
}


def layer_reports(
    experiment: Experiment, totals: Mapping[int, float], edges: Sequence[Edge]
) -> tuple[LayerReport, ...]:
    """How well each SAE fits its stream on this prompt, and what was measured there."""
    model, clean, places = experiment.model, experiment.clean, experiment.places
    ablations, last = experiment.ablations, len(model.stack.layers) - 1
    reports = []
    for depth, layer in enumerate(model.stack.layers):
        kept = math.fsum(abs(edge.effect) for edge in edges if edge.source.layer == layer.label)
        measured, fit = depth < len(ablations), clean.fits[depth]
        expressed = None
        if depth < last:
            expressed = effect_in_features(model, clean, ablations[depth], places)
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
                effect_in_features=expressed,
            )
        )
    return tuple(reports)


def fit_warnings(layers: Sequence[LayerReport]) -> tuple[str, ...]:
    """Whether the SAEs fit the prompt, and so may belong to this stream at all."""
    bad = [layer.label for layer in layers if not layer.fvu <= WORST_FVU]
    if not bad:
        return ()
    worst = max(layer.fvu for layer in layers)
    where = f"{'layer' if len(bad) == 1 else 'layers'} {quoted(bad, 20)}"
    return (
        f"the SAEs fit this prompt badly: at {where} they leave up to {worst:.0%} of the variance "
        "unexplained, which flows on unseen; where other prompts fare no better, they are not this "
        "stream's: check the model, the hooks and the weights' processing",
    )


def processing_warnings(model: InstrumentedModel, clean: CleanRun) -> tuple[str, ...]:
    """Whether the model's weights are processed as the SAEs' metadata says: centred, or not."""
    said = [layer.cfg.metadata.model_from_pretrained_kwargs or {} for layer in model.stack.layers]
    if not any(kwargs.get("center_writing_weights") for kwargs in said):
        return ()
    rows = [stream[min(1, len(stream) - 1) :].float() for stream in clean.streams]  # no sink
    means = [float(row.mean(-1).abs().mean() / row.abs().mean()) for row in rows]
    if max(means) < max(CENTRED, 8 * torch.finfo(clean.logits.dtype).eps):
        return ()
    return (
        "the SAEs were trained on a model with centred writing weights, and this one's are not: "
        "their features and all effects are off; load it by name with sae_graphs.load, or with "
        "center_writing_weights=True",
    )


def stack_warnings(model: InstrumentedModel) -> tuple[str, ...]:
    """What a reader should know of the stack: layers passed over, numbers of low precision."""
    points = [layer.point for layer in model.stack.layers]
    gaps = [(low, high) for low, high in pairwise(points) if high.depth - low.depth > 2]
    found: list[str] = []
    if model.compared is not None and model.compared.warning:
        found.append(model.compared.warning)
    if len(gaps) > NAMED:
        widest = max(high.depth - low.depth for low, high in gaps) // 2  # streams: two a block
        found.append(f"SAEs stand up to {widest} blocks apart: edges span several blocks")
    elif gaps:
        named = quoted([f"{low.hook_name} to {high.hook_name}" for low, high in gaps])
        found.append(f"no SAE stands between {named}: edges there span several blocks")
    dtype = next(model.model.parameters()).dtype
    if dtype in LOW_PRECISION:
        name = str(dtype).removeprefix("torch.")
        found.append(
            f"measured in {name}: on the bundled model {LOW_PRECISION[dtype]}; use float32 for "
            "numbers that matter"
        )
    return tuple(found)
