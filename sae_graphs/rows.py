"""Running a block again on a few rows of the prompt, the others kept as the clean run had them.

A row is one token position. A block treats rows alone except in attention, where a row reads the
keys and values of the rows before it. So after a change in some rows, only they and the row that
is asked for need to be run; for all others, attention gets what the clean run computed. The
model's own attention does the work: it takes the kept keys and values for its cache.

Letters: `B` batch, `T` tokens, `Q` rows that are run, `D` d_model.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_CACHE_NAMES = ("past_key_values", "layer_past")


class RowChange(NamedTuple):
    """Streams that differ from the clean one in some rows; the first row is where to read.

    A row may stand twice, with the same values; rows that stand nowhere are as in the clean run.
    """

    rows: Tensor  # [B, Q] positions
    streams: Tensor  # [B, Q, D]

    def whole(self, clean: Tensor) -> Tensor:
        """All rows `[B, T, D]`, given the clean stream `[T, D]`."""
        streams = clean.expand(len(self.rows), -1, -1).clone()
        return streams.scatter_(1, self.rows[..., None].expand_as(self.streams), self.streams)


class KeysAndValues(NamedTuple):
    """What one block's attention read in the clean run, positions applied: `[1, heads, T, d]`."""

    keys: Tensor
    values: Tensor


class _Recorder:
    """Takes the place of a cache to see what attention would put into it."""

    def __init__(self) -> None:
        self.seen: list[KeysAndValues] = []

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.seen.append(KeysAndValues(keys, values))
        return keys, values


class _Kept:
    """Takes the place of a cache to add the clean rows to those that are run."""

    def __init__(self, clean: KeysAndValues, rows: Tensor) -> None:
        self.clean, self.rows = clean, rows

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return self._merged(self.clean.keys, keys), self._merged(self.clean.values, values)

    def _merged(self, clean: Tensor, changed: Tensor) -> Tensor:
        whole = clean.repeat(len(changed), 1, 1, 1)  # [B, heads, T, d]
        return whole.scatter_(2, self.rows[:, None, :, None].expand_as(changed), changed)


def keys_and_values(
    block: nn.Module, stream: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> KeysAndValues | None:
    """The keys and values of a block on the clean stream `[T, D]`; None where it shows none."""
    named = _named_arguments(block, args, kwargs)
    name = _cache_name(block)
    if named is None or name is None:
        return None
    recorder = _Recorder()
    block(stream[None], **{**named, name: recorder})
    return recorder.seen[0] if len(recorder.seen) == 1 else None


def run_rows(
    block: nn.Module,
    change: RowChange,
    clean: KeysAndValues,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Tensor | None:
    """A block's output at the changed rows, `[B, Q, D]`; None where its call has an argument
    that is not known to go by rows."""
    named = _named_arguments(block, args, kwargs)
    name = _cache_name(block)
    if named is None or name is None:
        return None
    n_tokens = clean.keys.shape[2]
    gathered: dict[str, Any] = {}
    for key, value in named.items():
        by_rows = _by_rows(key, value, change.rows, n_tokens)
        if by_rows is NotImplemented:
            return None
        gathered[key] = by_rows
    if gathered.get("attention_mask") is None:
        gathered["attention_mask"] = _causal_mask(change, n_tokens)
    gathered[name] = _Kept(clean, change.rows)
    out = block(change.streams, **gathered)
    return out[0] if isinstance(out, tuple) else out


def _parameters(block: nn.Module) -> list[str]:
    inner = getattr(block, "original_component", None)
    return list(inspect.signature(inner.forward).parameters) if inner is not None else []


def _cache_name(block: nn.Module) -> str | None:
    names = _parameters(block)
    return next((name for name in _CACHE_NAMES if name in names), None)


def _named_arguments(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    names = _parameters(block)[1:]  # the stream comes first
    if len(args) > len(names):
        return None
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _by_rows(name: str, value: Any, rows: Tensor, n_tokens: int) -> Any:
    """An argument of the clean call for the rows `[B, Q]` alone; NotImplemented if unknown."""
    if name == "attention_mask" and isinstance(value, Tensor):
        if value.ndim != 4 or value.shape[0] != 1 or value.shape[2:] != (n_tokens, n_tokens):
            return NotImplemented
        return value[0][:, rows].transpose(0, 1)  # [B, 1, Q, T]
    if name == "position_embeddings" and isinstance(value, tuple):
        parts = tuple(_by_rows("position_ids", part, rows, n_tokens) for part in value)
        return NotImplemented if any(part is NotImplemented for part in parts) else parts
    if name == "position_ids" and isinstance(value, Tensor):
        if value.ndim < 2 or value.shape[:2] != (1, n_tokens):
            return NotImplemented
        return value[0][rows]  # [B, Q, ...]
    if isinstance(value, Tensor) and name != "cache_position":
        return NotImplemented
    return value


def _causal_mask(change: RowChange, n_tokens: int) -> Tensor:
    """0 where a row may look, the lowest number elsewhere: `[B, 1, Q, T]`."""
    positions = torch.arange(n_tokens, device=change.rows.device)
    hidden = positions > change.rows[..., None]  # [B, Q, T]
    mask = torch.zeros(hidden.shape, dtype=change.streams.dtype, device=change.streams.device)
    return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)[:, None]
