"""What was hoped for, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

TOKENS = 16  # of the prompt on which most targets are checked
FASTER_THAN_ALL_FEATURES = 20_000
FASTER_THAN_ACTIVE_FEATURES = 100
TIMES_THE_FLOOR = 2.0
TIMES_INTEGRATED_GRADIENTS = 1.0
LONGEST_TO_SHORTEST = 1.5


class Target(NamedTuple):
    """A ratio, and what it should be: at least `goal`, or at most."""

    what: str
    mode: str
    found: float
    goal: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.found >= self.goal if self.at_least else self.found <= self.goal

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self._asdict(), "met": self.met}


def targets(cells: Sequence[Mapping[str, Any]], growth: float | None) -> list[Target]:
    """Those that the cells allow to check; `growth` is the longest prompt to the shortest."""
    found = [target for cell in cells for target in _of_cell(cell)]
    if growth is not None:
        what = "ablations alone, longest prompt to shortest"
        found.append(Target(what, "read", growth, LONGEST_TO_SHORTEST, at_least=False))
    return found


def longest_to_shortest(timings: Mapping[str, Mapping[str, float]]) -> float | None:
    """The median time at the longest prompt against the shortest."""
    by_length = {int(tokens): timing["median"] for tokens, timing in timings.items()}
    return by_length[max(by_length)] / by_length[min(by_length)] if len(by_length) > 1 else None


def _of_cell(cell: Mapping[str, Any]) -> Iterator[Target]:
    if cell["tokens"] != TOKENS or cell["active"]["wanted"] != 40:
        return
    mode, ratios, at = cell["mode"], cell["ratios"], f"{TOKENS} tokens"
    yield Target(
        f"{at}: faster than (a), clean run included",
        mode,
        ratios["faster_than_all_features"],
        FASTER_THAN_ALL_FEATURES,
        at_least=True,
    )
    yield Target(
        f"{at}: faster than (b), clean run included",
        mode,
        ratios["faster_than_active_features"],
        FASTER_THAN_ACTIVE_FEATURES,
        at_least=True,
    )
    yield Target(
        f"{at}: ablations to the floor (d)",
        mode,
        ratios["ours_to_floor"],
        TIMES_THE_FLOOR,
        at_least=False,
    )
    if "ours_to_integrated_gradients" in ratios:
        yield Target(
            f"{at}: ablations to integrated gradients (e) 10",
            mode,
            ratios["ours_to_integrated_gradients"],
            TIMES_INTEGRATED_GRADIENTS,
            at_least=False,
        )
