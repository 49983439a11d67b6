"""One self-contained HTML page: the prompt, the picture to zoom and pan, the numbers in tables."""

from __future__ import annotations

from sae_graphs.graph import CausalGraph, FeatureId, RunRecord
from sae_graphs.render.header import (
    ACTIVATION_WORDS,
    EFFECT_WORDS,
    PROMOTES_WORDS,
    SUPPRESSES_WORDS,
    TOKEN_WORDS,
    no_path_words,
    scale_words,
    settings_words,
    share_words,
)
from sae_graphs.render.style import EffectScale, effect_colour
from sae_graphs.render.text import (
    in_page,
    in_thousandths,
    plain,
    shortened,
    signed,
    token,
    visible,
    web_address,
)
from sae_graphs.render.webpage_style import PAN_AND_ZOOM, STYLE

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
            _edges(graph),
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
    scale = scale_words(EffectScale.of(graph))
    samples = {
        "<b class='lowers'>━▶</b>": PROMOTES_WORDS,
        "<b class='raises'>━┫</b>": SUPPRESSES_WORDS,
        "<i class='opacity'></i>": f"{scale}; {EFFECT_WORDS}",
        "<i class='ramp'></i>": ACTIVATION_WORDS,
        "<i class='chip lowered'></i><i class='chip raised'></i>": TOKEN_WORDS,
    }
    return (
        "<dl>" + "".join(f"<dt>{k}</dt><dd>{_shown(v)}</dd>" for k, v in samples.items()) + "</dl>"
    )


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
    rows = []
    for number, part in zip(graph.component_numbers, graph.components(), strict=True):
        total = plain(sum(abs(edge.effect) for edge in part.edges))
        paths = part.paths(limit=1)
        rows.append(
            f"<tr><td>Graph {number}</td><td class='number'>{len(part.nodes)}</td>"
            f"<td class='number'>{len(part.edges)}</td><td class='number'>{total}</td>"
            f"<td>{_shown(str(paths[0])) if paths else ''}</td></tr>"
        )
    head = "<th>Graph<th>Features<th>Arrows<th>Total |effect|<th>Strongest path"
    return f"<h2>Graphs</h2><table><tr>{head}</tr>{''.join(rows)}</table>"


def _edges(graph: CausalGraph) -> str:
    if not graph.edges:
        return ""
    rows = "".join(
        f"<tr><td>{_feature(graph, edge.source)}</td>"
        f"<td style='color:{effect_colour(edge.effect)}'>{edge.sign}</td>"
        f"<td>{_feature(graph, edge.target)}</td>"
        f"<td class='number' style='color:{effect_colour(edge.effect)}'>{signed(edge.effect)}</td>"
        f"<td>Graph {graph[edge.source].component}</td></tr>"
        for edge in graph.edges
    )
    head = "<th>Source<th><th>Target<th>Effect<th>Graph"
    return f"<h2>Arrows, strongest first</h2><table><tr>{head}</tr>{rows}</table>"


def _feature(graph: CausalGraph, feature: FeatureId) -> str:
    address = web_address(graph[feature].neuronpedia)
    name = in_page(str(feature))
    if not address:
        return name
    return f'<a href="{in_page(address)}" target="_blank" rel="noreferrer">{name}</a>'
