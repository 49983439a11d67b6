"""A strip plot: a unit's own contribution beside its controls, as SVG text, without a library.

Every control is a dot at its contribution, a row a kind; all rows share one axis. Positive means
that ablating it hurts the answer. The same numbers are told in words, for who cannot see them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from sae_graphs.render.document.blocks import Figure
from sae_graphs.render.style import BAND, BAR, INK, LINE, SANS, SOFT, WHITE, effect_colour
from sae_graphs.significance import adjusted
from sae_graphs.text import in_page, shortened, visible
from sae_graphs.words import counted, nats

WIDTH, LABELS, RIGHT = 580, 198, 12  # pixels: all of it, the column of words, the margin
OWN, ROW, AXIS, LEGEND = 30, 42, 34, 18  # heights: the unit itself, a row of dots, what is below
SIZE, SMALL = 11, 10  # of text, in pixels
DOT = 4.2  # a dot's width
_LONGEST = 60  # characters of a name on the axis


@dataclass(frozen=True)
class Row:
    """One kind of control: a dot at each of its `values`, on the axis of the strip.

    `note` stands below the label. Where the unit's own value lies beyond `needed`, it beats them.
    """

    label: str
    note: str
    values: tuple[float, ...]
    needed: float | None = None


@dataclass(frozen=True)
class Strip:
    """A unit, by `name`, with its `own` value, beside rows of controls; `axis` says what of."""

    name: str
    own: float
    axis: str
    rows: tuple[Row, ...]


def needed_for(values: Sequence[float], own_p_allows: int) -> float | None:
    """The value that must be passed so that at most `own_p_allows` of `values` do as much.

    None where no result could: that number is below zero.

    >>> needed_for([1.0, 5.0, 3.0], 1), needed_for([1.0, 5.0], -1), needed_for([1.0], 1)
    (3.0, None, 1.0)
    """
    if own_p_allows < 0 or not values:
        return None
    ordered = sorted(values, reverse=True)
    return ordered[min(own_p_allows, len(ordered) - 1)]


def allowed(n_controls: int, level: float) -> int:
    """How many of so many controls may do as much for p, (1 + those) / (1 + all), to be at most
    `level`; below zero where none is too many.

    >>> allowed(200, 0.05), allowed(19, 0.05), allowed(10, 0.05)
    (9, 0, -1)
    """
    return math.floor(level * (1 + n_controls) + 1e-9) - 1


def allowed_corrected(n_controls: int, level: float, p: Sequence[float | None], place: int) -> int:
    """The same for the q of the unit at `place`, where the others keep their `p`."""
    most = allowed(n_controls, level)
    while most >= 0:
        with_most = [*p[:place], (1 + most) / (1 + n_controls), *p[place + 1 :]]
        q = adjusted(with_most)[place]
        if q is not None and q <= level:
            break
        most -= 1
    return most


def strip_words(strip: Strip) -> str:
    """All that the plot shows, in sentences."""
    told = [f"{strip.name}: {nats(strip.own)} ({strip.axis})."]
    for row in strip.rows:
        known = _finite(row.values)
        if not known:
            continue
        ends = f"{nats(min(known))} to {nats(max(known))}, median {nats(median(known))}"
        told.append(
            f"{row.label}: {counted(len(known), 'dot')} from {ends}; {row.note}"
            + ("." if row.needed is None else f"; it beats them beyond {nats(row.needed)}.")
        )
    return " ".join(told)


def strip_plot(strip: Strip) -> str | None:
    """The plot as an `<svg>` element; None where there is no control to show."""
    rows = [row for row in strip.rows if _finite(row.values)]
    if not rows or not math.isfinite(strip.own):
        return None
    scale = _Scale.of([strip.own, 0.0, *(value for row in rows for value in _finite(row.values))])
    bottom = OWN + ROW * len(rows)
    height = bottom + AXIS + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="{SANS}" font-size="{SIZE}" '
        f'aria-label="{in_page(visible(strip_words(strip), space=" "))}">',
        f'<rect width="{WIDTH}" height="{height}" fill="{WHITE}"/>',
        *_axis(scale, bottom, strip.axis),
        *_own(strip, scale, bottom),
    ]
    for place, row in enumerate(rows):
        parts += _row(row, scale, OWN + ROW * place)
    parts += _legend(strip, rows, bottom + AXIS + 11)
    return "".join([*parts, "</svg>"])


def figure(strip: Strip, name: str) -> list[Figure]:
    """The strip plot, with the same in words; nothing where there are no controls."""
    drawn = strip_plot(strip)
    return [] if drawn is None else [Figure(name, drawn, alt=strip_words(strip))]


@dataclass(frozen=True)
class _Scale:
    """From a value to its place, in pixels."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Scale:
        extent, size = max(values) - min(values), max(map(abs, values))
        room = 0.04 * extent if extent > 1e-9 * max(size, 1.0) else 1.0 + size
        return cls(min(values) - room, max(values) + room)

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(LABELS + share * (WIDTH - RIGHT - LABELS), 1)

    @property
    def ticks(self) -> list[float]:
        """Four to nine round values."""
        rough = (self.high - self.low) / 6
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [place * step for place in range(first, last + 1)]


