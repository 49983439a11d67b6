"""What the tables below the explorer's drawing say, row by row; `tables.html.j2` writes them.

Texts are as they are where the template makes them visible, and visible already elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from sae_graphs.graph.feature_id import ANSWER, OUTPUT_LAYER, FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import (
    anatomy_words,
    logit_words,
    missing_words,
    name_of,
    number_words,
    output_words,
    shares_words,
    token_at,
)
from sae_graphs.graph.records import Edge, Node
from sae_graphs.render.picture.explained import density_words, logit_tokens, page_words
from sae_graphs.text import web_address
from sae_graphs.words import plain

LONG = 150  # rows beyond which a table is left out on paper


class Named(NamedTuple):
    """A feature as tables name it: visible texts, and the address of its page, if it has one."""

    name: str
    place: str | None
    address: str | None


class ComponentRow(NamedTuple):
    """A component, its total |effect| and its strongest path."""

    number: int
    features: int
    arrows: int
    total: float
    path: str


class OutputRow(NamedTuple):
    """An output token; `clean` is its logit or log-odds, as `what` says."""

    name: str
    token: str
    probability: float
    what: str
    clean: float
    is_drawn: bool


class ArrowRow(NamedTuple):
    """An arrow, and through which parts of the model it acts."""

    edge: Edge
    source: Named
    target: Named
    through: str
    component: int


class PageRow(NamedTuple):
    """What Neuronpedia says of a feature."""

    feature: Named
    means: str
    is_explained: bool
    density: str
    largest: str
    top: str
    bottom: str


class OriginRow(NamedTuple):
    """Which blocks wrote a feature, and which scrub it."""

    feature: Named
    active: float
    written: str
    scrubbed: str


class Tables(NamedTuple):
    """All of it; `missing` says why the arrows' anatomy is not there for some."""

    components: list[ComponentRow]
    outputs: list[OutputRow]
    arrows: list[ArrowRow]
    missing: tuple[str, ...]
    with_anatomy: bool
    pages: list[PageRow]
    origins: list[OriginRow]


def tables(graph: CausalGraph) -> Tables:
    """The graph's components, output tokens, arrows and features."""
    return Tables(
        _components(graph),
        _outputs(graph),
        [_arrow(graph, edge) for edge in graph.edges],
        tuple(missing_words(graph.run, graph.edges, measured=True)),
        any(edge.anatomy is not None for edge in graph.edges),
        [_page(graph, node) for node in graph.nodes if node.page is not None],
        [_origin(graph, node) for node in graph.nodes if node.written_by or node.scrubbed_by],
    )


def _components(graph: CausalGraph) -> list[ComponentRow]:
    named = partial(name_of, graph.run)
    rows = []
    for number, part in zip(graph.component_numbers, graph.components(), strict=True):
        features = sum(node.feature.is_feature for node in part.nodes)
        total = sum(abs(edge.effect) for edge in part.edges)
        paths = part.paths(limit=1)
        words = paths[0].words(named) if paths else ""
        rows.append(ComponentRow(number, features, len(part.edges), total, words))
    return rows


def _outputs(graph: CausalGraph) -> list[OutputRow]:
    answer = graph.run.answer
    if answer is not None:
        output = graph.run.outputs[0]
        words, number = output_words(output), number_words(graph.run, ANSWER)
        return [
            OutputRow(str(ANSWER), words, output.probability, number, answer.score, is_drawn=True)
        ]
    drawn = {node.feature.index for node in graph.nodes if node.feature.is_output}
    return [
        OutputRow(
            f"{OUTPUT_LAYER}.{output.token_id}",
            output_words(output),
            output.probability,
            logit_words(output),
            output.logit,
            output.token_id in drawn,
        )
        for output in graph.run.outputs
    ]


def _arrow(graph: CausalGraph, edge: Edge) -> ArrowRow:
    through = "" if edge.anatomy is None else anatomy_words(edge.anatomy)
    ends = _named(graph, edge.source), _named(graph, edge.target)
    return ArrowRow(edge, *ends, through, graph[edge.source].component)


def _page(graph: CausalGraph, node: Node) -> PageRow:
    page = node.page
    assert page is not None
    return PageRow(
        _named(graph, node.feature),
        page_words(page),
        bool(page.explanation),
        "" if page.density is None else density_words(page.density),
        "" if page.max_activation is None else plain(page.max_activation),
        logit_tokens(page.top_logits),
        logit_tokens(page.bottom_logits),
    )


def _origin(graph: CausalGraph, node: Node) -> OriginRow:
    written, scrubbed = shares_words(node.written_by), shares_words(node.scrubbed_by)
    return OriginRow(_named(graph, node.feature), node.activation, written, scrubbed)


def _named(graph: CausalGraph, feature: FeatureId) -> Named:
    place = token_at(graph.run, feature) if feature.is_feature else None
    address = web_address(graph[feature].neuronpedia)
    return Named(name_of(graph.run, feature), place, address)
