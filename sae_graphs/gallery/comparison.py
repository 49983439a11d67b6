"""Two graphs side by side, in one layout: what they share, what is lost, what is new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sae_graphs.gallery.runs import Run, graph_of
from sae_graphs.gallery.sides import ARROWS, Side, Union, empty_words, kind_of, sides, union
from sae_graphs.gallery.skeleton import Page, compare_address, page, prompt_html, run_address, shown
from sae_graphs.graph.difference import GraphDifference, difference
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import counted_nodes, name_of, split_by_sign
from sae_graphs.graph.records import Edge, FeatureId, RunRecord
from sae_graphs.render.explorer.data import in_script
from sae_graphs.render.picture.layout import Layout
from sae_graphs.text import in_page, shortened, token, visible
from sae_graphs.words import counted, plain, probability_words, signed

ROWS = 400  # of each table
PAPER = 500.0, 560.0  # CSS pixels of half a landscape page
NAME_LENGTH = 60
MEANINGS = {
    "shared": "in both graphs",
    "lost": "only in the left graph",
    "new": "only in the right graph",
}


class Pair(NamedTuple):
    """The two runs and how they differ."""

    left: Run
    right: Run
    found: GraphDifference
    both: Union
    told: tuple[str, ...]
    summed: bool  # token positions were asked to be added up
    can_sum: bool


def comparison(left: Run, right: Run, runs: Sequence[Run], *, summed: bool = False) -> Page:
    """The page; `runs` are those to choose from, `summed` adds token positions up.

    Raises `SaeGraphsError` where a graph cannot be read or the two cannot be compared.
    """
    pair = _pair(left, right, summed=summed)
    found = pair.found
    title = f"{left.name} and {right.name}"
    drawn, drawings = sides(pair.both, found.left.run, found.right.run)
    panes = "".join(_pane(side, html) for side, html in drawings.items())
    nothing = empty_words(pair.both.graph)
    body = "\n".join(
        [
            _bar(pair, runs),
            *(f'<p class="warning">⚠ {shown(text)}</p>' for text in pair.told),
            f'<header class="pair">{_about("left", left, found.left)}'
            f"{_about('right', right, found.right)}</header>",
            _counts(found),
            f'<p class="nothing">{nothing}</p>' if nothing else _TOOLS,
            "" if nothing else f'<main class="panes" style="{_on_paper(drawn)}">{panes}</main>',
            '<p id="said" role="status"></p>',
            _LEGEND,
            f'<div class="tables">{_tables(found, _numbers(pair.both.graph))}</div>',
            f'<script type="application/json" id="pair-data">{in_script(_data(pair))}</script>',
        ]
    )
    styles = ["explorer", "skeleton", "comparison"]
    return page(title, body, styles=styles, script="comparison")


def _pair(left: Run, right: Run, *, summed: bool) -> Pair:
    graphs = graph_of(left), graph_of(right)
    told: list[str] = []
    resolved = [graph.resolves_positions and bool(graph.nodes) for graph in graphs]
    if any(resolved) and (summed or (not all(resolved) and all(graph.nodes for graph in graphs))):
        graphs = _summed(graphs[0]), _summed(graphs[1])
        if not all(resolved):
            side = "left" if resolved[0] else "right"
            told.append(
                f"only the {side} graph has token positions: it is shown summed over its tokens"
            )
    found = difference(*graphs)
    both = union(found)
    if both.arrows > len(both.graph.edges):
        told.append(
            f"the {ARROWS} strongest of {both.arrows:,} arrows are drawn; the tables below have "
            "the others too"
        )
    can_sum = not summed and all(resolved)
    return Pair(left, right, found, both, (*told, *found.warnings), summed, can_sum)


def _summed(graph: CausalGraph) -> CausalGraph:
    return graph.summed() if graph.resolves_positions and graph.nodes else graph


# -- above the drawings ----------------------------------------------------------------------------


def _bar(pair: Pair, runs: Sequence[Run]) -> str:
    """The way back, the choice of two runs, and the swap."""
    left, right = pair.left.name, pair.right.name
    swap = in_page(compare_address(right, left, summed=pair.summed))
    kept = '<input type="hidden" name="sum" value="1">' if pair.summed else ""
    summed = ""
    if pair.can_sum or pair.summed:
        address = in_page(compare_address(left, right, summed=pair.can_sum))
        words = "sum over tokens" if pair.can_sum else "with token positions"
        summed = f'<a class="button" href="{address}">{words}</a>'
    return (
        '<nav class="top" aria-label="gallery"><a href="/">← all runs</a>'
        '<form action="/compare" method="get">'
        f"<label>left {_choice('a', left, runs)}</label>"
        f'<a class="button" href="{swap}" title="left becomes right">⇄ swap</a>'
        f"<label>right {_choice('b', right, runs)}</label>{kept}<button>compare</button></form>"
        f"{summed}</nav>"
    )


def _choice(field: str, chosen: str, runs: Sequence[Run]) -> str:
    options = []
    for run in runs:
        try:
            run.name.encode("utf-8")
        except UnicodeEncodeError:  # a form cannot send such a name
            continue
        mark = " selected" if run.name == chosen else ""
        options.append(f'<option value="{in_page(run.name)}"{mark}>{_short(run.name)}</option>')
    return f'<select name="{field}">{"".join(options)}</select>'


def _short(text: str) -> str:
    return in_page(shortened(visible(text, space=" "), NAME_LENGTH))


def _about(side: Side, run: Run, graph: CausalGraph) -> str:
    address = in_page(run_address(run.name))
    return (
        f'<section class="{side}"><h2><span class="side">{side}</span> '
        f'<a href="{address}">{_short(run.name)}</a></h2>{prompt_html(graph.run)}'
        f'<p class="faint">{_next(graph.run)}{in_page(counted_nodes(graph.nodes))} · '
        f"{counted(len(graph.edges), 'arrow')} · model {_short(graph.run.model)} · "
        f'<a href="{address}">open its explorer</a></p></section>'
    )


def _next(run: RunRecord) -> str:
    if not run.next_tokens:
        return ""
    text, probability = run.next_tokens[0]
    name = in_page(shortened(token(text), 24))
    return f"next <code>{name}</code> {probability_words(probability)} · "


def _counts(found: GraphDifference) -> str:
    """How many arrows and features of each kind, as numbers that are also buttons."""
    numbers = (
        ("shared", len(found.shared), len(found.shared_features)),
        ("lost", len(found.lost), len(found.lost_features)),
        ("new", len(found.new), len(found.new_features)),
    )
    tiles = "".join(
        f'<div class="tile {kind}"><b>{arrows}</b> {"arrow" if arrows == 1 else "arrows"} '
        f"<strong>{kind}</strong><small>{MEANINGS[kind]} · {counted(features, 'feature')}</small>"
        "</div>"
        for kind, arrows, features in numbers
    )
    return f'<h1 class="hidden">{in_page(found.words)}</h1><div class="tiles">{tiles}</div>'


_TOOLS = """<div class="tools js-only" role="toolbar" aria-label="what is shown">
<span class="joined"><button data-show="all" aria-pressed="true">all arrows</button><button
 data-show="shared" aria-pressed="false">shared</button><button data-show="differ"
 aria-pressed="false">lost and new</button></span>
