"""What two graphs have in common: shared, lost and new edges, and the same for features.

The two are of one model and one set of SAEs, so that a feature means the same in both; different
prompts are the point. Nothing is measured: an edge that a graph does not hold was not kept there,
which is not to say that its effect is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge, FeatureId, Node, edge_order, feature_order
from sae_graphs.text import in_page
from sae_graphs.words import counted, signed

if TYPE_CHECKING:
    import pandas as pd

# Settings that decide which edges there are, and what their effects are; and what it means where
# a file from before a setting does not have it.
DECISIVE: Mapping[str, object] = {
    "select": "effect",
    "nodes": None,
    "dense": False,
    "top_k": None,
    "per": "layer",
    "min_path_edges": None,
    "ablate": "all",
    "ablate_first": False,
    "read": None,
    "layers": None,
    "pin": None,
    "outputs": 0,
    "targets": None,
    "contrast": None,
    "method": "exact",
    "steps": None,
    "intervention": "zero",
    "prepend_bos": None,
    "dtype": None,
    "summed_at": None,
}
SHOWN = 8  # edges of each kind in a notebook


@dataclass(frozen=True)
class SharedEdge:
    """An edge of both graphs: its effect in each, ablated minus clean."""

    source: FeatureId
    target: FeatureId
    left: float
    right: float

    @property
    def difference(self) -> float:
        """Right minus left."""
        return self.right - self.left

    @property
    def flips(self) -> bool:
        """True where the source promotes the target in one graph and suppresses it in the other."""
        return (self.left < 0) != (self.right < 0)


@dataclass(frozen=True)
class SharedFeature:
    """A feature of both graphs: its clean activation in each (the logit of an output token)."""

    feature: FeatureId
    left: float
    right: float

    @property
    def difference(self) -> float:
        """Right minus left."""
        return self.right - self.left


@dataclass(frozen=True, repr=False)
class GraphDifference:
    """How `right` differs from `left`.

    `lost` is what only the left graph holds, `new` what only the right one holds. Shared edges are
    sorted by |difference|, the others by |effect|; features by their activations in the same way.
    `warnings` say what makes the two hard to compare, one line each.
    """

    left: CausalGraph
    right: CausalGraph
    shared: tuple[SharedEdge, ...]
    lost: tuple[Edge, ...]
    new: tuple[Edge, ...]
    shared_features: tuple[SharedFeature, ...]
    lost_features: tuple[Node, ...]
    new_features: tuple[Node, ...]
    warnings: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The difference in one sentence."""
        flipped = sum(edge.flips for edge in self.shared)
        turned = f" ({flipped} of them with the other sign)" if flipped else ""
        return (
            f"{_are(len(self.shared), 'edge')} in both graphs{turned}, {len(self.lost)} only in "
            f"the left one and {len(self.new)} only in the right one; "
            f"{_are(len(self.shared_features), 'feature')} in both, {len(self.lost_features)} only "
            f"left and {len(self.new_features)} only right."
        )

    def __repr__(self) -> str:
        return f"GraphDifference({self.words})"

    def to_pandas(self) -> pd.DataFrame:
        """One row an edge: its ends, their layers, `kind`, effects in both, right minus left.

        `kind` is `shared`, `lost` or `new`, in this order. An effect that a graph does not hold is
        missing, and so is the difference then.
        """
        import pandas as pd

        rows = [(e.source, e.target, "shared", e.left, e.right, e.difference) for e in self.shared]
        missing = float("nan")
        rows += [(e.source, e.target, "lost", e.effect, missing, missing) for e in self.lost]
        rows += [(e.source, e.target, "new", missing, e.effect, missing) for e in self.new]
        columns = {
            "source": [str(row[0]) for row in rows],
            "target": [str(row[1]) for row in rows],
            "source_layer": [row[0].layer for row in rows],
            "target_layer": [row[1].layer for row in rows],
            "kind": [row[2] for row in rows],
        }
        effects = {
            name: pd.array([row[place] for row in rows], dtype="float64")
            for place, name in enumerate(("left", "right", "difference"), start=3)
        }
        return pd.DataFrame({**columns, **effects})

    def _repr_html_(self) -> str:
        """The sentence, the warnings, and a table of the strongest edges of each kind."""
        told = "".join(f"<p>⚠ {in_page(text)}</p>" for text in self.warnings)
        rows: list[tuple[str, str, str, float | None, float | None]] = [
            (str(e.source), str(e.target), "shared", e.left, e.right) for e in self.shared[:SHOWN]
        ]
        rows += [(str(e.source), str(e.target), "lost", e.effect, None) for e in self.lost[:SHOWN]]
        rows += [(str(e.source), str(e.target), "new", None, e.effect) for e in self.new[:SHOWN]]
        total = len(self.shared) + len(self.lost) + len(self.new)
        rest = f"<p>{len(rows)} of {total} edges; all in to_pandas().</p>"
        return (
            f"<p>{in_page(self.words)}</p>{told}<table><thead><tr><th>source</th><th>target</th>"
            "<th></th><th>left</th><th>right</th><th>difference</th></tr></thead>"
            f"<tbody>{''.join(map(_row, rows))}</tbody></table>{rest if total > len(rows) else ''}"
        )


