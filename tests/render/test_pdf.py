"""PDF: its text is text, in fonts that the file holds; SVG text names fonts that exist anywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from sae_graphs.graph.annotations import Annotations
from sae_graphs.render import pictures as render
from sae_graphs.render.style import MONO, SANS
from tests.support.rich_graphs import hostile, large, two_edges

_OBJECT = re.compile(rb"(\d+) 0 obj(.*?)endobj", re.DOTALL)
_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
TOLD = Annotations(title="A title of ours", caption="A caption of ours")


def objects(pdf: bytes) -> list[bytes]:
    """The file's objects, streams of objects unpacked."""
    found = [body for _, body in _OBJECT.findall(pdf)]
    packed = [body for body in found if b"/ObjStm" in body]
    return found + [zlib.decompress(_STREAM.search(body)[1]) for body in packed]  # type: ignore[index]


def glyph_names(pdf: bytes) -> str:
    """What the fonts' maps to Unicode hold: every letter that can be copied from the file."""
    letters = set()
    for body in objects(pdf):
        stream = _STREAM.search(body)
        if stream is None or b"FlateDecode" not in body:
            continue
        try:
            text = zlib.decompress(stream[1])
        except zlib.error:
            continue
        if b"begincmap" in text:
            for code in re.findall(rb"<[0-9a-f]+> <([0-9a-f]{4})>", text):
                letters.add(chr(int(code, 16)))
    return "".join(sorted(letters))


def test_fonts_are_embedded_and_map_to_unicode() -> None:
    pdf = render.pdf(two_edges(), annotations=TOLD)
    whole = b"\n".join(objects(pdf))
    fonts = re.findall(rb"/BaseFont\s*/([A-Z]{6}\+)?([A-Za-z-]+)", whole)
    assert {name for _, name in fonts} >= {b"DejaVuSans", b"DejaVuSans-Bold", b"DejaVuSansMono"}
    assert all(subset for subset, _ in fonts)
    assert whole.count(b"/FontFile2") >= 3
    assert whole.count(b"/ToUnicode") >= 3
    assert not re.search(rb"/Subtype\s*/Type3", whole)
    assert b"/Subtype /Image" not in whole


def test_letters_can_be_copied() -> None:
    letters = glyph_names(render.pdf(two_edges(), annotations=TOLD))
    assert {"−", "␣"} <= set(letters)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext (poppler) is not here")
def test_text_is_found(tmp_path: Path) -> None:
    file = tmp_path / "graph.pdf"
    file.write_bytes(render.pdf(two_edges(), annotations=TOLD))
    done = subprocess.run(
        ["pdftotext", "-layout", str(file), "-"], capture_output=True, text=True, check=True
    )
    said = " ".join(done.stdout.split())
    for words in ("A title of ours", "A caption of ours", "How to read it", "−8.00", "ablating"):
        assert words in said


@pytest.mark.skipif(shutil.which("pdffonts") is None, reason="pdffonts (poppler) is not here")
@pytest.mark.parametrize("name", ["hostile", "large"])
def test_every_font_is_embedded(name: str, tmp_path: Path) -> None:
    graph = hostile() if name == "hostile" else large(4, 6)
    file = tmp_path / "graph.pdf"
    file.write_bytes(render.pdf(graph))
    done = subprocess.run(["pdffonts", str(file)], capture_output=True, text=True, check=True)
    rows = done.stdout.splitlines()[2:]
    assert rows
    for row in rows:
        assert row.split()[-5:-3] == ["yes", "yes"] and "Type 3" not in row, row


def test_svg_text_is_text_in_fonts_with_a_way_out() -> None:
    picture = render.svg(two_edges(), annotations=TOLD)
    families = set(re.findall(r'font-family="([^"]*)"', picture))
    assert families == {SANS, MONO}
    assert SANS.endswith(",sans-serif") and MONO.endswith(",monospace")
    assert "<text" in picture and "<image" not in picture and "<use" not in picture
