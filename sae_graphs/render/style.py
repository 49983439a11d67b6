"""How things look: colours, type, and the one scale of a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge

# DejaVu comes with the package, so a layout is the same everywhere; it is wider than what a
# browser without it takes instead, so text fits its box there too.
SANS = "DejaVu Sans,Helvetica,Arial,sans-serif"
MONO = "DejaVu Sans Mono,Menlo,Consolas,monospace"
MONO_ASPECT = 0.60205  # a monospaced character's width by its size

# The monospaced type of boxes, in points. Graphviz measures a character in whole pixels, 96 to the
# inch, and a browser draws it unrounded: only where it is a whole number of pixels wide, here 7,
# does a token of a line end where the ground of the next one begins. (Graphviz takes no fraction
# as the size of a `FONT`, but does as that of a node.)
MONO_SIZE = round(7 * 72 / 96 / MONO_ASPECT, 2)

LOWERS = "#d92626"  # ablating the feature lowers it: the feature promotes it
RAISES = "#1d5fd6"  # ablating the feature raises it: the feature suppresses it
LOWERS_TINT = "#fde3e1"
RAISES_TINT = "#dfe9fc"

INK = "#0f172a"
SOFT = "#475569"
FAINT = "#94a3b8"
LINE = "#cbd5e1"
PANEL = "#f8fafc"  # the ground of a group
BAND = "#eef2f6"  # the ground of the prompt
WHITE = "#ffffff"
NOTE = "#fef9c3"  # the ground of what a reader wrote
ALARM = "#fff3cd"
ALARM_LINE = "#d97706"
BAR = "#64748b"

DEEPEST_SHADE = "#5aa9f8"
SHADES = 8  # activation is drawn in this many steps above white


@dataclass(frozen=True)
class EffectScale:
    """Opacity and width of arrows by |effect|: linear, one scale for a whole picture.

    `largest` and `smallest` are the |effect| of the strongest and the weakest arrow; in an answer
    graph what flows along them to the answer.
    """

    smallest: float
    largest: float

    @classmethod
    def of(cls, graph: CausalGraph) -> EffectScale:
        """The scale of all arrows of `graph`; its component pictures share it."""
        sizes = [edge.strength for edge in graph.edges]
        return cls(min(sizes, default=0.0), max(sizes, default=0.0))

    def share(self, effect: float) -> float:
        """|effect| as a share of the largest, 0 to 1."""
        return min(abs(effect) / self.largest, 1.0) if self.largest else 0.0

    def opacity(self, effect: float) -> float:
        """0.3 for an effect of nothing, 1 for the largest."""
        return 0.3 + 0.7 * self.share(effect)

    def colour(self, effect: float) -> str:
        """`#rrggbb`: red for a negative effect, blue for a positive one, at its opacity on white.

        Mixed rather than translucent: where an arrow's line and head overlap, Graphviz would paint
        a translucent colour twice.
        """
        ink = _channels(effect_colour(effect))
        opacity = self.opacity(effect)
        return _hex(round(255 + (channel - 255) * opacity) for channel in ink)

    def width(self, effect: float) -> float:
        """The arrow's width in points."""
        return 1.2 + 2.2 * self.share(effect)


def effect_colour(effect: float) -> str:
    """The one colour convention: red where ablating lowers, blue where it raises."""
    return LOWERS if effect < 0 else RAISES


def effect_tint(effect: float) -> str:
    """The pale ground for a token that ablating lowers or raises."""
    return LOWERS_TINT if effect < 0 else RAISES_TINT


def arrow_head(edge: Edge) -> str:
    """The sign again, for readers who do not see the hues: an arrow, or a bar that blocks."""
    return "normal" if edge.effect < 0 else "tee"


def arrow_line(edge: Edge) -> str:
    """And once more, for pictures too small to show heads: what suppresses is dashed."""
    return "solid" if edge.effect < 0 else "dashed"


def shade_step(activation: float, largest: float) -> int:
    """The step from white (0) to full blue (`SHADES`) for an activation."""
    if not (math.isfinite(activation) and largest > 0 and activation > 0):
        return 0
    return max(1, round(SHADES * min(activation / largest, 1.0)))


def shade(step: int) -> str:
    """The colour of a step, white to blue."""
    share = step / SHADES
    return _hex(round(255 + (deepest - 255) * share) for deepest in _channels(DEEPEST_SHADE))


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[start : start + 2], 16) for start in (1, 3, 5))


def _hex(channels: Iterable[int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in channels)
