"""The strip plot: its dots are the numbers, its words say the same, and no text acts."""

from __future__ import annotations

import doctest
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.render.document.page import inlined
from sae_graphs.validation.report import strip as module
from sae_graphs.validation.report.strip import Row, Strip, strip_plot, strip_words
from tests.support import evidence

MATCHED = Row("matched controls", "1 of 4 as much, q = 0.4", (-1.5, 0.25, 2.0, 9.5), 2.0)
SCALED = Row("controls scaled to its norm", "0 of 2 as much, p = 0.3", (4.0, 4.0))
STRIP = Strip("Path 1", 8.0, 'contribution to the log-odds of " Mary", nats', (MATCHED, SCALED))
SVG = "{http://www.w3.org/2000/svg}"


def drawn(strip: Strip) -> ElementTree.Element:
    text = strip_plot(strip)
    assert text is not None
    return ElementTree.fromstring(text)


def scale(root: ElementTree.Element) -> Any:
    """From a place on the axis to the value there, by two of its labels."""
    labels = [
        (float(text.attrib["x"]), float(str(text.text).replace("−", "-").replace(",", "")))
        for text in root.iter(f"{SVG}text")
        if re.fullmatch(r"[+−]?[\d.,]+(e-?\d+)?", text.text or "")
    ]
    (x, a), *_, (y, b) = labels
    return lambda place: a + (place - x) * (b - a) / (y - x)


def dots(root: ElementTree.Element) -> list[list[float]]:
    """The values at which each row has its dots."""
    at = scale(root)
    rows = [path for path in root.iter(f"{SVG}path") if path.get("class") == "dots"]
    return [[at(float(x)) for x in re.findall(r"M([\d.]+) ", row.attrib["d"])] for row in rows]


def test_its_functions_do_as_they_say() -> None:
    assert doctest.testmod(module).failed == 0


def test_every_dot_is_a_number_of_the_record() -> None:
    root = drawn(STRIP)
    for found, row in zip(dots(root), STRIP.rows, strict=True):
        assert found == pytest.approx(sorted(row.values), abs=0.03)
    own = next(path for path in root.iter(f"{SVG}path") if path.get("class") == "own")
    place = re.match(r"M([\d.]+) ", own.attrib["d"])
    assert place and scale(root)(float(place[1])) == pytest.approx(8.0, abs=0.03)
    needed = [path for path in root.iter(f"{SVG}path") if path.get("class") == "needed"]
    assert len(needed) == 1  # one row has a threshold


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e6, 1e6))
def test_any_numbers_are_drawn_within_it(values: list[float], own: float) -> None:
    root = drawn(Strip("x", own, "nats", (Row("a", "b", tuple(values)),)))
    assert len(dots(root)[0]) == len(values)
    for path in root.iter(f"{SVG}path"):
        for x in re.findall(r"M([-\d.e]+) ", path.attrib["d"]):
            assert 0 <= float(x) <= module.WIDTH


def test_equal_values_are_stacked_and_seen() -> None:
    (row,) = (
        path
        for path in drawn(Strip("x", 1.0, "nats", (Row("a", "b", (0.5,) * 5),))).iter(f"{SVG}path")
        if path.get("class") == "dots"
    )
    assert len(set(re.findall(r"M[\d.]+ ([\d.]+)", row.attrib["d"]))) == 5


def test_its_words_say_the_same() -> None:
    told = strip_words(STRIP)
    assert told == (
        'Path 1: +8.00 (contribution to the log-odds of " Mary", nats). matched controls: 4 dots '
        "from −1.50 to +9.50, median +1.12; 1 of 4 as much, q = 0.4; it beats them beyond +2.00. "
        "controls scaled to its norm: 2 dots from +4.00 to +4.00, median +4.00; 0 of 2 as much, "
        "p = 0.3."
    )
    assert drawn(STRIP).get("aria-label") == told and drawn(STRIP).get("role") == "img"


def test_what_is_not_there_is_not_drawn() -> None:
    nan = float("nan")
    assert strip_plot(Strip("x", 1.0, "nats", ())) is None
    assert strip_plot(Strip("x", nan, "nats", (MATCHED,))) is None
    assert strip_plot(Strip("x", 1.0, "nats", (Row("a", "b", (nan,)),))) is None


def test_hostile_text_stays_text() -> None:
    text = evidence.HOSTILE
    root = drawn(Strip(text, 1.0, text, (Row(text, text, (0.5,)),)))
    assert {part.tag for part in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "rect", "path", "text")
    }
    raw = strip_plot(Strip(text, 1.0, text, (Row(text, text, (0.5,)),))) or ""
    assert "<script" not in raw and not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", raw)


def test_in_a_page_its_colours_are_the_pages() -> None:
    shown = inlined(strip_plot(STRIP) or "")
    assert "var(--paper)" in shown and not re.search("#[0-9a-f]{6}", shown)


def test_no_text_is_small() -> None:
    assert min(float(text.attrib["font-size"]) for text in drawn(STRIP).iter(f"{SVG}text")) >= 9
