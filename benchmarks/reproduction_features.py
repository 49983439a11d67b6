"""The source's graph, its single features and its activations, measured again.

Letters: `T` tokens, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

import sae_graphs as sg
from benchmarks.reproduction_case import Case, Found
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.evidence import Curve
from sae_graphs.validation.responses import COEFFICIENTS, WIDER, check_curve, curve
from sae_graphs.validation.subjects import Subject

ABLATED, CLEAN = 0.0, 1.0  # coefficients


def effect_of_ablation(here: Subject, causes: Sequence[FeatureId], effect: FeatureId) -> float:
    """The change of a feature's activation where causes are ablated together."""
    ablated, before = ablated_and_clean(here, causes, effect)
    return ablated - before


def ablated_and_clean(
    here: Subject, causes: Sequence[FeatureId], effect: FeatureId
) -> tuple[float, float]:
    """A feature's activation where causes are ablated together, and in the clean run."""
    ablated, before = curve(here, causes, effect, coefficients=(ABLATED, CLEAN)).responses
    return ablated, before


def sweep(case: Case) -> Found:
    """One feature multiplied by coefficients, and another's activation: two widths."""
    said = case.published.sweep
    cause, effect = FeatureId.parse(said["cause"]), FeatureId.parse(said["effect"])
    here = case.subject(said["prompt"])
    try:
        check_curve(here, cause, effect)
    except SaeGraphsError as problem:
        return {"refused": str(problem)}
    wide = [WIDER * coefficient for coefficient in COEFFICIENTS]
    return {
        "curves": [
            _plain(curve(here, [cause], effect, coefficients=along))
            for along in (COEFFICIENTS, wide)
        ]
    }


def _plain(found: Curve) -> Found:
    names = ("coefficients", "responses", "r_squared", "slope", "largest_jump", "jump_at")
    return {name: getattr(found, name) for name in names}


def edges(case: Case) -> list[Found]:
    """The effects of edges that a picture shows, by their colour there."""
    here = case.subject(case.published.graph["prompt"])
    return [
        {"colour": colour, **_edge(here, FeatureId.parse(source), FeatureId.parse(target))}
        for colour, pairs in case.published.edges.items()
        for source, target in pairs
    ]


def _edge(here: Subject, cause: FeatureId, effect: FeatureId) -> Found:
    """The effect of an edge, or why it cannot be measured."""
    row: Found = {"source": str(cause), "target": str(effect), "effect": None}
    try:
        check_curve(here, cause, effect)
        row["effect"] = effect_of_ablation(here, [cause], effect)
    except SaeGraphsError as problem:
        row["refused"] = str(problem)
    return row


def weighted_edges(case: Case) -> list[Found]:
    """The other reading of what the text says of features: edges into them, in the graph's prompt.

    From all features of the paths in the layer below; which figure has which was not published.
    """
    here = case.subject(case.published.graph["prompt"])
    depths = case.model.stack.depths
    effects = case.known(map(FeatureId.parse, case.published.weighted["features"]))
    return [
        _edge(here, cause, effect)
        for effect in effects
        for cause in case.known(case.published.nodes)
        if depths[cause.layer] == depths[effect.layer] - 1
    ]


def graph(case: Case) -> Found:
    """The graph of the prompt, and what was said of it.

    The first token is left alone in both variants: nearly every feature is active there.
    """
    said = case.published.graph
    settings = replace(case.variant.settings, ablate_first=False)
    found = sg.causal_graph(case.model, said["prompt"], settings=settings)
    nodes = {str(node.feature) for node in found.nodes}
    strongest = max((abs(edge.effect) for edge in found.edges), default=0.0)
    touching = [edge for edge in found.edges if edge.source.layer == said["untouched_layer"]]
    return {
        "graphs": len(found.components()),
        "edges": len(found.edges),
        "strongest": strongest,
        "over": sum(abs(edge.effect) >= said["threshold"] for edge in found.edges),
        "touching": len(touching),
        "strongest_touching": max((abs(edge.effect) for edge in touching), default=0.0),
        "named": [name for name in said["features"] if name in nodes],
        "path_nodes": [str(node) for node in case.published.nodes if str(node) in nodes],
        "fvu": {layer.label: layer.fvu for layer in found.run.layers},
    }


