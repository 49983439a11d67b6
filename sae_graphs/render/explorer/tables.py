"""What stands below the explorer's drawing: how to read it, and all numbers in tables."""

from __future__ import annotations

from functools import partial

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import (
    anatomy_words,
    logit_words,
    missing_words,
    name_of,
    output_words,
    shares_words,
    token_at,
)
from sae_graphs.graph.records import OUTPUT_LAYER, Edge, FeatureId, Node
from sae_graphs.render.picture.explained import density_words, logit_tokens, page_words
from sae_graphs.render.picture.legend import entries
from sae_graphs.render.style import EffectScale
from sae_graphs.text import in_page, visible, web_address
from sae_graphs.words import plain, probability_words, signed

LONG = 150  # rows beyond which a table is left out on paper

_SAMPLES = {
    "promotes": "<b class='promotes'>━▶</b>",
    "suppresses": "<b class='suppresses'>╌┫</b>",
    "scale": "<i class='opacity'></i>",
    "effect": "",
    "place": "<i class='chip framed'></i>",
    "activation": "<i class='ramp'></i>",
    "tokens": "<i class='chip lowered'></i><i class='chip raised'></i>",
    "explained": "",
    "out": "<i class='chip output'></i>",
    "supported": "<b>✓</b>",
    "not_supported": "",
}


def legend(graph: CausalGraph) -> str:
    """How to read the drawing: each thing in it, and what it stands for."""
    rows = "".join(
        f"<dt>{_SAMPLES.get(entry.kind, '')}</dt><dd>{_shown(entry.words)}</dd>"
        for entry in entries(graph, EffectScale.of(graph))
    )
    return f"<details open><summary>How to read it</summary><dl>{rows}</dl></details>"


def tables(graph: CausalGraph) -> str:
    """The graph's components, output tokens, arrows and features, each folded under its name."""
    return "".join(
        (_components(graph), _outputs(graph), _edges(graph), _pages(graph), _features(graph))
    )


def _folded(title: str, head: str, rows: list[str], *, above: str = "") -> str:
    """A table under a title that opens it; nothing where it has no rows."""
    if not rows:
        return ""
    long = ' class="long"' if len(rows) > LONG else ""
    return (
        f"<details{long}><summary>{title}</summary>{above}"
        f"<table><tr>{head}</tr>{''.join(rows)}</table></details>"
    )


def _shown(text: str) -> str:
    return in_page(visible(text, space=" "))


def _components(graph: CausalGraph) -> str:
    named = partial(name_of, graph.run)
    rows = []
    for number, part in zip(graph.component_numbers, graph.components(), strict=True):
        features = sum(not node.feature.is_output for node in part.nodes)
        total = plain(sum(abs(edge.effect) for edge in part.edges))
        paths = part.paths(limit=1)
        rows.append(
            f"<tr><td>Graph {number}</td><td class='number'>{features}</td>"
            f"<td class='number'>{len(part.edges)}</td><td class='number'>{total}</td>"
            f"<td>{_shown(paths[0].words(named)) if paths else ''}</td></tr>"
        )
    head = "<th>Graph<th>Features<th>Arrows<th>Total |effect|<th>Strongest path"
    return _folded("Graphs", head, rows)


def _outputs(graph: CausalGraph) -> str:
    if not graph.run.outputs:
        return ""
    drawn = {node.feature.index for node in graph.nodes if node.feature.is_output}
    rows = [
        f"<tr><td>{in_page(f'{OUTPUT_LAYER}.{output.token_id}')}</td>"
        f"<td><code>{in_page(output_words(output))}</code></td>"
        f"<td class='number'>{probability_words(output.probability)}</td>"
        f"<td>{logit_words(output)}</td><td class='number'>{plain(output.logit)}</td>"
        f"<td>{'' if output.token_id in drawn else 'no arrow kept'}</td></tr>"
        for output in graph.run.outputs
    ]
    head = "<th>Output<th>Token<th>Probability<th><th>Clean<th>"
    return _folded("Output tokens", head, rows)


def _edges(graph: CausalGraph) -> str:
    known = any(edge.anatomy is not None for edge in graph.edges)
    rows = [_edge(graph, edge, known=known) for edge in graph.edges]
    extra = "<th>Pre-activation<th>Through" if known else ""
    head = f"<th>Source<th><th>Target<th>Effect{extra}<th>Graph"
    missing = missing_words(graph.run, graph.edges, measured=True)
    why = "".join(f"<p>{_shown(line)}</p>" for line in missing)
    return _folded("Arrows, strongest first", head, rows, above=why)


def _edge(graph: CausalGraph, edge: Edge, *, known: bool) -> str:
    return (
        f"<tr><td>{_feature(graph, edge.source)}</td><td class='{edge.sign}'>{edge.sign}</td>"
        f"<td>{_feature(graph, edge.target)}</td>"
        f"<td class='number {edge.sign}'>{signed(edge.effect)}</td>"
        f"{_anatomy(edge) if known else ''}<td>Graph {graph[edge.source].component}</td></tr>"
    )


def _anatomy(edge: Edge) -> str:
    if edge.anatomy is None:
        return "<td></td><td></td>"
    return (
        f"<td class='number'>{signed(edge.anatomy.preactivation_effect)}</td>"
        f"<td>{_shown(anatomy_words(edge.anatomy))}</td>"
    )


def _pages(graph: CausalGraph) -> str:
    """What Neuronpedia says of the features, where it was asked."""
    rows = [_page(graph, node) for node in graph.nodes if node.page is not None]
    head = "<th>Feature<th>Means<th>Active on<th>At most<th>Top logits<th>Bottom logits"
    return _folded("What Neuronpedia says", head, rows)


def _page(graph: CausalGraph, node: Node) -> str:
    page = node.page
    assert page is not None
    density = "" if page.density is None else density_words(page.density)
    largest = "" if page.max_activation is None else plain(page.max_activation)
    return (
        f"<tr><td>{_feature(graph, node.feature)}</td>"
        f"<td{'' if page.explanation else ' class=faint'}>{_shown(page_words(page))}</td>"
        f"<td class='number'>{density}</td><td class='number'>{largest}</td>"
        f"<td>{in_page(logit_tokens(page.top_logits))}</td>"
        f"<td>{in_page(logit_tokens(page.bottom_logits))}</td></tr>"
    )


def _features(graph: CausalGraph) -> str:
    """Which blocks wrote each feature and which scrub it, where that is known."""
    known = [node for node in graph.nodes if node.written_by or node.scrubbed_by]
    rows = [
        f"<tr><td>{_feature(graph, node.feature)}</td>"
        f"<td class='number'>{plain(node.activation)}</td>"
        f"<td>{_shown(shares_words(node.written_by))}</td>"
        f"<td>{_shown(shares_words(node.scrubbed_by))}</td></tr>"
        for node in known
    ]
    head = "<th>Feature<th>Active<th>Written by<th>Scrubbed by"
    return _folded("Where features come from", head, rows)


def _feature(graph: CausalGraph, feature: FeatureId) -> str:
    address = web_address(graph[feature].neuronpedia)
    name = in_page(name_of(graph.run, feature))
    here = token_at(graph.run, feature)
    place = f" <code>{in_page(here)}</code>" if here is not None and not feature.is_output else ""
    if not address:
        return name + place
    link = f'<a href="{in_page(address)}" target="_blank" rel="noreferrer">{name}</a>'
    return link + place
