"""Any string becomes visible and safe; no string is lost."""

from __future__ import annotations

import html
import unicodedata
from xml.etree import ElementTree

import graphviz
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.render.picture.engine import draw_svg
from sae_graphs.render.picture.markup import in_label, in_tooltip
from sae_graphs.render.picture.strips import strip
from sae_graphs.text import HARD_SPACE, columns, in_page, shortened, token, visible, web_address
from sae_graphs.words import percent, plain, probability_words, signed
from tests.support.rich_graphs import HOSTILE
from tests.support.slow import examples

ascii_text = st.text(st.characters(codec="ascii"), max_size=20)
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" )", "␣)"),
        ("\n\n", "↵↵"),
        ("\t", "⇥"),
        ("\r", "\\x0d"),
        ("\x00", "\\x00"),
        ("\u200f", "\\u200f"),
        ("\u200b", "\\u200b"),
        ("\ud83d", "\\ud83d"),
        ("\ufffd", "\ufffd"),
        ("\u00a0", "\\xa0"),
        ("\u2028", "\\u2028"),
        ("\U000e0001", "\\U000e0001"),
        ("\u0301", "◌\u0301"),
        ("", "(empty)"),
        ("日本", "日本"),
    ],
)
def test_what_a_reader_cannot_see_is_shown(text: str, shown: str) -> None:
    assert token(text) == shown


@given(any_text)
def test_visible_text_is_fit_for_xml_and_utf8(text: str) -> None:
    shown = visible(text)
    ElementTree.fromstring(f"<t>{html.escape(shown)}</t>")
    assert shown.encode().decode() == shown
    hidden = {c for c in shown if unicodedata.category(c)[0] in "CZ"} - {HARD_SPACE}
    assert not hidden


@given(ascii_text)
def test_plain_text_is_shown_as_beside_what_is_not_plain(text: str) -> None:
    assert visible(f"\x00{text}", space="_") == "\\x00" + visible(text, space="_")


@examples(60, cheap=True)
@given(any_text)
def test_graphviz_draws_any_text_as_it_is(text: str) -> None:
    shown = "[" + visible(text) + "]"
    drawing = graphviz.Digraph("G")
    label = f"<<TABLE><TR><TD>{in_label(shown)}</TD></TR></TABLE>>"
    drawing.node("N", label=label, tooltip=in_tooltip(shown))
    root = ElementTree.fromstring(draw_svg(drawing.source))
    assert [element.text for element in root.iter(f"{SVG}text")] == [shown]
    assert shown in [element.text for element in root.iter(f"{SVG}title")]


@pytest.mark.parametrize("text", ["\\N", "\\G\\T\\H\\E\\L", "\\", "\\\\N", "a\\n\\l\\r"])
def test_graphviz_does_not_expand_backslashes(text: str) -> None:
    drawing = graphviz.Digraph("picture")
    drawing.node("box", label=f"<{in_label(text)}>", tooltip=in_tooltip(text))
    root = ElementTree.fromstring(draw_svg(drawing.source))
    assert [element.text for element in root.iter(f"{SVG}text")] == [text]
    assert text in [element.text for element in root.iter(f"{SVG}title")]


@given(any_text)
def test_page_text_comes_back_from_html(text: str) -> None:
    assert html.unescape(in_page(visible(text))) == visible(text)
    assert not set("<>\"'") & set(in_page(visible(text)))


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://www.neuronpedia.org/gpt2-small/5-res-jb/10603",) * 2,
        ("http://localhost:3000/x",) * 2,
        ('https://a.org/"><script>', "https://a.org/%22%3E%3Cscript%3E"),
        ("https://a.org/\\N", "https://a.org/%5CN"),
        ("javascript:alert(1)", None),
        ("JavaScript://a.org/%0aalert(1)", None),
        (" javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("//a.org/x", None),
        ("https://", None),
        ("https://[broken", None),
        ("", None),
        (None, None),
    ],
)
def test_only_web_addresses_become_links(url: str | None, kept: str | None) -> None:
    assert web_address(url) == kept


def test_numbers_keep_their_sign_and_their_digits() -> None:
    assert [signed(v) for v in (-12.34, 0.5, 0.0, 3574.2)] == ["−12.3", "+0.500", "0", "+3,574"]
    assert [signed(v, 2) for v in (-4.0, 0.073, -0.0004)] == ["−4.0", "+0.073", "−0.00040"]
    assert [plain(v) for v in (145.0, -2.0, 1e-9)] == ["145", "−2.00", "1.00e-09"]


def test_small_shares_do_not_read_as_nothing() -> None:
    assert [percent(v) for v in (0.63, 0.0996, 0.012, 2e-4, 0.0)] == [
        *("63%", "10%", "1.2%", "<0.1%", "0%")
    ]


def test_a_probability_reads_as_all_or_nothing_only_where_it_is() -> None:
    given = (1.0, 0.9996, 0.9994, 0.9951, 0.9949, 0.0006, 0.0)
    assert [probability_words(v) for v in given] == [
        *("100%", ">99.9%", "99.9%", "99.5%", "99%", "<0.1%", "0%")
    ]


def test_shortened_text_fits() -> None:
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"


# -- strips ----------------------------------------------------------------------------------------


def test_a_strip_is_cut_around_its_most_active_token() -> None:
    words = "one two three four five six seven eight nine ten"
    tokens = [f" {word}" for word in words.split(" ")]
    activations = [0.0] * 10
    activations[6] = 3.0
    pieces = strip(tokens, activations, largest=6.0, width=24)
    assert [(p.text.replace(HARD_SPACE, " "), p.step) for p in pieces] == [
        ("… five six", 0),
        (" seven", 4),
        (" eight…", 0),
    ]


def test_a_strip_that_fits_is_whole() -> None:
    pieces = strip(["a", "b", "c"], [0.0, 1.0, 0.0], largest=1.0, width=3)
    assert [(piece.text, piece.step) for piece in pieces] == [("a", 0), ("b", 8), ("c", 0)]


@given(
    st.lists(st.tuples(any_text, st.floats(allow_infinity=True)), max_size=12),
    st.integers(8, 40),
)
def test_a_strip_never_exceeds_its_width(line: list[tuple[str, float]], width: int) -> None:
    tokens, values = [text for text, _ in line], [value for _, value in line]
    pieces = strip(tokens, values, largest=5.0, width=width)
    assert columns("".join(piece.text for piece in pieces)) <= width
    if columns("".join(map(visible, tokens))) <= width:
        assert "".join(piece.text for piece in pieces) == "".join(map(visible, tokens))


def test_hostile_text_is_really_hostile() -> None:
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(f"<t>{''.join(HOSTILE[:2])}</t>")
    with pytest.raises(UnicodeEncodeError):
        "".join(HOSTILE).encode()
