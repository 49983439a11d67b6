"""Any string made visible and safe to draw: tokens hold newlines, control codes, half emoji.

Two steps, always in this order: `visible` replaces what a reader could not see (or what could
reorder the text around it), then an escaping function makes the result safe for its place.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

SPACE = "\u2423"  # open box: a space that a reader is meant to count
HARD_SPACE = "\u00a0"  # a space in running text that no renderer may drop
ELLIPSIS = "\u2026"
BEFORE = 0.6  # of the room around a peak: what comes before explains more than what follows

_SIGNS = {"\n": "\u21b5", "\t": "\u21e5", "\u00a0": "\\xa0"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"}
_COMBINING = {"Mn", "Me", "Mc"}
_BASE_FOR_COMBINING = "\u25cc"  # dotted circle
_BYTE = re.compile("<0x([89A-F][0-9A-F])>")  # of a character that takes several


def visible(text: str, *, space: str = HARD_SPACE) -> str:
    """`text` with everything readable: `space` for each space, an arrow for newline and tab.

    Control codes, invisible and direction-changing marks, unassigned characters and lone
    surrogates become escapes as Python writes them. The result is fit for XML 1.0 but not escaped.

    >>> visible("a b\\n", space="_")
    'a_b↵'
    >>> visible("\\x00\\u200f\\ud83d")
    '\\\\x00\\\\u200f\\\\ud83d'
    """
    if text.isascii() and text.isprintable():  # nothing to replace but spaces
        return text.replace(" ", space)
    shown = "".join(_visible_character(character, space) for character in text)
    if shown and unicodedata.category(shown[0]) in _COMBINING:
        return _BASE_FOR_COMBINING + shown
    return shown


def _visible_character(character: str, space: str) -> str:
    if character == " ":
        return space
    if character in _SIGNS:
        return _SIGNS[character]
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def token(text: str) -> str:
    """One token standing alone: every space is shown; a token of no characters says so."""
    return visible(text, space=SPACE) or "(empty)"


def bytes_shown(data: bytes) -> str:
    """Bytes as the text that they are, those of half a character as `<0xC3>`.

    >>> bytes_shown(b" caf\\xc3\\xa9"), bytes_shown(b" \\xe2\\x80")
    (' café', ' <0xE2><0x80>')
    """
    text = data.decode("utf-8", "surrogateescape")
    return "".join(
        f"<0x{ord(letter) - 0xDC00:02X}>" if 0xDC80 <= ord(letter) <= 0xDCFF else letter
        for letter in text
    )


def bytes_of(shown: str) -> bytes:
    """The inverse of `bytes_shown`.

    >>> bytes_of(" \u20ac <0xE2><0x80>")
    b' \xe2\x82\xac \xe2\x80'
    """
    return b"".join(
        bytes([int(part, 16)]) if place % 2 else part.encode("utf-8", "surrogatepass")
        for place, part in enumerate(_BYTE.split(shown))
    )


def joined(tokens: Iterable[str]) -> str:
    """Tokens as one text, the bytes among them joined to characters where they are some.

    >>> joined(["caf", "<0xC3>", "<0xA9>", "!", "<0xC3>"])
    'café!<0xC3>'
    """
    told: list[str] = []
    waiting = bytearray()
    for text in tokens:
        for place, part in enumerate(_BYTE.split(text)):
            if place % 2:
                waiting.append(int(part, 16))
            elif part:
                told += [bytes_shown(bytes(waiting)), part]
                waiting.clear()
    return "".join([*told, bytes_shown(bytes(waiting))])


def encodable(text: str | None) -> str | None:
    """The text as it is, but for halves of characters, which tables cannot hold."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of visible text, an ellipsis in place of the rest."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + ELLIPSIS


def columns(text: str) -> int:
    """The width of visible text in columns of a monospaced font; wide characters take two."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide


def window(text: str, start: int, end: int, width: int) -> tuple[int, int]:
    """From where to where at most `width` columns around `text[start:end]` of visible text reach.

    There is room for an ellipsis at either end; more of it comes before than after.
    """
    if columns(text) <= width:
        return 0, len(text)
    room = width - 2  # an ellipsis at either end
    while end > start + 1 and columns(text[start:end]) > room:
        end -= 1
    room -= columns(text[start:end])
    before, after = columns(text[:start]), columns(text[end:])
    left = max(min(before, int(room * BEFORE)), room - after)
    first, last = start, end
    while first > 0 and columns(text[first - 1 : start]) <= left:
        first -= 1
    room -= columns(text[first:start])
    while last < len(text) and columns(text[end : last + 1]) <= room:
        last += 1
    while last > end and text[last - 1] == HARD_SPACE:
        last -= 1
    return first, last


def in_page(shown: str) -> str:
    """Visible text escaped for HTML."""
    return html.escape(shown)


def web_address(url: str | None) -> str | None:
    """The address where it is a plain http or https one, percent-encoded; None for all else."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    return quote(url.encode("utf-8", "replace"), safe=":/?#[]@!$&()*+,;=%~._-")
