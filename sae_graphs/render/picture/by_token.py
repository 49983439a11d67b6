"""Where everything of an answer graph goes: columns are tokens, rows are layers.

A feature stands above its token, the tokens stand at the bottom, the answer on top above the token
that is read: an arrow from one token to another is seen to move. Lengths are points, `y` runs
upwards. Nothing here knows how boxes are drawn; only how large they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from sae_graphs.render.picture.routing import Rectangle

SIDE_GAP, COLUMN_GAP = 12.0, 20.0  # between boxes of a token, and between tokens
ROW_GAP, LAYER_GAP = 16.0, 40.0  # between rows of boxes of one layer, and between layers
NARROW_GAP = 4.0  # on either side of a quiet token
DOOR = 5.0  # points that an arrow keeps from the boxes that it passes
PORTS = 0.6  # of a box's side, over which the ends of its arrows are spread
SWEEPS = 4  # over all rows, for fewer crossings
EASE = 0.55  # of the way between two rows, for which an arrow keeps its direction

Point = tuple[float, float]


class Place(NamedTuple):
    """What is put in a column: a box by its name, its column and its row, and how large it is."""

    name: str
    column: int
    row: int
    width: float
    height: float


class Band(NamedTuple):
    """A column: from where to where, and whether nothing stands in it."""

    left: float
    right: float
    quiet: bool


@dataclass(frozen=True)
class Grid:
    """The drawing: boxes by name, columns from the left, the middle of each row, arrows' lines."""

    boxes: Mapping[str, Rectangle]
    bands: tuple[Band, ...]
    rows: Mapping[int, float]
    lines: Mapping[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


@dataclass
class _Level:
    """Boxes side by side: one row, or one of several of a layer; from bottom to top."""

    row: int
    names: list[str] = field(default_factory=list)
    bottom: float = 0.0
    top: float = 0.0


def grid(
    places: Sequence[Place],
    arrows: Sequence[tuple[str, str]],
    *,
    room: float,
) -> Grid:
    """Place boxes and arrows; of a column with nothing but a token, row 0, the token is enough.

    Columns are as wide as their widest row of boxes, where all of them fit into `room`; else the
    fullest ones put their boxes on several levels. Rows count from 0, at the bottom.
    """
    sizes = {place.name: place for place in places}
    quiet = {it.column for it in places} - {it.column for it in places if it.row}
    cells = _cells(places)
    across = _across(cells, sizes, quiet, room)
    _untangle(cells, arrows, sizes)
    bands = _bands(cells, across, sizes, quiet)
    levels = _levels(cells, across)
    boxes = _placed(cells, across, bands, levels, sizes)
    lines = _lines(arrows, boxes, levels)
    rows = {
        row: (
            min(lv.bottom for lv in levels if lv.row == row)
            + max(lv.top for lv in levels if lv.row == row)
        )
        / 2
        for row in {level.row for level in levels}
    }
    width = max((band.right for band in bands), default=0.0)
    height = max((level.top for level in levels), default=0.0)
    return Grid(boxes, tuple(bands), rows, lines, width, height)


# -- columns and rows ------------------------------------------------------------------------------

Cells = dict[tuple[int, int], list[str]]  # column and row: the boxes there, from the left


def _cells(places: Sequence[Place]) -> Cells:
    cells: Cells = {}
    for place in places:
        cells.setdefault((place.column, place.row), []).append(place.name)
    return cells


def _across(
    cells: Cells, sizes: Mapping[str, Place], quiet: Collection[int], room: float
) -> dict[int, int]:
    """How many boxes of each column stand side by side."""
    across: dict[int, int] = {}
    for (column, _), names in cells.items():
        across[column] = max(across.get(column, 1), len(names))
    while _bands(cells, across, sizes, quiet)[-1].right > room and max(across.values()) > 1:
        fullest = max(across, key=lambda column: (across[column], column))
        across[fullest] -= 1
    return across


def _bands(
    cells: Cells, across: Mapping[int, int], sizes: Mapping[str, Place], quiet: Collection[int]
) -> list[Band]:
    bands, x = [], 0.0
    for column in sorted(across):
        width = max(
            sum(sizes[name].width for name in part) + SIDE_GAP * (len(part) - 1)
            for (at, _), names in cells.items()
            if at == column
            for part in _chunks(names, across[column])
        )
        gap = 2 * NARROW_GAP if column in quiet else COLUMN_GAP
        bands.append(Band(x, x + width + gap, column in quiet))
        x = bands[-1].right
    return bands


def _chunks(names: Sequence[str], size: int) -> list[Sequence[str]]:
    """Names in rows of nearly equal length, of at most `size`."""
    n_rows = math.ceil(len(names) / size)
    each, more = divmod(len(names), n_rows)
    found, start = [], 0
    for number in range(n_rows):
        end = start + each + (number < more)
        found.append(names[start:end])
        start = end
    return found


def _levels(cells: Cells, across: Mapping[int, int]) -> list[_Level]:
    """The levels of all rows, from the bottom; a row has as many as its fullest column needs."""
    levels: list[_Level] = []
    for row in sorted({row for _, row in cells}):
        mine: list[_Level] = []
        for (column, at), names in sorted(cells.items()):
            if at != row:
                continue
            for number, part in enumerate(_chunks(names, across[column])):
                if number == len(mine):
                    mine.append(_Level(row))
                mine[number].names += part
        levels += mine
    return levels


def _placed(
    cells: Cells,
    across: Mapping[int, int],
    bands: Sequence[Band],
    levels: Sequence[_Level],
    sizes: Mapping[str, Place],
) -> dict[str, Rectangle]:
    y, before = 0.0, None
    for level in levels:
        if before is not None:
            y += ROW_GAP if before == level.row else LAYER_GAP
        level.bottom, level.top = y, y + max(sizes[name].height for name in level.names)
        y, before = level.top, level.row
    height = {name: level for level in levels for name in level.names}
    boxes = {}
    for (column, _), names in cells.items():
        middle = (bands[column].left + bands[column].right) / 2
        for part in _chunks(names, across[column]):
            total = sum(sizes[name].width for name in part) + SIDE_GAP * (len(part) - 1)
            x = middle - total / 2
            for name in part:
                size, level = sizes[name], height[name]
                y = (level.bottom + level.top) / 2
                boxes[name] = Rectangle(x + size.width / 2, y, size.width, size.height)
                x += size.width + SIDE_GAP
    return boxes


def _untangle(cells: Cells, arrows: Sequence[tuple[str, str]], sizes: Mapping[str, Place]) -> None:
    """Order the boxes of each cell by where their neighbours stand, rows up and down in turn."""
    near: dict[str, list[str]] = {name: [] for name in sizes}
    for source, target in arrows:
        near[source].append(target)
        near[target].append(source)
    at = {
        name: (column, place / max(len(names) - 1, 1))
        for (column, _), names in cells.items()
        for place, name in enumerate(names)
    }
    for sweep in range(SWEEPS):
        for key in sorted(cells, key=lambda it: it[1], reverse=bool(sweep % 2)):
            column, row = key

            def pull(name: str, row: int = row, sweep: int = sweep) -> tuple[float, float]:
                beside = [o for o in near[name] if (sizes[o].row < row) != bool(sweep % 2)]
                beside = beside or near[name]
                here = sum(at[name])
                if not beside:
                    return here, here
                return sum(sum(at[other]) for other in beside) / len(beside), here

            cells[key].sort(key=pull)
            for place, name in enumerate(cells[key]):
                at[name] = (column, place / max(len(cells[key]) - 1, 1))


# -- arrows ----------------------------------------------------------------------------------------


def _lines(
    arrows: Sequence[tuple[str, str]],
    boxes: Mapping[str, Rectangle],
    levels: Sequence[_Level],
) -> dict[tuple[str, str], tuple[Point, ...]]:
    """Each arrow as Bézier curves, between the boxes of the levels that it passes."""
    number = {name: at for at, level in enumerate(levels) for name in level.names}
    leave = _ports(arrows, boxes, end=0)
    arrive = _ports(arrows, boxes, end=1)
    ways: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for ends in arrows:
        source, target = ends
        first, last = number[source], number[target]
        x, goal = leave[ends], arrive[ends]
        passed = []
        for at in range(first + 1, last):
            share = 1 / (last - at + 1)
            x = _door(levels[at], boxes, x + share * (goal - x))
            passed.append((at, x))
        ways[ends] = passed
    apart = _apart(ways)
    found = {}
    for ends in arrows:
        below, above = boxes[ends[0]], boxes[ends[1]]
        points = [(leave[ends], below.y + below.height / 2)]
        for at, x in ways[ends]:
            x += apart[ends, at]
            points += [(x, levels[at].bottom - DOOR), (x, levels[at].top + DOOR)]
        points.append((arrive[ends], above.y - above.height / 2))
        found[ends] = _eased(points)
    return found


def _ports(
    arrows: Sequence[tuple[str, str]], boxes: Mapping[str, Rectangle], *, end: int
) -> dict[tuple[str, str], float]:
    """Where arrows leave their boxes (`end` 0), or arrive (1): in the order of their other ends."""
    found = {}
    for name, box in boxes.items():
        mine = sorted(
            (ends for ends in arrows if ends[end] == name),
            key=lambda ends: (boxes[ends[1 - end]].x, boxes[ends[1 - end]].y),
        )
        for place, ends in enumerate(mine):
            share = (place + 0.5) / len(mine) - 0.5
            found[ends] = box.x + share * PORTS * box.width
    return found


def _door(level: _Level, boxes: Mapping[str, Rectangle], x: float) -> float:
    """Where to pass a level: of the ways between its boxes, and beside them, the nearest."""
    spans = sorted(
        (boxes[name].x - boxes[name].width / 2, boxes[name].x + boxes[name].width / 2)
        for name in level.names
    )
    ends = [-math.inf, *(right for _, right in spans)]
    starts = [*(left for left, _ in spans), math.inf]
    ways = []
    for left, right in zip(ends, starts, strict=True):
        if right - left < 2 * DOOR:
            continue
        ways.append(min(max(x, left + DOOR), right - DOOR))
    return min(ways, key=lambda way: abs(way - x))


def _apart(
    ways: Mapping[tuple[str, str], Sequence[tuple[int, float]]],
) -> dict[tuple[tuple[str, str], int], float]:
    """Steps aside for arrows that would pass a level at one place."""
    shared: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for ends, passed in ways.items():
        for at, x in passed:
            shared.setdefault((at, round(x / 3)), []).append(ends)
    return {
        (ends, at): 3.0 * (place - (len(those) - 1) / 2) if len(those) < 5 else 0.0
        for (at, _), those in shared.items()
        for place, ends in enumerate(those)
    }


def _eased(points: Sequence[Point]) -> tuple[Point, ...]:
    """Curves through points that leave and arrive upright."""
    found = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        ease = EASE * (y1 - y0)
        found += [(x0, y0 + ease), (x1, y1 - ease), (x1, y1)]
    return tuple(found)
