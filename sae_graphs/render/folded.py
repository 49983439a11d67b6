"""The box of a folded group: its name, its members, how many arrows it hides."""

from __future__ import annotations

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.names import name_of
from sae_graphs.graph.records import Node, RunRecord
from sae_graphs.render.explained import broken, page_words
from sae_graphs.render.labels import BoxShape
from sae_graphs.render.marks import CHECK, NO_MARKS, Marks
from sae_graphs.render.markup import cell, font, row, table, words, wrapped
from sae_graphs.render.remarks import BOLD, PENCIL, PIN
from sae_graphs.render.style import BAND, INK, SANS, SOFT
from sae_graphs.render.supernodes import Supernode
from sae_graphs.text import ELLIPSIS, HARD_SPACE, in_label, in_tooltip, visible
from sae_graphs.words import counted, signed

MEMBERS = 8  # named in the box; its tooltip names all
NAME_SIZE, TEXT_SIZE, SMALL_SIZE = 14.0, 9.0, 8.5


def folded_box(
    each: Supernode,
    run: RunRecord,
    shape: BoxShape,
    annotations: Annotations,
    marks: Marks = NO_MARKS,
) -> str:
    """The HTML-like label of a folded group; its members are ticked where `marks` say so."""
    room = shape.columns * TEXT_SIZE / NAME_SIZE / BOLD - 1
    name = "".join(
        f'{in_label(line)}<BR ALIGN="LEFT"/>' for line in broken(visible(each.name), room, 2)
    )
    heading = font(name, size=NAME_SIZE, colour=INK, face=SANS, bold=True)
    rows = [row(cell(heading, align="LEFT", width=shape.points))]
    rows += [
        row(cell(font(in_label(line), size=TEXT_SIZE, colour=INK, face=SANS), align="LEFT"))
        for line in (_member(node, run, shape, annotations, marks) for node in each.nodes[:MEMBERS])
    ]
    if (more := len(each.nodes) - MEMBERS) > 0:
        rows.append(row(cell(words(f"{ELLIPSIS} and {more} more", size=TEXT_SIZE), align="LEFT")))
    summary = wrapped(_summary(each), shape.columns, size=SMALL_SIZE)
    rows.append(row(cell(summary, align="LEFT")))
    return table(
        *rows, border=2, color=SOFT, bgcolor=BAND, style="ROUNDED", cellpadding=2, cellspacing=1
    )


def folded_tooltip(each: Supernode, run: RunRecord, annotations: Annotations) -> str:
    """What hovering over a folded group says: all members, and the arrows that it hides."""
    lines = [f"{visible(each.name, space=' ')}: {_summary(each)}", ""]
    for node in each.nodes:
        said = _said(node, annotations)
        lines.append(f"  {name_of(run, node.feature)}" + (f"  {said}" if said else ""))
        if note := annotations.notes.get(node.feature):
            lines.append(f"    {PENCIL} {visible(note, space=' ')}")
    if each.inside:
        lines += ["", "arrows inside:"]
        lines += [f"  {e.source} -> {e.target}: effect {signed(e.effect)}" for e in each.inside]
    return in_tooltip("\n".join(lines))


def _summary(each: Supernode) -> str:
    kinds = {node.feature.is_output for node in each.nodes}
    what = "member" if len(kinds) > 1 else "output token" if True in kinds else "feature"
    count = counted(len(each.nodes), what)
    labels = each.layers
    layers = f"layer {labels[0]}" if len(labels) == 1 else f"layers {labels[0]} to {labels[-1]}"
    hidden = counted(len(each.inside), "arrow") if each.inside else "no arrows"
    return f"{count}, {layers}; {hidden} inside"


def _member(
    node: Node, run: RunRecord, shape: BoxShape, annotations: Annotations, marks: Marks
) -> str:
    signs = f"{CHECK} " * marks.marks_node(node) + f"{PIN} " * (node.feature in annotations.pins)
    signs += f"{PENCIL} " * (node.feature in annotations.notes)
    line = f"{signs}{name_of(run, node.feature)}  {_said(node, annotations)}"
    return broken(line.rstrip().replace(" ", HARD_SPACE), shape.columns - 1, 1)[0]


def _said(node: Node, annotations: Annotations) -> str:
    return visible(annotations.labels.get(node.feature) or page_words(node.page), space=" ")
