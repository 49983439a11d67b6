"""What needs a layout, made in a process of its own.

Graphviz holds Python's one lock while it works: in the server's own process, a graph that takes it
half a minute would keep every other page waiting, whatever threads there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.atlases import fitting
from sae_graphs.gallery.comparison import comparison
from sae_graphs.gallery.kinds import kind_of
from sae_graphs.gallery.runs import (
    Run,
    annotations_of,
    graph_of,
    has_report,
    report_of,
    runs_in,
)
from sae_graphs.gallery.skeleton import PARTS, READ_ONLY, Page, compare_address, sheet, with_bar
from sae_graphs.gallery.small import HEIGHT as LEAST_HEIGHT
from sae_graphs.gallery.small import MARGIN
from sae_graphs.gallery.small import WIDTH as LEAST_WIDTH
from sae_graphs.gallery.worker import Worker, answering
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.render.document.templates import macros, ours
from sae_graphs.render.explorer.page import page, policy, script
from sae_graphs.render.explorer.stage import kind_of_box
from sae_graphs.render.palette import DARK, LIGHT
from sae_graphs.render.picture.layout import Box, layout
from sae_graphs.render.style import EffectScale
from sae_graphs.runs import REPORT, VALIDATION
from sae_graphs.validation.report.marks import all_findings

LISTED = 200  # other runs in the bar's list

WIDTH, HEIGHT = 46.0, 14.0  # of a bar
EDGES = 150  # the strongest are drawn
LEAST = LEAST_WIDTH, LEAST_HEIGHT  # a small graph is not blown up


Kind = Literal["explorer", "comparison", "thumbnail"]


class Artist(Worker):
    """A process that draws, one thing at a time; it starts when it is first asked."""

    def __init__(self) -> None:
        super().__init__(
            "sae_graphs.gallery.artist",
            "what draws graphs ended unexpectedly, perhaps for want of memory; try again, or "
            "keep fewer edges",
        )

    def draw(self, folder: Path, kind: Kind, names: Sequence[str], *, summed: bool = False) -> Page:
        """A page, or a picture, of the runs with these names in a folder.

        Raises `SaeGraphsError` as what draws it does, and where the process ends over it;
        `OSError` where a run is replaced while it is read.
        """
        asked = {"folder": str(folder), "kind": kind, "names": list(names), "summed": summed}
        answer = self.ask(asked)
        if "problem" in answer:
            raise SaeGraphsError(answer["problem"])
        if "unread" in answer:
            raise OSError(0, answer["unread"])
        if "bug" in answer:
            raise RuntimeError(answer["bug"])
        return Page(answer["html"], answer["policy"])


# -- in the other process --------------------------------------------------------------------------


def serve() -> None:
    """Answer requests, one a line, until there are no more."""
    answering(_answer)


def _answer(asked: Mapping[str, Any]) -> dict[str, str]:
    try:
        made = drawn(Path(asked["folder"]), asked["kind"], asked["names"], summed=asked["summed"])
    except SaeGraphsError as problem:
        return {"problem": str(problem)}
    except OSError as problem:
        return {"unread": str(problem.strerror)}
    except Exception as problem:  # our bug: the server says so
        return {"bug": f"{problem!r:.300}"}
    return made._asdict()


def drawn(folder: Path, kind: Kind, names: Sequence[str], *, summed: bool = False) -> Page:
    """What `Artist.draw` returns, made here and now."""
    runs = runs_in(folder)
    if not set(names) <= runs.keys():
        raise SaeGraphsError("the run is gone; go back to all runs")
    first = runs[names[0]]
    others = [kind_of(runs[name]).words for name in names if not runs[name].is_graph]
    if kind == "comparison" and others:
        raise SaeGraphsError(f"only graphs can be compared, no {others[0]}; tick two graphs")
    if not first.is_graph:
        return told(first) if kind == "explorer" else Page(kind_of(first).small(first), "")
    if kind == "comparison":
        return comparison(first, runs[names[1]], list(runs.values()), summed=summed)
    if kind == "explorer":
        beside = [run for run in runs.values() if run != first and run.is_graph]
        return explorer(first, beside, folder)
    return Page(thumbnail(graph_of(first)), "")


def thumbnail(graph: CausalGraph) -> str:
    """The picture; the size of a card is up to the page."""
    if len(graph.edges) > EDGES:
        graph = assemble(graph.run, graph.nodes, graph.edges[:EDGES])
    scale = EffectScale.of(graph)
    heights = dict.fromkeys((node.feature for node in graph.nodes), HEIGHT)
    drawn = layout(graph, heights, width=WIDTH)
    arrows = "".join(
        f'<path class="{edge.sign}" d="{drawn.routes[edge.source, edge.target].path}" '
        f'stroke-width="{1.2 * scale.width(edge.strength):.1f}" '
        f'opacity="{scale.opacity(edge.strength):.2f}"/>'
        for edge in reversed(graph.edges)
    )
    bars = "".join(
        f'<rect class="{kind_of_box(feature)}" x="{box.x:.0f}" '
        f'y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="4"/>'
        for feature, box in drawn.boxes.items()
    )
    x, y, width, height = _around(tuple(drawn.boxes.values()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{x:.0f} {y:.0f} {width:.0f} '
        f'{height:.0f}"><style>{_STYLE}</style>{arrows}{bars}</svg>'
    )


def _around(boxes: tuple[Box, ...]) -> Box:
    if not boxes:
        return Box(0.0, 0.0, *LEAST)
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    width = max(box.x + box.width for box in boxes) - left
    height = max(box.y + box.height for box in boxes) - top
    wide, high = (
        max(size + 2 * MARGIN, least) for size, least in zip((width, height), LEAST, strict=True)
    )
    return Box(left - (wide - width) / 2, top - (high - height) / 2, wide, high)


def _rules(colours: Mapping[str, str]) -> str:
    return (
        f"path{{fill:none}}.promotes{{stroke:{colours['lowers']}}}"
        f".suppresses{{stroke:{colours['raises']};stroke-dasharray:6 4}}"
        f".feature{{fill:{colours['paper']};stroke:{colours['bar']};stroke-width:1.5}}"
        f".output{{fill:{colours['ink']}}}.token{{fill:{colours['band']};stroke:{colours['line']}}}"
    )


_STYLE = f"{_rules(LIGHT)}@media (prefers-color-scheme: dark){{{_rules(DARK)}}}"


def explorer(run: Run, others: Iterable[Run], folder: Path | None = None) -> Page:
    """The page; raises `SaeGraphsError` where the graph cannot be read.

    Its features lead to those of an atlas that is in the `folder` and of the same model.
    """
    graph = graph_of(run)
    said, left_out = annotations_of(run, graph)
    report, unread = report_of(run, graph)
    html = page(
        graph,
        annotations=said,
        findings=() if report is None else all_findings(report),
        report=f"{VALIDATION}/{REPORT}" if has_report(run) else None,
        asks=True,
        atlas=None if folder is None else fitting(folder, graph.run),
    )
    bar = _bar(run, others, [text for text in (left_out, unread) if text])
    html = with_bar(html, bar)
    allowed = policy(script(asks=True), asks=True)
    return Page(html, f"{allowed}; frame-ancestors 'none'")


def told(run: Run) -> Page:
    """The page of a run that is no graph; raises `SaeGraphsError` where it cannot be read."""
    html = with_bar(kind_of(run).page(run), _bar(run, [], []))
    return Page(html, READ_ONLY)


def _bar(run: Run, others: Iterable[Run], told: Iterable[str]) -> str:
    """The way back, what was left out, and the other runs to compare with."""
    listed = [(compare_address(run.name, each.name), each.name) for each in others][:LISTED]
    report = f"{VALIDATION}/{REPORT}" if has_report(run) else ""
    return str(macros(PARTS).bar(run.name, ours(sheet("bar")), report, told, listed))
