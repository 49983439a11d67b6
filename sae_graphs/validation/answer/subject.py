"""An answer graph's own prompt made ready: the clean run, what may be ablated, what is tested."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch

from sae_graphs.effects.ablations import ablations_of
from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.measure import Asked
from sae_graphs.effects.answer.probe import Table
from sae_graphs.effects.experiment import chosen_intervention
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.features.reference import Reference, mean_intervention, references_of
from sae_graphs.graph.across import SUMMED, Alignment, Roles, alignment
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.answer import Answer
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention, scale
from sae_graphs.model.joint import Selected
from sae_graphs.model.next_token import token_id
from sae_graphs.validation.answer.records import UnitKind
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import (
    check_same_run,
    in_scope,
    prompt_of,
    settings_of,
    subject,
)


class Unit(NamedTuple):
    """What is tested: a graph or a path, its features in order, and where each is ablated.

    `is_route` where each stands at one token, so that what flows along a path can be measured;
    `inactive` of its features are not active, and left out.
    """

    name: str
    kind: UnitKind
    features: tuple[FeatureId, ...]
    spots: tuple[Spot, ...]
    is_route: bool = True
    inactive: int = 0


class Prepared(NamedTuple):
    """A prompt, with every ablation that changes anything: `table` has no effects, and `every`
    are its rarely-on features, by depth, one set. `aligned` says which of its tokens are which of
    the graph's prompt, where it is another."""

    asked: Asked
    table: Table
    intervention: Intervention
    every: dict[int, Selected]
    units: tuple[Unit, ...]
    others: tuple[Spot, ...]  # all features of the graph, relays among them
    warnings: tuple[str, ...]
    aligned: str | None = None


def check_for_answer(settings: ValidationSettings, texts: Iterable[str] | None) -> None:
    """Raise where something is asked for that is for graphs of effects alone."""
    if settings.curve or texts is not None:
        what = "curve" if settings.curve else "text"
        raise SaeGraphsError(
            f"an answer graph has no use for a {what}: that is for graphs made with "
            "select='effect' (--select effect); leave it out"
        )


def prepared(
    model: InstrumentedModel,
    graph: CausalGraph,
    settings: ValidationSettings,
    intervention: Intervention | str | None,
    references: Sequence[Reference] | None = None,
    others: Mapping[str, Roles | None] = MappingProxyType({}),
) -> tuple[Prepared, ...]:
    """Check that the graph is the model's, and see what is to be ablated: in its own prompt first.

    `others` are further prompts, each with the roles of tokens in the graph's prompt and in it,
    where these are named. `references` are those of the layers, the stored ones where none are
    given. Raises `SaeGraphsError` where the graph is another's, or holds nothing to test.
    """
    scope, how = in_scope(model, graph), settings_of(graph)
    plain = ValidationSettings()
    own = subject(scope, prompt_of(graph), "discovery", how, plain, own=True)
    check_same_run(own, graph)
    asked = Asked(scope, own.clean, _answer(scope, graph, settings), own.read)
    if references is None:
        references = references_of(scope)
    is_summed = graph.run.summed_at is not None
    tokens = graph.run.tokens
    here = SUMMED if is_summed else alignment(tokens, tokens)
    ready = [_ready(asked, graph, settings, references, intervention, here)]
    for prompt, roles in others.items():
        test = subject(scope, prompt, "test", how, settings, own=False)
        answer = Answer(test.question.target, test.question.contrast)
        asked = Asked(scope, test.clean, answer, test.read)
        where = SUMMED if is_summed else alignment(tokens, test.clean.tokens, roles)
        found = _ready(asked, graph, settings, references, intervention, where)
        ready.append(found._replace(aligned=where.words))
    return tuple(ready)


def _ready(
    asked: Asked,
    graph: CausalGraph,
    settings: ValidationSettings,
    references: Sequence[Reference],
    intervention: Intervention | str | None,
    where: Alignment,
) -> Prepared:
    """A prompt, whose tokens are `where` those of the graph's prompt are."""
    used, warnings = _intervention(asked, graph, settings_of(graph), references, intervention)
    ablations = tuple(
        ablations_of(asked.clean, depth, asked.places, used)
        for depth in range(len(asked.model.stack.layers))
    )
    dense = tuple(
        references[depth].dense.to(found.features.device)[found.features]
        for depth, found in enumerate(ablations)
    )
    table = Table(ablations, (), dense)
    depths = asked.model.stack.depths
    # What several prompts share need not be active in each; what is of one prompt is active there.
    strict = asked.clean.tokens == graph.run.tokens and "common_to" not in graph.run.settings
    units, silent = [], []
    for name, kind, features in _units(graph, settings):
        places = _spots(features, depths, table, where, strict=strict)
        active = {feature: spots for feature, spots in places.items() if spots}
        if not active:
            silent.append(name)
            continue
        together = tuple(spot for spots in active.values() for spot in spots)
        inactive = len(places) - len(active)
        is_route = where.kind == "position" and not inactive
        units.append(Unit(name, kind, tuple(active), together, is_route, inactive))
    if silent:
        what = "nothing is said of it" if len(silent) == 1 else "nothing is said of them"
        warnings = (*warnings, f"no feature of {quoted(silent)} is active there: {what}")
    shown = [node.feature for node in graph.nodes if node.feature.is_feature]
    others = _spots(shown, depths, table, where, strict=strict)
    return Prepared(
        asked,
        table,
        used,
        rarely_on(asked, table),
        tuple(units),
        tuple(spot for spots in others.values() for spot in spots),
        warnings,
    )


