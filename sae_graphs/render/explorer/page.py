"""The explorer: one self-contained page, its drawing alive with a script of this project.

Nothing is fetched: style and script are in the page, and its policy lets no other script run. A
feature's page on Neuronpedia is embedded only where the reader asks for it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from sae_graphs.graph.addresses import SITE
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import RunRecord
from sae_graphs.render.explorer.data import explorer_data, in_script
from sae_graphs.render.explorer.stage import stage
from sae_graphs.render.explorer.tables import legend, tables
from sae_graphs.render.marks import Finding
from sae_graphs.render.palette import ROOT
from sae_graphs.render.picture.header import (
    RARE_WORDS,
    likely,
    no_path_words,
    rare_names,
    settings_words,
    share_words,
)
from sae_graphs.text import in_page, shortened, token, visible
from sae_graphs.words import probability_words

FOLDER = Path(__file__).parent
SCRIPTS = ("model", "state", "camera", "drawing", "panel", "controls")
PAPER = 1040.0, 520.0  # CSS pixels of a landscape page that the drawing is shrunk to

_ZOOM = (
    '<span class="zoom joined"><button data-zoom="1.25" aria-label="zoom in">+</button>'
    '<button data-zoom="0.8" aria-label="zoom out">−</button>'
    '<button data-zoom="0">fit</button></span>'
)
_KEYS = (
    ("/", "search; Enter for the next one found"),
    ("arrows", "up: to what a box leads to most, down: to where it comes from, left and right"),
    ("shift arrows", "move the drawing"),
    ("Enter", "select the box that has the focus"),
    ("p", "pin it, or unpin it"),
    ("n", "next one found"),
    ("+ − 0", "zoom in, out, all of it"),
    ("Esc", "select nothing"),
    ("?", "these keys"),
)


def page(
    graph: CausalGraph,
    *,
    title: str | None = None,
    annotations: Annotations = NO_ANNOTATIONS,
    findings: Sequence[Finding] = (),
    report: str | None = None,
) -> str:
    """The page as text.

    `annotations` are what it starts with, `findings` what validation found, in the report at the
    address `report`, relative to the page. `title` stands above all, by default the annotations'.
    """
    heading = title or annotations.title or "Causal graph"
    shown = shortened(visible(graph.run.prompt, space=" "), 60)
    drawn = stage(graph)
    data = explorer_data(graph, drawn, annotations=annotations, findings=findings, report=report)
    code = script()
    width, height = drawn.layout.width, drawn.layout.height
    scale = min(PAPER[0] / width, PAPER[1] / height, 1.0)
    hidden = "" if annotations.caption else " hidden"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(code)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_shown(f'{heading}: {shown}')}</title>",
            f"<style>{ROOT}{_read('explorer.css')}</style></head><body>",
            *(f'<p class="warning">⚠ {_shown(text)}</p>' for text in graph.run.warnings),
            _header(graph, heading),
            _toolbar(graph),
            f'<div class="work"><main class="view" style="--print-scale:{scale:.4f}">'
            f"{drawn.html}{_empty(graph)}{_ZOOM}</main>"
            '<aside class="panel" aria-label="what is selected"></aside></div>',
            f'<p class="figure-caption"{hidden}>{_shown(annotations.caption or "")}</p>',
            '<div class="below"><div id="notes"></div>',
            f"{_made(graph.run)}{legend(graph)}{tables(graph)}</div>",
            _keys(),
            f'<script type="application/json" id="graph-data">{in_script(data)}</script>',
            f"<script>{code}</script>",
            "</body></html>\n",
        ]
    )


@cache
def script() -> str:
    """The page's script, all parts in one function: nothing of it is global."""
    parts = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();'


@cache
def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def policy(code: str) -> str:
    """What the page may do: run this script and no other, and frame Neuronpedia on request."""
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed(code)}; "
        f"frame-src {SITE}; base-uri 'none'; form-action 'none'"
    )


