"""From a prompt to its causal graph, start to end: this file is the program's table of contents.

1. Clean run. 2. Measure every active feature's effect on the next layer. 3. Keep the strongest.
4. Filter to paths. 5. Describe the features that are left. 6. Assemble.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sae_graphs.ablation import effect_in_features
from sae_graphs.ablations import Ablations, Places, ablations_of, places_of
from sae_graphs.clean_run import CleanRun
from sae_graphs.contexts import Advance, read_contexts, token_effects
from sae_graphs.dissection import Dissection
from sae_graphs.effects import Effects
from sae_graphs.effects_file import write_effects
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph import CausalGraph, FeatureId, Node, RunRecord, assemble
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.interventions import ZERO, Intervention
from sae_graphs.measuring import ablations_in, in_scope, layer_effects, method_warnings
from sae_graphs.neuronpedia import feature_url
from sae_graphs.output_tokens import chosen_outputs, next_tokens
from sae_graphs.preflight import fit_warnings, layer_reports, stack_warnings
from sae_graphs.records import OUTPUT_LAYER, OutputToken
from sae_graphs.resume import Partial
from sae_graphs.saving import further_features, key_of, partial_of, saved_layers
from sae_graphs.selection import select
from sae_graphs.settings import GraphSettings

Progress = Callable[[int, int], None]


@torch.no_grad()
def causal_graph(
    model: InstrumentedModel,
    prompt: str,
    *,
    settings: GraphSettings | None = None,
    intervention: Intervention = ZERO,
    progress: Progress | None = None,
    effects: str | Path | None = None,
    resume: Partial | str | Path | None = None,
    **options: Any,
) -> CausalGraph:
    """The causal graph of one forward pass.

    Every feature that is active at an ablated position is ablated alone (`intervention` says
    how), and its effect on each feature of the next SAE layer read at the read position: ablated
    minus clean, in activation units of the target. `options` are the fields of `GraphSettings`,
    such as `top_k`; or give `settings` whole. `progress` is told the features done and their
    number. Raises `SaeGraphsError` for options that do not fit the prompt or the stack.

    Every effect goes into the file `effects` where it is given: `effects.safetensors` in the
    folder that the graph is saved in, for `replot`. With a folder to `resume` from, layers that
    an earlier, interrupted run of the same kind measured are read, and those that this run
    measures are kept there; it stays until you delete it.

    Method: the post "Causal Graphs of GPT-2-Small's Residual Stream"; here exact, with the SAEs'
    errors kept.
    """
    if settings is not None and options:
        raise SaeGraphsError(f"give settings, or {quoted(options)}, not both")
    settings = settings or settings_from(options)
    scope = in_scope(model, settings)
    n_layers = len(scope.stack.layers)
    min_path_edges = settings.path_edges(n_layers - 1 + settings.has_outputs)

    clean = scope.clean_run(prompt, prepend_bos=settings.prepend_bos)
    places = places_of(clean, settings)
    outputs = chosen_outputs(scope, clean, settings, places.read)
    ablations = ablations_in(scope, clean, places, intervention, settings)

    def measured(found: Ablations, report: Callable[[int], None]) -> Iterator[Effects]:
        return layer_effects(
            scope, clean, found, places, settings, outputs, intervention, progress=report
        )

    partial = partial_of(resume, effects)
    if partial is not None:
        key = functools.partial(key_of, scope, clean, settings, intervention)
        partial.begin(key, len(ablations), at_once=effects is not None)
    chosen = select(
        _measure_all(measured, ablations, progress, partial),
        [layer.label for layer in scope.stack.layers],
        top_k=settings.top_k,
        per=settings.per,
        min_path_edges=min_path_edges,
    )

    edges, totals = chosen.edges, chosen.totals
    features = {end for edge in edges for end in (edge.source, edge.target)}
    dissection = Dissection(scope, clean, features, places, heads=settings.heads)
    nodes = _describe(scope, clean, features, places, intervention, dissection.advance)
    nodes += _output_nodes(clean, features, outputs, places)
    parts = dissection.parts(edges, nodes, ablations)
    expressed = [
        effect_in_features(scope, clean, ablated, places) for ablated in ablations[: n_layers - 1]
    ]
    layers = tuple(
        replace(layer, no_anatomy=parts.reasons.get(layer.label))
        for layer in layer_reports(scope, clean, places, ablations, totals, expressed, edges)
    )
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
            *fit_warnings(layers),
            *stack_warnings(scope),
            *method_warnings(settings),
            *parts.warnings,
            *chosen.warnings,
        ),
        outputs=outputs,
    )
    graph = assemble(run, parts.nodes, parts.edges)
    if effects is not None and partial is not None:
        _save(
            Path(effects), partial, graph, scope, clean, places, ablations, intervention, settings
        )
        if resume is None:
            partial.remove()
    return graph


def settings_from(options: Mapping[str, Any]) -> GraphSettings:
    """`GraphSettings` from keywords; an unknown one raises `SaeGraphsError`."""
    unknown = sorted(options.keys() - GraphSettings.__dataclass_fields__.keys())
    if unknown:
        raise SaeGraphsError(
            f"no option {unknown[0]!r}; expected {quoted(GraphSettings.__dataclass_fields__, 20)}"
        )
    return GraphSettings(**options)


# -- the steps -------------------------------------------------------------------------------------


def _measure_all(
    measured: Callable[[Ablations, Callable[[int], None]], Iterator[Effects]],
    ablations: Sequence[Ablations],
    progress: Progress | None,
    partial: Partial | None,
) -> Iterator[Effects]:
    """Layer by layer; those that an earlier run left in `partial` are read, not measured."""
    done, total = 0, sum(len(found) for found in ablations)
    for depth, found in enumerate(ablations):

        def report(within: int, before: int = done) -> None:
            if progress is not None:
                progress(before + within, total)

        def blocks(found: Ablations = found, report: Callable[[int], None] = report) -> Any:
            return measured(found, report)

        yield from blocks() if partial is None else partial.layer(depth, blocks)
        report(len(found))
        done += len(found)


def _describe(
    model: InstrumentedModel,
    clean: CleanRun,
    features: Collection[FeatureId],
    places: Places,
    intervention: Intervention,
    advance: Advance | None = None,
) -> list[Node]:
    """Features with activations, contexts and token effects; output tokens are left out."""
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
        effects = token_effects(model, clean, ablations, here, places, advance=advance)
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
    clean: CleanRun,
    features: Collection[FeatureId],
    outputs: Sequence[OutputToken],
    places: Places,
) -> list[Node]:
    """The output tokens among the features, with their clean logits where they are read."""
    by_id = {output.token_id: output for output in outputs}
    nodes = []
    for feature in (feature for feature in features if feature.is_output):
        output = by_id[feature.index]
        at = places.read if feature.position is None else feature.position
        logit = output.logit + float(
            clean.logits[at, feature.index] - clean.logits[places.read, feature.index]
        )
        nodes.append(Node(feature=feature, activation=logit, token=output.token))
    return nodes


def _save(
    file: Path,
    partial: Partial,
    graph: CausalGraph,
    model: InstrumentedModel,
    clean: CleanRun,
    places: Places,
    ablations: Sequence[Ablations],
    intervention: Intervention,
    settings: GraphSettings,
) -> None:
    """Every effect into a file, with the features that other choices of edges may draw."""
    drawn = [node.feature for node in graph.nodes]
    further = further_features(partial.blocks(), list(model.stack.depths), settings, drawn)
    dissection = Dissection(model, clean, further, places)
    nodes = _describe(model, clean, further, places, intervention, dissection.advance)
    nodes = dissection.parts((), nodes, ()).nodes
    outputs = graph.run.outputs
    nodes += _output_nodes(clean, _every_output(outputs, places), outputs, places)
    layers = saved_layers(model, clean, ablations, places)
    write_effects(file, graph.run, layers, [*graph.nodes, *nodes], partial.files())


def _every_output(outputs: Sequence[OutputToken], places: Places) -> list[FeatureId]:
    """The output tokens at each position that is read, where positions are resolved."""
    positions = places.reads.tolist() if places.each else [None]
    return [FeatureId(OUTPUT_LAYER, out.token_id, at) for out in outputs for at in positions]
