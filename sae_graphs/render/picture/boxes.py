"""The box of a feature: its name, where it is active, what it means, what ablating it does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.names import (
    LOWERS_WORDS,
    RAISES_WORDS,
    largest_activation,
    name_of,
    number_words,
    opposes,
    output_words,
    split_by_sign,
    standing_words,
    token_at,
)
from sae_graphs.graph.records import Node, RunRecord, TokenEffect
from sae_graphs.render.marks import CHECK, NO_MARKS, Marks
from sae_graphs.render.picture.explained import (
    SIZE,
    UNITS,
    broken,
    explanation_row,
    fitted,
    page_words,
)
from sae_graphs.render.picture.markup import (
    at_own_size,
    cell,
    font,
    in_label,
    in_tooltip,
    row,
    table,
    words,
    wrapped,
)
from sae_graphs.render.picture.remarks import (
    BOLD,
    NO_REMARKS,
    PENCIL,
    PIN,
    Remarks,
    band_row,
    label_lines,
    label_row,
    note_lines,
    note_row,
)
from sae_graphs.render.picture.strips import Piece, strip, strip_table
from sae_graphs.render.picture.supernodes import Supernode
from sae_graphs.render.style import (
    BAND,
    FAINT,
    INK,
    LINE,
    MONO,
    MONO_ASPECT,
    MONO_SIZE,
    RAISES,
    SANS,
    SOFT,
    WHITE,
    effect_colour,
    effect_tint,
)
from sae_graphs.text import ELLIPSIS, HARD_SPACE, columns, shortened, token, visible, web_address
from sae_graphs.words import counted, plain, probability_words, signed

MEMBERS = 8  # named in the box; its tooltip names all
GROUP_SIZE, TEXT_SIZE = 14.0, 9.0  # of a folded group: its name, its members


MAX_TOKENS = 3
TOKEN_SIZE, NAME_SIZE, SMALL_SIZE = 20, 12, 8.5
MARKED_FRAME = 3  # points: the frame of a feature on a supported path
PINNED_FRAME = 2
OUTPUT_WIDTH = 108  # points: so that output tokens are of one width, but for long ones


@dataclass(frozen=True)
class BoxShape:
    """What every box of a picture has in common: characters in a line, contexts shown, and
    lines for what Neuronpedia says."""

    columns: int = 36
    contexts: int = 3
    explained: int = 0

    @property
    def points(self) -> int:
        """The width of a line in points."""
        return round(self.columns * UNITS * SIZE)


class BoxRows(NamedTuple):
    """How many rows of each kind a box has, beside those that all boxes of a picture have."""

    band: int = 0
    meaning: int = 0
    prompt: int = 0
    contexts: int = 0
    tokens: int = 0
    note: int = 0

    @classmethod
    def of(cls, node: Node, shape: BoxShape, remarks: Remarks = NO_REMARKS) -> BoxRows:
        """Those of one box."""
        shown = node.contexts[: shape.contexts]
        label = 0 if remarks.label is None else label_lines(remarks.label, shape.columns)
        return cls(
            band=remarks.band is not None,
            meaning=max(shape.explained, label),
            prompt=bool(node.activations),
            contexts=sum(bool(context.tokens) for context in shown),
            tokens=sum(map(bool, split_by_sign(node))),
            note=len(note_lines(remarks.note, shape.columns)),
        )

    @classmethod
    def most(cls, boxes: Iterable[BoxRows]) -> BoxRows:
        """Those that the boxes of one layer need to be of one height."""
        return cls(*map(max, zip(*boxes, strict=True)))


def box(
    node: Node,
    run: RunRecord,
    shape: BoxShape,
    *,
    marked: bool = False,
    remarks: Remarks = NO_REMARKS,
    level: BoxRows | None = None,
) -> str:
    """The HTML-like label of one feature, or of an output token; `marked` where supported.

    `remarks` are a reader's. With `level` the box is filled up with empty rows to those.
    """
    if node.feature.is_output:
        return _output_box(node, run, shape, remarks, marked=marked)
    if node.feature.is_token:
        return _token_box(node, shape, remarks)
    rows = [band_row(remarks.band, shape.columns)] if remarks.band is not None else []
    heading = _heading(node, run, shape, marked=marked, pinned=remarks.pinned)
    rows.append(row(cell(heading, align="LEFT", width=shape.points)))
    meaning = BoxRows.of(node, shape, remarks).meaning
    if remarks.label is not None:
        rows.append(label_row(remarks.label, shape.columns, meaning))
    elif meaning:
        rows.append(explanation_row(node, shape.columns, meaning))
    rows += _strips(node, run, shape)
    lowered, raised = split_by_sign(node)
    rows += [_tokens(LOWERS_WORDS, lowered, shape)] if lowered else []
    rows += [_tokens(RAISES_WORDS, raised, shape)] if raised else []
    rows += [note_row(line) for line in note_lines(remarks.note, shape.columns)]
    rows += _filling(BoxRows.of(node, shape, remarks), level, shape)
    return table(
        *rows,
        border=_frame(remarks, marked=marked),
        color=INK if marked or remarks.pinned else frame_colour(node),
        bgcolor=BAND if node.relay else WHITE,
        style="ROUNDED,DASHED" if opposes(node) else "ROUNDED",
        cellpadding=2,
        cellspacing=1,
    )


def frame_colour(node: Node) -> str:
    """Of a box's frame: by what the feature does to the answer, where that is known."""
    if node.effect_on_answer is None or node.relay:
        return LINE
    return effect_colour(node.effect_on_answer)


