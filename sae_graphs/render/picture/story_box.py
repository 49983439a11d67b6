"""A box of an answer graph: what the feature means, what it does to the answer, and one context."""

from __future__ import annotations

from dataclasses import dataclass

from sae_graphs.graph.meaning import Meaning, meaning_of
from sae_graphs.graph.names import does_words, largest_activation, opposes, output_words
from sae_graphs.graph.records import Node, RunRecord
from sae_graphs.render.marks import CHECK
from sae_graphs.render.picture.boxes import frame_colour
from sae_graphs.render.picture.markup import at_own_size, cell, font, in_label, row, table, words
from sae_graphs.render.picture.remarks import PIN, Remarks, band_row, note_lines, note_row
from sae_graphs.render.picture.strips import strip, strip_table
from sae_graphs.render.style import (
    BAND,
    FAINT,
    INK,
    LINE,
    MONO,
    MONO_ASPECT,
    MONO_SIZE,
    PANEL,
    SOFT,
    WHITE,
    effect_colour,
    shade,
)
from sae_graphs.text import HARD_SPACE, columns, shortened, token, web_address
from sae_graphs.words import plain, probability_words

WIDTH = 108.0  # points, of a full box
SMALL_WIDTH = 88.0  # of one that does little
LABEL, WORDS = 9, 8  # points; Graphviz takes whole ones
BAR_HEIGHT = 4
LETTER = 0.58  # of the type's size, a letter's width, about
DIGIT = 0.64  # a digit's
STRONG = 0.25  # of the largest effect: what does less has a small box
MARKED_FRAME, PINNED_FRAME = 3, 2


@dataclass(frozen=True)
class Weight:
    """How much of the largest effect on the answer a feature has, and whether its box is full."""

    share: float
    full: bool

    @classmethod
    def of(cls, node: Node, largest: float) -> Weight:
        """By |effect on the answer|; relays are small whatever it is."""
        share = abs(node.effect_on_answer or 0.0) / largest if largest else 0.0
        return cls(min(share, 1.0), share >= STRONG and not node.relay)

    @property
    def width(self) -> float:
        """The width of the box's inside, in points."""
        return WIDTH if self.full else SMALL_WIDTH


def story_box(
    node: Node, run: RunRecord, weight: Weight, remarks: Remarks, *, marked: bool = False
) -> str:
    """The HTML-like label of a feature's box; `marked` where it was tested and matters."""
    letters = weight.width / (MONO_SIZE * MONO_ASPECT)
    rows = [band_row(remarks.band, letters)] if remarks.band is not None else []
    signs = f"{CHECK} " * marked + f"{PIN} " * remarks.pinned
    rows.append(_label(meaning_of(node, remarks.label), signs, weight))
    rows.append(_effect(node, weight))
    rows.append(_bar(node, weight))
    if weight.full and node.contexts:
        context = node.contexts[0]
        line = strip(
            context.tokens,
            context.activations,
            largest=largest_activation(node),
            width=int(letters) - 1,
        )
        if line:
            small = font(strip_table(line), face=MONO, colour=SOFT)  # in the node's own size
            rows.append(row(cell(small, align="LEFT")))
    rows += [note_row(line) for line in note_lines(remarks.note, letters)]
    return table(
        *rows,
        border=MARKED_FRAME if marked else PINNED_FRAME if remarks.pinned else 1,
        color=INK if marked or remarks.pinned else frame_colour(node),
        bgcolor=BAND if node.relay else WHITE,
        style="DASHED" if opposes(node) else "ROUNDED",
        cellpadding=1,
        cellspacing=1,
    )


