"""What a validation warns of: prompts that are no test, and too few controls."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sae_graphs.validation.judging import SIGNIFICANT
from sae_graphs.validation.settings import ValidationSettings


def no_tests(given: Sequence[str], found_on: Sequence[str]) -> tuple[str, ...]:
    """Where prompts to test on had a part in making the graph."""
    return tuple(
        f"{prompt!r} is a prompt that the graph was found on; it is no test of it, and was left "
        "out of the others"
        for prompt in given
        if prompt in found_on
    )


def too_few_controls(n_tests: int, n_units: int, settings: ValidationSettings) -> tuple[str, ...]:
    """Where even a path that no control matches could not be called supported."""
    several = 2 if n_tests > 1 else 1  # twice the mean of p-values
    best = several * n_units / (1 + settings.controls)  # a lone one, corrected for all
    if several / (1 + settings.fewer_controls) > SIGNIFICANT:
        least = math.ceil(several / SIGNIFICANT) - 1
        option = "--controls" if settings.controls < least else "other_controls"
        return (
            f"with {settings.fewer_controls} controls of its norm, nothing can be called "
            f"supported; give at least {option} {least}",
        )
    if best <= SIGNIFICANT:
        return ()
    needed = math.ceil(several * n_units / SIGNIFICANT) - 1
    return (
        f"with {settings.controls} controls and {n_units} components and paths, a single "
        f"one that stands out could have no q below {min(best, 1.0):.2g}; give --controls "
        f"{needed}, or test fewer paths",
    )
