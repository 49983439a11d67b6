"""What a graph is asked for: edges that meet conditions, and parts of it."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from numbers import Real

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.records import Edge, GraphParts, Node, RunRecord
from sae_graphs.text import token

SIGNS = {True: ("supports", "opposes"), False: ("promotes", "suppresses")}  # of an answer graph?

One = str | int


def matching(
    graph: GraphParts,
    starts: Collection[FeatureId] | None,
    ends: Collection[FeatureId] | None,
    *,
    layer: str | int | None,
    sign: str | None,
    least: float,
    part: int | None,
) -> tuple[Edge, ...]:
    """The edges that meet every condition, `part` being a component; see `find_edges`."""
    depths = graph.run.depths
    if layer is not None and str(layer) not in depths:
        raise UnknownFeatureError(
            f"no SAE layer {str(layer)!r} in this graph; it has {quoted(depths, 20)}"
        )
    if sign not in (None, "promotes", "suppresses"):
        raise SaeGraphsError(f"sign {sign!r} is neither 'promotes' nor 'suppresses'")
    numbers = component_numbers(graph.nodes)
    if part is not None and part not in numbers:
        raise SaeGraphsError(
            f"no component {part} in this graph; choose from "
            f"{quoted(numbers) or 'none: it has no edges'}"
        )
    within = None
    if part is not None:
        within = {node.feature for node in graph.nodes if node.component == part}
    return tuple(
        edge
        for edge in graph.edges
        if (starts is None or edge.source in starts)
        and (ends is None or edge.target in ends)
        and (layer is None or edge.source.layer == str(layer))
        and (sign is None or edge.sign == sign)
        and (within is None or edge.source in within)
        and abs(edge.effect) >= least
    )


def component_numbers(nodes: Iterable[Node]) -> tuple[int, ...]:
    """Those of the nodes, in order."""
    return tuple(sorted({node.component for node in nodes}))


def among(graph: GraphParts, features: Collection[FeatureId]) -> GraphParts:
    """Some of the features, and the edges between them; an answer's record without what was said
    of all of them together."""
    nodes = tuple(node for node in graph.nodes if node.feature in features)
    edges = tuple(it for it in graph.edges if it.source in features and it.target in features)
    return GraphParts(_of_part(graph.run, {str(it.feature) for it in nodes}), nodes, edges)


def _of_part(run: RunRecord, names: Collection[str]) -> RunRecord:
    if run.answer is None:
        return run
    answer = replace(
        run.answer,
        coverage=None,
        paths=tuple(path for path in run.answer.paths if set(path.features) <= set(names)),
        stranded=tuple(name for name in run.answer.stranded if name in names),
        what_if=run.answer.what_if and run.answer.what_if.of(names),
    )
    return replace(run, answer=answer)


def filtered(
    graph: GraphParts,
    *,
    layers: One | Sequence[One] | None,
    tokens: One | Sequence[One] | None,
    min_abs_effect: float,
    sign: str | None,
) -> GraphParts:
    """The nodes and edges that meet every condition; see `CausalGraph.filter`."""
    of_answer = graph.run.answer is not None
    if not isinstance(min_abs_effect, Real) or not min_abs_effect >= 0:
        raise SaeGraphsError(f"min_abs_effect is {min_abs_effect!r:.40}; expected 0 or more")
    if sign not in (None, *SIGNS[of_answer]):
        raise SaeGraphsError(f"sign {sign!r}; expected {' or '.join(SIGNS[of_answer])}")
    wanted = _layers(graph.run, layers)
    places = None if tokens is None else _places(graph, tokens)
    features = {
        node.feature
        for node in graph.nodes
        if node.feature.is_feature
        and (wanted is None or node.feature.layer in wanted)
        and (places is None or node.feature.position in places)
        and (not of_answer or _counts(node, min_abs_effect, sign))
    }
    if not of_answer:
        ends = features | {node.feature for node in graph.nodes if not node.feature.is_feature}
        part = among(graph, ends)
        edges = tuple(
            edge
            for edge in part.edges
            if abs(edge.effect) >= min_abs_effect and sign in (None, edge.sign)
        )
        left = {end for edge in edges for end in (edge.source, edge.target)}
        return part._replace(
            nodes=tuple(it for it in part.nodes if it.feature in left), edges=edges
        )
    read = {edge.source for edge in graph.edges if edge.source.is_token and edge.target in features}
    return among(graph, features | read | {ANSWER})


def _counts(node: Node, least: float, sign: str | None) -> bool:
    """Whether a node of an answer graph has such an effect on it."""
    effect = node.effect_on_answer or 0.0
    if sign is not None and (sign == "supports") != (effect < 0):
        return False
    return abs(effect) >= least


def _layers(run: RunRecord, layers: One | Sequence[One] | None) -> set[str] | None:
    if layers is None:
        return None
    wanted = {str(layer) for layer in _listed(layers)}
    held = [layer.label for layer in run.layers]
    if unknown := sorted(wanted - set(held)):
        raise UnknownFeatureError(
            f"no SAE layer {quoted(unknown)} in this graph; it has {quoted(held, 20)}"
        )
    return wanted


def _places(graph: GraphParts, tokens: One | Sequence[One]) -> set[int]:
    """Positions, given as they are, from the end, or by the text of the tokens there."""
    run = graph.run
    if not graph.resolves_positions:
        raise SaeGraphsError(
            "this graph has no token positions; choose by token in one made with ablate='each'"
        )
    found: set[int] = set()
    for given in _listed(tokens):
        place = None if isinstance(given, str | bool) else _whole(given)
        if place is not None and -len(run.tokens) <= place < len(run.tokens):
            found.add(place % len(run.tokens))
            continue
        alike = {
            place
            for place, text in enumerate(run.tokens)
            if isinstance(given, str) and given in (text, text.strip(), token(text))
        }
        if not alike:
            raise SaeGraphsError(
                f"no token {given!r} in this prompt; it has {quoted(map(repr, run.tokens), 20)}, "
                f"0 to {len(run.tokens) - 1}"
            )
        found |= alike
    return found


def _listed(given: One | Sequence[One]) -> Iterable[One]:
    """What is given, one or several."""
    alone = isinstance(given, str | bytes) or not isinstance(given, Iterable)
    return [given] if alone else given  # type: ignore[list-item,return-value]  # as just seen


def _whole(given: object) -> int | None:
    """A whole number, of any library; None for what is none."""
    try:
        return operator.index(given)  # type: ignore[arg-type]  # that is what is asked
    except TypeError:
        return None
