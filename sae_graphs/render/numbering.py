"""Where the numbers of arrows go: on their own line, clear of boxes, other numbers and lines.

Everything is in points, y upwards, as Graphviz gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Tried in this order, as fractions of a line's length; the middle is where a reader looks first.
PLACES = (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74, 0.2, 0.8, 0.14)
_ON_BOX, _ON_NUMBER, _ON_LINE = 1000.0, 100.0, 1.0  # what it costs to cover one
_PER_STEP = 16  # points on a line for each of its Bezier curves


class Rectangle(NamedTuple):
    """By its middle and its size."""

    x: float
    y: float
    width: float
    height: float


Line = NDArray[np.float64]  # [n, 2], points along an arrow


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
