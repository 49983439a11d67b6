"""One plot: a matplotlib figure of our own look, written the same way every time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

from sae_graphs.render.document.blocks import Block, Cover
from sae_graphs.render.document.markdown import markdown
from sae_graphs.render.document.page import page
from sae_graphs.render.style import FAINT, INK, LINE, SOFT

WIDTH = 7.2  # inches: a column of text in print
PNG_DPI = 192  # twice what a screen has
_OF_PDF = ("Creator", "Producer", "CreationDate")
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "sae_graphs",
    "svg.fonttype": "none",  # text stays text: it can be read, searched and found
    "text.parse_math": False,  # a token such as $x_1$ is not a formula
    "text.color": INK,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
}
_NAMED_GROUP = re.compile(r'<g id="[^"]*_\d+">')
_STYLE = re.compile(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>\s*")
_FONTS = "'DejaVu Sans', Helvetica, Arial, sans-serif"


@contextmanager
def look() -> Iterator[None]:
    """Within it figures are made and written in our look, whatever the user's own settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(height: float, *, width: float = WIDTH) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes."""
    figure = bare_figure(height, width=width)
    axes = figure.add_subplot()
    axes.tick_params(length=3, width=0.5)
    return figure, axes


def bare_figure(height: float, *, width: float = WIDTH) -> Figure:
    """A figure of this size in inches, without axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def label_rows(axes: Any, at: Sequence[float], labels: Sequence[str], size: float) -> None:
    """Ticks of the rows at these heights, with texts in so many points, which `written` escapes."""
    axes.set_yticks(at)
    axes.yaxis.set_major_formatter(FixedFormatter(list(labels)))
    axes.tick_params(axis="y", length=0, labelsize=size)


def written(figure: Figure, kind: str) -> bytes:
    """The figure as a file: `svg`, `png` or `pdf`."""
    with look():
        if kind == "svg":
            return svg_of(figure).encode()
        about = {"Software": None} if kind == "png" else dict.fromkeys(_OF_PDF)
        file = io.BytesIO()
        with _escaped(figure):
            figure.savefig(file, format=kind, dpi=PNG_DPI, metadata=about)
        return file.getvalue()


@contextmanager
def _escaped(figure: Figure) -> Iterator[None]:
    """Within it, letters that our font lacks stand as escapes: no box says nothing in a PNG."""
    known = get_font(findfont("DejaVu Sans")).get_charmap()

    def shown(words: str) -> str:
        return "".join(it if ord(it) in known or it == "\n" else _code(it) for it in words)

    texts = [(text, text.get_text()) for text in figure.findobj(Text)]
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    formatters = [axis.get_major_formatter() for axis in axes]
    ticks = [(it, it.seq) for it in formatters if isinstance(it, FixedFormatter)]
    for text, words in texts:
        text.set_text(shown(words))
    for formatter, labels in ticks:
        formatter.seq = [shown(words) for words in labels]
    try:
        yield
    finally:
        for text, words in texts:
            text.set_text(words)
        for formatter, labels in ticks:
            formatter.seq = labels


def _code(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode("ascii")


def svg_of(figure: Figure) -> str:
    """The figure as an `<svg>` element: no prolog, no date, no style that reaches outside it."""
    file = io.StringIO()
    nobody = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts draw the text
        with _laid_out(figure):
            figure.savefig(file, format="svg", metadata=nobody, transparent=True)
    text = file.getvalue()
    text = _NAMED_GROUP.sub("<g>", _STYLE.sub("", text[text.index("<svg") :]))
    text = text.replace("'DejaVu Sans'", _FONTS)
    corners = 'style="stroke-linejoin: round; stroke-linecap: butt" role="img" '
    return text.replace("<svg ", f"<svg {corners}", 1)


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Within it the parts stand where they belong in an SVG: else all is drawn twice for that."""
    engine, dpi = figure.get_layout_engine(), figure.dpi
    if engine is None:
        yield
        return
    engine.execute(figure)  # by the canvas, an SVG's, which takes a resolution of its own
    figure.dpi = dpi
    figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def with_figures(
    stem: str,
    formats: Collection[str],
    figures: Mapping[str, Figure],
    cover: Cover,
    parts: Callable[[Mapping[str, str]], Iterable[Block]],
) -> dict[str, bytes]:
    """Figures by name in those `formats` that pictures have, and a page of them and its Markdown
    where these are asked for.

    `parts` makes the page's blocks of the figures as SVG text.
    """
    found = {
        f"{name}.{kind}": written(figure, kind)
        for kind in ("png", "svg", "pdf")
        if kind in formats
        for name, figure in figures.items()
    }
    if not {"html", "md"} & set(formats):
        return found
    drawn = {
        name: (found.get(f"{name}.svg") or written(figure, "svg")).decode()
        for name, figure in figures.items()
    }
    blocks = list(parts(drawn))
    if "html" in formats:
        found[f"{stem}.html"] = page(cover, blocks).encode()
    if "md" in formats:
        found[f"{stem}.md"] = markdown(cover, blocks).encode()
        found |= {f"{name}.svg": svg.encode() for name, svg in drawn.items()}
    return found
