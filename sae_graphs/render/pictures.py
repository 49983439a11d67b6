"""Pictures of a causal graph: DOT, SVG, PNG, PDF and a page that needs nothing else.

>>> import sae_graphs.render.pictures as render
>>> render.FORMATS
('svg', 'png', 'html', 'dot', 'pdf')
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations
from sae_graphs.graph.graph import PICTURES, CausalGraph
from sae_graphs.render.explorer.page import page
from sae_graphs.render.marks import Finding, Marks, Standing
from sae_graphs.render.notebook import Explorer, Picture
from sae_graphs.render.picture.dot import dot
from sae_graphs.render.picture.engine import draw, draw_pdf, draw_png, draw_svg
from sae_graphs.render.style import EffectScale

__all__ = [
    "FORMATS",
    "EffectScale",
    "Finding",
    "Marks",
    "Standing",
    "dot",
    "drawn_as",
    "explorer",
    "files",
    "html",
    "marked_pictures",
    "pdf",
    "picture",
    "png",
    "svg",
]

MARKED_TITLE = "Causal graph, tested by ablation"
FORMATS = PICTURES


def svg(
    graph: CausalGraph, *, title: str | None = None, annotations: Annotations = NO_ANNOTATIONS
) -> str:
    """The picture as an `<svg>` element with tooltips and links."""
    return draw_svg(dot(graph, title=title, annotations=annotations))


def png(
    graph: CausalGraph, *, title: str | None = None, annotations: Annotations = NO_ANNOTATIONS
) -> bytes:
    """The picture as PNG at 144 dots an inch; a huge one at fewer, so that its size is bounded."""
    return draw_png(dot(graph, title=title, annotations=annotations))


def pdf(
    graph: CausalGraph, *, title: str | None = None, annotations: Annotations = NO_ANNOTATIONS
) -> bytes:
    """The picture as a one-page PDF, its text real text in fonts that it holds."""
    return draw_pdf(dot(graph, title=title, annotations=annotations))


def html(
    graph: CausalGraph,
    *,
    title: str | None = None,
    annotations: Annotations = NO_ANNOTATIONS,
    findings: Sequence[Finding] = (),
    report: str | None = None,
) -> str:
    """The explorer, a self-contained page; see `sae_graphs.render.explorer.page`."""
    return page(graph, title=title, annotations=annotations, findings=findings, report=report)


def explorer(graph: CausalGraph, height: int) -> Explorer:
    """The page in a frame for a notebook, `height` CSS pixels high."""
    return Explorer(html(graph), height)


def picture(graph: CausalGraph) -> Picture:
    """The picture for a notebook, where it is not the last line of a cell."""
    return Picture(svg(graph))


def drawn_as(graph: CausalGraph, kind: str) -> bytes:
    """One picture of the whole graph, or its page, in one of `FORMATS`."""
    if kind == "html":
        return html(graph).encode()
    source = dot(graph)
    return source.encode() if kind == "dot" else draw(source, (kind,))[kind]


def marked_pictures(
    graph: CausalGraph, marks: Marks, *, annotations: Annotations = NO_ANNOTATIONS
) -> tuple[dict[str, bytes], str]:
    """The picture with what ablation supports marked: as `svg` and `png`, and as an `<svg>`
    element without its header, for a page that has its own."""
    title = annotations.title or MARKED_TITLE
    whole = dot(graph, title=title, marks=marks, annotations=annotations)
    inline = dot(graph, with_header=False, marks=marks, annotations=annotations)
    return draw(whole, ("svg", "png")), draw_svg(inline)


def files(
    graph: CausalGraph, formats: Iterable[str], *, annotations: Annotations = NO_ANNOTATIONS
) -> dict[str, bytes]:
    """File names and their contents: `graph.svg` and so on, in the formats asked for.

    Where the graph has several components each has its own picture too, `graph-1.svg` being that
    of Graph 1, all on the whole graph's scale; the caption and the note on the whole graph stand
    below its picture alone. A page holds them all and is written once. Raises
    `SaeGraphsError` for a format that is not one of `FORMATS`.
    """
    wanted = list(dict.fromkeys(formats))
    if unknown := [name for name in wanted if name not in FORMATS]:
        raise SaeGraphsError(
            f"cannot draw {quoted(unknown)}; choose from the formats {quoted(FORMATS)}"
        )
    scale, with_page = EffectScale.of(graph), "html" in wanted
    sources = {"graph": dot(graph, annotations=annotations, with_page=with_page)}
    of_part = replace(annotations, caption=None, note=None)  # they are on the whole graph
    if graph.n_components > 1:
        for number, part in zip(graph.component_numbers, graph.components(), strict=True):
            title = f"Graph {number} of {graph.n_components}"
            title = f"{annotations.title}: {title}" if annotations.title else title
            sources[f"graph-{number}"] = dot(
                part, scale=scale, title=title, annotations=of_part, with_page=with_page
            )
    made: dict[str, bytes] = {}
    for name, source in sources.items():
        pictures = {"dot": source.encode()} | draw(source, wanted)
        made |= {f"{name}.{kind}": pictures[kind] for kind in wanted if kind in pictures}
    return made | (
        {"graph.html": html(graph, annotations=annotations).encode()} if "html" in wanted else {}
    )
