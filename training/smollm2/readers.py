"""How files of a package become paragraphs of plain text, one reader for each kind of file.

A paragraph is a run of lines between blank ones. Lines that were wrapped at a width are joined;
code, lists and poems keep theirs.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

_BLANK = re.compile(r"\n[ \t]*\n")
_LEFT_OUT = {"script", "style", "head", "nav", "footer"}
_BLOCKS = {"p", "div", "li", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "tr", "blockquote", "br"}
_POD = re.compile(r"[A-Z]<+\s?([^<>]*?)\s?>+")
_WML = re.compile(r'(?:message|story|description)\s*=\s*_\s*"((?:[^"]|"")*)"')
_CHOICE = re.compile(r"[{}]|\[[^\]]*\]")


def plain(file: Path) -> str:
    """A file's text, unpacked where it is packed; Latin-1 where it is no UTF-8."""
    data = file.read_bytes()
    if file.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a text, as they stand."""
    yield from (part.strip("\n") for part in _BLANK.split(text.replace("\r\n", "\n")))


def joined(paragraph: str) -> str:
    """A paragraph's lines as one."""
    return " ".join(paragraph.split())


def wrapped(file: Path) -> Iterator[str]:
    """Text whose lines were wrapped; of an info file, without its nodes' lines."""
    for paragraph in paragraphs(plain(file)):
        if "\x1f" not in paragraph and "\x00" not in paragraph:
            yield joined(paragraph)


def dictionary(file: Path) -> Iterator[str]:
    """A dictionary's entries: each begins at the left, and its further lines are indented."""
    yield from map(joined, re.split(r"\n(?=\S)", plain(file)))


def code(file: Path) -> Iterator[str]:
    """Source code, its lines and indentation kept."""
    yield from paragraphs(plain(file))


def lists(file: Path) -> Iterator[str]:
    """Lists whose parts stand between colons or tabs, alternatives in brackets left out."""
    for paragraph in paragraphs(plain(file).replace("\\\n", "")):
        lines = (_CHOICE.sub("", line) for line in paragraph.splitlines())
        for some in _some(lines, 12):
            yield "\n".join(re.sub(r"\s*[:\t]\s*", ": ", line).strip(" :") for line in some)


def fortunes(file: Path) -> Iterator[str]:
    """Epigrams between lines of one `%`, their lines kept; the index files hold none."""
    if file.suffix or file.is_symlink():
        return
    yield from (part.strip("\n").expandtabs(4) for part in plain(file).split("\n%\n"))


def entries(file: Path) -> Iterator[str]:
    """Descriptions between lines of `%%%%`, without the name that each begins with."""
    for part in plain(file).split("%%%%"):
        _, _, text = part.strip().partition("\n")
        yield from map(joined, paragraphs(text))


def wml(file: Path) -> Iterator[str]:
    """What is said and told in a campaign's scenario."""
    yield from (joined(found.replace('""', '"')) for found in _WML.findall(plain(file)))


def names(file: Path) -> Iterator[str]:
    """Names and codes of an ISO standard, a dozen a paragraph."""
    held = json.loads(plain(file))
    rows = next(iter(held.values()))
    lines = (", ".join(str(value) for value in row.values()) for row in rows)
    yield from ("\n".join(some) for some in _some(lines, 12))


def rdb(file: Path) -> Iterator[str]:
    """The strings of an R package's data: lines of novels, blank ones between paragraphs.

    The file holds pieces, each packed behind its size of four bytes; in a piece, a string stands
    behind four bytes that say what it is and four of its length.
    """
    data, at = file.read_bytes(), 0
    while at < len(data):
        piece = zlib.decompressobj()
        held = piece.decompress(data[at + 4 :])
        at = len(data) - len(piece.unused_data)
        lines = [found[1].decode("ascii") for found in _STRING.finditer(held)]
        yield from map(joined, paragraphs("\n".join(lines)))


_STRING = re.compile(rb"\x00[\x00-\xff]{2}\x09\x00\x00..([\x20-\x7e]*)", re.DOTALL)


def pod(file: Path) -> Iterator[str]:
    """Perl's documentation: prose joined, examples as they stand, marks taken off."""
    for paragraph in paragraphs(plain(file)):
        if paragraph.startswith("="):
            head = paragraph.split(maxsplit=1)
            yield joined(_POD.sub(r"\1", head[1])) if len(head) > 1 else ""
        elif paragraph.startswith((" ", "\t")):
            yield paragraph
        else:
            yield joined(_POD.sub(r"\1", paragraph))


class _Text(HTMLParser):
    """The text of a page by its blocks; preformatted ones keep their lines."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self._now: list[str] = []
        self._out = self._kept = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _LEFT_OUT:
            self._out += 1
        if tag in _BLOCKS or tag == "pre":
            self.end_block()
        self._kept += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in _LEFT_OUT:
            self._out = max(0, self._out - 1)
        if tag in _BLOCKS or tag == "pre":
            self.end_block()
        if tag == "pre":
            self._kept = max(0, self._kept - 1)

    def handle_data(self, data: str) -> None:
        if not self._out:
            self._now.append(data)

    def end_block(self) -> None:
        text, self._now = "".join(self._now), []
        self.blocks.append(text.strip("\n") if self._kept else joined(text))


def page(file: Path) -> Iterator[str]:
    """The text of an HTML page."""
    reader = _Text()
    reader.feed(plain(file))
    reader.end_block()
    yield from (html.unescape(block).replace("¶", "") for block in reader.blocks)


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    "code": code,
    "dictionary": dictionary,
    "entries": entries,
    "fortunes": fortunes,
    "html": page,
    "lists": lists,
    "names": names,
    "pod": pod,
    "rdb": rdb,
    "wml": wml,
    "wrapped": wrapped,
}


def _some(lines: Iterator[str], count: int) -> Iterator[list[str]]:
    found: list[str] = []
    for line in lines:
        found.append(line)
        if len(found) == count:
            yield found
            found = []
    if found:
        yield found
