"""One self-contained HTML page: the prompt, the picture to zoom and pan, the numbers in tables."""

from __future__ import annotations

from functools import partial

from sae_graphs.graph import OUTPUT_LAYER, CausalGraph, Edge, FeatureId, Node, RunRecord
from sae_graphs.render.anatomy import anatomy_words, missing_words, shares_words
from sae_graphs.render.explained import density_words, is_explained, logit_tokens, page_words
from sae_graphs.render.header import no_path_words, settings_words, share_words
from sae_graphs.render.legend import entries
from sae_graphs.render.names import logit_words, name_of, output_words, token_at
from sae_graphs.render.style import EffectScale, effect_colour
from sae_graphs.render.text import (
    in_page,
    in_thousandths,
    percent,
    plain,
    shortened,
    signed,
    token,
    visible,
    web_address,
)
from sae_graphs.render.webpage_style import PAN_AND_ZOOM, STYLE

_SAMPLES = {
    "promotes": "<b class='lowers'>━▶</b>",
    "suppresses": "<b class='raises'>━┫</b>",
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
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(graph: CausalGraph, *, picture: str, title: str | None = None) -> str:
    """The page as text. `picture` is the graph's `<svg>`, without its header."""
    prompt = shortened(visible(graph.run.prompt), 60)
    heading = title or "Causal graph"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{in_page(f'{heading}: {prompt}')}</title>",
            f"<style>{STYLE}</style></head><body>",
            *(f'<p class="warning">⚠ {_shown(text)}</p>' for text in graph.run.warnings),
            f"<h1>{_shown(heading)}</h1>",
            _about(graph),
            _picture(picture),
            _components(graph),
            _outputs(graph),
            _edges(graph),
            _pages(graph),
            _features(graph),
            f"<script>{PAN_AND_ZOOM}</script>",
            "</body></html>\n",
        ]
    )


def _shown(text: str) -> str:
    return in_page(visible(text, space=" "))


def _about(graph: CausalGraph) -> str:
    run = graph.run
    facts = [f"model {run.model} · SAEs {run.saes}", share_words(graph)]
    facts += [settings_words(run.settings, n_tokens=len(run.tokens))]
    lines = "".join(f"<p>{_shown(fact)}</p>" for fact in facts if fact)
    return (
        f'<header><section><div class="prompt">{_prompt(run)}</div>{lines}</section>'
        f"<section><h2>Next token</h2>{_next_tokens(run)}</section>"
        f"<section><h2>How to read it</h2>{_legend(graph)}</section></header>"
    )


def _prompt(run: RunRecord) -> str:
    return " ".join(
        f"<code class='{'read' if position == run.read_position else 'token'}'>"
        f"{in_page(token(text))}</code>"
        for position, text in enumerate(run.tokens)
    )


def _next_tokens(run: RunRecord) -> str:
    rows = []
    for text, probability in run.next_tokens:
        width = 100 * min(max(probability, 0.0), 1.0)
        rows.append(
            f"<tr><td class='name'><code>{in_page(shortened(token(text), 24))}</code></td>"
            f"<td class='bar'><div style='width:{width:.1f}%'></div></td>"
            f"<td class='number'>{in_page(in_thousandths(probability))}</td></tr>"
        )
    return f"<table class='next'>{''.join(rows)}</table>"


def _legend(graph: CausalGraph) -> str:
    rows = "".join(
        f"<dt>{_SAMPLES[entry.kind]}</dt><dd>{_shown(entry.words)}</dd>"
        for entry in entries(graph, EffectScale.of(graph))
    )
    return f"<dl>{rows}</dl>"


def _picture(picture: str) -> str:
    return (
        '<figure id="picture"><div class="buttons"><button data-zoom="1.25">+</button>'
        '<button data-zoom="0.8">−</button><button data-zoom="0">fit</button></div>'
        f"{picture}<figcaption>Scroll to zoom, drag to move; hover over a box or an arrow for its "
        "numbers.</figcaption></figure>"
    )


