"""What a feature means: the texts it fires on most, and the tokens it makes likelier or rarer.

The texts come from a store, one `contexts.safetensors` per SAE, built by `store`. The
tokens are measured in the prompt itself: the feature is ablated and the model run on to its output
(method: "Causal Graphs of GPT-2-Small's Residual Stream").

Letters: `B` batch, `T` tokens, `F` features, `K` contexts per feature, `W` tokens per context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sae_graphs.features.beside import file_beside, opened
from sae_graphs.graph.records import Context
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.saes import SAELayer

FILE_NAME = "contexts.safetensors"
SCHEMA = "sae_graphs/contexts/1"
KEPT = 8  # contexts stored per feature
BEFORE, AFTER = 15, 4  # tokens stored around the peak


# -- the store ------------------------------------------------------------------------------------


def store_file(model: InstrumentedModel, layer: SAELayer) -> Path:
    """Where a layer's contexts lie: beside its weights, or in the user's cache for a release."""
    return file_beside(model, layer, FILE_NAME)


def check_contexts(model: InstrumentedModel) -> None:
    """Raise `SaeGraphsError` where a store beside its SAE's weights cannot be used.

    To be called before the work, so nothing is loaded for it: whether the weights are those of the
    store is seen here where all SAEs are loaded, else in `read_contexts`.
    """
    loaded = {id(layer.shelf): layer.shelf.n_loaded for layer in model.stack.layers}
    weights = sum(loaded.values()) >= len(model.stack.layers)
    for layer in model.stack.layers:
        if layer.folder is not None and store_file(model, layer).is_file():
            with _opened(model, layer, weights=weights):
                pass


def read_contexts(
    model: InstrumentedModel, layer: SAELayer, features: Sequence[int], *, limit: int = 3
) -> list[tuple[Context, ...]]:
    """Top contexts of some features of a layer, strongest first, near-copies left out.

    Empty where there is no store. Raises `SaeGraphsError` where the store is damaged or was made
    for other SAEs.
    """
    if not store_file(model, layer).is_file():
        return [()] * len(features)
    with _opened(model, layer, weights=True) as store:
        tokens, activations = store.get_slice("tokens"), store.get_slice("activations")
        return [_distinct(model, widened(tokens[i]), activations[i], limit) for i in features]


def narrowed(ids: Tensor, vocabulary: int) -> Tensor:
    """Token ids in as few bytes as the vocabulary lets; -1, no token, is kept (`widened`)."""
    if vocabulary < 2**15:
        return ids.to(torch.int16)
    return ids.remainder(2**16).to(torch.uint16) if vocabulary < 2**16 else ids


def widened(ids: Tensor) -> Tensor:
    """The ids that `narrowed` was given, -1 where there is no token."""
    if ids.dtype != torch.uint16:
        return ids
    wide = ids.to(torch.int32)
    return wide.where(wide != 2**16 - 1, -1)


def corpora_of(model: InstrumentedModel) -> list[list[str]]:
    """The labels of the layers that have contexts, those of one corpus together."""
    found: dict[tuple[str | None, str | None], list[str]] = {}
    for layer in model.stack.layers:
        with suppress(OSError, SafetensorError):  # what cannot be read is said elsewhere
            with safe_open(store_file(model, layer), framework="pt") as store:
                about = store.metadata() or {}
            key = about.get("corpus"), about.get("tokens_seen")
            found.setdefault(key, []).append(layer.label)
    return list(found.values())


@contextmanager
def _opened(model: InstrumentedModel, layer: SAELayer, *, weights: bool) -> Iterator[Any]:
    """A layer's store, if it is whole and this SAE's; all reading is to be done within."""
    with opened(store_file(model, layer), layer, SCHEMA, "tokens", weights=weights) as store:
        _check_finite(store)
        yield store


def _check_finite(store: Any) -> None:
    """Raise `ValueError` where an activation that was too large for the store was written to it.

    Others are not looked at: the store is large.
    """
    largest = store.get_tensor("max_activation")
    too_large = ~(largest.abs() <= torch.finfo(torch.float16).max)
    activations = store.get_slice("activations")
    for feature in too_large.nonzero()[:, 0].tolist():
        if not activations[feature].isfinite().all():
            raise ValueError(f"an activation of feature {feature} is not finite")


def _distinct(
    model: InstrumentedModel, tokens: Tensor, activations: Tensor, limit: int
) -> tuple[Context, ...]:
    """The first contexts `[K, W]` that differ in the last tokens up to their peak.

    Raises `ValueError` where an activation is not finite.
    """
    if not activations.isfinite().all():
        raise ValueError("an activation is not finite")
    chosen: list[Context] = []
    seen: set[tuple[int, ...]] = set()
    for row, values in zip(tokens.tolist(), activations.float().tolist(), strict=True):
        ending = tuple(row[BEFORE - 3 : BEFORE + 1])
        held = [(token, value) for token, value in zip(row, values, strict=True) if token >= 0]
        if not held or ending in seen or len(chosen) == limit:
            continue
        seen.add(ending)
        strings = tuple(model.token_string(token) for token, _ in held)
        chosen.append(Context(strings, tuple(value for _, value in held)))
    return tuple(chosen)
