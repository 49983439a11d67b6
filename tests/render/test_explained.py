"""What Neuronpedia says, as it is drawn and printed: in full, cut to fit, or not at all."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from fontTools.ttLib import TTFont  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sae_graphs.cli import graph_table as terminal
from sae_graphs.cli.edge_table import print_edges
from sae_graphs.graph.feature_page import FeaturePage, LogitToken
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render import pictures as render
from sae_graphs.render.picture.engine import FOLDER
from sae_graphs.render.picture.explained import UNITS, _width, broken, fitted, page_words
from sae_graphs.render.style import FAINT, INK
from sae_graphs.text import ELLIPSIS, HARD_SPACE
from tests.support.rich_graphs import HOSTILE, graph_of, two_edges
from tests.support.slow import first

SVG = "{http://www.w3.org/2000/svg}"
PAGE = FeaturePage(
    "found",
    "closing brackets",
    0.0013,
    42.5,
    (LogitToken(" )", 1.5), LogitToken("]", 0.75)),
    (LogitToken("\n", -1.25),),
)
LONG = replace(PAGE, explanation="words that are said of copyright notices " * 9)


def drawn(page: FeaturePage | None) -> CausalGraph:
    url = "https://www.neuronpedia.org/m/1-res/2"
    return graph_of(("0.1", "1.2", -8.0), ("1.2", "2.3", 2.0), page=page, neuronpedia=url)


def root(graph: CausalGraph) -> ElementTree.Element:
    return ElementTree.fromstring(render.svg(graph))


def texts(graph: CausalGraph) -> dict[str, str | None]:
    """What is written in the picture, and its colour."""
    return {(each.text or ""): each.get("fill") for each in root(graph).iter(f"{SVG}text")}


def spaced(text: str) -> str:
    return text.replace(" ", HARD_SPACE)


def widths(graph: CausalGraph) -> set[int]:
    """Of the boxes, in points."""
    found = set()
    for group in root(graph).iter(f"{SVG}g"):
        if (group.get("id") or "").startswith("node-"):
            path = next(iter(group.iter(f"{SVG}path")))
            numbers = [float(x) for x in re.findall(r"(-?[0-9.]+),", path.get("d") or "")]
            found.add(round(max(numbers) - min(numbers)))
    return found


# -- boxes -----------------------------------------------------------------------------------------


def test_a_box_says_what_the_feature_means() -> None:
    assert texts(drawn(PAGE))[spaced("closing brackets")] == INK
    assert not any("brackets" in text for text in texts(drawn(None)))


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (FeaturePage("found"), "Neuronpedia: no explanation"),
        (FeaturePage("missing"), "Neuronpedia: no such feature"),
        (FeaturePage("unavailable"), "Neuronpedia: unavailable"),
    ],
)
def test_a_box_says_faintly_that_nothing_is_known(page: FeaturePage, words: str) -> None:
    assert texts(drawn(page))[spaced(words)] == FAINT


@pytest.mark.parametrize("letter", first(2, ["W", "i", "m", "w", "n", "%", "\x00"]))
def test_explanations_leave_boxes_as_wide_as_they_are(letter: str) -> None:
    page = FeaturePage("found", letter * 400)
    assert widths(drawn(page)) == widths(drawn(None))
    assert any(text.endswith(ELLIPSIS) for text in texts(drawn(page)))


def test_boxes_without_an_answer_are_as_high() -> None:
    graph = drawn(PAGE)
    half = replace(graph, nodes=(replace(graph.nodes[0], page=None), *graph.nodes[1:]))
    for mine, other in zip(root(half).iter(f"{SVG}g"), root(graph).iter(f"{SVG}g"), strict=True):
        if (mine.get("id") or "").startswith("node-"):
            assert _height(mine) == _height(other)


def test_boxes_have_two_lines_for_an_explanation() -> None:
    words = "references to copyright notices and to their years"
    long = replace(PAGE, explanation=words)
    graph = drawn(long)
    said = [text for text in texts(graph) if len(text) > 8 and text in spaced(words)]
    assert len(said) == 2
    assert spaced(words) in (HARD_SPACE.join(said), HARD_SPACE.join(said[::-1]))
    assert not any(text.endswith(ELLIPSIS) for text in texts(graph))
    assert heights(graph) > heights(drawn(PAGE))
    graph = drawn(LONG)
    cut = [text for text in texts(graph) if text.endswith(ELLIPSIS)]
    assert len(cut) == 1


def test_boxes_of_a_picture_have_as_many_lines() -> None:
    graph = drawn(PAGE)
    mixed = replace(graph, nodes=(replace(graph.nodes[0], page=LONG), *graph.nodes[1:]))
    assert heights(mixed) == heights(drawn(LONG))


def heights(graph: CausalGraph) -> list[float]:
    groups = [g for g in root(graph).iter(f"{SVG}g") if (g.get("id") or "").startswith("node-")]
    return [_height(group) for group in groups]


def _height(group: ElementTree.Element) -> float:
    path = next(iter(group.iter(f"{SVG}path"))).get("d") or ""
    numbers = [float(y) for y in re.findall(r",(-?[0-9.]+)", path)]
    return round(max(numbers) - min(numbers), 1)


def test_no_letter_is_wider_than_it_is_thought() -> None:
    font = TTFont(FOLDER / "DejaVuSans.ttf")
    names, widths, em = font.getBestCmap(), font["hmtx"], font["head"].unitsPerEm
    for character in map(chr, range(0x20, 0x100)):
        if ord(character) in names:
            pixels = round(widths[names[ord(character)]][0] / em * 12)  # as type of 9 points has
            assert pixels / 12 / UNITS <= _width(character), character


@given(st.text(max_size=60), st.floats(3, 40))
def test_what_is_fitted_fits(text: str, room: float) -> None:
    shown = fitted(text, room)
    assert sum(map(_width, shown)) <= room
    assert shown == text or shown.endswith(ELLIPSIS)
    if sum(map(_width, text)) <= room:
        assert shown == text


@given(
    st.text(st.sampled_from("ab W" + HARD_SPACE), max_size=60).map(spaced),
    st.floats(3, 40),
    st.integers(1, 3),
)
def test_lines_are_broken_between_words(text: str, room: float, lines: int) -> None:
    found = broken(text, room, lines)
    assert 1 <= len(found) <= lines
    assert all(line and sum(map(_width, line)) <= room for line in found)
    assert not any(line.endswith(ELLIPSIS) for line in found[:-1])
    letters = "".join(found).replace(HARD_SPACE, "")
    whole = text.replace(HARD_SPACE, "")
    assert letters == whole or whole.startswith(letters.removesuffix(ELLIPSIS))
    assert (len(found) == 1) == (lines == 1 or sum(map(_width, text)) <= room)


def test_a_word_longer_than_a_line_is_broken() -> None:
    assert broken("aa\xa0bb\xa0cccccc", 3 * _width("a"), 4) == ["aa", "bb", "ccc", "ccc"]


# -- tooltips, the page, the legend ----------------------------------------------------------------


def tip(graph: CausalGraph) -> str:
    titles = [each.text or "" for each in root(graph).iter(f"{SVG}title")]
    titles += [
        value for each in root(graph).iter() for key, value in each.items() if "title" in key
    ]
    found = next(text for text in titles if "activation 2.50" in text)
    return found.replace(HARD_SPACE, " ")


def test_tooltips_say_everything() -> None:
    lines = tip(drawn(PAGE)).splitlines()
    at = lines.index("Neuronpedia: closing brackets")
    assert lines[at + 1 : at + 4] == [
        "  active on 0.13% of tokens, at most 42.5",
        "  top logits: ␣) +1.5  ] +0.75",
        "  bottom logits: ↵ −1.2",
    ]
    assert "Neuronpedia: unavailable" in tip(drawn(FeaturePage("unavailable"))).splitlines()
    assert "Neuronpedia:" not in tip(drawn(None))


def test_long_explanations_are_whole_in_tooltips() -> None:
    said = " ".join(tip(drawn(LONG)).split())
    assert (LONG.explanation or "").strip() in said


def test_tooltips_say_whose_contexts_they_are() -> None:
    assert "most active on:" in tip(drawn(PAGE))
    assert "most active on (from Neuronpedia):" in tip(drawn(replace(PAGE, gave_contexts=True)))


def test_the_page_has_a_table() -> None:
    page = render.html(drawn(PAGE))
    table = page.partition("What Neuronpedia says")[2].partition("</table>")[0]
    for words in ("closing brackets", "0.13%", "42.5", "␣) +1.5", "↵ −1.2"):
        assert words in table
    assert table.count("<tr>") == 4  # its head, and three features
    assert "What Neuronpedia says" not in render.html(drawn(None))
    faint = render.html(drawn(FeaturePage("unavailable")))
    assert "<td class=faint>unavailable</td>" in faint


def test_the_legend_explains_the_line_where_there_is_one() -> None:
    assert any("as Neuronpedia" in text.replace(HARD_SPACE, " ") for text in texts(drawn(PAGE)))
    assert not any("Neuronpedia" in text for text in texts(drawn(None)))


# -- the terminal ----------------------------------------------------------------------------------


def printed(graph: CausalGraph, style: str | None = None, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    if style is None:
        terminal.print_graph(console, graph, seconds=1.0)
    else:
        print_edges(console, graph, graph.edges, style)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("style", ["table", "csv", "json", None])
def test_the_terminal_gets_no_control_codes(style: str | None) -> None:
    hostile = FeaturePage("found", "a\x1b]0;title\x07b\x1b[31m" + "".join(HOSTILE))
    shown = ESCAPE.sub("", printed(drawn(hostile), style, width=400))
    assert "title" in shown
    assert not {"\x1b", "\x07", "\x00", "\u202e", "\u200f"} & set(shown)


def test_edges_are_followed_by_what_their_ends_mean() -> None:
    shown = ESCAPE.sub("", printed(drawn(PAGE), "table"))
    assert shown.count("closing brackets") == 3
    assert "m/1-res/2" in shown
    assert "Neuronpedia" not in ESCAPE.sub("", printed(drawn(None), "table"))


def test_the_strongest_path_is_explained() -> None:
    shown = ESCAPE.sub("", printed(drawn(PAGE)))
    assert "    0.1  closing brackets\n" in shown
    assert "    0.1" not in ESCAPE.sub("", printed(drawn(FeaturePage("missing"))))


def test_words_for_every_page() -> None:
    pages = (None, PAGE, FeaturePage("missing"), FeaturePage("unavailable"), FeaturePage("found"))
    assert [page_words(page) for page in pages] == [
        "",
        "closing brackets",
        "no such feature",
        "unavailable",
        "no explanation",
    ]
    assert page_words(two_edges().nodes[0].page) == ""
