"""What two graphs have in common: shared, lost and new edges, and the same for features.

The two are of one model and one set of SAEs, so that a feature means the same in both; different
prompts are the point. Nothing is measured: an edge that a graph does not hold was not kept there,
which is not to say that its effect is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.across import SUMMED, Roles, alignment
from sae_graphs.graph.comparable import check_same_features, comparison_warnings
from sae_graphs.graph.feature_id import FeatureId, feature_order
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.positions import at_places
from sae_graphs.graph.records import Edge, GraphParts, Node, edge_order
from sae_graphs.text import in_page
from sae_graphs.words import counted, signed

if TYPE_CHECKING:
    import pandas as pd

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
    `aligned` says, of answer graphs, which tokens of the two prompts were taken for one another:
    features are named by their places in the left prompt, or without a token where they are summed.
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
    aligned: str | None = None

    @property
    def words(self) -> str:
        """The difference in one sentence; of answer graphs, how they are aligned in a second."""
        flipped = sum(edge.flips for edge in self.shared)
        turned = f" ({flipped} of them with the other sign)" if flipped else ""
        how = "" if self.aligned is None else f" Across prompts {self.aligned}."
        return (
            f"{_are(len(self.shared), 'edge')} in both graphs{turned}, {len(self.lost)} only in "
            f"the left one and {len(self.new)} only in the right one; "
            f"{_are(len(self.shared_features), 'feature')} in both, {len(self.lost_features)} only "
            f"left and {len(self.new_features)} only right.{how}"
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


def difference(
    left: CausalGraph, right: CausalGraph, roles: Roles | None = None
) -> GraphDifference:
    """Compare two graphs of one model and its SAEs, over different prompts, say.

    Features at tokens of two answer graphs are compared by position only where both prompts have
    as many tokens and differ in a quarter of them at most; else each is summed over its tokens. Or
    `roles` name what is one place in both, `[{"subject": "Mary"}, {"subject": "Alice"}]`: features
    at a role's tokens are taken together, all others summed. `aligned` says which it was.

    The graphs may have been made with different settings; a warning then names them. Raises
    `SaeGraphsError` where models, SAEs or hook points differ, where only one of the graphs has
    token positions, since no feature could be the same then, for roles that do not fit, and for
    what is no graph.

    >>> difference(graph, graph).words
    '6 edges are in both graphs, 0 only in the left one and 0 only in the right one; \
7 features are in both, 0 only left and 0 only right.'
    """
    check_same_features(left, right)
    parts, aligned = _aligned(left, right, roles)
    edges = [{(e.source, e.target): e for e in each.edges} for each in parts]
    nodes = [{node.feature: node for node in each.nodes} for each in parts]
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
        tuple(comparison_warnings(left, right)),
        aligned,
    )


def _aligned(
    left: CausalGraph, right: CausalGraph, roles: Roles | None
) -> tuple[tuple[GraphParts, GraphParts], str | None]:
    """Both with features named alike, and in which way; graphs of effects as they are."""
    both = left, right
    plain = left.parts, right.parts
    if roles is not None and not all(g.run.answer and g.resolves_positions for g in both):
        raise SaeGraphsError(
            "roles are for answer graphs with token positions; leave them out, or give two of those"
        )
    if not all(graph.run.answer for graph in both):
        return plain, None
    if not all(graph.resolves_positions for graph in both):
        return plain, SUMMED.words
    found = alignment(left.run.tokens, right.run.tokens, roles)
    return (at_places(plain[0], found.left), at_places(plain[1], found.right)), found.words


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


# -- words and rows --------------------------------------------------------------------------------


def _are(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def _row(values: tuple[str, str, str, float | None, float | None]) -> str:
    source, target, kind, *effects = values
    first, second = effects
    change = "" if first is None or second is None else signed(second - first)
    cells = [source, target, kind, *("" if e is None else signed(e) for e in effects), change]
    return f"<tr>{''.join(f'<td>{in_page(cell)}</td>' for cell in cells)}</tr>"
