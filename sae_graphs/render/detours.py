"""Lines from box to box around all others, between the rows that boxes stand in.

Everything is in points, y upwards, as Graphviz gives it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from sae_graphs.render.numbering import Rectangle

Point = tuple[float, float]

_HEADS = {"normal": 8.5, "tee": 4.25}  # points: how long they are
_AISLE = 60.0  # points above a row that are used, where there is as much
_CLEAR = 14.0  # of them at either end, for heads and turns
_OUTER = 12.0  # points beyond all rows, and beyond the ends of a row
_DOOR, _BESIDE = 6.0, 4.0  # points: the narrowest way between two boxes; kept from either
_WIDE = 40.0  # points: a way in which a line need not keep to the middle
_OFF_MIDDLE, _SPREAD = 0.3, 0.1  # of a box's width: where a line leaves it, by its lane
_TURN = 8.0  # points: the radius of a turn
_ROUND = 0.55  # of it: about a circle


class Row(NamedTuple):
    """Boxes beside one another: from where to where they reach, upwards and each across."""

    bottom: float
    top: float
    spans: tuple[tuple[float, float], ...]


def detour(
    source: Rectangle,
    target: Rectangle,
    boxes: Sequence[Rectangle],
    *,
    lane: float = 0.0,
    head: str = "normal",
) -> str:
    """A line from the top of a box to the foot of another, as Graphviz writes it.

    It touches none of `boxes`, the two among them. `lane`, -1 to 1, keeps lines that go the same
    way apart; `head` is Graphviz's name of the arrow's head.
    """
    rows = rows_of(boxes)
    here, there = (_row_of(box, rows) for box in (source, target))
    upwards = here < there
    crossed = range(here + 1, there) if upwards else range(here, there - 1, -1)
    ways = [source.x + lane * _SPREAD * source.width]
    for row in crossed:
        ways.append(_way(rows[row], ways[-1], target.x, lane))
    first = _leaving(source, [*ways, target.x][1], lane)
    last = _leaving(target, ways[-1], lane)
    aisles = [here, *(row if upwards else row - 1 for row in crossed)]
    points = [(first, source.y + source.height / 2)]
    for aisle, (x, onward) in zip(aisles, pairwise([first, *ways[1:], last]), strict=True):
        level = _level(rows, aisle, lane)
        points += [(x, level), (onward, level)]
    foot = target.y - target.height / 2
    points.append((last, foot - _HEADS.get(head, _HEADS["normal"])))
    line = " ".join(f"{x:.2f},{y:.2f}" for x, y in rounded(points))
    return f"e,{last:.2f},{foot:.2f} {line}"


def rows_of(boxes: Sequence[Rectangle]) -> tuple[Row, ...]:
    """The rows, the lowest first: boxes whose middles are level."""
    levels: dict[int, list[Rectangle]] = {}
    for box in boxes:
        levels.setdefault(round(box.y), []).append(box)
    return tuple(
        Row(
            min(box.y - box.height / 2 for box in row),
            max(box.y + box.height / 2 for box in row),
            tuple(sorted((box.x - box.width / 2, box.x + box.width / 2) for box in row)),
        )
        for _, row in sorted(levels.items())
    )


def _row_of(box: Rectangle, rows: Sequence[Row]) -> int:
    return next(number for number, row in enumerate(rows) if row.bottom <= box.y <= row.top)


def _level(rows: Sequence[Row], below: int, lane: float) -> float:
    """The height of a lane in the aisle above a row; -1 is the aisle under all rows.

    A high aisle is used below the row above it only: names of components stand in the rest.
    """
    if below < 0:
        return rows[0].bottom - _OUTER - lane
    if below == len(rows) - 1:
        return rows[-1].top + _OUTER + lane
    above = rows[below + 1].bottom
    half = min(above - rows[below].top, _AISLE) / 2
    return above - half + lane * max(half - _CLEAR, 0.0)


def _way(row: Row, x: float, onward: float, lane: float) -> float:
    """Where to cross a row: of the ways between its boxes, and past its ends, the shortest."""
    ends = [-math.inf, *(end for _, end in row.spans)]
    starts = [*(start for start, _ in row.spans), math.inf]
    doors = [(a, b) for a, b in zip(ends, starts, strict=True) if b - a >= _DOOR]
    ways = [_through(*door, x, lane) for door in doors]
    return min(ways, key=lambda way: abs(way - x) + abs(onward - way))


def _through(left: float, right: float, x: float, lane: float) -> float:
    """The way between two boxes nearest to `x`; where that is not between them, by the lane."""
    if left + _BESIDE <= x <= right - _BESIDE:
        return x
    if right - left < _WIDE:
        return (left + right) / 2 + lane * max((right - left) / 2 - _BESIDE, 0.0)
    return min(max(x, left + _OUTER), right - _OUTER) + lane * (_OUTER - _BESIDE)


def _leaving(box: Rectangle, towards: float, lane: float) -> float:
    """Where a line leaves a box, or arrives: towards the side that it leads to."""
    side = math.copysign(_OFF_MIDDLE, towards - box.x)
    return box.x + (side + lane * _SPREAD) * box.width


def rounded(points: Sequence[Point]) -> list[Point]:
    """A line through points as Bezier curves that follow one another, its turns rounded."""
    corners = [points[0]]
    for point in points[1:]:
        if math.dist(point, corners[-1]) > 0.01:
            corners.append(point)
    found = [corners[0]]
    for before, at, after in zip(corners, corners[1:], corners[2:], strict=False):
        radius = min(_TURN, math.dist(before, at) / 2, math.dist(at, after) / 2)
        start, end = (_towards(at, other, radius) for other in (before, after))
        found += _straight(found[-1], start)
        bends = (_towards(each, at, _ROUND * radius) for each in (start, end))
        found += [*bends, end]
    return found + _straight(found[-1], corners[-1])


def _towards(point: Point, other: Point, length: float) -> Point:
    share = length / math.dist(point, other)
    return point[0] + share * (other[0] - point[0]), point[1] + share * (other[1] - point[1])


def _straight(start: Point, end: Point) -> list[Point]:
    length = math.dist(start, end)
    if not length:
        return [start, end, end]
    return [_towards(start, end, length / 3), _towards(start, end, 2 * length / 3), end]
