"""The prompts on which a graph is tested, and whether it is this model's graph at all."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.effects.ablations import places_of
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.next_token import Question, token_id
from sae_graphs.model.vocabulary import BYTE
from sae_graphs.validation.controls import Member
from sae_graphs.validation.evidence import Role, UnitKind
from sae_graphs.validation.settings import ValidationSettings

SAME = 0.05  # how far a probability, or a relative activation, may be from the graph's own


@dataclass(frozen=True, eq=False)
class Subject:
    """One prompt to ablate features in.

    `ablated` `[T]` are the positions where a feature without one of its own is ablated, `read` is
    the row whose next token is asked for. `own` is true where the graph's positions are this
    prompt's.
    """

    model: InstrumentedModel
    clean: CleanRun
    ablated: Tensor
    read: int
    role: Role
    own: bool
    question: Question

    def members(self, features: Iterable[FeatureId]) -> tuple[Member, ...]:
        """Features as members of a set to ablate; output tokens are left out."""
        depths = self.model.stack.depths
        found = {
            Member(depths[feature.layer], feature.index, feature.position if self.own else None)
            for feature in features
            if feature.is_feature
        }
        return tuple(sorted(found))


def settings_of(graph: CausalGraph) -> GraphSettings:
    """The settings that a graph was made with, as far as its record holds them.

    Older records do not say what was selected: those are of effects.
    """
    known = {field.name for field in fields(GraphSettings)} - {"pin", "steps", "method"}
    values = {name: value for name, value in graph.run.settings.items() if name in known}
    return GraphSettings(**{"select": "effect", **values})


def prompt_of(graph: CausalGraph) -> str | Sequence[int]:
    """The prompt as it was given: its text, or its token ids."""
    ids: Sequence[int] | None = graph.run.settings.get("token_ids")
    return graph.run.prompt if ids is None else ids


def subject(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    role: Role,
    how: GraphSettings,
    settings: ValidationSettings,
    *,
    own: bool,
) -> Subject:
    """A prompt made ready. What is not the graph's own is read at its end, or counted from it."""
    clean = model.clean_run(prompt, prepend_bos=how.prepend_bos)
    places = places_of(clean, how if own else _of_another(how))
    logits = clean.logits[places.read].detach()
    target = int(logits.argmax()) if settings.target is None else token_id(model, settings.target)
    contrast = None if settings.contrast is None else token_id(model, settings.contrast)
    if contrast == target:
        raise SaeGraphsError(
            f"the contrast {settings.contrast!r} is what {prompt!r} is followed by; give a target, "
            "or another contrast"
        )
    question = Question(logits, target, contrast)
    return Subject(model, clean, places.ablated, places.read, role, own, question)


def _of_another(how: GraphSettings) -> GraphSettings:
    """The settings for another prompt, in which positions mean nothing."""
    return GraphSettings(
        select="effect",
        ablate="all" if how.ablate == "each" else how.ablate,
        read=how.read if isinstance(how.read, int) and how.read < 0 else -1,
        prepend_bos=how.prepend_bos,
        ablate_first=how.ablate_first,
    )


def ablated_elsewhere(clean: CleanRun, how: GraphSettings) -> Tensor:
    """Where features are ablated `[T]` in other text, which is read at its end."""
    return places_of(clean, replace(_of_another(how), read=-1)).ablated


