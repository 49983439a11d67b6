"""Where boxes and arrows of an answer graph go."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from sae_graphs.render.picture.by_token import Grid, Place, grid
from sae_graphs.render.picture.routing import Rectangle, curve

ROOM = 680.0


def random_places(seed: int) -> tuple[list[Place], list[tuple[str, str]]]:
    """Boxes of several sizes at tokens and layers drawn at random, and arrows that go up."""
    draw = random.Random(seed)
    n_columns, n_rows = draw.randint(1, 6), draw.randint(2, 8)
    places = [Place(f"token {at}", at, 0, 30, 20) for at in range(n_columns)]
    for number in range(draw.randint(1, 30)):
        size = draw.choice([(118.0, 58.0), (96.0, 40.0)])
        at = draw.randrange(n_columns), draw.randint(1, n_rows)
        places.append(Place(f"box {number}", *at, *size))
    pairs = [(a.name, b.name) for a in places for b in places if a.row < b.row]
    return places, draw.sample(pairs, min(len(pairs), draw.randint(1, 40)))


def inside(x: float, y: float, box: Rectangle) -> bool:
    return abs(x - box.x) < box.width / 2 - 0.01 and abs(y - box.y) < box.height / 2 - 0.01


@pytest.mark.parametrize("seed", range(12))
def test_boxes_stand_above_their_token_and_clear_of_each_other(seed: int) -> None:
    places, arrows = random_places(seed)
    laid = grid(places, arrows, room=ROOM)
    assert laid.boxes.keys() == {place.name for place in places}
    for one, other in combinations(laid.boxes.values(), 2):
        across = abs(one.x - other.x) >= (one.width + other.width) / 2
        up = abs(one.y - other.y) >= (one.height + other.height) / 2
        assert across or up
    columns = sorted({place.column for place in places})
    for place in places:
        band, box = laid.bands[columns.index(place.column)], laid.boxes[place.name]
        assert band.left <= box.x - box.width / 2 and box.x + box.width / 2 <= band.right
    for lower, upper in pairwise(sorted({place.row for place in places})):
        tops = [_top(laid, place) for place in places if place.row == lower]
        bottoms = [_bottom(laid, place) for place in places if place.row == upper]
        assert max(tops) < min(bottoms)


def _top(laid: Grid, place: Place) -> float:
    return laid.boxes[place.name].y + place.height / 2


def _bottom(laid: Grid, place: Place) -> float:
    return laid.boxes[place.name].y - place.height / 2


@pytest.mark.parametrize("seed", range(12))
def test_arrows_lead_from_box_to_box_and_through_none(seed: int) -> None:
    places, arrows = random_places(seed)
    laid = grid(places, arrows, room=ROOM)
    for (source, target), points in laid.lines.items():
        start, end = laid.boxes[source], laid.boxes[target]
        assert points[0][1] == pytest.approx(start.y + start.height / 2)
        assert points[-1][1] == pytest.approx(end.y - end.height / 2)
        assert abs(points[0][0] - start.x) <= start.width / 2
        assert abs(points[-1][0] - end.x) <= end.width / 2
        for x, y in curve(points):
            assert not any(inside(x, y, box) for box in laid.boxes.values())


def test_full_columns_put_boxes_above_one_another_where_there_is_no_room() -> None:
    places = [Place(f"box {number}", 0, 1, 118, 58) for number in range(6)]
    wide = grid(places, [], room=2000)
    assert len({box.y for box in wide.boxes.values()}) == 1
    narrow = grid(places, [], room=300)
    assert len({box.y for box in narrow.boxes.values()}) == 3
    assert narrow.width <= 300 < wide.width


def test_neighbours_stand_in_the_order_of_what_they_lead_to() -> None:
    places = [Place(name, 0, 1, 50, 20) for name in "ab"] + [
        Place(name, column, 2, 50, 20) for name, column in (("left", 0), ("right", 1))
    ]
    laid = grid(places, [("a", "right"), ("b", "left")], room=ROOM)
    assert laid.boxes["b"].x < laid.boxes["a"].x


def test_a_quiet_token_takes_no_more_than_its_text() -> None:
    places = [Place("token", 0, 0, 30, 20), Place("axis", 1, 0, 30, 20), Place("b", 1, 1, 118, 58)]
    laid = grid(places, [], room=ROOM)
    assert [band.quiet for band in laid.bands] == [True, False]
    assert laid.bands[0].right - laid.bands[0].left < 40 < 118 < laid.bands[1].right
