"""The times of validation as a table."""

from __future__ import annotations

from typing import Any

from benchmarks.table import Sheet, duration
from benchmarks.validation import seconds_by_mode

CAPTION = (
    "A component of a graph of the bundled model and {others} of its paths, {controls} matched "
    "controls each, and 50 of three other kinds, counted as copies. Quick: `validate --quick`; "
    "whole: with path patching, keep-only, response curves, other kinds of ablation and other "
    "text. (f): a full forward pass with plain hooks for each copy of the quick one, {passes} of "
    "them timed, scaled up; (f)/quick: on as many threads."
)


def validation_sheet(found: dict[str, Any]) -> Sheet:
    """One row for each prompt and number of threads."""
    rows, prompts = [], found["prompts"]
    for one in prompts:
        for threads in one["naive_seconds"]:
            seconds = seconds_by_mode(one, int(threads))
            rows.append(
                (
                    f"{one['tokens']} tokens",
                    threads,
                    f"{one['units']}",
                    f"{one['copies']:,}",
                    *(duration(seconds[mode]) for mode in ("quick", "whole", "naive")),
                    f"{seconds['naive'] / seconds['quick']:.1f}",
                )
            )
    heads = ("prompt", "threads", "paths", "copies", "quick", "whole", "(f)", "(f)/quick")
    first = prompts[0]
    timed = min(one["seconds"]["pass, 1"]["runs"] for one in prompts)
    caption = CAPTION.format(
        others=first["units"] - 1, controls=first["controls"], passes=f"{timed:,}"
    )
    return Sheet(f"Validation: {found['machine']['cpu']}", heads, rows, caption)
