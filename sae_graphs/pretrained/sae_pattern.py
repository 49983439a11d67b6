"""`--sae-pattern`: which SAE of each layer, where a release or a folder holds several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from sae_graphs.errors import SAELoadError, quoted
from sae_graphs.pretrained.releases import ListedSAE

_PLACE = re.compile(r"\{([^{}]*)\}|\*")
LONGEST = 200  # characters of a pattern
MOST_STARS = 6
SHOWN = 12  # choices listed in a message


def choose(items: Sequence[ListedSAE], pattern: str | None, source: str) -> list[ListedSAE]:
    """One SAE per depth: those whose id fits the pattern; all, where none is given or needed.

    In a pattern `{layer}` stands for the layer's number, `*` for anything, and `{l0:70}` for a
    number of which the one closest to 70 is taken. Raises `SAELoadError` with the choices where
    nothing fits, or several fit one layer.
    """
    chosen = list(items)
    if pattern is not None:
        fits = _matcher(pattern, source)
        found = [(sae, fits(sae.sae_id)) for sae in items]
        matched = [(sae, distance) for sae, distance in found if distance is not None]
        if not matched:
            raise SAELoadError(
                f"{source}: no SAE is called like {pattern!r}; choose with --sae-pattern one of "
                f"{_choices(items)}"
            )
        chosen = _closest(matched)
    depths = Counter(sae.depth for sae in chosen if sae.depth is not None)
    twice = [depth for depth, count in depths.items() if count > 1]
    if twice:
        there = [sae.sae_id for sae in chosen if sae.depth == min(twice)]
        raise SAELoadError(
            f"{source} holds several SAEs a layer (first {quoted(there, 3)}); choose one with "
            f"--sae-pattern, such as {_choices(chosen)}"
        )
    return chosen


def _matcher(pattern: str, source: str) -> Callable[[str], tuple[int, int] | None]:
    """How far an id is from a pattern: None where it does not fit, else its distance and number.

    Both are 0 where the pattern asks for no number.
    """
    if len(pattern) > LONGEST:
        raise SAELoadError(f"{source}: a pattern of {len(pattern)} characters; expected a name")
    wanted: int | None = None
    expression = ""
    pattern = re.sub(r"\*+", "*", pattern)
    at = 0
    if pattern.count("*") > MOST_STARS:
        raise SAELoadError(f"{source}: the pattern {pattern!r} has more than {MOST_STARS} stars")
    for place in _PLACE.finditer(pattern):
        expression += re.escape(pattern[at : place.start()])
        at = place.end()
        name, _, number = (place[1] or "").partition(":")
        if place[0] == "*":
            expression += ".*"
        elif name == "layer" and not number:
            expression += r"\d+"
        elif name not in ("", "layer") and _is_number(number) and wanted is None:
            expression += r"(?<!\d)(?P<number>\d+)(?!\d)"
            wanted = int(number)
        else:
            raise SAELoadError(
                f"{source}: {place[0]!r} in the pattern {pattern!r} means nothing; expected "
                "{layer}, * or one {l0:70}"
            )
    fitting = re.compile(expression + re.escape(pattern[at:]))

    def distance(text: str) -> tuple[int, int] | None:
        found = fitting.fullmatch(text)
        if found is None:
            return None
        number = 0 if wanted is None else int(found["number"])
        return (0, 0) if wanted is None else (abs(number - wanted), number)

    return distance


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _closest(matched: Sequence[tuple[ListedSAE, tuple[int, int]]]) -> list[ListedSAE]:
    """Of the SAEs at each depth, those at the smallest distance; of two numbers, the smaller."""
    best: dict[int | None, tuple[int, int]] = {}
    for sae, distance in matched:
        best[sae.depth] = min(best.get(sae.depth, distance), distance)
    return [sae for sae, distance in matched if distance == best[sae.depth]]


def _choices(saes: Sequence[ListedSAE]) -> str:
    """The patterns there are, those of most layers first, with how many layers they have."""
    counts = Counter(sae.pattern for sae in saes)
    ordered = sorted(counts, key=lambda pattern: (-counts[pattern], pattern))
    return quoted([f"{pattern!r} ({counts[pattern]} SAEs)" for pattern in ordered], SHOWN)
