"""The times of effects on the answer as a table."""

from __future__ import annotations

from typing import Any

from benchmarks.table import Sheet, duration

CAPTION = (
    "(g) the effect of every active feature at every token on the answer's log-odds; (h) the bare "
    "multiplications that this needs: rows that change, through each block, and the logits; (i) a "
    "full forward pass with a plain hook for each. ~ a sample, scaled up."
)


def answer_sheet(found: dict[str, Any]) -> Sheet:
    """One row for each case."""
    rows = []
    for case in found["cases"]:
        sampled = "" if case["measured"] == case["features_at_tokens"] else "~"
        seconds = case["seconds"]
        rows.append(
            (
                f"{case['name']}, {case['tokens']} tokens",
                f"{case['features_at_tokens']:,}",
                *(sampled + duration(seconds[name]) for name in ("ours", "floor")),
                f"~{duration(seconds['passes'])}",
                f"{case['faster_than_passes']:.1f}",
                f"{case['ours_to_floor']:.2f}",
            )
        )
    heads = ("model", "features at tokens", "(g)", "(h)", "(i)", "(i)/(g)", "(g)/(h)")
    return Sheet(f"Effects on the answer: {found['machine']['cpu']}", heads, rows, CAPTION)