<span class="joined push"><button data-zoom="1.25" aria-label="zoom in">+</button><button
 data-zoom="0.8" aria-label="zoom out">−</button><button data-zoom="0">fit</button></span></div>"""

_LEGEND = """<dl class="legend"><dt><svg viewBox="0 0 44 12" class="sample"><path class="line"
 d="M2,6H40" stroke-width="2"/></svg> plain</dt><dd>an arrow that both graphs have; red with a
 head: the source promotes the target; blue, dashed, with a bar: it suppresses it</dd>
<dt><svg viewBox="0 0 44 12" class="sample"><path class="halo" d="M2,6H40"/><path class="line"
 d="M2,6H40" stroke-width="2"/></svg> banded</dt><dd>an arrow of this graph alone, marked
 <b>lost</b> on the left and <b>new</b> on the right; its boxes have a thick frame where the other
 graph lacks them; from afar, what is shared is pale beside it</dd>
<dt><svg viewBox="0 0 44 12" class="sample"><path class="missing" d="M2,6H40"/></svg> dotted</dt>
<dd>not in this graph, but in the other: too weak to be kept here, or not measured; not the same
 as no effect</dd></dl>"""


def _pane(side: Side, html: str) -> str:
    return (
        f'<section class="view" id="{side}" aria-label="{side} graph" tabindex="0">{html}</section>'
    )


def _on_paper(drawn: Layout) -> str:
    """How far a drawing is shrunk for half a landscape page, and its shape for half a screen."""
    scale = min(PAPER[0] / drawn.width, PAPER[1] / drawn.height, 1.0)
    shape = f"--shape:{drawn.height / drawn.width:.3f}"
    return f"{shape};--print-scale:{scale:.4f};--print-height:{drawn.height * scale:.0f}px"


# -- for the script --------------------------------------------------------------------------------


def _data(pair: Pair) -> dict[str, Any]:
    """Ends of each arrow by the boxes' numbers, and what is said of boxes and arrows."""
    graph = pair.both.graph
    place = {node.feature: number for number, node in enumerate(graph.nodes)}
    return {
        "ends": [[place[edge.source], place[edge.target]] for edge in graph.edges],
        "arrows": [_said(edge, pair) for edge in graph.edges],
        "boxes": [_said_of(node.feature, pair) for node in graph.nodes],
    }


