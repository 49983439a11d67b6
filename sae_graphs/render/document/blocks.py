"""What a report is made of: headings, sentences, tables and figures, for a page or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "lowered", "raised"]  # what ablating does to it


@dataclass(frozen=True)
class Cover:
    """What stands above a report's blocks.

    The heading is `title` and, in quotation marks, `quoted`; `short` is the title of a window,
    before what is quoted. `about` is one line below it, and each warning stands out.
    """

    title: str
    short: str
    quoted: str
    about: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Badge:
    """A word or two in a frame, after a sign: what was found, at a glance.

    The page fills the frame of `supported`, and draws that of `norm only` through; all others are
    dashed.
    """

    words: str
    sign: str


@dataclass(frozen=True)
class Cell:
    """One cell: plain text (not escaped), as a number, a token, or a link.

    `link` is to an anchor within the report, `address` to elsewhere, on a page alone.
    """

    text: str
    number: bool = False
    token: bool = False
    tone: Tone = ""
    link: str | None = None
    badge: Badge | None = None
    address: str | None = None


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 or 3; `anchor` is where links within the report lead."""

    text: str
    level: int = 2
    anchor: str | None = None
    badge: Badge | None = None


@dataclass(frozen=True)
class Paragraph:
    """A few sentences: plain, a verdict that stands out, a small note, or what leads a page."""

    text: str
    style: Literal["plain", "verdict", "note", "lead"] = "plain"


@dataclass(frozen=True)
class Table:
    """A table with a caption; every row has a cell for each heading."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def has_badges(self) -> bool:
        """True where some cell is a badge."""
        return any(cell.badge for row in self.rows for cell in row)


@dataclass(frozen=True)
class Figure:
    """A plot: the file's name without folder, its `<svg>` and what it shows.

    `alt` is what Markdown says of it in place of the caption. A `wide` one, such as a graph's
    picture with its tooltips, has colours of its own and takes the width of the page.
    """

    name: str
    svg: str
    caption: str = ""
    alt: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Definitions:
    """Words and what they mean, or settings and their values."""

    title: str
    entries: tuple[tuple[str, str], ...]


Part = Heading | Paragraph | Table | Figure | Definitions


@dataclass(frozen=True)
class Fold:
    """Details that a page can hide behind a line of words; on paper, and in Markdown, they show."""

    words: str
    blocks: tuple[Part, ...]
    is_open: bool = False


@dataclass(frozen=True)
class Beside:
    """Words on the left and a figure on the right, where the page is wide enough for both."""

    blocks: tuple[Part | Fold, ...]
    figure: Figure | None = None


Block = Part | Fold | Beside


def unfolded(parts: Iterable[Block]) -> Iterator[Part]:
    """The parts one after another, those of folds among them; a figure before the folds beside."""
    for part in parts:
        if isinstance(part, Fold):
            yield from part.blocks
        elif isinstance(part, Beside):
            yield from (block for block in part.blocks if not isinstance(block, Fold))
            if part.figure is not None:
                yield part.figure
            yield from unfolded(block for block in part.blocks if isinstance(block, Fold))
        else:
            yield part


def text(value: str) -> Cell:
    """A cell of words."""
    return Cell(value)


def number(value: str, tone: Tone = "") -> Cell:
    """A cell with a number, already written out."""
    return Cell(value, number=True, tone=tone)


def tone_of(change: float) -> Tone:
    """`lowered` below 0, `raised` above."""
    return "lowered" if change < 0 else "raised" if change > 0 else ""


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[Part]:
    """The table, or nothing where it would have no rows."""
    return [Table(caption, tuple(head), tuple(map(tuple, rows)))] if rows else []