def allowed(code: str) -> str:
    """A script by its hash, as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _shown(text: str) -> str:
    return in_page(visible(text, space=" "))


def _header(graph: CausalGraph, heading: str) -> str:
    run = graph.run
    prompt = " ".join(
        f"<code{' class=read' if position == run.read_position else ''}>{in_page(token(text))}"
        "</code>"
        for position, text in enumerate(run.tokens)
    )
    return (
        f'<header><div class="about"><h1>{_shown(heading)}</h1><div class="prompt">{prompt}'
        f'<small class="faint">← read at the dark token</small></div>'
        f"<p>{_shown(share_words(graph))}</p></div>"
        f'<div class="coming"><h3>Next token</h3>{_next(run)}</div></header>'
    )


def _made(run: RunRecord) -> str:
    """What the graph was made of, and how."""
    facts = f"model {run.model} · SAEs {run.saes}"
    settings = settings_words(run.settings, n_tokens=len(run.tokens))
    return "".join(f"<p>{_shown(fact)}</p>" for fact in (facts, settings) if fact)


def _next(run: RunRecord) -> str:
    shown, rare = likely(run)
    rows = []
    for text, probability in shown:
        width = 100 * min(max(probability, 0.0), 1.0)
        rows.append(
            f'<tr><td class="name"><code>{in_page(shortened(token(text), 24))}</code></td>'
            f'<td class="track"><div style="width:{width:.1f}%"></div></td>'
            f'<td class="number">{in_page(probability_words(probability))}</td></tr>'
        )
    told = f"<small>{in_page(f'{RARE_WORDS} {rare_names(rare)}')}</small>" if rare else ""
    return f'<table class="next">{"".join(rows)}</table>{told}'


def _toolbar(graph: CausalGraph) -> str:
    per = {"source": "of each source", "graph": "of all"}.get(
        str(graph.run.settings.get("per")), "of each layer"
    )
    least = graph.run.settings.get("min_path_edges")
    paths = f"paths of {least}+ arrows" if isinstance(least, int) and least > 1 else "whole paths"
    choices = "".join(
        f'<option value="{number}">Graph {number}</option>' for number in graph.component_numbers
    )
    alone = " hidden" if graph.n_components < 2 else ""
    signs = "".join(
        f'<button data-sign="{name}" aria-pressed="false">{words}</button>'
        for name, words in (
            ("both", "both"),
            ("promotes", '<span class="promotes">━▶</span> promotes'),
            ("suppresses", '<span class="suppresses">╌┫</span> suppresses'),
        )
    )
    return f"""<div class="toolbar" role="toolbar" aria-label="what is shown">
<input type="search" id="search" placeholder="index, token, meaning" aria-label="search"
 autocomplete="off"><span id="found" role="status"></span>
<span class="joined">{signs}</span>
<label title="the smallest |effect| that is shown">|effect| ≥
 <input type="range" id="least" min="0" value="0"><output id="least-said"></output></label>
<label title="the strongest saved arrows {per} by |effect|">top {per}
 <input type="range" id="top" min="1" value="1"><output id="top-said"></output></label>
<select id="component" aria-label="graph"{alone}>
<option value="0">all graphs</option>{choices}</select>
<label title="hide what is on no such path"><input type="checkbox" id="whole">{paths}</label>
<span id="shown" class="faint" role="status"></span>
<span class="push joined"><button id="save" title="pins, groups, labels, notes">save</button>
<button id="load" title="a file that was saved here">load</button>
<button id="keys-button" title="the keyboard">?</button></span>
<input type="file" id="file" accept=".json,application/json" hidden>
<span id="said" class="faint" role="status"></span>
</div>"""


def _keys() -> str:
    rows = "".join(f"<tr><td><kbd>{key}</kbd></td><td>{does}</td></tr>" for key, does in _KEYS)
    return (
        '<dialog id="keys"><h2>The keyboard</h2><table>'
        f'{rows}</table><form method="dialog"><button>close</button></form></dialog>'
    )


def _empty(graph: CausalGraph) -> str:
    if graph.nodes:
        return ""
    return f'<p class="nothing">{_shown(no_path_words(graph.run))}</p>'
