"""The engine and the oracle side by side, and how far they are apart.

Float64 decides whether the engine computes the right thing: every single effect must agree to
1e-5 of itself. Float32 adds rounding, which is measured against the layer pair's largest effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.exact import measure
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention
from tests.support.models import (
    ARCHITECTURES,
    KINDS,
    PROMPT,
    STACKS,
    in_dtype,
    random_stack,
    tokenizer,
)
from tests.support.oracle import Change, Oracle, zero

Record = Callable[[str, object], None]
RELATIVE = 1e-5
FAINT = 1e-9  # of the largest effect: below this float64 itself has few digits left, so there
NOISE = 1e-12  # the deviation must be below this, of the largest effect


class Case(NamedTuple):
    """A model with SAEs, and the oracle over copies of them, on one prompt."""

    model: InstrumentedModel
    oracle: Oracle


def case_of(
    bridge: Any,
    stack: str,
    kinds: Sequence[str],
    dtype: str,
    prompt: str = PROMPT,
    *,
    bos: bool = True,
) -> Case:
    """The same one as before where it was asked for not long ago: tests must not change it."""
    return _made(bridge, stack, tuple(kinds), dtype, prompt, bos)


@lru_cache(maxsize=16)
def _made(
    bridge: Any, stack: str, kinds: tuple[str, ...], dtype: str, prompt: str, bos: bool
) -> Case:
    saes = random_stack(bridge, STACKS[stack], kinds, dtype=dtype)
    ids = tokenizer()(prompt, add_special_tokens=False)["input_ids"]
    oracle = Oracle(bridge, in_dtype(saes, dtype), [0, *ids] if bos else ids)
    return Case(InstrumentedModel(bridge, saes), oracle)


def kinds_for(architecture: str) -> list[str]:
    """Four SAE kinds in an order that differs by architecture, so that all of them meet."""
    turn = 2 * ARCHITECTURES.index(architecture)
    return [KINDS[(turn + step) % len(KINDS)] for step in range(4)]


def engine_effects(
    case: Case,
    settings: GraphSettings,
    prompt: str = PROMPT,
    intervention: Intervention = ZERO,
    rows: int | None = None,
) -> list[Tensor]:
    """`[F, F']` for every layer pair; zero where the engine measures nothing."""
    model = case.model
    clean = model.clean_run(prompt, prepend_bos=settings.prepend_bos)
    assert clean.token_ids == tuple(case.oracle.ids[0].tolist())
    places = places_of(clean, settings)
    found: list[Tensor] = []
    for depth, (layer, after) in enumerate(
        zip(model.stack.layers, model.stack.layers[1:], strict=False)
    ):
        dense = torch.zeros(layer.n_features, after.n_features, dtype=clean.streams[0].dtype)
        ablations = ablations_of(clean, depth, places, intervention)
        for block in measure(model, clean, ablations, places, rows=rows):
            put(dense, block)
        found.append(dense)
    return found


def put(dense: Tensor, block: Effects) -> None:
    """Write the effects to their places in `[F, F']`."""
    places = torch.from_numpy(block.sources).long(), torch.from_numpy(block.targets).long()
    dense[places] = torch.from_numpy(block.values).to(dense.dtype)


def oracle_effects(case: Case, settings: GraphSettings, change: Change = zero) -> list[Tensor]:
    n = case.oracle.ids.shape[1]
    assert isinstance(settings.read, int)
    read = settings.read % n
    ablated = [read] if settings.ablate == "read" else list(range(n))
    if settings.ablate == "all" and not settings.ablate_first and n > 1:
        ablated.remove(0)
    pairs = range(len(case.oracle.saes) - 1)
    return [case.oracle.effects(pair, ablated, read, change) for pair in pairs]


def largest_deviation(engine: Sequence[Tensor], oracle: Sequence[Tensor]) -> float:
    """By the strict measure in float64 (each effect by itself), by the layer pair in float32."""
    worst = 0.0
    for ours, slow in zip(engine, oracle, strict=True):
        difference, size = (ours - slow).abs(), slow.abs()
        top = size.max()
        assert top > 1e-3, "the case is too tame to prove anything"
        relative = difference / top
        if slow.dtype == torch.float64:
            forgiven = (size <= FAINT * top) & (relative < NOISE)
            relative = (difference / size)[~forgiven]
        worst = max(worst, float(relative.max()))
    return worst


def check_against_oracle(
    case: Case,
    settings: GraphSettings,
    record: Record,
    *groups: str,
    prompt: str = PROMPT,
) -> None:
    engine, oracle = engine_effects(case, settings, prompt), oracle_effects(case, settings)
    worst = largest_deviation(engine, oracle)
    dtype = str(oracle[0].dtype).removeprefix("torch.")
    for group in groups:
        record(f"deviation {dtype} {group}", worst)
    assert worst < RELATIVE
    if dtype == "float32":
        for ours, slow in zip(engine, oracle, strict=True):
            assert_same_top(ours, slow, k=8)


def assert_same_top(ours: Tensor, slow: Tensor, k: int) -> None:
    """The same k strongest edges, but for those tied with the last one within rounding."""
    sizes = slow.abs().flatten()
    last = sizes.topk(k).values[-1]
    margin = 2 * RELATIVE * sizes.max()
    certain = set((sizes > last + margin).nonzero()[:, 0].tolist())
    possible = set((sizes >= last - margin).nonzero()[:, 0].tolist())
    chosen = set(ours.abs().flatten().topk(k).indices.tolist())
    assert certain <= chosen <= possible
