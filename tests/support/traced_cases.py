"""Many traced prompts made by hand: categories that hand over at layers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sae_graphs.tracing.cases_file import Case
from sae_graphs.tracing.many import LeftOut, TracedCase, Traces, TwoRows

MIDDLES = {"cached": 4.0, "semantic": 8.0}


def curve(middle: float, n_layers: int) -> np.ndarray:
    """From 0 to 1 around a layer."""
    return np.asarray(1 / (1 + np.exp(-2.5 * (np.arange(n_layers) - middle))))


def traced(
    category: str,
    middle: float,
    *,
    distance: int = 3,
    confidence: float = 1.0,
    n_layers: int = 12,
    prompt: str = "a b c d",
) -> TracedCase:
    rises = curve(middle, n_layers)
    rows = TwoRows(tuple(map(float, 1 - rises)), tuple(map(float, rises)))
    flat = TwoRows((0.1,) * n_layers, (0.0,) * n_layers)
    case = Case(prompt, prompt.split()[0], category, "x")
    return TracedCase(
        case,
        top="x",
        tokens=distance + 2,
        at=1,
        read=1 + distance,
        clean=0.8,
        corrupted=0.05,
        clean_log_odds=confidence,
        lost=4.0,
        noise=0.3,
        rows={"state": rows, "mlp": flat},
    )


def traces(
    *,
    n: int = 20,
    seed: int = 0,
    middles: dict[str, float] | None = None,
    by_distance: float = 0.0,
    spread: float = 0.7,
    sweeps: Sequence[str] = ("state", "mlp"),
) -> Traces:
    """`n` prompts a category; `by_distance` layers later for each token of distance, which the
    second category has more of."""
    rng = np.random.default_rng(seed)
    found = []
    for number, (name, middle) in enumerate((middles or MIDDLES).items()):
        for _ in range(n):
            distance = int(rng.integers(2, 5)) + 3 * number * (by_distance > 0)
            at = middle + by_distance * distance + spread * rng.standard_normal()
            confidence = float(rng.standard_normal())
            one = traced(name, at, distance=distance, confidence=confidence)
            found.append(replace(one, rows={it: one.rows[it] for it in sweeps}))
    left_out = (
        LeftOut(Case("To be", "be", "cached"), 'the likeliest next token is " x" (3.0 %), not "y"'),
        LeftOut(Case("<b>$x$", "<b>", "semantic"), "RuntimeError: <script>", failed=True),
    )
    return Traces("made by hand", 12, tuple(found), left_out, {"strength": "3s"})