def _answer(model: InstrumentedModel, graph: CausalGraph, settings: ValidationSettings) -> Answer:
    """The graph's own, unless another is named."""
    own = graph.run.outputs[0]
    target = own.token_id if settings.target is None else token_id(model, settings.target)
    contrast = settings.contrast
    if settings.target is None and contrast is None:
        contrast = own.contrast
    other = None if contrast is None else token_id(model, contrast)
    if target == other:
        raise SaeGraphsError(
            f"the contrast {contrast!r} is the answer itself; give a target, or another contrast"
        )
    return Answer(target, other)


def _intervention(
    asked: Asked,
    graph: CausalGraph,
    how: GraphSettings,
    references: Sequence[Reference],
    given: Intervention | str | None,
) -> tuple[Intervention, tuple[str, ...]]:
    """What the graph was made with, or what is given, and a warning where they differ."""
    made = str(graph.run.settings.get("intervention", "mean"))
    if given is not None:
        used = chosen_intervention(asked.model, given, asked.clean, how)
    elif made.startswith("mean ("):
        used = mean_intervention(asked.model, references)
    elif made == "zero":
        used = ZERO
    elif made.startswith("scale "):
        used = scale(float(made.removeprefix("scale ")))
    else:
        raise SaeGraphsError(
            f"the graph was made with the intervention {made!r}, which its record does not hold "
            "whole; give it again (--intervention, intervention=)"
        )
    if used.name == made:
        return used, ()
    return used, (
        f"the graph was made with the intervention {made!r}, and is tested with {used.name!r}",
    )


def rarely_on(asked: Asked, table: Table) -> dict[int, Selected]:
    """All rarely-on features at their tokens, by depth, as one set."""
    found: dict[int, Selected] = {}
    for depth, (ablations, dense) in enumerate(zip(table.ablations, table.dense, strict=True)):
        rare = ~dense
        features, which = ablations.features[rare].unique(return_inverse=True)
        chosen = torch.zeros(
            1, len(asked.clean), len(features), dtype=torch.bool, device=features.device
        )
        chosen[0, ablations.positions[rare], which] = True
        if len(features):
            found[depth] = Selected(features, chosen)
    return found


# -- what is tested --------------------------------------------------------------------------------


def _units(
    graph: CausalGraph, settings: ValidationSettings
) -> list[tuple[str, UnitKind, tuple[FeatureId, ...]]]:
    """The graph and its strongest paths, or the paths that the settings name."""
    if settings.path:
        paths = [_given(graph, path) for path in dict.fromkeys(settings.path)]
        return [(" > ".join(map(str, path)), "path", path) for path in paths]
    kept = [node.feature for node in graph.nodes if node.feature.is_feature and not node.relay]
    if not kept:
        raise SaeGraphsError(
            "the graph keeps no features, so there is nothing to validate; make one with more "
            "--nodes"
        )
    found: list[tuple[str, UnitKind, tuple[FeatureId, ...]]] = [("Graph", "graph", tuple(kept))]
    assert graph.run.answer is not None
    for number, path in enumerate(graph.run.answer.paths[: settings.paths], start=1):
        features = tuple(FeatureId.parse(feature) for feature in path.features)
        found.append((f"Path {number}", "path", features))
    return found


def _given(graph: CausalGraph, path: tuple[FeatureId, ...]) -> tuple[FeatureId, ...]:
    """A path's features; raises where it is none of this graph."""
    for feature in path:
        graph[feature]  # raises where it is not in the graph
    for source, target in itertools.pairwise(path):
        if target not in graph.successors(source):
            raise SaeGraphsError(
                f"{source} > {target} is no edge of this graph; {source} has edges to "
                f"{quoted([str(feature) for feature in graph.successors(source)], 12) or 'nothing'}"
            )
    features = tuple(feature for feature in path if feature.is_feature)
    if not features:
        raise SaeGraphsError(f"{path[0]} is no feature, and cannot be ablated")
    return features


def _spots(
    features: Iterable[FeatureId],
    depths: dict[str, int],
    table: Table,
    where: Alignment,
    *,
    strict: bool,
) -> dict[FeatureId, tuple[Spot, ...]]:
    """The tokens at which each feature is ablated, by its place: none where it is not active.

    Raises where ablating one of them changes nothing, if it is `strict`.
    """
    found: dict[FeatureId, tuple[Spot, ...]] = {}
    for feature in features:
        place, depth = where.place_of(feature), depths[feature.layer]
        ablations = table.ablations[depth]
        active = ablations.positions[ablations.features == feature.index].tolist()
        found[place] = tuple(
            Spot(depth, feature.index, position)
            for position in sorted(active)
            if where.holds(place.position, position)
        )
        if strict and not found[place]:
            raise SaeGraphsError(
                f"feature {feature} of the graph is not changed by the intervention in this "
                "model's run of the prompt; make the graph again"
            )
    return found
