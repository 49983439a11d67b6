"""What tests of reports share: odd reports, a page as a browser reads it, the terminal's text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser

from rich.console import Console

from sae_graphs.cli.verdict_table import print_report
from sae_graphs.render.document.page import page
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.report.content import blocks, cover
from tests.support import evidence

VOID = {"meta", "br", "wbr"}
ODD = {
    "bare": evidence.report(
        units=(evidence.bare_unit(),), noise=(), curves=(), agreement=None, corpus=None
    ),
    "no units": evidence.report(units=[evidence.bare_unit()], settings={}),
    "refused": evidence.report(units=(evidence.refused(),)),
    "prompts": evidence.report(units=(evidence.over_prompts(),), test=("© (C", "(C")),
    "contrast": evidence.with_contrast(),
}


class Page(HTMLParser):
    """What a browser would make of a page: the elements and their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def active_parts(found: Page) -> Iterator[str]:
    """Whatever could run or fetch something."""
    for tag, attributes in found.elements:
        if tag in ("script", "iframe", "object", "embed", "link", "base", "form", "img", "image"):
            yield tag
        for name, value in attributes.items():
            if name.startswith("on") or name in ("src", "srcset", "action", "data"):
                yield f"{tag} {name}"
            local = (value or "").startswith(("#", "https://www.neuronpedia.org/"))
            if name.endswith("href") and not local:
                yield f"{tag} {name}={value}"
            if "url(" in (value or "") and not re.fullmatch(r".*url\(#\w+\).*", value or ""):
                yield f"{tag} {name}={value}"


def page_of(report: ValidationReport) -> Page:
    return Page(page(cover(report), blocks(report)))


def printed(report: ValidationReport, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_report(console, report)
    return console.export_text()
