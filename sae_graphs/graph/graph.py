"""`CausalGraph`: hold a measured graph and answer questions about it.

Nothing here knows torch: a saved graph opens anywhere, fast. Signs are those of the whole project:
an effect is *ablated minus clean*, in activation units of the target's SAE, so a negative effect
means that the source promotes the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.files import save_at
from sae_graphs.graph import asking
from sae_graphs.graph.addresses import feature_at, is_address, layers_of
from sae_graphs.graph.assembling import kept_effect, numbered
from sae_graphs.graph.checks import check_graph, unknown_feature
from sae_graphs.graph.feature_id import FeatureId, feature_order
from sae_graphs.graph.node_link import load, to_bytes, to_networkx
from sae_graphs.graph.paths import FeaturePath, strongest_paths
from sae_graphs.graph.positions import summed
from sae_graphs.graph.records import Edge, GraphParts, Node, RunRecord, Sign
from sae_graphs.graph.summary import summary
from sae_graphs.late import view
from sae_graphs.runs import GRAPH

if TYPE_CHECKING:
    import pandas as pd

    from sae_graphs.graph.annotations import Annotations


PICTURES = ("svg", "png", "html", "dot", "pdf")  # what `save` can write besides `.json`


@dataclass(frozen=True, repr=False)
class CausalGraph:
    """Features and the measured effects between them, for one forward pass.

    Nodes are ordered by depth, index, position; edges by |effect|, strongest first. Made by
    `sae_graphs.causal_graph` or `CausalGraph.load`. In the examples below `graph` has these edges:

    >>> for edge in graph.edges:
    ...     print(edge)
    0.1 -> 1.1 (-4)
    1.2 -> 2.10600 (+3)
    1.1 -> 2.10600 (-2)
    2.10600 -> 3.5 (-1.5)
    0.1 -> 1.2 (+1)
    0.9 -> 1.9 (+0.5)
    """

    run: RunRecord
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        check_graph(self.run, self.nodes, self.edges)

    @property
    def parts(self) -> GraphParts:
        """The run, the nodes and the edges, as files and views of the graph take them."""
        return GraphParts(self.run, self.nodes, self.edges)

    # -- what is in it ---------------------------------------------------------------------------

    @property
    def depths(self) -> Mapping[str, int]:
        """Layer label to depth, from 0 at the first SAE layer; output tokens (`out`) come last."""
        return self.run.depths

    @property
    def resolves_positions(self) -> bool:
        """True where each node is a feature at one token position, such as `5.10603@2`."""
        return self.parts.resolves_positions

    @cached_property
    def _by_feature(self) -> dict[FeatureId, Node]:
        return {node.feature: node for node in self.nodes}

    @property
    def prompt(self) -> str:
        """The text that was run."""
        return self.run.prompt

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the prompt, BOS included where it was put first."""
        return self.run.tokens

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, feature: object) -> bool:
        try:
            return self._named(feature) in self._by_feature  # type: ignore[arg-type]
        except SaeGraphsError:
            return False

    def __getitem__(self, feature: str | FeatureId) -> Node:
        return self._by_feature[self._known(feature)]

    def __repr__(self) -> str:
        return (
            f"CausalGraph({self.run.prompt!r}: {len(self.nodes)} features, {len(self.edges)} "
            f"edges, {self.n_components} components, {self.run.kept_share:.0%} of the effect)"
        )

    def _repr_svg_(self) -> str:
        drawn: str = view("svg")(self)
        return drawn

    def explore(self, *, height: int = 720) -> Any:
        """The explorer of `graph.html` in a notebook, `height` pixels high.

        What you pin, group or note there is yours once you press `save`: the notebook keeps none.
        """
        return view("explorer")(self, height)

    def draw(self) -> Any:
        """The picture, which a notebook shows; `str` of it is the SVG."""
        return view("picture")(self)

    plot = draw

    def summary(self) -> str:
        """What was asked, what is in the graph and how much it accounts for, in a few lines.

        >>> print(graph.summary().splitlines()[1])
        7 features, 6 edges: 40% of the total |effect|.
        """
        return summary(self.parts)

    def _named(self, feature: str | FeatureId) -> FeatureId:
        """A feature by its name, or by its address on Neuronpedia."""
        if isinstance(feature, str) and is_address(feature):
            return feature_at(feature, layers_of(self.nodes))
        return FeatureId.parse(feature)

    def _known(self, feature: str | FeatureId) -> FeatureId:
        """The feature, which this graph holds; raises `UnknownFeatureError` where it does not."""
        wanted = self._named(feature)
        if wanted not in self._by_feature:
            raise unknown_feature(wanted, tuple(self._by_feature), self.depths)
        return wanted

    def at_positions(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """The nodes of a feature: one at each position that the graph has it at.

        `5.10603` gives `5.10603@2` and `5.10603@4`, say; with a position, or in a graph without
        positions, the feature alone. So do addresses such as `gpt2-small/5-res-jb/10603`. Raises
        `UnknownFeatureError` where there is none.

        >>> [str(node) for node in graph.at_positions("0.1")]
        ['0.1']
        """
        wanted = self._named(feature)
        if wanted.position is None and self.resolves_positions:
            named = [f for f in self._by_feature if replace(f, position=None) == wanted]
            if named:
                return tuple(named)
        return (self._known(wanted),)

    # -- edges -----------------------------------------------------------------------------------

    def edge(self, source: str | FeatureId, target: str | FeatureId) -> Edge:
        """The edge from `source` to `target`; raises `UnknownFeatureError` where there is none."""
        ends = self._known(source), self._known(target)
        for edge in self.edges:
            if (edge.source, edge.target) == ends:
                return edge
        raise UnknownFeatureError(
            f"no edge {ends[0]} -> {ends[1]} in this graph; {ends[0]} leads to "
            f"{quoted(self.successors(ends[0])) or 'nothing'}"
        )

    def find_edges(
        self,
        *,
        source: str | FeatureId | None = None,
        target: str | FeatureId | None = None,
        layer: str | int | None = None,
        sign: Sign | None = None,
        min_abs_effect: float = 0.0,
        component: int | None = None,
    ) -> tuple[Edge, ...]:
        """The edges that meet every condition, strongest first; `layer` is the source's.

        Where the graph resolves positions, `5.10603` stands for that feature at all of them.

        >>> [str(edge) for edge in graph.find_edges(layer=1, sign="promotes")]
        ['1.1 -> 2.10600 (-2)']
        """
        starts = None if source is None else self.at_positions(source)
        ends = None if target is None else self.at_positions(target)
        return asking.matching(
            self.parts, starts, ends, layer=layer, sign=sign, least=min_abs_effect, part=component
        )

    # -- neighbours, paths, components -----------------------------------------------------------

    @cached_property
    def _digraph(self) -> nx.DiGraph:
        digraph = nx.DiGraph()
        digraph.add_nodes_from(node.feature for node in self.nodes)
        digraph.add_edges_from((edge.source, edge.target) for edge in self.edges)
        return digraph

    def _ordered(self, features: Iterable[FeatureId]) -> tuple[FeatureId, ...]:
        return tuple(sorted(features, key=self._order))

    def _order(self, feature: FeatureId) -> tuple[int, int, int]:
        return feature_order(feature, self.depths)

    def successors(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """The features that `feature` has an edge to.

        >>> [str(feature) for feature in graph.successors("0.1")]
        ['1.1', '1.2']
        """
        return self._ordered(self._digraph.successors(self._known(feature)))

    def predecessors(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """The features that have an edge to `feature`."""
        return self._ordered(self._digraph.predecessors(self._known(feature)))

    def ancestors(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """Every feature from which a path leads to `feature`.

        >>> [str(feature) for feature in graph.ancestors("2.10600")]
        ['0.1', '1.1', '1.2']
        """
        return self._ordered(nx.ancestors(self._digraph, self._known(feature)))

    def descendants(self, feature: str | FeatureId) -> tuple[FeatureId, ...]:
        """Every feature to which a path leads from `feature`."""
        return self._ordered(nx.descendants(self._digraph, self._known(feature)))

    def paths(
        self,
        source: str | FeatureId | None = None,
        target: str | FeatureId | None = None,
        *,
        limit: int = 10,
    ) -> tuple[FeaturePath, ...]:
        """The strongest paths (by total |effect|), between two features where they are given.

        Where the graph resolves positions, `5.10603` stands for that feature at any of them. In an
        answer graph the strongest are those whose narrowest edge hands on most.

        >>> print(graph.paths(target="2.10600", limit=1)[0])
        0.1 promotes 1.1 (-4), which promotes 2.10600 (-2)
        """
        starts = None if source is None else self.at_positions(source)
        ends = None if target is None else self.at_positions(target)
        narrowest = self.run.answer is not None
        return strongest_paths(
            self.edges, limit=limit, source=starts, target=ends, narrowest=narrowest
        )

    @property
    def n_components(self) -> int:
        """How many weakly connected components the graph has."""
        return len(self.component_numbers)

    @cached_property
    def component_numbers(self) -> tuple[int, ...]:
        """The numbers of its components: 1, 2, ..., or a single one where it is a part."""
        return asking.component_numbers(self.nodes)

    def component(self, number: int) -> CausalGraph:
        """Component `number` (1 holds the most |effect|) as a graph of its own."""
        edges = self.find_edges(component=number)
        nodes = tuple(node for node in self.nodes if node.component == number)
        kept = kept_effect(self.run, nodes, edges)
        return CausalGraph(replace(self.run, kept_abs_effect=kept), nodes, edges)

    def components(self) -> tuple[CausalGraph, ...]:
        """All components, the one with the largest total |effect| first."""
        return tuple(self.component(number) for number in self.component_numbers)

    # -- parts of it -----------------------------------------------------------------------------

    def subgraph(self, features: str | FeatureId | Iterable[str | FeatureId]) -> CausalGraph:
        """These features and the edges between them, as a graph of its own.

        Where the graph resolves positions, `5.10603` stands for that feature at all of them. In an
        answer graph name `answer` and tokens such as `token@2` as well, where they are wanted; how
        much of the answer the part accounts for was not measured. Raises `UnknownFeatureError`.

        >>> graph.subgraph(["0.1", "1.1", "2.10600"]).edges[0].target
        FeatureId(layer='1', index=1, position=None)
        """
        alone = isinstance(features, str | FeatureId) or not isinstance(features, Iterable)
        given: list[str | FeatureId] = [features] if alone else list(features)  # type: ignore[list-item,arg-type]
        wanted = {found for feature in given for found in self.at_positions(feature)}
        return CausalGraph(*numbered(*asking.among(self.parts, wanted), alone=True))

    def filter(
        self,
        *,
        layers: str | int | Sequence[str | int] | None = None,
        tokens: str | int | Sequence[str | int] | None = None,
        min_abs_effect: float = 0.0,
        sign: str | None = None,
    ) -> CausalGraph:
        """What meets every condition, as a graph of its own.

        Features of these `layers`, at these `tokens`: positions, negative from the end, or texts.
        In a graph of effects, edges with this |effect| at least and this `sign`, "promotes" or
        "suppresses", and no features without any. In an answer graph, features with such an effect
        on the answer, in nats, and "supports" or "opposes"; the answer stays, and of the tokens
        those that lead to what is left.

        >>> len(graph.filter(min_abs_effect=2)), len(graph.filter(layers=[0, 1], sign="promotes"))
        (4, 2)
        """
        found = asking.filtered(
            self.parts, layers=layers, tokens=tokens, min_abs_effect=min_abs_effect, sign=sign
        )
        return CausalGraph(*numbered(*found, alone=self.run.answer is not None))

    # -- views and files -------------------------------------------------------------------------

    def to_networkx(self) -> nx.DiGraph:
        """A networkx graph with the nodes, edges and attributes of `graph.json`."""
        return to_networkx(self.parts)

    def to_pandas(self) -> pd.DataFrame:
        """One row an edge, strongest first: its ends, layers, positions, effect and anatomy.

        Positions are missing where the graph has none, anatomies where none was measured;
        `target_token` is the text of an output token, explanations are Neuronpedia's.
        """
        return view("table")(self)

    def summed(self, at: int | str | None = None) -> CausalGraph:
        """A graph with positions as one of plain features, effects summed over source positions.

        `at` is the target position that is kept, the read position by default, or `"all"` to sum
        over target positions as well; see `sae_graphs.graph.positions.summed`.
        """
        return assemble(*summed(self.parts, at))

    def save(self, path: str | Path) -> Path:
        """Write the graph, or a picture of it, as the suffix says, in one step; returns the file.

        `.json` is the graph, which `load` reads; `.svg`, `.png`, `.pdf` and `.dot` are pictures,
        `.html` the explorer. Without a suffix `path` is a folder's, which gets `graph.json`. For
        other programs, see `export`. Raises `SaeGraphsError` for another suffix.
        """
        file = Path(path)
        if file.is_dir() or not file.suffix:
            return save_at(file, GRAPH, to_bytes(self.parts))
        kind, whole = file.suffix[1:].lower(), file.name.lower()
        if kind == "json" and not whole.endswith(".attribution.json"):
            return save_at(file, GRAPH, to_bytes(self.parts))
        if kind not in PICTURES:
            raise SaeGraphsError(
                f"cannot save {file.name!r}; expected .json or one of "
                f"{quoted(f'.{it}' for it in PICTURES)}; graph.export writes for other programs"
            )
        drawn: bytes = view("drawn_as")(self, kind)
        return save_at(file, GRAPH, drawn)

    def export(
        self, path: str | Path, *, annotations: Annotations | str | Path | None = None
    ) -> tuple[Path, ...]:
        """Write the graph for another program, as the suffix says; returns the files.

        `.graphml`, `.gexf`, `.csv`, `.parquet` (tables come with a second file, of the nodes), and
        `.attribution.json` for circuit-tracer's viewer and Neuronpedia; see
        `sae_graphs.graph.export.formats.export` for what each of them loses.
        """
        written: tuple[Path, ...] = view("export")(self, path, annotations=annotations)
        return written

    @classmethod
    def load(cls, path: str | Path) -> CausalGraph:
        """Read a graph from its file or its run's folder; raises `GraphFileError`."""
        return cls(*load(path))


def assemble(run: RunRecord, nodes: Iterable[Node], edges: Iterable[Edge]) -> CausalGraph:
    """A graph with its components numbered and everything in its place; see `numbered`.

    Nodes that no edge touches are left out, but for those of an answer graph.
    """
    return CausalGraph(*numbered(run, nodes, edges, alone=run.answer is not None))
