"""The frame of a card's small picture, for runs that are no graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 360.0, 200.0
MARGIN = 8.0

_STYLE = (
    ".feature{fill:#5b2a9c}.harms{fill:#c2670f}polyline{fill:none;stroke-width:4}"
    ".subject{stroke:#8a5cd0}.read{stroke:#777b88;stroke-dasharray:9 6}"
    "@media (prefers-color-scheme: dark){.feature{fill:#b08cf0}.harms{fill:#f0a850}}"
)


def picture(drawn: str) -> str:
    """An SVG of `WIDTH` by `HEIGHT` around what is drawn, in light and in dark."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}">'
        f"<style>{_STYLE}</style>{drawn}</svg>"
    )


def shares_as_bars(shares: Sequence[tuple[str, float]]) -> str:
    """Bars below each other, each with its class; what is not a number is left out."""
    if not shares:
        return picture("")
    high = (HEIGHT - (len(shares) + 1) * MARGIN) / len(shares)
    drawn = [
        f'<rect class="{kind}" x="{MARGIN:.0f}" y="{MARGIN + place * (high + MARGIN):.1f}" '
        f'height="{high:.1f}" width="{max((WIDTH - 2 * MARGIN) * share, 2):.1f}"/>'
        for place, (kind, share) in enumerate(shares)
        if math.isfinite(share)
    ]
    return picture("".join(drawn))
