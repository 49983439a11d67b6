"""All paths judged together: one p-value each over the deciding prompts, corrected for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sae_graphs.evidence import PromptResult, Tested, UnitReport
from sae_graphs.significance import adjusted, p_value, spread


def judged(units: Sequence[UnitReport], seed: int) -> tuple[UnitReport, ...]:
    """The units with what was found over the prompts that decide, and q-values over all units.

    Test prompts decide where there are any, else the prompt of the graph. The p-value is that of
    the mean |change| over prompts: the n-th control of one prompt goes with the n-th of another.
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
    controlled = [result for result in deciding if _changes(result)]
    p = median = ratio = None
    if controlled:
        controls = np.abs([_changes(result) for result in controlled]).mean(0)  # [K]
        own = float(np.mean([abs(result.change) for result in controlled]))
        p, median = p_value(own, controls), float(np.median(controls))
        ratio = own / median if median else None
    return Tested(
        role=deciding[0].role,
        n_prompts=len(deciding),
        change=float(np.mean(sizes)),
        signed=float(np.mean([result.change for result in deciding])),
        low=mean.low,
        high=mean.high,
        p=p,
        q=None,
        control_median=median,
        ratio=ratio,
    )


def _changes(result: PromptResult) -> tuple[float, ...]:
    null = result.null("matched")
    return () if null is None else null.changes
