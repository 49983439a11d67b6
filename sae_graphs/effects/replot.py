"""`replot`: another graph from the effects that a run saved, without its model."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_graphs.effects.answer.replot import replot_answer
from sae_graphs.effects.arrays import NOWHERE, Effects
from sae_graphs.effects.saved import NO_ANATOMY, SavedEffects
from sae_graphs.effects.select import other_warnings, select
from sae_graphs.effects.settings import GraphSettings, Layers, Per, Pins, flagged
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Edge, LayerReport, Node, RunRecord
from sae_graphs.keywords import checked
from sae_graphs.runs import run_folder


@dataclass(frozen=True)
class _Scope:
    """What of a run is drawn from: layers from `first` to `last`, and some sources alone."""

    first: int
    last: int
    pin: tuple[FeatureId, ...] = ()


@checked
def replot(
    folder: str | Path,
    *,
    nodes: int | None = None,
    dense: bool | None = None,
    top_k: int | None = None,
    per: Per | None = None,
    min_path_edges: int | None = None,
    layers: Layers = None,
    pin: Pins = (),
) -> CausalGraph:
    """The graph that a run with other settings would have drawn, from the effects it saved.

    `folder` is one that `sae-graphs graph --save-effects` wrote, or a file in it. What is not given
    stays as it was in that run; see `GraphSettings` for what it means. Edges and effects are those
    of a new run, to the last digit (with `pin`, but for rounding). Boxes that the run did not
    describe have activations and a page, but neither contexts nor tokens, and new edges no anatomy.
    Of an answer graph `nodes` (up to 64), `dense` and `top_k` may be other ones; its edges are then
    those of a new run but for rounding, and `coverage` and `paths` of its record unknown.
    Raises `SaeGraphsError` where the effects are missing or another run's, and for settings that do
    not fit them.
    """
    folder = run_folder(Path(folder))
    saved = CausalGraph.load(folder)
    of_answers = {"nodes": nodes, "dense": dense}
    of_effects = {
        "per": per,
        "min_path_edges": min_path_edges,
        "layers": layers,
        "pin": pin or None,
    }
    if saved.run.answer is not None:
        _refuse(of_effects, "an answer graph", ["nodes", "dense", "top_k"])
        return replot_answer(folder, saved, nodes=nodes, dense=dense, top_k=top_k)
    _refuse(of_answers, "a graph of effects (select='effect')", [*of_effects, "top_k"])
    effects = SavedEffects(folder, saved.run)
    run = saved.run
    settings = GraphSettings(
        select="effect",
        top_k=run.settings["top_k"] if top_k is None else top_k,
        per=run.settings["per"] if per is None else per,
        min_path_edges=min_path_edges,
        ablate=run.settings.get("ablate", "all"),
        layers=layers,  # type: ignore[arg-type]  # parsed by the settings
        pin=pin,  # type: ignore[arg-type]
    ).located(effects.neuronpedia_ids)
    scope = _scope(effects, settings)
    to_the_end = scope.last == len(effects.labels) - 1
    has_outputs = to_the_end and effects.n_pairs > scope.last
    shortest = _path_edges(run, settings, scope, has_outputs=has_outputs)
    chosen = select(
        _blocks(effects, scope),
        effects.labels[scope.first : scope.last + 1],
        top_k=settings.top_k or 1,
        per=settings.per or "layer",
        min_path_edges=shortest,
        n_outputs=len(run.outputs) if to_the_end else 0,
    )
    boxes, plain = _nodes(saved, effects, chosen.edges)
    warnings = (*other_warnings(run.warnings), *chosen.warnings)
    if plain:
        warnings = (*warnings, _not_described(plain, len(boxes)))
    record = replace(
        run,
        settings={**run.settings, **_changed(settings, shortest)},
        total_abs_effect=sum(chosen.totals.values()),
        layers=_reports(effects, saved, scope, chosen.edges, chosen.totals),
        outputs=run.outputs if to_the_end else (),
        warnings=warnings,
    )
    return assemble(record, boxes, _with_anatomy(saved, chosen.edges))


# -- the steps -------------------------------------------------------------------------------------


def _refuse(foreign: Mapping[str, object], kind: str, fitting: Sequence[str]) -> None:
    """Raise where an option was given that saved effects of a kind have not."""
    for name, value in foreign.items():
        if value is not None:
            raise SaeGraphsError(
                f"{flagged(name)} is {value!r}, and the saved effects are those of {kind}, where "
                f"{quoted(fitting)} may be given anew; leave it out, or run the prompt again"
            )


def _scope(effects: SavedEffects, settings: GraphSettings) -> _Scope:
    """The layers asked for, and the pins, once they are known to have been measured."""
    labels = effects.labels
    first, last = 0, len(labels) - 1
    if settings.layers is not None:
        unknown = [label for label in settings.layers if label not in labels]
        if unknown:
            raise SaeGraphsError(
                f"no SAE layer {unknown[0]!r} in the saved effects; they hold {quoted(labels, 20)}"
            )
        first, last = (labels.index(label) for label in settings.layers)
        if last <= first:
            raise SaeGraphsError(
                f"layers {settings.layers[0]}:{settings.layers[1]}: expected two layers or more, "
                "the lower one first"
            )
    for pin in settings.pins:
        depth = labels.index(pin.layer) if pin.layer in labels else -1
        inside = first <= depth <= last and depth < effects.n_pairs
        if not inside or (depth == last < len(labels) - 1) or not _measured(effects, depth, pin):
            raise UnknownFeatureError(
                f"pinned feature {pin} was not ablated in this run, or changed nothing; pin a "
                "feature that was active, of a layer that another one follows"
            )
    return _Scope(first, last, settings.pins)


def _measured(effects: SavedEffects, depth: int, pin: FeatureId) -> int:
    """How many ablations of a layer a pin names."""
    layer = effects.layers[depth]
    return int(_named_by(pin, layer.ablated, layer.ablated_positions).sum())


def _named_by(pin: FeatureId, features: Any, positions: Any) -> Any:
    found = features == pin.index
    if pin.position is None:
        return found
    if positions is None:
        raise UnknownFeatureError(f"pinned feature {pin}: this run resolves no positions")
    return found & (positions == pin.position)


def _changed(settings: GraphSettings, shortest: int) -> dict[str, Any]:
    """What the record says of the settings anew."""
    changed: dict[str, Any] = {
        "top_k": settings.top_k,
        "per": settings.per,
        "min_path_edges": shortest,
    }
    if settings.pin:
        changed["pin"] = [str(feature) for feature in settings.pin]
    if settings.layers is not None:
        changed["layers"] = list(settings.layers)
    return changed


def _path_edges(
    run: RunRecord, settings: GraphSettings, scope: _Scope, *, has_outputs: bool
) -> int:
    """The shortest path to keep: what is asked for, else as the run had it."""
    pairs = scope.last - scope.first + has_outputs
    if settings.min_path_edges is None and not settings.pin:
        return min(int(run.settings["min_path_edges"]), pairs)
    return settings.path_edges(pairs)


def _blocks(effects: SavedEffects, scope: _Scope) -> Iterator[Effects]:
    """The effects in scope, with depths counted from its first layer."""
    depths = range(scope.first, min(scope.last, effects.n_pairs))
    if scope.last == len(effects.labels) - 1:
        depths = range(scope.first, effects.n_pairs)  # with output tokens, where there are any
    for block in effects.blocks(depths):
        label = effects.labels[block.depth]
        if scope.pin:
            block = block.chosen(_pinned(block, [p for p in scope.pin if p.layer == label]))
        yield replace(block, depth=block.depth - scope.first)


def _pinned(block: Effects, pins: Sequence[FeatureId]) -> NDArray[np.bool_]:
    """Which effects are of pinned sources."""
    positions = block.source_positions
    resolved = positions if (positions != NOWHERE).any() else None
    found = np.zeros(len(block), dtype=bool)
    for pin in pins if len(block) else ():
        found |= _named_by(pin, block.sources, resolved)
    return found


def _nodes(
    saved: CausalGraph, effects: SavedEffects, edges: Iterable[Edge]
) -> tuple[list[Node], int]:
    """The features that the edges touch, and how many of them the run did not describe."""
    features = dict.fromkeys(end for edge in edges for end in (edge.source, edge.target))
    drawn = {node.feature: node for node in saved.nodes}
    nodes, plain = [], 0
    for feature in features:
        node = drawn.get(feature) or effects.described.get(feature)
        if node is None:
            node = effects.plain_node(feature, saved.run.read_position)
            plain += 1
        nodes.append(node)
    return nodes, plain


def _not_described(plain: int, drawn: int) -> str:
    return (
        f"{plain} of {drawn} boxes have no contexts and tokens: the run that saved the effects did "
        "not describe them; run the prompt again with these settings to have them"
    )


def _with_anatomy(saved: CausalGraph, edges: Iterable[Edge]) -> list[Edge]:
    known = {(edge.source, edge.target): edge.anatomy for edge in saved.edges}
    return [replace(edge, anatomy=known.get((edge.source, edge.target))) for edge in edges]


def _reports(
    effects: SavedEffects,
    saved: CausalGraph,
    scope: _Scope,
    edges: Collection[Edge],
    totals: dict[int, float],
) -> tuple[LayerReport, ...]:
    """The layers' records with what is drawn now."""
    run, reports = saved.run, []
    dissected = {(edge.source, edge.target) for edge in saved.edges}
    for depth in range(scope.first, scope.last + 1):
        report = run.layers[depth]
        if depth == scope.last < len(run.layers) - 1:  # what it does to the next is out of scope
            report = replace(report, total_abs_effect=None, kept_abs_effect=None)
            report = replace(report, effect_in_features=None, measured_features=None)
        if report.total_abs_effect is None:
            reports.append(replace(report, no_anatomy=None))
            continue
        here = [edge for edge in edges if edge.source.layer == report.label]
        if any((edge.source, edge.target) not in dissected for edge in here):
            report = replace(report, no_anatomy=report.no_anatomy or NO_ANATOMY)
        if scope.pin:
            pins = [pin for pin in scope.pin if pin.layer == report.label]
            count = sum(_measured(effects, depth, pin) for pin in pins)
            report = replace(report, measured_features=count, effect_in_features=None)
        report = replace(
            report,
            total_abs_effect=totals.get(depth - scope.first, 0.0),
            kept_abs_effect=math.fsum(abs(edge.effect) for edge in here),
        )
        reports.append(report)
    return tuple(reports)
