"""What counts as evidence for a phenomenon: numbers of one ablation, and whether they pass.

A component passes in a prompt where ablating it lowers the right token's probability by at least
half, with p below 0.01 against matched controls, whose median change is under a third of its own.
It passes in a pair of prompts where it passes in the prompt whose graph it is of, and in another
one with the same phenomenon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

HALVED = 0.5  # at most this share of the clean probability is left
P_BELOW = 0.01
MEDIAN_BELOW = 1 / 3  # the controls' median |change|, as a share of the component's
BEATS_BELOW = 0.05  # p against 50 controls of equal norm: at most one does as much

NOT_HALVED = "not halved"
P_TOO_LARGE = "p >= 0.01"
MEDIAN_TOO_LARGE = "median >= 1/3"
NO_CONTROLS = "no controls"
FAILURES = (NOT_HALVED, P_TOO_LARGE, MEDIAN_TOO_LARGE, NO_CONTROLS)


@dataclass(frozen=True)
class Trial:
    """One component ablated in one prompt.

    `before` and `after` are the probability of the right token, clean and ablated. `p` and
    `control_median` (of the |change| of that probability) are of the matched controls, and `norm`
    the median norm of what they take from the stream, as a share of the component's. `p_scaled`
    and `p_directions` are against matched controls scaled to the component's norm, and random
    directions of it. Where no controls can be drawn, `refused` says why.
    """

    before: float
    after: float
    active: int
    p: float | None
    control_median: float | None
    norm: float | None
    p_scaled: float | None
    p_directions: float | None
    refused: str | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """The criteria that are not met; none where the component passes."""
        found = []
        if self.after > HALVED * self.before:
            found.append(NOT_HALVED)
        if self.p is None or self.control_median is None:
            return (*found, NO_CONTROLS)
        if self.p >= P_BELOW:
            found.append(P_TOO_LARGE)
        if self.control_median >= MEDIAN_BELOW * abs(self.after - self.before):
            found.append(MEDIAN_TOO_LARGE)
        return tuple(found)

    @property
    def passes(self) -> bool:
        """Whether all criteria are met."""
        return not self.failures

    @property
    def unmet(self) -> int:
        """How many criteria are not met; without controls, the two about them are not."""
        return len(self.failures) + (NO_CONTROLS in self.failures)

    def beats_equal_norm(self) -> bool:
        """Whether it does more than scaled controls and than random directions of its own norm."""
        values = (self.p_scaled, self.p_directions)
        return all(value is not None and value < BEATS_BELOW for value in values)


@dataclass(frozen=True)
class Component:
    """A component of a prompt's graph: tested there, and, where it passes, in other prompts.

    `others` has the trials by the number of the other prompt.
    """

    features: tuple[str, ...]
    own: Trial
    others: Mapping[int, Trial]


@dataclass(frozen=True)
class Asked:
    """A held-out prompt, its right next token, that token's probability, and what was found."""

    prompt: str
    answer: str
    token: str
    probability: float
    tokens: int
    seconds: float
    components: tuple[Component, ...]

    @property
    def best(self) -> Component:
        """The component that meets most criteria in this prompt; the first of equals."""
        return min(self.components, key=lambda component: component.own.unmet)

    @property
    def passing(self) -> tuple[Component, ...]:
        """The components that pass in this prompt."""
        return tuple(component for component in self.components if component.own.passes)

    def best_in(self, number: int) -> Component | None:
        """Of the components that pass here, the one that meets most criteria in another prompt."""
        return min(self.passing, key=lambda part: part.others[number].unmet, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values, and back: `asked_from`."""
        return asdict(self)


def asked_from(data: Mapping[str, Any]) -> Asked:
    """A prompt's results from JSON."""
    components = tuple(
        Component(
            tuple(part["features"]),
            Trial(**part["own"]),
            {int(number): Trial(**trial) for number, trial in part["others"].items()},
        )
        for part in data["components"]
    )
    return Asked(**{**data, "components": components})


class Pair(NamedTuple):
    """A component of one prompt's graph in another prompt; None where none passes in its own."""

    first: Asked
    second: Asked
    component: Component | None
    trial: Trial | None

    @property
    def passes(self) -> bool:
        """Whether it passes in both."""
        return self.trial is not None and self.trial.passes


def pairs(prompts: Sequence[Asked]) -> Iterator[Pair]:
    """All ordered pairs; of several components that pass in the first, the best in the second."""
    for first in prompts:
        for number, second in enumerate(prompts):
            if second is first:
                continue
            best = first.best_in(number)
            yield Pair(first, second, best, None if best is None else best.others[number])


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """How many trials fail each criterion; one trial may fail several."""
    return {name: sum(name in trial.failures for trial in trials) for name in FAILURES}
