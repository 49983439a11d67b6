"""What is answered at which address: pages made from runs, and the files of runs.

Addresses are taken apart before they are decoded, and runs are looked up among those that are
there: no text of an address ever becomes a path by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.gallery.asking import Asker, changes_from
from sae_graphs.gallery.atlases import page_of
from sae_graphs.gallery.cards import gallery
from sae_graphs.gallery.library import Library
from sae_graphs.gallery.runs import KINDS, plain_file
from sae_graphs.gallery.skeleton import NOTHING, Page, problem_page, run_address
from sae_graphs.render.explorer.page import policy, script
from sae_graphs.text import visible

# Three boxes and two arrows; a browser asks for it under this name where a page has no other.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M9,24L16,9L23,24" '
    'fill="none" stroke="#d92626" stroke-width="3"/><g fill="#1d5fd6"><rect x="9" y="3" width="14" '
    'height="8" rx="3"/><rect x="1" y="21" width="13" height="8" rx="3"/><rect x="18" y="21" '
    'width="13" height="8" rx="3"/></g></svg>'
)
HTML = KINDS[".html"]
_POLICIES = {
    ".svg": f"{NOTHING}; style-src 'unsafe-inline'; img-src data:",
    ".png": f"{NOTHING}; style-src 'unsafe-inline'; img-src 'self'",  # of the page around it
    ".pdf": f"{NOTHING}; object-src 'self'; style-src 'unsafe-inline'",
}


class Answer(NamedTuple):
    """A status, what kind of body, the body or the file that is it, and what it may do."""

    status: int
    kind: str
    body: bytes | Path
    policy: str = NOTHING
    location: str | None = None


def answered(library: Library, target: str) -> Answer:
    """The answer to a request for `target`, an address from the root with its query."""
    path, _, query = target.partition("#")[0].partition("?")
    if not path.startswith("/") or any(ord(character) <= 32 for character in target):
        return told(400, "Not an address", "Addresses begin with a slash, and hold no spaces.")
    parts = [_decoded(part) for part in path[1:].split("/")]
    if any(part is None for part in parts):
        return _missing()
    names = [part for part in parts if part is not None]
    try:
        match names:
            case [""]:
                cards = library.cards()
                return _page(gallery(cards, folder=library.folder.resolve().name))
            case ["favicon.ico"]:
                return Answer(200, KINDS[".svg"], ICON.encode(), _POLICIES[".svg"])
            case ["compare"]:
                return _comparison(library, query)
            case ["thumbnail", picture] if picture.endswith(".svg"):
                return _thumbnail(library, picture.removesuffix(".svg"))
            case ["atlas", name, feature]:
                return _feature(library, name, feature)
            case ["run", name]:
                return _moved(library, name)
            case ["run", name, *file]:
                return _run(library, name, file)
    except SaeGraphsError as problem:
        return told(422, "This cannot be shown", str(problem))
    return _missing()


def posted(library: Library, asker: Asker | None, target: str, body: bytes) -> Answer:
    """The answer to what a run's page asks: `/run/NAME/what-if`, with changes as JSON.

    Problems are JSON too, of one line each, as the page shows them.
    """
    name = asks_of(target)
    run = None if name is None else library.runs().get(name)
    if run is None:
        return told_page("there is no such run here; go back to all runs", 404)
    try:
        changes = changes_from(body)
    except SaeGraphsError as problem:
        return told_page(str(problem), 400)
    if asker is None:
        return told_page("this gallery runs no model: start it with `sae-graphs view`")
    return _json(asker.answer(run, changes))


def asks_of(target: str) -> str | None:
    """The run that is asked about at an address; None where nothing can be asked."""
    match [_decoded(part) for part in target.split("/")]:
        case ["", "run", str(name), "what-if"]:
            return name
    return None


def told_page(words: str, status: int = 200) -> Answer:
    """What is wrong, as a page's script reads it."""
    return _json({"problem": words}, status)


def _json(told: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, KINDS[".json"], json.dumps(told).encode("ascii"))


def _decoded(part: str) -> str | None:
    """A part of the path as a name; None where no file could be called so.

    Runs are looked up by these names, and `plain_file` is strict about those of files.
    """
    text = unquote_to_bytes(part)
    if b"/" in text or b"\0" in text:
        return None
    return text.decode("utf-8", "surrogateescape")


def told(status: int, heading: str, words: str) -> Answer:
    """A page that says what is wrong."""
    return _page(problem_page(heading, words), status)


def _missing() -> Answer:
    return told(404, "Nothing is here", "No run, and no file of one, has this address.")


def _page(page: Page, status: int = 200) -> Answer:
    return Answer(status, HTML, page.html.encode("utf-8", "replace"), page.policy)


def _moved(library: Library, name: str) -> Answer:
    """A run's page has a slash at its end, so that links in it lead into the run."""
    if name not in library.runs():
        return _missing()
    return Answer(301, "text/plain; charset=utf-8", b"", location=run_address(name))


def _feature(library: Library, name: str, feature: str) -> Answer:
    found = page_of(library.folder, name, feature)
    return _missing() if found is None else _page(found)


def _run(library: Library, name: str, file: list[str]) -> Answer:
    run = library.runs().get(name)
    if run is None:
        return _missing()
    if file == [""]:
        return _page(library.drawn("explorer", [name]))
    found = plain_file(run, file)
    if found is None:
        return _missing()
    suffix = found.suffix.lower()
    return Answer(200, KINDS[suffix], found, _policy(suffix))


def _policy(suffix: str) -> str:
    """What a saved file may do: a page runs the explorer's script, if it has it, and no other."""
    if suffix == ".html":
        return f"{policy(script())}; img-src 'self' data:; frame-ancestors 'none'"
    return _POLICIES.get(suffix, NOTHING)


def _thumbnail(library: Library, name: str) -> Answer:
    run = library.runs().get(name)
    card = None if run is None else library.card(run)
    if card is None or (card.record is None and card.summary is None):
        return _missing()
    picture = library.drawn("thumbnail", [name]).html
    return Answer(200, KINDS[".svg"], picture.encode(), _POLICIES[".svg"])


def _comparison(library: Library, query: str) -> Answer:
    """`a` and `b` name the two runs; so do two `run`s, as a form without a script sends them."""
    try:
        asked = parse_qs(query, errors="surrogateescape", max_num_fields=10)
    except ValueError:
        return told(400, "Not a question", "Give two runs: /compare?a=NAME&b=NAME")
    names = [*asked.get("a", [])[:1], *asked.get("b", [])[:1]] or asked.get("run", [])
    if len(names) != 2:
        return told(400, "Two runs are compared", "Tick two graphs in the gallery, then compare.")
    runs = library.runs()
    unknown = [visible(name, space=" ") for name in names if name not in runs]
    if unknown:
        return told(404, "No such run", f"{quoted(unknown)}: no run here has this name.")
    return _page(library.drawn("comparison", names, summed=asked.get("sum") == ["1"]))
