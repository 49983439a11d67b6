"""The explorer: one self-contained page, its drawing alive with a script of this project.

Nothing is fetched: style and script are in the page, and its policy lets no other script run. A
feature's page on Neuronpedia is embedded only where the reader asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sae_graphs.graph.addresses import SITE
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import RunRecord
from sae_graphs.render.document.shell import POLICY, allowed, script_of, shell
from sae_graphs.render.document.templates import filled, ours
from sae_graphs.render.explorer.data import explorer_data, in_script
from sae_graphs.render.explorer.stage import stage
from sae_graphs.render.explorer.tables import LONG, tables
from sae_graphs.render.marks import Finding
from sae_graphs.render.picture.header import (
    RARE_WORDS,
    heading_of,
    likely,
    no_path_words,
    rare_names,
    settings_words,
    share_words,
)
from sae_graphs.render.picture.legend import entries
from sae_graphs.render.style import EffectScale
from sae_graphs.text import shortened, visible

FOLDER = Path(__file__).parent
SCRIPTS = ("model", "state", "camera", "drawing", "panel", "what_if", "controls")
ASKING = "asking"  # the script's part that asks a server, where the page comes from one
PAPER = 1040.0, 520.0  # CSS pixels of a landscape page that the drawing is shrunk to

_KEYS = (
    ("/", "search; Enter for the next one found"),
    ("arrows", "up: to what a box leads to most, down: to where it comes from, left and right"),
    ("shift arrows", "move the drawing"),
    ("Enter", "select the box that has the focus"),
    ("p", "pin it, or unpin it"),
    ("x", "what if it were off: switch it off, or on again"),
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
    asks: bool = False,
    atlas: str | None = None,
) -> str:
    """The page as text; one that `asks` has a server to ask what it does not hold.

    `annotations` are what it starts with, `findings` what validation found, in the report at the
    address `report`, relative to the page, and `atlas` where an atlas has pages of its features.
    `title` stands above all, by default the annotations'.
    """
    heading = title or annotations.title or heading_of(graph.run)
    shown = shortened(visible(graph.run.prompt, space=" "), 60)
    drawn = stage(graph)
    data = explorer_data(
        graph, drawn, annotations=annotations, findings=findings, report=report, atlas=atlas
    )
    scale = min(PAPER[0] / drawn.layout.width, PAPER[1] / drawn.layout.height, 1.0)
    body = filled(
        "render/explorer/page.html.j2",
        graph=graph,
        heading=heading,
        caption=annotations.caption or "",
        stage=drawn.html,
        print_scale=scale,
        entries=entries(graph, EffectScale.of(graph)),
        tables=tables(graph),
        longest=LONG,
        keys=_KEYS,
        data=ours(in_script(data)),
        **_words(graph),
    )
    code = script(asks=asks)
    title = f"{visible(heading, space=' ')}: {shown}"
    return shell(title, body, style=_style(), code=code, policy=policy(code, asks=asks))


@cache
def script(*, asks: bool = False) -> str:
    """The page's script, all parts in one function: nothing of it is global.

    That of a page in a file knows no network; one that `asks` may ask where it comes from.
    """
    names = (*SCRIPTS[:-1], ASKING, SCRIPTS[-1]) if asks else SCRIPTS
    return script_of(FOLDER / f"{name}.js" for name in names)


@cache
def _style() -> str:
    return (FOLDER / "explorer.css").read_text(encoding="utf-8")


def policy(code: str, *, asks: bool = False) -> str:
    """What the page may do: run this script and no other, and frame Neuronpedia on request.

    One that `asks` may ask where it comes from, and nobody else.
    """
    asking = "connect-src 'self'; " if asks else ""
    return (
        f"{POLICY}; script-src {allowed(code)}; {asking}"
        f"frame-src {SITE}; base-uri 'none'; form-action 'none'"
    )


def _words(graph: CausalGraph) -> dict[str, Any]:
    """What the page says around the drawing."""
    run = graph.run
    shown, rare = likely(run)
    settings = settings_words(run.settings, n_tokens=len(run.tokens))
    per = {"source": "of each source", "graph": "of all"}.get(
        str(run.settings.get("per")), "of each layer"
    )
    least = run.settings.get("min_path_edges")
    whole = isinstance(least, int) and least > 1
    return {
        "run": run,
        "words": _words_of(run),
        "shares": share_words(graph),
        "likely": shown,
        "rare": f"{RARE_WORDS} {rare_names(rare)}" if rare else "",
        "made": [fact for fact in (f"model {run.model} · SAEs {run.saes}", settings) if fact],
        "per": "into each box" if run.answer is not None else per,
        "size": "|effect|" if run.answer is None else "|nats|",
        "paths": f"paths of {least}+ arrows" if whole else "whole paths",
        "nothing": "" if graph.nodes else no_path_words(run),
    }


def _words_of(run: RunRecord) -> list[list[tuple[str, bool]]]:
    """The prompt's tokens, those of a word together, and which one is read: no line breaks one."""
    words: list[list[tuple[str, bool]]] = []
    for position, text in enumerate(run.tokens):
        if not words or not text[:1].isalnum() or not words[-1][-1][0][-1:].isalnum():
            words.append([])
        words[-1].append((text, position == run.read_position))
    return words
