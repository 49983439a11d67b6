"""DOT source to SVG, PNG and PDF, with the Graphviz that comes with pygraphviz."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from sae_graphs.render.picture.finishing import finished
from sae_graphs.render.picture.routing import set_aside

FOLDER = Path(__file__).parent / "fonts"
_REMARKS = (b"Fontconfig warning", b"Warning: Unable to reclaim box space in spline routing")
_SWITCH = "FONTCONFIG_FILE"  # whoever sets it has chosen their fonts
_CONFIGURATION = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<dir>{folder}</dir>
{machine}
<cachedir prefix="xdg">fontconfig</cachedir>
<cachedir>{cache}</cachedir>
</fontconfig>
"""
# Not the machine's own configuration: its syntax may be newer than the library that reads it.
_MACHINE = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "WINDOWSFONTDIR",
)


PLACED = "layout=nop2"  # in the source: everything has its place already
PNG_DPI = 144.0
MAX_PNG_SIDE = 12_000
MAX_PNG_PIXELS = 24_000_000

# What Graphviz writes for anything with a tooltip; the tooltip is an attribute that only some
# browsers show, and a `title` element is shown by all.
_TIP = re.compile(
    r"<title>[^<]*</title>\n(?P<group><g id=\"a_[^\"]*\">)"
    r"<a (?P<link>xlink:href=\"[^\"]*\" )?xlink:title=\"(?P<tip>[^\"]*)\""
)
_ARROW_LINE = re.compile(
    r'(?P<line><path fill="none" stroke="[^"]*"(?: stroke-width="[^"]*")?'
    r'(?: stroke-dasharray="[^"]*")? d="(?P<d>[^"]*)"/>)'
)
_POINTS = re.compile(r'<svg width="(?P<width>[\d.]+)pt" height="(?P<height>[\d.]+)pt"')
_EDGE_GROUP = re.compile(r'<g id="[^"]*" class="edge[^"]*">.*?</g>\n</g>', re.DOTALL)


def draw(source: str, kinds: Iterable[str]) -> dict[str, bytes]:
    """The picture as SVG, PNG and PDF, whichever are asked for by `kinds`; others are ignored."""
    wanted = set(kinds) & {"svg", "png", "pdf"}
    drawn: dict[str, bytes] = {}
    if not wanted:
        return drawn
    with bundled_fonts():
        if PLACED in source:
            ready = finished(source)
        else:
            upwards, asides = set_aside(source)
            ready = finished(_rendered(upwards, "dot").decode("utf-8"), asides)
        if wanted & {"svg", "png"}:
            raw = _rendered(ready, "svg", engine="nop2").decode("utf-8")
            if "svg" in wanted:
                drawn["svg"] = _with_titles(raw).encode("utf-8")
            if "png" in wanted:
                resolution = f"-Gdpi={_dpi_for(*_size(raw)):.4f}"
                drawn["png"] = _rendered(ready, "png", resolution, engine="nop2")
        if "pdf" in wanted:
            drawn["pdf"] = _rendered(ready, "pdf", engine="nop2")
    return drawn


def draw_svg(source: str) -> str:
    """The picture as an `<svg>` element: no prolog, no document type, nothing to fetch.

    Tooltips are `title` elements, and arrows can be hovered over near their line, not only on it.
    """
    return draw(source, ["svg"])["svg"].decode("utf-8")


def draw_png(source: str) -> bytes:
    """The picture at `PNG_DPI`, or as large as `MAX_PNG_SIDE` and `MAX_PNG_PIXELS` allow."""
    return draw(source, ["png"])["png"]


def draw_pdf(source: str) -> bytes:
    """The picture as a one-page PDF."""
    return draw(source, ["pdf"])["pdf"]


def placed(source: str) -> str:
    """Where Graphviz puts everything, as its JSON, without drawing anything."""
    return _rendered(source, "json0").decode("utf-8")


def _rendered(source: str, kind: str, arguments: str = "", *, engine: str = "dot") -> bytes:
    import pygraphviz

    drawing = pygraphviz.AGraph(string=source)
    try:
        return bytes(drawing.draw(format=kind, prog=engine, args=arguments))
    finally:
        drawing.close()


def _with_titles(raw: str) -> str:
    drawn = _TIP.sub(_with_title, raw[raw.index("<svg") :])
    return _EDGE_GROUP.sub(lambda group: _ARROW_LINE.sub(_with_hover, group[0]), drawn)


def _size(raw: str) -> tuple[float, float]:
    """Width and height in inches, from the head of Graphviz's SVG."""
    found = _POINTS.search(raw)
    assert found is not None, "Graphviz gives every SVG a size in points"
    return float(found["width"]) / 72, float(found["height"]) / 72


def _dpi_for(width: float, height: float) -> float:
    """The resolution for a picture of this many inches, a little room kept for its margin."""
    width, height = width + 1, height + 1
    by_side = MAX_PNG_SIDE / max(width, height)
    by_area = math.sqrt(MAX_PNG_PIXELS / (width * height))
    return min(PNG_DPI, by_side, by_area)


def _with_title(found: re.Match[str]) -> str:
    return f"<title>{found['tip']}</title>\n{found['group']}<a {found['link'] or ''}"


def _with_hover(found: re.Match[str]) -> str:
    near = (
        '<path fill="none" stroke="none" stroke-width="12" pointer-events="stroke" '
        f'd="{found["d"]}"/>'
    )
    return f"{found['line']}\n{near}"


@contextmanager
def bundled_fonts() -> Iterator[None]:
    """While it lasts, fontconfig finds the package's fonts too; the environment is put back."""
    if os.environ.get(_SWITCH):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="sae_graphs_fonts_") as folder:
        file = Path(folder) / "fonts.conf"
        machine = "\n".join(f"<dir>{place}</dir>" for place in _MACHINE)
        text = _CONFIGURATION.format(
            folder=escape(str(FOLDER)), machine=machine, cache=escape(folder)
        )
        file.write_text(text, encoding="utf-8")
        os.environ[_SWITCH] = str(file)
        try:
            with _without_warnings():
                yield
        finally:
            os.environ.pop(_SWITCH, None)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep remarks off standard error that are nothing to a reader; pass all else on.

    They are fontconfig's on the machine's own files, and Graphviz's on arrows that it draws with
    less room than it would like.
    """
    try:
        standard_error = os.dup(2)
    except OSError:  # closed: there is nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
            caught.seek(0)
            for line in caught:
                if not line.startswith(_REMARKS):
                    os.write(2, line)