def _frame(remarks: Remarks, *, marked: bool) -> int:
    return MARKED_FRAME if marked else PINNED_FRAME if remarks.pinned else 1


def _strips(node: Node, run: RunRecord, shape: BoxShape) -> list[str]:
    """The prompt, and the contexts where the feature is most active."""
    largest = largest_activation(node)
    rows = []
    if node.activations:
        line = strip(
            run.tokens,
            node.activations,
            largest=largest,
            width=shape.columns,
            focus=node.feature.position,
        )
        rows.append(_line(strip_table(line), bgcolor=BAND))
    for context in node.contexts[: shape.contexts]:
        line = strip(context.tokens, context.activations, largest=largest, width=shape.columns)
        if line:
            rows.append(_line(strip_table(line)))
    return rows


def _filling(mine: BoxRows, level: BoxRows | None, shape: BoxShape) -> list[str]:
    """Empty rows, each as high as what another box of the layer has there."""
    if level is None:
        return []
    missing = BoxRows(*(max(each - own, 0) for each, own in zip(level, mine, strict=True)))
    blank = strip_table((Piece(HARD_SPACE, 0),))
    return [
        *([label_row(" ", shape.columns, missing.meaning)] if missing.meaning else []),
        *[_line(blank)] * (missing.prompt + missing.contexts),
        *[_no_tokens()] * missing.tokens,
        *[note_row(None)] * missing.note,
        *[band_row(None, 0)] * missing.band,
    ]


def _output_box(
    node: Node, run: RunRecord, shape: BoxShape, remarks: Remarks, *, marked: bool
) -> str:
    """Where paths end: the token in large type on dark ground, with its clean numbers."""
    output = run.output(node.feature)
    size = TOKEN_SIZE if output.contrast is None else TOKEN_SIZE - 4
    room = int(shape.points / (size * MONO_ASPECT))
    text = f"{CHECK} " * marked + f"{PIN} " * remarks.pinned
    text += output_words(output, room - len(text))
    here = token_at(run, node.feature)
    if here is None or node.feature.position == run.read_position:
        first = probability_words(output.probability)
    else:  # the answer has no position
        first = f"after {shortened(here, 12)}"  # its probability there is not known
    small = words(f"{first}  ", size=NAME_SIZE, colour=WHITE, bold=True)
    number = f"{number_words(run, node.feature)} {plain(node.activation)}"
    small += words(number, size=SMALL_SIZE, colour=LINE)
    named = [visible(each) for each in (remarks.band, remarks.label) if each is not None]
    said = [fitted(each, shape.columns / BOLD) for each in named]
    rows = [
        cell(font(in_label(text), size=size, face=MONO, colour=WHITE, bold=True)),
        *(cell(font(in_label(line), size=SIZE, colour=WHITE, bold=True)) for line in said),
        cell(small),
        cell(words(str(node.feature), size=SMALL_SIZE, colour=FAINT), width=OUTPUT_WIDTH),
    ]
    notes = [note_row(line) for line in note_lines(remarks.note, shape.columns)]
    return table(
        *(row(each) for each in rows),
        *notes,
        border=1,
        color=INK,
        bgcolor=INK,
        style="ROUNDED",
        cellpadding=3,
        cellspacing=1,
    )