def difference(left: CausalGraph, right: CausalGraph) -> GraphDifference:
    """Compare two graphs of one model and its SAEs, over different prompts, say.

    The graphs may have been made with different settings; a warning then names them. Raises
    `SaeGraphsError` where models, SAEs or hook points differ, where only one of the graphs has
    token positions, since no feature could be the same then, and for what is no graph.

    >>> difference(graph, graph).words
    '6 edges are in both graphs, 0 only in the left one and 0 only in the right one; \
7 features are in both, 0 only left and 0 only right.'
    """
    _check_same_features(left, right)
    edges = [{(e.source, e.target): e for e in each.edges} for each in (left, right)]
    nodes = [{node.feature: node for node in each.nodes} for each in (left, right)]
    depths = _depths(left, right)
    shared = [
        SharedEdge(*ends, edge.effect, edges[1][ends].effect)
        for ends, edge in edges[0].items()
        if ends in edges[1]
    ]
    features = [
        SharedFeature(name, node.activation, nodes[1][name].activation)
        for name, node in nodes[0].items()
        if name in nodes[1]
    ]
    return GraphDifference(
        left,
        right,
        tuple(sorted(shared, key=lambda e: (-abs(e.difference), *_ends_order(e, depths)))),
        _only(edges[0], edges[1], depths),
        _only(edges[1], edges[0], depths),
        tuple(
            sorted(features, key=lambda f: (-abs(f.difference), feature_order(f.feature, depths)))
        ),
        _only_nodes(nodes[0], nodes[1], depths),
        _only_nodes(nodes[1], nodes[0], depths),
        tuple(_warnings(left, right)),
    )


Ends = tuple[FeatureId, FeatureId]


def _only(
    mine: Mapping[Ends, Edge], others: Mapping[Ends, Edge], depths: Mapping[str, int]
) -> tuple[Edge, ...]:
    found = [edge for ends, edge in mine.items() if ends not in others]
    return tuple(sorted(found, key=lambda edge: edge_order(edge, depths)))


def _only_nodes(
    mine: Mapping[FeatureId, Node], others: Mapping[FeatureId, Node], depths: Mapping[str, int]
) -> tuple[Node, ...]:
    found = [node for feature, node in mine.items() if feature not in others]
    key = {node.feature: feature_order(node.feature, depths) for node in found}
    return tuple(sorted(found, key=lambda node: (-abs(node.activation), key[node.feature])))


def _ends_order(edge: SharedEdge, depths: Mapping[str, int]) -> tuple[tuple[int, int, int], ...]:
    return feature_order(edge.source, depths), feature_order(edge.target, depths)


def _depths(left: CausalGraph, right: CausalGraph) -> Mapping[str, int]:
    """Depths that order the layers of both; those of one alone come where its own order has them.

    >>> dict(_depths(graph, graph))
    {'0': 0, '1': 1, '2': 2, '3': 3}
    """
    return {label: depth for depth, label in enumerate(merged(tuple(left.depths), right.depths))}