def generator_for(seed: int, *names: object) -> torch.Generator:
    """A source of random numbers of its own for everything that has a name."""
    digest = hashlib.sha256(repr((seed, *map(str, names))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


# -- is it this model's graph? ---------------------------------------------------------------------


def in_scope(model: InstrumentedModel, graph: CausalGraph) -> InstrumentedModel:
    """The model with the graph's layers; raises `SaeGraphsError` where they are not its own."""
    remedy = _remedy(model, graph)
    points = {layer.label: layer.point.hook_name for layer in model.stack.layers}
    for layer in graph.run.layers:
        if points.get(layer.label) != layer.hook_point:
            raise SaeGraphsError(
                f"the graph has SAE layer {layer.label!r} at {layer.hook_point}, and the model has "
                f"{points.get(layer.label, 'none of that name')}; {remedy}"
            )
    labels = [layer.label for layer in graph.run.layers]
    for node in graph.nodes:
        if not node.feature.is_feature:
            continue
        width = model.stack.layers[model.stack.depths[node.feature.layer]].n_features
        if node.feature.index >= width:
            raise SaeGraphsError(
                f"the graph has feature {node.feature}, and the model's layer "
                f"{node.feature.layer} has features 0 to {width - 1}; {remedy}"
            )
    return model if len(labels) == len(points) else model.between(labels[0], labels[-1])


def _remedy(model: InstrumentedModel, graph: CausalGraph) -> str:
    return (
        f"the graph is of {graph.run.model!r} with {graph.run.saes!r}, and this is {model.name!r} "
        f"with {model.stack.name!r}: load those, or make the graph again"
    )


def check_same_run(own: Subject, graph: CausalGraph) -> None:
    """Raises where the model answers the graph's prompt in another way than the graph says."""
    remedy = _remedy(own.model, graph)
    tokens = own.clean.tokens
    if len(tokens) != len(graph.run.tokens) or not all(map(_is_shown, tokens, graph.run.tokens)):
        raise SaeGraphsError(
            f"the graph's prompt is {len(graph.run.tokens)} tokens, {graph.run.tokens!r:.60}, and "
            f"this model reads {own.clean.tokens!r:.60}; {remedy}"
        )
    probabilities = own.clean.logits[own.read].double().softmax(-1)
    ours = [
        (own.model.token_string(token), float(probabilities[token]))
        for token in probabilities.topk(min(16, len(probabilities))).indices.tolist()
    ]
    for token, probability in graph.run.next_tokens[:1]:
        mine = max((value for text, value in ours if _is_shown(text, token)), default=0.0)
        if abs(mine - probability) > SAME:
            raise SaeGraphsError(
                f"the graph says that {token!r} comes next with {probability:.1%}, and this model "
                f"says {mine:.1%}; {remedy}"
            )
    _check_activations(own, graph, remedy)


def _is_shown(text: str, recorded: str) -> bool:
    """Whether a token is the one of a record; older ones have what is no text as it decodes."""
    if BYTE in recorded:
        return "<0x" in text
    return text == recorded or (recorded == "" and text.startswith("#"))


def _check_activations(own: Subject, graph: CausalGraph, remedy: str) -> None:
    depths = own.model.stack.depths
    nodes = [node for node in graph.nodes if node.activations and node.feature.is_feature]
    for depth in sorted({depths[node.feature.layer] for node in nodes}):
        here = [node for node in nodes if depths[node.feature.layer] == depth]
        features = sorted({node.feature.index for node in here})
        acts = own.clean.activations[depth].of(torch.tensor(features, device=own.ablated.device))
        for node in here:
            mine = acts[:, features.index(node.feature.index)].double().cpu()
            said = torch.tensor(node.activations, dtype=torch.float64)
            if len(said) != len(mine):
                continue
            if float((mine - said).norm()) > SAME * max(float(said.norm()), 1.0):
                raise SaeGraphsError(
                    f"feature {node.feature} is active as {_rounded(said)} in the graph, and as "
                    f"{_rounded(mine)} in this model; {remedy}"
                )


def _rounded(values: Tensor) -> Sequence[float]:
    return [round(value, 2) for value in values.tolist()[:8]]


class Unit(NamedTuple):
    """A component or a path: its features by depth, the edges between them."""

    name: str
    kind: UnitKind
    component: int
    features: tuple[FeatureId, ...]
    edges: tuple[Edge, ...]


def units_of(graph: CausalGraph, settings: ValidationSettings) -> tuple[Unit, ...]:
    """Each component followed by its strongest paths, or the paths that the settings name.

    A component that is one path is tested once. Raises `SaeGraphsError` for a graph without
    edges, and for a path that is not in the graph.
    """
    if not graph.edges:
        raise SaeGraphsError(
            "the graph has no edges, so there is nothing to validate; make one with a larger "
            "--top-k or a smaller --min-path-edges"
        )
    if settings.path:
        return tuple(_given(graph, path) for path in dict.fromkeys(settings.path))
    found: list[Unit] = []
    for number in graph.component_numbers:
        part = graph.component(number)
        name = f"Graph {number}"
        features = tuple(node.feature for node in part.nodes)
        found.append(Unit(name, "component", number, features, part.edges))
        if settings.paths == 0:
            continue
        for count, path in enumerate(part.paths(limit=settings.paths), start=1):
            if set(path.features) != set(features):
                name_of = f"{name}, path {count}"
                found.append(Unit(name_of, "path", number, path.features, path.edges))
    return tuple(found)


def _given(graph: CausalGraph, path: tuple[FeatureId, ...]) -> Unit:
    for feature in path:
        graph[feature]  # raises where it is not in the graph
    edges = []
    for source, target in itertools.pairwise(path):
        if target not in graph.successors(source):
            raise SaeGraphsError(
                f"{source} > {target} is no edge of this graph; {source} has edges to "
                f"{quoted([str(feature) for feature in graph.successors(source)], 12) or 'nothing'}"
            )
        edges.append(graph.edge(source, target))
    if all(feature.is_output for feature in path):
        raise SaeGraphsError(f"{path[0]} is an output token, which cannot be ablated")
    name = " > ".join(map(str, path))
    return Unit(name, "path", graph[path[0]].component, path, tuple(edges))
