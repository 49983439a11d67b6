"""Two graphs side by side, in one layout: what they share, what is lost, what is new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sae_graphs.gallery.runs import Run, graph_of
from sae_graphs.gallery.sides import ARROWS, Side, Union, empty_words, kind_of, sides, union
from sae_graphs.gallery.skeleton import Page, compare_address, page, prompt_html, run_address
from sae_graphs.graph.across import alignment
from sae_graphs.graph.difference import GraphDifference, SharedEdge, difference
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import counted_nodes, name_of, split_by_sign, standing_words
from sae_graphs.graph.records import Edge, RunRecord
from sae_graphs.render.document.templates import filled, ours
from sae_graphs.render.explorer.data import in_script
from sae_graphs.render.picture.layout import Layout
from sae_graphs.text import token, visible
from sae_graphs.words import plain, signed

if TYPE_CHECKING:
    from markupsafe import Markup

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
    drawn, drawings = sides(pair.both, found.left.run, found.right.run)
    names = left.name, right.name
    can_toggle = pair.can_sum or pair.summed
    body = filled(
        "gallery/comparison.html.j2",
        left=_side("left", left, found.left),
        right=_side("right", right, found.right),
        names=[run.name for run in runs if _is_unicode(run.name)],
        longest=NAME_LENGTH,
        swap=compare_address(*reversed(names), summed=pair.summed),
        summed=pair.summed,
        sums=compare_address(*names, summed=pair.can_sum) if can_toggle else "",
        told=pair.told,
        words=found.words,
        counts=_counts(found),
        meanings=MEANINGS,
        nothing=empty_words(pair.both.graph),
        on_paper=_on_paper(drawn),
        drawings=drawings,
        tables=_tables(found, _numbers(pair.both.graph)),
        data=ours(in_script(_data(pair))),
    )
    styles = ["explorer", "skeleton", "comparison"]
    title = f"{left.name} and {right.name}"
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
    can_sum = not summed and all(resolved)
    if can_sum and (words := _summed_across(*graphs)) is not None:
        graphs, can_sum = (_summed(graphs[0]), _summed(graphs[1])), False
        told.append(f"no token of one prompt is one of the other's: {words}")
    found = difference(*graphs)
    both = union(found)
    if both.arrows > len(both.graph.edges):
        told.append(
            f"the {ARROWS} strongest of {both.arrows:,} arrows are drawn; the tables below have "
            "the others too"
        )
    return Pair(left, right, found, both, (*told, *found.warnings), summed, can_sum)


def _summed_across(left: CausalGraph, right: CausalGraph) -> str | None:
    """Why answer graphs of two prompts are compared over tokens; None where they are not."""
    if left.run.answer is None or right.run.answer is None:
        return None
    found = alignment(left.run.tokens, right.run.tokens)
    return None if found.kind == "position" else found.words


def _summed(graph: CausalGraph) -> CausalGraph:
    return graph.summed() if graph.resolves_positions and graph.nodes else graph


# -- above the drawings ----------------------------------------------------------------------------


class SideWords(NamedTuple):
    """What is said of one graph; all is text but `prompt`."""

    side: Side
    name: str
    address: str
    prompt: Markup
    run: RunRecord
    nodes: str
    arrows: int


def _side(side: Side, run: Run, graph: CausalGraph) -> SideWords:
    return SideWords(
        side,
        run.name,
        run_address(run.name),
        prompt_html(graph.run),
        graph.run,
        counted_nodes(graph.nodes),
        len(graph.edges),
    )


def _is_unicode(name: str) -> bool:
    """True where a form can send a name: folders may be called anything."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _counts(found: GraphDifference) -> list[tuple[str, int, int]]:
    """How many arrows and features there are of each kind."""
    return [
        ("shared", len(found.shared), len(found.shared_features)),
        ("lost", len(found.lost), len(found.lost_features)),
        ("new", len(found.new), len(found.new_features)),
    ]


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
        if feature.is_token:
            told.append(f"{side}: a token of the prompt")
            continue
        what = "activation"
        if feature.is_output:
            what = "score" if feature == ANSWER else "logit"
        lowered, raised = (effects[:1] for effects in split_by_sign(node))
        words = [f"{what} {plain(node.activation)}"]
        if (does := standing_words(node)) is not None:
            words.append(does)
        words += [f"ablating it lowers {token(effect.token)}" for effect in lowered]
        words += [f"raises {token(effect.token)}" for effect in raised]
        told.append(f"{side}: {', '.join(words)}")
    return " · ".join(told)


# -- below the drawings ----------------------------------------------------------------------------


Numbers = dict[tuple[FeatureId, FeatureId], int]


def _numbers(graph: CausalGraph) -> Numbers:
    return {(edge.source, edge.target): number for number, edge in enumerate(graph.edges)}


class Row(NamedTuple):
    """An arrow: its ends, its effects (and their difference), and its number in the drawing."""

    names: tuple[str, str]
    values: tuple[float, ...]
    number: int | None
    flips: bool


class TableRows(NamedTuple):
    """The strongest of the arrows of one kind, of `total` in all."""

    kind: str
    total: int
    head: tuple[str, ...]
    order: str
    rows: list[Row]


def _tables(found: GraphDifference, numbers: Numbers) -> list[TableRows]:
    left, right = found.left.run, found.right.run

    def row(edge: Edge | SharedEdge, run: RunRecord, *values: float, flips: bool = False) -> Row:
        names = name_of(run, edge.source), name_of(run, edge.target)
        return Row(names, values, numbers.get((edge.source, edge.target)), flips)

    shared = [
        row(edge, left, edge.left, edge.right, edge.difference, flips=edge.flips)
        for edge in found.shared[:ROWS]
    ]
    lost = [row(edge, left, edge.effect) for edge in found.lost[:ROWS]]
    new = [row(edge, right, edge.effect) for edge in found.new[:ROWS]]
    both = "effect left", "effect right", "difference"
    return [
        TableRows("shared", len(found.shared), both, "by |difference|", shared),
        TableRows("lost", len(found.lost), both[:1], "by |effect|", lost),
        TableRows("new", len(found.new), both[1:2], "by |effect|", new),
    ]