def _axis(scale: _Scale, bottom: float, name: str) -> Iterator[str]:
    for value in scale.ticks:
        x = scale.at(value)
        colour, width = (BAR, 1) if value == 0 else (BAND, 1)
        yield f'<path d="M{x} {OWN - 4}V{bottom}" stroke="{colour}" stroke-width="{width}"/>'
        yield _text(x, bottom + 13, nats(value), anchor="middle", colour=SOFT, size=SMALL)
    yield f'<path d="M{LABELS} {bottom}H{WIDTH - RIGHT}" stroke="{LINE}"/>'
    middle = (LABELS + WIDTH - RIGHT) / 2
    yield _text(middle, bottom + 28, name, anchor="middle", colour=SOFT, size=SMALL)


def _own(strip: Strip, scale: _Scale, bottom: float) -> Iterator[str]:
    """A diamond and its value above all rows, and a line through them."""
    x, y = scale.at(strip.own), 16
    colour = effect_colour(-strip.own)
    yield f'<path d="M{x} {y}V{bottom}" stroke="{colour}" stroke-width="1.5"/>'
    yield _diamond(x, y, colour, hollow=strip.own < 0)
    side, gap = ("end", -9) if x > (LABELS + WIDTH) / 2 else ("start", 9)
    yield _text(x + gap, y + 4, f"{nats(strip.own)} nats", anchor=side, bold=True)
    yield _text(0, y + 4, strip.name, bold=True)


def _row(row: Row, scale: _Scale, top: float) -> Iterator[str]:
    ground = top + ROW - 5
    yield _text(0, top + 17, row.label)
    yield _text(0, top + 31, row.note, colour=SOFT, size=SMALL)
    yield f'<path d="M{LABELS} {ground}H{WIDTH - RIGHT}" stroke="{LINE}" stroke-width="0.5"/>'
    dots = "".join(f"M{x} {y}h0" for x, y in _places(row.values, scale, ground))
    yield (
        f'<path class="dots" d="{dots}" stroke="{BAR}" stroke-width="{DOT}" '
        'stroke-linecap="round" stroke-opacity="0.8"/>'
    )
    if row.needed is not None and math.isfinite(row.needed):
        x = scale.at(row.needed)
        yield f'<path class="needed" d="M{x} {top + 4}V{ground + 3}" {_NEEDED}/>'


_NEEDED = f'stroke="{INK}" stroke-width="1.5" stroke-dasharray="3 2"'


def _places(values: Sequence[float], scale: _Scale, ground: float) -> Iterator[tuple[float, float]]:
    """Each dot exactly at its value, above those that it would hide."""
    xs = sorted(map(scale.at, _finite(values)))
    columns = Counter(int(x / DOT) for x in xs)
    step = min(DOT, (ROW - 12) / max(columns.values()))
    height: Counter[int] = Counter()
    for x in xs:
        yield x, round(ground - DOT / 2 - step * height[int(x / DOT)], 1)
        height[int(x / DOT)] += 1


def _legend(strip: Strip, rows: Sequence[Row], y: float) -> Iterator[str]:
    yield _diamond(6, y - 4, effect_colour(-strip.own), hollow=strip.own < 0)
    yield _text(16, y, strip.name, colour=SOFT, size=SMALL)
    x = LABELS + 4
    yield f'<path d="M{x} {y - 3}h0" stroke="{BAR}" stroke-width="{DOT}" stroke-linecap="round"/>'
    yield _text(x + 8, y, "one control", colour=SOFT, size=SMALL)
    if any(row.needed is not None for row in rows):
        yield f'<path d="M{x + 90} {y - 10}v12" {_NEEDED}/>'
        told = "beyond this it beats them (q, p ≤ 0.05)"
        yield _text(x + 98, y, told, colour=SOFT, size=SMALL)


def _diamond(x: float, y: float, colour: str, *, hollow: bool) -> str:
    fill = WHITE if hollow else colour
    return (
        f'<path class="own" d="M{x} {y - 6}l6 6l-6 6l-6 -6z" fill="{fill}" stroke="{colour}" '
        'stroke-width="1.5"/>'
    )


def _text(
    x: float,
    y: float,
    told: str,
    *,
    anchor: str = "start",
    colour: str = INK,
    size: int = SIZE,
    bold: bool = False,
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    shown = in_page(shortened(visible(told, space=" "), _LONGEST))
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>'
        f"{shown}</text>"
    )


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
