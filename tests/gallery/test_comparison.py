"""Two graphs side by side: one layout, each arrow in its place, nothing said that is not so."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery import comparison as module
from sae_graphs.gallery import placing
from sae_graphs.gallery import sides as union_module
from sae_graphs.gallery.comparison import comparison
from sae_graphs.gallery.placing import Wish, extent, number_places
from sae_graphs.gallery.runs import runs_in
from sae_graphs.gallery.sides import TYPES, Side, sides, union
from sae_graphs.gallery.skeleton import sheet
from sae_graphs.graph.difference import difference
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.render.picture.layout import Box, Route
from tests.support.rich_graphs import graph_of, hostile, large, record, resolved
from tests.support.saved_runs import Site, write_run
from tests.support.slow import examples


def left() -> CausalGraph:
    return graph_of(("0.1", "1.2", -8.0), ("1.2", "2.3", 2.0), ("0.4", "1.2", 1.0))


def right() -> CausalGraph:
    run = record(("<bos>", "Copyright", " 1990", " (", "C"))
    return graph_of(
        ("0.1", "1.2", -3.0),
        ("1.2", "2.3", 9.0),
        ("1.5", "2.3", 4.0),
        run=run,
        activations=(0.0, 1.0, 0.0, 2.0, 2.5),
    )


def few() -> CausalGraph:
    """A small part of `large`."""
    whole = large(4, 12)
    return assemble(whole.run, whole.nodes, whole.edges[:2])


def drawings(a: CausalGraph, b: CausalGraph) -> Mapping[Side, str]:
    return sides(union(difference(a, b)), a.run, b.run)[1]


def page_of(a: CausalGraph, b: CausalGraph, folder: Path, **options: Any) -> str:
    write_run(folder / "a", a)
    write_run(folder / "b", b)
    runs = runs_in(folder)
    return comparison(runs["a"], runs["b"], list(runs.values()), **options).html


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="pair-data">(.*?)</script>', html)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def places(html: str) -> dict[str, str]:
    """Where each box stands, by its number."""
    return dict(re.findall(r'data-n="(\d+)" style="([^"]*)"', html))


def arrows(html: str) -> dict[str, str]:
    """The classes of each arrow, by its number."""
    found = re.findall(r'<g class="arrow ([^"]*)" data-e="(\d+)">', html)
    return {number: classes for classes, number in found}


def test_a_union_holds_both_and_numbers_them_once() -> None:
    both = union(difference(left(), right()))
    names = [str(node.feature) for node in both.graph.nodes]
    assert names == ["0.1", "0.4", "1.2", "1.5", "2.3"]
    effects = {f"{edge.source} {edge.target}": edge.effect for edge in both.graph.edges}
    assert effects == {"0.1 1.2": -8.0, "1.2 2.3": 9.0, "0.4 1.2": 1.0, "1.5 2.3": 4.0}
    assert both.arrows == 4
    turned = union(difference(graph_of(("0.1", "1.1", 2.0)), graph_of(("0.1", "1.1", -9.0))))
    assert [edge.effect for edge in turned.graph.edges] == [-9.0]


def test_both_drawings_have_the_same_places() -> None:
    drawn = drawings(left(), right())
    assert places(drawn["left"]) == places(drawn["right"])
    assert len(places(drawn["left"])) == 5


def test_lost_new_and_missing_are_marked_on_their_side() -> None:
    drawn = drawings(left(), right())
    edges = union(difference(left(), right())).graph.edges
    number = {f"{edge.source} {edge.target}": str(i) for i, edge in enumerate(edges)}
    here, there = arrows(drawn["left"]), arrows(drawn["right"])
    assert here[number["0.1 1.2"]] == there[number["0.1 1.2"]] == "promotes shared"
    assert here[number["0.4 1.2"]] == "suppresses lost"
    assert there[number["0.4 1.2"]] == "ghost lost"
    assert here[number["1.5 2.3"]] == "ghost new"
    assert there[number["1.5 2.3"]] == "suppresses new"
    assert '<tspan class="word">lost\u2002</tspan>+1.00' in drawn["left"]
    assert '<tspan class="word">new\u2002</tspan>+4.00' in drawn["right"]
    assert "lost" not in re.sub(r'class="[^"]*"', "", drawn["right"])
    assert drawn["left"].count('class="halo"') == drawn["right"].count('class="halo"') == 1
    assert drawn["left"].count("not in this graph") == 1


def test_each_side_shows_its_own_effects_on_one_scale() -> None:
    drawn = drawings(left(), right())
    assert "−8.00" in drawn["left"] and "−8.00" not in drawn["right"]
    assert "+9.00" in drawn["right"] and "+9.00" not in drawn["left"]
    widths = [
        float(value)
        for html in drawn.values()
        for value in re.findall(r'stroke-width="([\d.]+)"', html)
    ]
    assert max(widths) == 3.4  # that of 9, on the right
    assert len(widths) == 6


# -- numbers on arrows -----------------------------------------------------------------------------


def labels(html: str, kind: str) -> dict[str, tuple[Box, str]]:
    """The numbers of a drawing at one scale: where each is at most, and its text, by arrow."""
    found = re.search(rf'<g class="numbers {kind}">(.*?)</g>', html)
    assert found
    shared, other = TYPES[kind]
    result = {}
    for classes, number, x, y, inner in re.findall(
        r'<text class="([^"]*)" data-e="(\d+)" x="(\d+)" y="(\d+)">(.*?)</text>', found[1]
    ):
        text = re.sub("<[^>]*>", "", inner)
        width, height = extent(text, shared if "shared" in classes else other)
        result[number] = Box(int(x) - width / 2, int(y) - height / 2, width, height), text
    return result


def boxes_of(html: str) -> list[Box]:
    found = re.findall(
        r'class="(?:node|layer)[^>]*?'
        r"left:([-\d.]+)px;top:([-\d.]+)px;width:([-\d.]+)px;height:([-\d.]+)px",
        html,
    )
    return [Box(*map(float, numbers)) for numbers in found]


def touching(one: Box, other: Box, *, room: float = 1.0) -> bool:
    """Whether they share more than what rounding to whole pixels explains."""
    wide = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    high = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    return wide > room and high > room


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "pair",
    [
        (left(), right()),
        (large(4, 12), few()),
        (few(), large(4, 12)),
        (resolved(12), resolved(12)),
    ],
    ids=["small", "lost", "new", "positions"],
)
def test_no_number_covers_a_box_or_another_number(
    pair: tuple[CausalGraph, CausalGraph], kind: str
) -> None:
    drawn = drawings(*pair)
    n_shown = 0
    for html in drawn.values():
        shown = [box for box, _ in labels(html, kind).values()]
        n_shown += len(shown)
        boxes = boxes_of(html)
        assert len(boxes) > len(places(html))  # the layers' names, too
        assert not [pair for pair in combinations(shown, 2) if touching(*pair)]
        assert not [(one, box) for one in shown for box in boxes if touching(one, box)]
    assert n_shown > 0


def test_the_example_of_an_extent() -> None:
    assert doctest.testmod(placing) == (0, 2)


def test_the_overlap_of_boxes_can_be_found() -> None:
    assert touching(Box(0, 0, 10, 10), Box(8, 8, 10, 10))
    assert not touching(Box(0, 0, 10, 10), Box(10, 0, 10, 10))


def test_most_numbers_find_their_place() -> None:
    drawn = drawings(large(4, 12), few())["left"]
    n_arrows = len(large(4, 12).edges)
    assert len(labels(drawn, "close")) > 0.8 * n_arrows
    assert len(labels(drawn, "overview")) > 0.4 * n_arrows


def line(*points: tuple[float, float]) -> Route:
    return Route(points, points[-1])


UP = line((100.0, 200.0), (100.0, 150.0), (100.0, 50.0), (100.0, 0.0))
ROOM = Box(0.0, 0.0, 400.0, 200.0)


def test_a_number_stands_in_the_middle_where_nothing_else_is() -> None:
    [found] = number_places([Wish(UP, ("lost\u2002−1.00", "−1.00"), 10.0)], (UP,), (), room=ROOM)
    assert found is not None
    assert found.text == "lost\u2002−1.00"
    assert found.place == pytest.approx((100.0, 100.0), abs=0.5)


def test_the_word_goes_before_the_number_does() -> None:
    """Boxes on both sides leave 60 pixels, then 20."""
    wish = Wish(UP, ("lost\u2002−1.00", "−1.00"), 10.0)
    sides_of = (Box(0.0, 0.0, 70.0, 200.0), Box(130.0, 0.0, 200.0, 200.0))
    [found] = number_places([wish], (UP,), sides_of, room=ROOM)
    assert found is not None and found.text == "−1.00"
    sides_of = (Box(0.0, 0.0, 90.0, 200.0), Box(110.0, 0.0, 200.0, 200.0))
    assert number_places([wish], (UP,), sides_of, room=ROOM) == [None]


def test_a_number_stays_in_the_drawing_and_off_other_lines() -> None:
    edge = line((2.0, 200.0), (2.0, 150.0), (2.0, 50.0), (2.0, 0.0))
    assert number_places([Wish(edge, ("−1.00",), 10.0)], (edge,), (), room=ROOM) == [None]
    across = line((50.0, 100.0), (80.0, 100.0), (120.0, 100.0), (150.0, 100.0))
    [found] = number_places([Wish(UP, ("−1.00",), 10.0)], (UP, across), (), room=ROOM)
    assert found is not None
    assert abs(found.place[1] - 100.0) > 7.0 and found.place[0] == pytest.approx(100.0, abs=0.5)


def test_shared_and_lost_look_different_from_afar() -> None:
    """Bands are as good as invisible there."""
    rules = sheet("comparison")
    for what in (".arrow.shared:not(.on) .line", ".arrow.lost:not(.ghost) .line", ".node.only"):
        assert f".far {what}" in rules
    assert "display: none" not in rules.partition(".far .halo {")[2].partition("}")[0]


def test_the_page_says_what_differs(tmp_path: Path) -> None:
    html = page_of(left(), right(), tmp_path)
    assert "<b>2</b> arrows <strong>shared</strong>" in html
    assert "<b>1</b> arrow <strong>lost</strong>" in html
    assert "<b>1</b> arrow <strong>new</strong>" in html
    assert difference(left(), right()).words in html
    data = data_of(html)
    assert "1.2 → 2.3 · shared · left +2.00 · right +9.00 · difference +7.00" in data["arrows"]
    assert "0.4 → 1.2 · lost · left +1.00 · not in the right graph" in data["arrows"]
    assert len(data["ends"]) == len(data["arrows"]) == 4
    assert len(data["boxes"]) == 5
    assert (
        '<td>1.2</td><td>2.3</td><td class="number suppresses">+2.00</td>'
        '<td class="number suppresses">+9.00</td><td class="number">+7.00</td>' in html
    )
    assert 'href="/compare?a=b&amp;b=a"' in html  # the swap
    assert 'href="/run/a/"' in html and 'href="/run/b/"' in html


def test_every_row_and_arrow_has_its_number(tmp_path: Path) -> None:
    html = page_of(left(), right(), tmp_path)
    ends = data_of(html)["ends"]
    names = [str(node.feature) for node in union(difference(left(), right())).graph.nodes]
    for number, source, target in re.findall(
        r'<tr data-e="(\d+)"><td>([^<]*)</td><td>([^<]*)</td>', html
    ):
        assert [names[end] for end in ends[int(number)]] == [source, target]
    assert html.count("<tr data-e=") == 4


def test_signs_that_flip_are_told(tmp_path: Path) -> None:
    other = graph_of(("0.1", "1.2", 8.0))
    html = page_of(left(), other, tmp_path)
    assert "sign flips" in html
    assert "(1 of them with the other sign)" in html


def test_warnings_stand_above(tmp_path: Path) -> None:
    run = record(settings={**record().settings, "top_k": 99})
    html = page_of(left(), graph_of(("0.1", "1.2", -8.0), run=run), tmp_path)
    assert "⚠ made with different settings: top_k (8 and 99)" in html


def test_positions_can_be_summed_and_are_where_one_side_has_none(tmp_path: Path) -> None:
    tokens = tuple(f"t{number}" for number in range(11))
    other = resolved(12, seed=2)
    other = replace(other, run=replace(other.run, tokens=tokens))
    html = page_of(resolved(12), other, tmp_path / "both")
    assert "not the same token in both prompts" in html
    assert "/compare?a=a&amp;b=b&amp;sum=1" in html
    summed = page_of(resolved(12), other, tmp_path / "both", summed=True)
    assert "not the same token" not in summed
    assert not re.search(r"\d@\d", data_of(summed)["boxes"][0])
    mixed = page_of(resolved(12), resolved(12).summed(), tmp_path / "mixed")
    assert "only the left graph has token positions: it is shown summed" in mixed


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match="different models"):
        page_of(left(), graph_of(("0.1", "1.2", 1.0), run=record(model="other")), tmp_path)


def test_empty_graphs(tmp_path: Path) -> None:
    html = page_of(graph_of(), graph_of(), tmp_path / "both")
    assert "nothing to draw" in html
    assert '<main class="panes"' not in html
    one = page_of(left(), graph_of(), tmp_path / "one")
    assert "<b>3</b> arrows <strong>lost</strong>" in one
    assert one.count('<section class="view"') == 2


def test_a_large_pair_draws_the_strongest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(union_module, "ARROWS", 60)
    monkeypatch.setattr(module, "ARROWS", 60)
    monkeypatch.setattr(module, "ROWS", 100)
    html = page_of(large(4, 12), large(4, 12), tmp_path)
    assert "the 60 strongest of 108 arrows are drawn" in html
    assert len(data_of(html)["ends"]) == 60
    assert "(the first 100 of 108)" in html
    assert html.count('<g class="arrow') == 120


def test_layers_of_one_side_alone() -> None:
    part = replace(record(), layers=record().layers[2:])
    drawn = drawings(graph_of(("2.1", "3.1", 1.0), run=part), left())
    assert places(drawn["left"]) == places(drawn["right"])


def test_hostile_texts(tmp_path: Path) -> None:
    html = page_of(hostile(), hostile(), tmp_path)
    assert "<script>alert" not in html
    assert "</script><" not in html.replace("</script>\n", "")
    assert "\u202e" not in html and "\x00" not in html


@examples(15)
@given(
    *(
        st.dictionaries(
            st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)),
            st.floats(-9, 9).filter(bool),
            max_size=8,
        )
        for _ in range(2)
    )
)
def test_every_arrow_is_drawn_once_a_side(
    first: dict[tuple[int, int, int], float], second: dict[tuple[int, int, int], float]
) -> None:
    a, b = (
        graph_of(*((f"{d}.{i}", f"{d + 1}.{j}", effect) for (d, i, j), effect in edges.items()))
        for edges in (first, second)
    )
    drawn = drawings(a, b)
    here, there = arrows(drawn["left"]), arrows(drawn["right"])
    assert len(here) == len(there) == len(first.keys() | second.keys())
    assert sum("ghost" not in each for each in here.values()) == len(first)
    assert sum("ghost" not in each for each in there.values()) == len(second)
    assert sum("shared" in each for each in here.values()) == len(first.keys() & second.keys())
    assert places(drawn["left"]) == places(drawn["right"])


# -- over http -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "Two runs are compared"),
        ("?a=plain", 400, "Two runs are compared"),
        ("?run=plain&run=other&run=nothing", 400, "Two runs are compared"),
        ("?a=plain&b=missing", 404, "missing: no run here has this name"),
        ("?a=plain&b=..%2Foutside", 404, "no run here has this name"),
        ("?a=plain&b=%3Cscript%3Ealert(1)%3C/script%3E", 404, "&lt;script&gt;alert(1)"),
        ("?a=plain&b=%ff%00", 404, "no run here has this name"),
        ("?" + "a=b&" * 50, 400, "Give two runs"),
        ("?a=plain&b=broken%20json", 422, "is not JSON"),
        ("?a=plain&b=other", 200, "arrow"),
    ],
)
def test_questions_good_and_bad(site: Site, query: str, status: int, words: str) -> None:
    reply = site.ask(f"/compare{query}")
    assert reply.status == status
    assert words in reply.text
    assert "<script>alert" not in reply.text
