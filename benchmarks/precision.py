"""How far float32, bfloat16 and float16 are from float64.

On the bundled model, and on random weights of GPT-2 small's shapes, where neighbouring effects are
closer together. Every effect of some layer pairs is measured in each precision; what a reader
sees, the strongest edges, is compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import sae_graphs as sg
from benchmarks.shapes import Shapes, prepare
from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.agreement import Aligned, aligned
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.exact import measure
from sae_graphs.effects.settings import TOP_K, Ablate, GraphSettings
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.significance import rank_correlation

DTYPES = ("float32", "bfloat16", "float16")
PROMPTS = (
    "Copyright (C",
    "Foreign Direct Investment (F",
    "When Mary and John went to the store, John gave a drink to",
    "The Eiffel Tower is in the city of",
    "[ ( { x }",
    "12, 13, 14,",
)


SHAPED_LAYERS = 4  # SAEs in the middle of the random model: three layer pairs


@torch.no_grad()
def bundled_precision(
    prompts: Sequence[str] = PROMPTS, dtypes: Sequence[str] = DTYPES
) -> list[dict[str, Any]]:
    """For each precision, how its effects agree with those in float64, on the bundled model.

    - `same_edges`: the share of the 8 strongest edges of each pair that both have;
    - `pairs_alike`: the share of layer pairs where all 8 are the same;
    - `leaders_correlation`: Spearman's, over the 100 strongest of a pair in float64: the median
      and the lowest of the pairs;
    - `deviation`: |effect - exact| / |exact| of the 8 strongest in float64: median and worst.
    """

    def effects(dtype: str) -> list[Effects]:
        model = sg.load("demo", dtype=dtype)
        return [found for prompt in prompts for found in _effects(model, prompt, "all")]

    return _table("bundled", effects, dtypes)


@torch.no_grad()
def shaped_precision(
    shapes: Shapes, tokens: int, active: int, dtypes: Sequence[str] = DTYPES
) -> list[dict[str, Any]]:
    """The same for random weights, ablating at the last token, on some layers in the middle."""
    workload = prepare(shapes, tokens, active)
    start = max(0, len(shapes.saes) // 2 - SHAPED_LAYERS // 2)
    saes = shapes.saes[start : start + SHAPED_LAYERS]

    def effects(dtype: str) -> list[Effects]:
        to = getattr(torch, dtype)
        with redirect_stdout(None):  # it prints what it does
            bridge = copy.deepcopy(shapes.bridge).to(to)
        model = InstrumentedModel(bridge, [copy.deepcopy(sae).to(dtype=to) for sae in saes])
        return _effects(model, workload.prompt.text, "read")

    return _table("random", effects, dtypes)


# -- inside ----------------------------------------------------------------------------------------


def _table(
    name: str, effects: Callable[[str], list[Effects]], dtypes: Sequence[str]
) -> list[dict[str, Any]]:
    with _double_softmax():
        exact = effects("float64")
    return [{"model": name, "dtype": dtype, **_compared(exact, effects(dtype))} for dtype in dtypes]


def _effects(model: InstrumentedModel, prompt: str, ablate: Ablate) -> list[Effects]:
    """One block for each layer pair."""
    clean = model.clean_run(prompt)
    places = places_of(clean, GraphSettings(ablate=ablate, select="effect"))
    found = []
    for depth in range(len(model.stack.layers) - 1):
        blocks = measure(model, clean, ablations_of(clean, depth, places), places)
        found.append(Effects.joined(list(blocks)))
    return found


def _compared(exact: Sequence[Effects], found: Sequence[Effects]) -> dict[str, Any]:
    pairs = [aligned(*both, TOP_K) for both in zip(exact, found, strict=True)]
    deviations = np.concatenate([_deviations(pair) for pair in pairs])
    shares = [pair.top.all(0).sum() / pair.top[0].sum() for pair in pairs]
    ranks = [
        rank_correlation(pair.exact[pair.leaders], pair.estimate[pair.leaders], fewest=2)
        for pair in pairs
    ]
    known = [rank for rank in ranks if rank is not None]
    return {
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
