"""How far float32, bfloat16 and float16 are from float64, on the bundled model.

Every effect of every layer pair is measured in each precision; what a reader sees, the strongest
edges, is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import sae_graphs as sg
from sae_graphs.ablation import measure
from sae_graphs.ablations import ablations_of, places_of
from sae_graphs.agreement import Aligned, aligned, spearman
from sae_graphs.effects import Effects
from sae_graphs.settings import TOP_K, GraphSettings

DTYPES = ("float32", "bfloat16", "float16")
PROMPTS = (
    "Copyright (C",
    "Foreign Direct Investment (F",
    "When Mary and John went to the store, John gave a drink to",
    "The Eiffel Tower is in the city of",
    "[ ( { x }",
    "12, 13, 14,",
)


@torch.no_grad()
def measure_precision(
    prompts: Sequence[str] = PROMPTS, dtypes: Sequence[str] = DTYPES
) -> list[dict[str, Any]]:
    """For each precision, how its effects agree with those in float64.

    - `same_edges`: the share of the 8 strongest edges of each pair that both have;
    - `pairs_alike`: the share of layer pairs where all 8 are the same;
    - `leaders_correlation`: Spearman's, over the 100 strongest of a pair in float64: the median
      and the lowest of the pairs;
    - `deviation`: |effect - exact| / |exact| of the 8 strongest in float64: median and worst.
    """
    with _double_softmax():
        exact = _effects("float64", prompts)
    return [_compared(dtype, exact, _effects(dtype, prompts)) for dtype in dtypes]


# -- inside ----------------------------------------------------------------------------------------


def _effects(dtype: str, prompts: Sequence[str]) -> list[Effects]:
    """Of all prompts, one block for each layer pair."""
    model = sg.load("demo", dtype=dtype)
    found = []
    for prompt in prompts:
        clean = model.clean_run(prompt)
        places = places_of(clean, GraphSettings())
        for depth in range(len(model.stack.layers) - 1):
            blocks = measure(model, clean, ablations_of(clean, depth, places), places)
            found.append(Effects.joined(list(blocks)))
    return found


def _compared(dtype: str, exact: Sequence[Effects], found: Sequence[Effects]) -> dict[str, Any]:
    pairs = [aligned(*both, TOP_K) for both in zip(exact, found, strict=True)]
    deviations = np.concatenate([_deviations(pair) for pair in pairs])
    shares = [pair.top.all(0).sum() / pair.top[0].sum() for pair in pairs]
    ranks = [spearman(pair.exact[pair.leaders], pair.estimate[pair.leaders]) for pair in pairs]
    known = [rank for rank in ranks if rank is not None]
    return {
        "dtype": dtype,
        "pairs": len(pairs),
        "same_edges": float(np.mean(shares)),
        "pairs_alike": float(np.mean([share == 1 for share in shares])),
        "leaders_correlation": {"median": float(np.median(known)), "lowest": min(known)},
        "deviation": {
            "median": float(np.median(deviations)),
            "worst": float(deviations.max()),
        },
    }


def _deviations(pair: Aligned) -> np.ndarray:
    top = pair.top[0]
    return np.abs(pair.estimate[top] - pair.exact[top]) / np.abs(pair.exact[top])


@contextmanager
def _double_softmax() -> Iterator[None]:
    """Attention's softmax in float64; the bridge rounds it to float32 in every precision."""
    softmax = torch.nn.functional.softmax

    def in_own_precision(values: Any, *args: Any, **kwargs: Any) -> Any:
        if values.dtype == torch.float64:
            kwargs.pop("dtype", None)
        return softmax(values, *args, **kwargs)

    with patch.object(torch.nn.functional, "softmax", in_own_precision):
        yield