def _label(meaning: Meaning, signs: str, weight: Weight) -> str:
    """The line that says what the feature is: what it peaks on has activation's colour."""
    room = weight.width / (LABEL * LETTER) - len(signs)
    pieces = [words(signs, size=LABEL, colour=INK, bold=True)] if signs else []
    cells = [cell(piece) for piece in pieces]
    if not meaning.peaks:
        text = shortened(meaning.before or "no context is known", int(room))
        colour = INK if meaning.before else FAINT
        cells.append(cell(_plain(text, bold=bool(meaning.before), colour=colour)))
        return row(cell(at_own_size(table(row(*cells))), align="LEFT", width=weight.width))
    beside = columns(meaning.before) + columns(meaning.after) + 2
    peaks = _fitting(meaning.peaks, max(room - beside, 6))
    if meaning.before:
        cells.append(cell(_plain(f"{shortened(meaning.before, 10)}{HARD_SPACE}", colour=SOFT)))
    for number, text in enumerate(peaks):
        cells += [cell(_plain(f",{HARD_SPACE}", colour=SOFT))] if number else []
        cells.append(cell(_plain(text, bold=True), bgcolor=shade(4)))
    if meaning.after:
        cells.append(cell(_plain(f"{HARD_SPACE}{shortened(meaning.after, 10)}", colour=SOFT)))
    return row(cell(at_own_size(table(row(*cells))), align="LEFT", width=weight.width))


def _fitting(peaks: tuple[str, ...], room: float) -> list[str]:
    """As many of the peaks as fit, the first in any case."""
    shown = [shortened(peaks[0], int(room))]
    for text in peaks[1:]:
        if sum(map(columns, shown)) + 2 * len(shown) + columns(text) > room:
            break
        shown.append(text)
    return shown


def _plain(text: str, *, bold: bool = False, colour: str = INK) -> str:
    return font(in_label(text), size=LABEL, colour=colour, bold=bold)


def _effect(node: Node, weight: Weight) -> str:
    """What it does to the answer, in words."""
    colour = SOFT if node.relay else effect_colour(node.effect_on_answer or 0.0)
    return row(
        cell(words(does_words(node), size=WORDS, colour=colour, bold=weight.full), align="LEFT")
    )


def _bar(node: Node, weight: Weight) -> str:
    """The effect as a bar, of the largest one's in the graph; the index small beside it."""
    index = f"{node.feature}" + (" ↗" if web_address(node.neuronpedia) else "")
    longest = round(weight.width - WORDS * DIGIT * len(index)) - 4
    length = max(1, round(longest * weight.share))
    colour = FAINT if node.relay else effect_colour(node.effect_on_answer or 0.0)
    ground = PANEL if node.relay else BAND
    parts = [cell(bgcolor=colour, width=length, height=BAR_HEIGHT, fixedsize="TRUE")]
    if longest > length:
        parts.append(
            cell(bgcolor=ground, width=longest - length, height=BAR_HEIGHT, fixedsize="TRUE")
        )
    bar = table(row(cell(height=2)), row(cell(table(row(*parts)))))
    told = words(index, size=WORDS, colour=SOFT)
    return row(cell(table(row(cell(bar, align="LEFT"), cell(told, align="RIGHT")))))


def answer_box(node: Node, run: RunRecord, *, marked: bool = False, pinned: bool = False) -> str:
    """What everything leads to: the answer in large type, and how sure the model is of it."""
    output = run.output(node.feature)
    text = f"{CHECK} " * marked + f"{PIN} " * pinned + output_words(output, 24)
    score = "log-odds" if output.contrast is None else "logit difference"
    rows = [
        cell(font(in_label(text), size=18, face=MONO, colour=WHITE, bold=True)),
        cell(
            words(f"{probability_words(output.probability)}  ", size=11, colour=WHITE, bold=True)
            + words(f"{score} {plain(node.activation)}", size=WORDS, colour=LINE)
        ),
    ]
    return table(
        *(row(each) for each in rows),
        border=1,
        color=INK,
        bgcolor=INK,
        style="ROUNDED",
        cellpadding=3,
        cellspacing=1,
    )


def axis_token(text: str, *, read: bool, used: bool) -> str:
    """A token of the prompt below its column; the one that is read is dark."""
    ink = WHITE if read else INK
    shown = font(in_label(shortened(token(text), 18)), size=12, face=MONO, colour=ink, bold=used)
    return table(
        row(cell(shown)), border=1, color=INK, bgcolor=INK if read else WHITE, cellpadding=4
    )