# -- tables ----------------------------------------------------------------------------------------


def _components(graph: CausalGraph) -> str:
    if not graph.nodes:
        return f"<p>{_shown(no_path_words(graph.run))}</p>"
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
    return f"<h2>Graphs</h2><table><tr>{head}</tr>{''.join(rows)}</table>"


def _outputs(graph: CausalGraph) -> str:
    if not graph.run.outputs:
        return ""
    drawn = {node.feature.index for node in graph.nodes if node.feature.is_output}
    rows = "".join(
        f"<tr><td>{in_page(f'{OUTPUT_LAYER}.{output.token_id}')}</td>"
        f"<td><code>{in_page(output_words(output))}</code></td>"
        f"<td class='number'>{percent(output.probability)}</td>"
        f"<td>{logit_words(output)}</td><td class='number'>{plain(output.logit)}</td>"
        f"<td>{'' if output.token_id in drawn else 'no arrow kept'}</td></tr>"
        for output in graph.run.outputs
    )
    head = "<th>Output<th>Token<th>Probability<th><th>Clean<th>"
    return f"<h2>Output tokens</h2><table><tr>{head}</tr>{rows}</table>"


def _edges(graph: CausalGraph) -> str:
    if not graph.edges:
        return ""
    known = any(edge.anatomy is not None for edge in graph.edges)
    rows = "".join(
        f"<tr><td>{_feature(graph, edge.source)}</td>"
        f"<td style='color:{effect_colour(edge.effect)}'>{edge.sign}</td>"
        f"<td>{_feature(graph, edge.target)}</td>"
        f"<td class='number' style='color:{effect_colour(edge.effect)}'>{signed(edge.effect)}</td>"
        f"{_anatomy(edge) if known else ''}<td>Graph {graph[edge.source].component}</td></tr>"
        for edge in graph.edges
    )
    extra = "<th>Pre-activation<th>Through" if known else ""
    head = f"<th>Source<th><th>Target<th>Effect{extra}<th>Graph"
    missing = missing_words(graph.run, graph.edges, measured=True)
    why = "".join(f"<p>{_shown(line)}</p>" for line in missing)
    return f"<h2>Arrows, strongest first</h2>{why}<table><tr>{head}</tr>{rows}</table>"


def _anatomy(edge: Edge) -> str:
    if edge.anatomy is None:
        return "<td></td><td></td>"
    return (
        f"<td class='number'>{signed(edge.anatomy.preactivation_effect)}</td>"
        f"<td>{_shown(anatomy_words(edge.anatomy))}</td>"
    )


def _pages(graph: CausalGraph) -> str:
    """What Neuronpedia says of the features, where it was asked."""
    if not is_explained(graph):
        return ""
    rows = "".join(_page(graph, node) for node in graph.nodes if node.page is not None)
    head = "<th>Feature<th>Means<th>Active on<th>At most<th>Top logits<th>Bottom logits"
    return f"<h2>What Neuronpedia says</h2><table><tr>{head}</tr>{rows}</table>"


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
    if not known:
        return ""
    rows = "".join(
        f"<tr><td>{_feature(graph, node.feature)}</td>"
        f"<td class='number'>{plain(node.activation)}</td>"
        f"<td>{_shown(shares_words(node.written_by))}</td>"
        f"<td>{_shown(shares_words(node.scrubbed_by))}</td></tr>"
        for node in known
    )
    head = "<th>Feature<th>Active<th>Written by<th>Scrubbed by"
    return f"<h2>Where features come from</h2><table><tr>{head}</tr>{rows}</table>"


def _feature(graph: CausalGraph, feature: FeatureId) -> str:
    address = web_address(graph[feature].neuronpedia)
    name = in_page(name_of(graph.run, feature))
    here = token_at(graph.run, feature)
    place = f" <code>{in_page(here)}</code>" if here is not None and not feature.is_output else ""
    if not address:
        return name + place
    link = f'<a href="{in_page(address)}" target="_blank" rel="noreferrer">{name}</a>'
    return link + place
