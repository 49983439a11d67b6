"""Where the numbers of a comparison's arrows stand: on their own line, and on nothing else.

Lengths are CSS pixels of the drawing, `y` runs downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.render.picture.layout import Box, Point, Route
from sae_graphs.render.picture.routing import Line, along, curve

# Shares of an arrow's length, the middle first: it is where a reader looks.
SHARES = (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74, 0.2, 0.8, 0.14, 0.86)
ASIDE = (0.0, -0.3, 0.3)  # of its width that a number may be moved sideways; it covers its line yet
# In ems of the widest typeface that a page may get, DejaVu Sans Bold.
GAP = "\u2002"  # between a word and its number: as wide as the ground around the number
_EMS = {".": 0.38, GAP: 0.5, "l": 0.35, "t": 0.48, "s": 0.6, "w": 0.93, "+": 0.84, "−": 0.84}
_OTHER, _LINE = 0.71, 1.2
_PER_MOVE = 0.01  # what it costs to stand further off, where one line less to cover is 1


class Wish(NamedTuple):
    """Texts of which one is to stand on an arrow, the best first, in a type of `size` pixels."""

    route: Route
    texts: tuple[str, ...]
    size: float


class Standing(NamedTuple):
    """Where the middle of a number is, and which of the texts it is."""

    place: Point
    text: str


def extent(text: str, size: float) -> tuple[float, float]:
    """How wide and high a text is at most, with its ground around it.

    >>> width, height = extent("+1.00", 10.0)
    >>> round(width, 1), round(height, 1)
    (35.5, 14.0)
    """
    ems = sum(_EMS.get(character, _OTHER) for character in text)
    return (ems + 0.2) * size, (_LINE + 0.2) * size


def number_places(
    wishes: Sequence[Wish], routes: Sequence[Route], boxes: Sequence[Box], *, room: Box
) -> list[Standing | None]:
    """The places, or None for a number that would cover a box or another number wherever it stood.

    Arrows choose in the order given. Of the free places a number takes the one that covers fewest
    of the other `routes`, and stands in `room`.
    """
    lines = [_line(route) for route in routes]
    owners = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    points = np.concatenate(lines) if lines else np.empty((0, 2))
    mine = {id(route): number for number, route in enumerate(routes)}
    taken = [_middled(box) for box in boxes]
    found: list[Standing | None] = []
    for wish in wishes:
        number = mine[id(wish.route)]
        middles = [along(lines[number], share) for share in SHARES]
        best = None
        for text in wish.texts:
            size = extent(text, wish.size)
            ways = np.array([(x + aside * size[0], y) for aside in ASIDE for x, y in middles])
            free = _free(ways, size, np.asarray(taken).reshape(-1, 4)) & _within(ways, size, room)
            if free.any():
                others = points[owners != number], owners[owners != number]
                cost = _covered(ways[free], size, *others) + _PER_MOVE * np.flatnonzero(free)
                x, y = ways[free][int(np.argmin(cost))]
                best = Standing((float(x), float(y)), text)
                taken.append((float(x), float(y), *size))
                break
        found.append(best)
    return found


Points = NDArray[np.float64]  # [n, 2]


def _line(route: Route) -> Line:
    return np.concatenate([curve(route.points), [route.tip]])


def _middled(box: Box) -> tuple[float, float, float, float]:
    return box.x + box.width / 2, box.y + box.height / 2, box.width, box.height


def _free(ways: Points, size: tuple[float, float], taken: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the places touch nothing of what is taken (middles and sizes)."""
    apart = np.abs(ways[:, None, :] - taken[None, :, :2])  # [ways, taken, 2]
    reach = (taken[None, :, 2:] + np.asarray(size)) / 2
    free: NDArray[np.bool_] = (apart >= reach).any(axis=2).all(axis=1)
    return free


def _within(ways: Points, size: tuple[float, float], room: Box) -> NDArray[np.bool_]:
    half = np.asarray(size) / 2
    low, high = np.array([room.x, room.y]), np.array([room.x + room.width, room.y + room.height])
    outside = np.maximum(low - (ways - half), ways + half - high)  # how far, below 0 inside
    inside: NDArray[np.bool_] = outside.max(axis=1) <= 0
    return inside


def _covered(
    ways: Points, size: tuple[float, float], points: Points, owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How many lines each place covers a part of, given their points and whose those are."""
    half = np.asarray(size) / 2
    around = ((points > ways.min(axis=0) - half) & (points < ways.max(axis=0) + half)).all(axis=1)
    points, owners = points[around], owners[around]
    apart = np.abs(ways[:, None, :] - points[None, :, :])  # [ways, points, 2]
    covered = [owners[np.all(row < half, axis=1)] for row in apart]
    return np.array([float(len(set(each.tolist()))) for each in covered])