def _token_box(node: Node, shape: BoxShape, remarks: Remarks) -> str:
    """Where paths begin: a token of the prompt in large type, and its place."""
    text = f"{PIN} " * remarks.pinned + token(node.token or "")
    room = int(shape.points / (TOKEN_SIZE * MONO_ASPECT))
    large = font(in_label(shortened(text, room)), size=TOKEN_SIZE - 4, face=MONO, colour=INK)
    named = [visible(each) for each in (remarks.band, remarks.label) if each is not None]
    place = f"token {node.feature.position}"
    rows = [
        cell(large),
        *(cell(words(fitted(each, shape.columns / BOLD), size=SIZE, colour=INK)) for each in named),
        cell(words(place, size=SMALL_SIZE, colour=SOFT), width=OUTPUT_WIDTH),
    ]
    notes = [note_row(line) for line in note_lines(remarks.note, shape.columns)]
    return table(
        *(row(each) for each in rows),
        *notes,
        border=1,
        color=SOFT,
        bgcolor=BAND,
        cellpadding=3,
        cellspacing=1,
    )


def _heading(node: Node, run: RunRecord, shape: BoxShape, *, marked: bool, pinned: bool) -> str:
    mark = words(" ↗", size=10, colour=RAISES) if web_address(node.neuronpedia) else ""
    name = words(str(node.feature), size=NAME_SIZE, colour=INK, bold=True) + mark
    if signs := f"{CHECK} " * marked + f"{PIN} " * pinned:
        name = words(signs, size=NAME_SIZE, colour=INK, bold=True) + name
    state = f"active {plain(node.activation)}" if node.activation else "inactive"
    does = standing_words(node)
    state = state if does is None else does
    if (here := token_at(run, node.feature)) is not None:
        drawn = len(f"{signs}{node.feature}")
        room = shape.columns - NAME_SIZE / MONO_SIZE * drawn - len(state) - 3
        text = in_label(f" {shortened(here, max(int(room), 5))}")
        name += _mono(text)
    colour = SOFT if does is None or node.relay else effect_colour(node.effect_on_answer or 0.0)
    active = words(state, size=SMALL_SIZE, colour=colour, bold=does is not None)
    return table(row(cell(name, align="LEFT"), cell(active, align="RIGHT")))


def _line(content: str, bgcolor: str | None = None) -> str:
    return row(cell(_mono(content or HARD_SPACE), align="LEFT", bgcolor=bgcolor))


def _mono(content: str) -> str:
    """Escaped text in the monospaced type of boxes, whose size is that of the node."""
    return font(content, face=MONO, colour=INK)


def _tokens(label: str, effects: Sequence[TokenEffect], shape: BoxShape) -> str:
    """A row: what happens, then tokens on their colour with the change in nats."""
    colour = effect_colour(effects[0].effect_nats)
    cells = [cell(words(f"{label} ", size=SMALL_SIZE, colour=colour), align="LEFT")]
    room = shape.columns - 14.0
    for number, effect in enumerate(effects[:MAX_TOKENS]):
        name, change = shortened(token(effect.token), 12), signed(effect.effect_nats, 2)
        room -= columns(name) + 0.85 * len(change) + 1.5
        if number and room < 0:
            break
        cells.append(cell(_mono(in_label(name)), bgcolor=effect_tint(effect.effect_nats)))
        cells.append(cell(words(f" {change}  ", size=SMALL_SIZE, colour=SOFT)))
    return row(cell(at_own_size(table(row(*cells))), align="LEFT"))


def _no_tokens() -> str:
    """A row as high as one of tokens, and empty."""
    cells = cell(words(" ", size=SMALL_SIZE))
    cells += cell(_mono(HARD_SPACE))
    return row(cell(at_own_size(table(row(cells))), align="LEFT"))


def folded_box(
    each: Supernode,
    run: RunRecord,
    shape: BoxShape,
    annotations: Annotations,
    marks: Marks = NO_MARKS,
) -> str:
    """The HTML-like label of a folded group; its members are ticked where `marks` say so."""
    room = shape.columns * TEXT_SIZE / GROUP_SIZE / BOLD - 1
    name = "".join(
        f'{in_label(line)}<BR ALIGN="LEFT"/>' for line in broken(visible(each.name), room, 2)
    )
    heading = font(name, size=GROUP_SIZE, colour=INK, face=SANS, bold=True)
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
    kinds = {
        "token" if f.is_token else "output token" if f.is_output else "feature"
        for f in (node.feature for node in each.nodes)
    }
    what = "member" if len(kinds) > 1 else next(iter(kinds))
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
