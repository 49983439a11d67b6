"""The documents, and what is in them: blocks of code, commands, code in the text, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} (.+)$", flags=re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


class Use(NamedTuple):
    """`sae-graphs COMMAND ... --flag`, as a page has it; no command where only a flag is named."""

    command: str | None
    flags: frozenset[str]


@dataclass(frozen=True)
class Page:
    """A document by its path and its text."""

    path: Path
    text: str

    def __str__(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and code of each fenced block."""
        return _FENCED.findall(self.text)

    @property
    def prose(self) -> str:
        """The text without its blocks of code."""
        return _FENCED.sub("", self.text)

    @property
    def commands(self) -> list[str]:
        """The lines `sae-graphs ...` of the blocks, without their comments."""
        lines = [line for _, block in self.blocks for line in block.splitlines()]
        return [without_comment(line) for line in lines if line.startswith("sae-graphs ")]

    @property
    def python(self) -> list[str]:
        """The Python blocks."""
        return [code for language, code in self.blocks if language == "python"]

    @property
    def code(self) -> list[str]:
        """Code in the text, `like this`."""
        return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", self.prose)

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """What is said of each picture, and where it is."""
        return _PICTURE.findall(self.text)

    @property
    def links(self) -> list[str]:
        """Where the links to files and headings lead."""
        return [link for link in _LINK.findall(self.prose) if "://" not in link]

    @property
    def anchors(self) -> set[str]:
        """The names by which its headings are linked to."""
        return {slug(heading) for heading in _HEADING.findall(self.prose)}

    def uses(self, names: frozenset[str]) -> Iterator[Use]:
        """Commands (those of `names`) and flags that the page has in blocks and in its text."""
        for line in (*self.commands, *self.code):
            words = words_of(line)
            flags = frozenset(word for word in words if re.fullmatch(r"--[a-z][a-z-]*", word))
            if words[:1] == ["sae-graphs"] and len(words) > 1 and not words[1].startswith("-"):
                yield Use(words[1], flags)
            elif words[:1] and words[0] in names:
                yield Use(words[0], flags)
            elif words[:1] and words[0] in flags:
                yield Use(None, flags)


def slug(heading: str) -> str:
    """A heading's name in a link, as GitHub and the site make it.

    >>> slug("Seen, and `not` seen")
    'seen-and-not-seen'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def without_comment(line: str) -> str:
    """A command line up to its comment.

    >>> without_comment('sae-graphs graph "C #"  # draws')
    'sae-graphs graph "C #"'
    """
    return re.split(r"\s+#\s", line)[0].strip()


def words_of(line: str) -> list[str]:
    """A line's words as a shell takes them; those between spaces where it would not."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def page(path: Path) -> Page:
    """The page of a file."""
    return Page(path, path.read_text(encoding="utf-8"))


def in_order() -> list[Page]:
    """The pages of docs/ in the order of the site's menu."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    return [page(DOCS / name) for name in re.findall(r": (\S+\.md)$", menu, flags=re.MULTILINE)]


README = page(ROOT / "README.md")
PAGES = in_order()
EVERY = (README, *PAGES)
