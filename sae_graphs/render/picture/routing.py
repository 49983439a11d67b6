"""Lines from box to box around all others, between the rows that boxes stand in.

Everything is in points, y upwards, as Graphviz gives it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pygraphviz import AGraph


# Tried in this order, as fractions of a line's length; the middle is where a reader looks first.
PLACES = (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74, 0.2, 0.8, 0.14)
_ON_BOX, _ON_NUMBER, _ON_LINE = 1000.0, 100.0, 1.0  # what it costs to cover one
_PER_STEP = 16  # points on a line for each of its Bezier curves
Line = NDArray[np.float64]  # [n, 2], points along an arrow


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


class Aside(NamedTuple):
    """An arrow, as it was in the source."""

    source: str
    target: str
    key: str
    attributes: Mapping[str, str]


def set_aside(source: str) -> tuple[str, tuple[Aside, ...]]:
    """DOT source without the arrows that would not lead upwards, and these."""
    import pygraphviz

    drawing = pygraphviz.AGraph(string=source)
    try:
        found = []
        for start, end, key in drawing.edges(keys=True):
            attributes = dict(drawing.get_edge(start, end, key).attr)
            if attributes.get("constraint") == "false":
                found.append(Aside(start, end, key, attributes))
                drawing.remove_edge(start, end, key)
        return (str(drawing.to_string()) if found else source), tuple(found)
    finally:
        drawing.close()


def add_asides(drawing: AGraph, asides: tuple[Aside, ...], boxes: Mapping[str, Rectangle]) -> None:
    """Draw them, and any that Graphviz has lost, around all boxes, each in a lane of its own."""
    lost = []
    for start, end, key in drawing.edges(keys=True):
        edge = drawing.get_edge(start, end, key)
        if not edge.attr["pos"]:
            lost.append(Aside(start, end, key, dict(edge.attr)))
            drawing.remove_edge(start, end, key)
    drawn = (*asides, *lost)
    for number, each in enumerate(drawn):
        attributes = {name: value for name, value in each.attributes.items() if name != "key"}
        if label := attributes.get("label"):
            attributes["label"] = f"<{label}>"
        attributes["pos"] = detour(
            boxes[each.source],
            boxes[each.target],
            list(boxes.values()),
            lane=2 * number / (len(drawn) - 1) - 1 if len(drawn) > 1 else 0.0,
            head=attributes.get("arrowhead") or "normal",
        )
        drawing.add_edge(each.source, each.target, key=each.key, **attributes)


class Rectangle(NamedTuple):
    """By its middle and its size."""

    x: float
    y: float
    width: float
    height: float


def curve(controls: Sequence[tuple[float, float]]) -> Line:
    """Points along Bezier curves that follow one another: 1 + 3n control points."""
    points = np.asarray(controls, dtype=np.float64)
    t = np.linspace(0.0, 1.0, _PER_STEP)[:, None]
    pieces = []
    for start in range(0, len(points) - 3, 3):
        a, b, c, d = points[start : start + 4]
        s = 1 - t
        pieces.append(s**3 * a + 3 * s**2 * t * b + 3 * s * t**2 * c + t**3 * d)
    return np.concatenate(pieces) if pieces else points


def along(line: Line, share: float) -> tuple[float, float]:
    """The point at a share of a line's length."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    done = np.concatenate([[0.0], np.cumsum(steps)])
    at = share * done[-1]
    return float(np.interp(at, done, line[:, 0])), float(np.interp(at, done, line[:, 1]))


def number_places(
    lines: Sequence[Line],
    sizes: Sequence[tuple[float, float] | None],
    boxes: Sequence[Rectangle],
) -> list[tuple[float, float] | None]:
    """The middle of each line's number; None for a line without one (its size is None).

    Lines choose in the order given. Of the places on its line a number takes the one that covers
    least: a box is worse than another number, and that than another line.
    """
    every = np.concatenate(list(lines)) if lines else np.empty((0, 2))
    owner = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    taken: list[Rectangle] = []
    found: list[tuple[float, float] | None] = []
    for number, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        if size is None:
            found.append(None)
            continue
        others = every[owner != number]
        mine = owner[owner != number]
        ways = [Rectangle(*along(line, share), *size) for share in PLACES]
        costs = [
            _ON_BOX * _overlaps(way, boxes)
            + _ON_NUMBER * _overlaps(way, taken)
            + _ON_LINE * len(np.unique(mine[_inside(others, way)]))
            for way in ways
        ]
        best = ways[int(np.argmin(costs))]
        taken.append(best)
        found.append((best.x, best.y))
    return found


def _overlaps(one: Rectangle, others: Sequence[Rectangle]) -> int:
    """How many of the others it touches."""
    if not others:
        return 0
    theirs = np.asarray(others)
    apart = np.abs(theirs[:, :2] - (one.x, one.y))
    reach = (theirs[:, 2:] + (one.width, one.height)) / 2
    return int(np.count_nonzero((apart < reach).all(axis=1)))


def _inside(points: NDArray[np.float64], one: Rectangle) -> NDArray[np.bool_]:
    reach = np.array([one.width, one.height]) / 2
    near = np.abs(points - (one.x, one.y)) < reach
    return near[:, 0] & near[:, 1]