def _said(edge: Edge, pair: Pair) -> str:
    run = pair.both.graph.run
    kind = kind_of(edge, pair.both)
    ends = edge.source, edge.target
    effects = [pair.both.edges[side].get(ends) for side in ("left", "right")]
    told = [
        f"{side} {signed(found.effect)}" if found else f"not in the {side} graph"
        for side, found in zip(("left", "right"), effects, strict=True)
    ]
    if effects[0] and effects[1]:
        told.append(f"difference {signed(effects[1].effect - effects[0].effect)}")
    names = " → ".join(visible(name_of(run, end), space=" ") for end in ends)
    return f"{names} · {kind} · {' · '.join(told)}"


def _said_of(feature: FeatureId, pair: Pair) -> str:
    nodes = {side: pair.both.nodes[side].get(feature) for side in pair.both.nodes}
    told = [visible(name_of(pair.both.graph.run, feature), space=" ")]
    meanings = [node.explanation for node in nodes.values() if node and node.explanation]
    told += [visible(meanings[0], space=" ")] if meanings else []
    for side, node in nodes.items():
        if node is None:
            told.append(f"not in the {side} graph")
            continue
        what = "logit" if feature.is_output else "activation"
        lowered, raised = (effects[:1] for effects in split_by_sign(node))
        words = [f"{what} {plain(node.activation)}"]
        words += [f"ablating it lowers {token(effect.token)}" for effect in lowered]
        words += [f"raises {token(effect.token)}" for effect in raised]
        told.append(f"{side}: {', '.join(words)}")
    return " · ".join(told)


# -- below the drawings ----------------------------------------------------------------------------


Numbers = dict[tuple[FeatureId, FeatureId], int]


def _numbers(graph: CausalGraph) -> Numbers:
    return {(edge.source, edge.target): number for number, edge in enumerate(graph.edges)}


def _tables(found: GraphDifference, numbers: Numbers) -> str:
    runs = found.left.run, found.right.run
    shared = [
        _row(e.source, e.target, runs[0], numbers, [e.left, e.right, e.difference], e.flips)
        for e in found.shared[:ROWS]
    ]
    lost = [_row(e.source, e.target, runs[0], numbers, [e.effect]) for e in found.lost[:ROWS]]
    new = [_row(e.source, e.target, runs[1], numbers, [e.effect]) for e in found.new[:ROWS]]
    return (
        _table("shared", len(found.shared), ("effect left", "effect right", "difference"), shared)
        + _table("lost", len(found.lost), ("effect left",), lost)
        + _table("new", len(found.new), ("effect right",), new)
    )


def _table(kind: str, total: int, heads: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f'<th class="number">{head}</th>' for head in heads)
    cut = f" (the first {len(rows)} of {total:,})" if total > len(rows) else ""
    inner = f"<table><thead><tr><th>source</th><th>target</th>{titles}</tr></thead>"
    inner += f"<tbody>{''.join(rows)}</tbody></table>" if rows else "</table>"
    none = "" if rows else '<p class="faint">none</p>'
    order = "by |difference|" if kind == "shared" else "by |effect|"
    return (
        f'<details open class="{kind}"><summary>{counted(total, "arrow")} {kind}, '
        f"{MEANINGS[kind]}{cut}</summary>"
        f'<p class="faint">strongest first, {order}; ablated minus clean: − promotes, + suppresses'
        f"</p>{none or inner}</details>"
    )


def _row(
    source: FeatureId,
    target: FeatureId,
    run: RunRecord,
    numbers: Numbers,
    values: Sequence[float],
    flips: bool = False,
) -> str:
    cells = []
    for place, value in enumerate(values):
        sign = "" if place == 2 else " promotes" if value < 0 else " suppresses"
        cells.append(f'<td class="number{sign}">{signed(value)}</td>')
    number = numbers.get((source, target))
    at = "" if number is None else f' data-e="{number}"'
    names = "".join(f"<td>{shown(name_of(run, end))}</td>" for end in (source, target))
    turned = ' <td class="faint">sign flips</td>' if flips else ""
    return f"<tr{at}>{names}{''.join(cells)}{turned}</tr>"
