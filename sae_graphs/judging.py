"""All paths judged together: one p-value each over the deciding prompts, corrected for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sae_graphs.evidence import PromptResult, Tested, UnitReport
from sae_graphs.significance import adjusted, combined, spread


def judged(units: Sequence[UnitReport], seed: int) -> tuple[UnitReport, ...]:
    """The units with what was found over the prompts that decide, and q-values over all units.

    Test prompts decide where there are any, else the prompt of the graph. Controls differ from
    prompt to prompt, so each prompt has a p-value of its own, and they are combined.
    """
    found = [_tested(unit, seed) for unit in units]
    q_values = adjusted([tested.p for tested in found])
    return tuple(
        replace(unit, tested=replace(tested, q=q))
        for unit, tested, q in zip(units, found, q_values, strict=True)
    )


def _tested(unit: UnitReport, seed: int) -> Tested:
    tests = [result for result in unit.results if result.role == "test"]
    deciding = tests or list(unit.results)
    sizes = [abs(result.change) for result in deciding]
    mean = spread(sizes, seed)
    controlled = [result for result in deciding if _p(result) is not None]
    own = [abs(result.change) for result in controlled]
    medians = [result.null("matched").median_change for result in controlled]  # type: ignore[union-attr]
    median = float(np.mean(medians)) if controlled else None  # type: ignore[arg-type]
    return Tested(
        role=deciding[0].role,
        n_prompts=len(deciding),
        change=float(np.mean(sizes)),
        signed=float(np.mean([result.change for result in deciding])),
        low=mean.low,
        high=mean.high,
        p=combined([p for result in controlled if (p := _p(result)) is not None]),
        q=None,
        control_median=median,
        ratio=float(np.mean(own)) / median if median else None,
        n_controlled=len(controlled),
    )


def _p(result: PromptResult) -> float | None:
    null = result.null("matched")
    return None if null is None else null.p