def merged(first: Sequence[str], second: Sequence[str] | Mapping[str, int]) -> tuple[str, ...]:
    """Two orders of labels as one that agrees with both, as far as they agree with each other.

    >>> merged(["0", "2", "out"], ["0", "1", "2"])
    ('0', '1', '2', 'out')
    """
    result = list(first)
    place = 0
    for label in second:
        if label in result:
            place = max(place, result.index(label) + 1)
        else:
            result.insert(place, label)
            place += 1
    return tuple(result)


# -- what can be compared --------------------------------------------------------------------------


def _check_same_features(left: CausalGraph, right: CausalGraph) -> None:
    for side, given in (("left", left), ("right", right)):
        if not isinstance(given, CausalGraph):
            raise SaeGraphsError(
                f"the {side} graph is {given!r:.60}, not a CausalGraph; load a saved one with "
                "CausalGraph.load"
            )
    for name, what in (("model", "models"), ("saes", "SAEs")):
        ours, theirs = getattr(left.run, name), getattr(right.run, name)
        if ours != theirs:
            raise SaeGraphsError(
                f"the graphs are of different {what}, {ours!r:.60} and {theirs!r:.60}, so their "
                "features do not mean the same; compare graphs of one model and its SAEs"
            )
    places = {layer.label: layer.hook_point for layer in left.run.layers}
    for layer in right.run.layers:
        if places.get(layer.label, layer.hook_point) != layer.hook_point:
            raise SaeGraphsError(
                f"layer {layer.label} is {places[layer.label]!r:.60} in the left graph and "
                f"{layer.hook_point!r:.60} in the right one; compare graphs of the same SAEs"
            )
    if left.nodes and right.nodes and left.resolves_positions != right.resolves_positions:
        side = "left" if left.resolves_positions else "right"
        raise SaeGraphsError(
            f"only the {side} graph has token positions, so no feature is the same in both; "
            f"compare its sum over tokens, {side}.summed()"
        )


def _warnings(left: CausalGraph, right: CausalGraph) -> list[str]:
    """What makes the two hard to compare."""
    told: list[str] = []
    answers = [_answer(left), _answer(right)]
    if answers[0] != answers[1] and None not in answers:
        told.append(
            f"the answers are {quoted(answers)}, so what supports one need not support the other"
        )
    differing = [
        f"{name} ({ours!r:.40} and {theirs!r:.40})"
        for name, default in DECISIVE.items()
        if (ours := _set(left, name, default)) != (theirs := _set(right, name, default))
    ]
    if differing:
        told.append(
            f"made with different settings: {quoted(differing, 20)}; an edge may be missing on one "
            "side only because fewer were kept, or others were measured, there"
        )
    if left.nodes and left.resolves_positions and left.run.tokens != right.run.tokens:
        told.append(
            "the features have token positions, and position 3, say, is not the same token in both "
            "prompts; graph.summed() adds the tokens up to plain features"
        )
    contrasts = [{out.token_id: out.contrast for out in each.run.outputs} for each in (left, right)]
    changed = sorted(
        name
        for name in contrasts[0].keys() & contrasts[1].keys()
        if contrasts[0][name] != contrasts[1][name]
    )
    if changed:
        told.append(
            f"{quoted(f'out.{name}' for name in changed)} is set against another token in one "
            "graph than in the other, so its effects are of two quantities"
        )
    return told


def _answer(graph: CausalGraph) -> str | None:
    """The token that an answer graph is about."""
    return None if graph.run.answer is None else repr(graph.run.outputs[0].token)


def _set(graph: CausalGraph, name: str, default: object) -> object:
    value = graph.run.settings.get(name)
    return default if value is None or value == [] else value


# -- words and rows --------------------------------------------------------------------------------


def _are(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def _row(values: tuple[str, str, str, float | None, float | None]) -> str:
    source, target, kind, *effects = values
    first, second = effects
    change = "" if first is None or second is None else signed(second - first)
    cells = [source, target, kind, *("" if e is None else signed(e) for e in effects), change]
    return f"<tr>{''.join(f'<td>{in_page(cell)}</td>' for cell in cells)}</tr>"