def promotes(case: Case) -> list[Found]:
    """The tokens whose logits a feature's decoder direction raises most, through the final norm."""
    found = []
    for name, tokens in case.published.promotes.items():
        feature = FeatureId.parse(name)
        ours: list[str] | None = None
        if case.known([feature]):
            layer = case.model.stack.layers[case.model.stack.depths[feature.layer]]
            stream = case.subject(case.published.graph["prompt"]).clean.streams[0][:1]
            decode = layer.decoder_of(torch.tensor([feature.index], device=stream.device))
            one = stream.new_ones(1, 1)
            row = decode(one, stream) - decode(torch.zeros_like(one), stream)  # [1, D]
            top = case.model.unembed(row)[0].topk(len(tokens)).indices.tolist()
            ours = [case.model.token_string(token) for token in top]
        found.append({"feature": name, "published": list(tokens), "ours": ours})
    return found


def activations(case: Case) -> Found:
    """Activations as published, by the source's formula, and as the SAEs themselves encode.

    The formula is evaluated here, and only here, to tell whether the weights are the source's:
    `relu(hidden_states[L] @ W_enc + b_enc)` on the stream of the raw model, without centred
    weights, without `b_dec`, without BOS; and once more a block later.
    """
    said = case.published.activations
    names = [str(feature) for feature in case.known(map(FeatureId.parse, said["values"]))]
    model, ids = case.model, case.model.tokenize(said["prompt"], prepend_bos=False)
    hidden = hidden_states(model, ids)
    without, with_bos = (model.clean_run(said["prompt"], prepend_bos=bos) for bos in (False, True))
    rows = []
    for name in names:
        feature = FeatureId.parse(name)
        depth = model.stack.depths[feature.layer]
        column = torch.tensor([feature.index], device=without.logits.device)
        rows.append(
            {
                "feature": name,
                "published": list(said["values"][name]),
                "formula": formula(model, feature, hidden, later=0),
                "formula_late": formula(model, feature, hidden, later=1),
                "ours": without.activations[depth].of(column)[:, 0].tolist(),
                "ours_bos": with_bos.activations[depth].of(column)[-len(ids) :, 0].tolist(),
            }
        )
    return {"tokens": [model.token_string(token) for token in ids], "rows": rows}


def hidden_states(model: InstrumentedModel, ids: Sequence[int]) -> tuple[Tensor, ...]:
    """The stream before each block, and after the last, of the model as Hugging Face loads it."""
    from transformers import AutoModelForCausalLM

    original = model.model.original_model
    name, dtype = original.config._name_or_path, next(original.parameters()).dtype
    raw = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).eval()
    states: tuple[Tensor, ...] = raw(torch.tensor([list(ids)]), output_hidden_states=True)[
        "hidden_states"
    ]
    return tuple(state[0] for state in states)


def formula(
    model: InstrumentedModel, feature: FeatureId, hidden: Sequence[Tensor], *, later: int
) -> list[float] | None:
    """The source's encoder at `hidden_states[L + later]`; None where there is no such state.

    The last state is left out: it comes after the final norm.
    """
    if not feature.layer.isdigit() or int(feature.layer) + later >= len(hidden) - 1:
        return None
    sae = model.stack.layers[model.stack.depths[feature.layer]].sae
    weights, bias = sae.W_enc[:, feature.index].cpu(), sae.b_enc[feature.index].cpu()
    found: list[float] = (hidden[int(feature.layer) + later] @ weights + bias).relu().tolist()
    return found
