"""Running a block again on a few rows of the prompt, the others kept as the clean run had them.

A row is one token position of one changed copy of the prompt. A block treats rows alone except in
attention, where a row reads the keys and values of the rows before it. So after a change in some
rows, only they and the rows that are asked for need to be run; for all others, attention gets what
the clean run computed. The rows of many copies go through the model's own block as if they were
one sequence, and a mask lets each see its own copy alone: the clean keys and values are shared,
never copied, whatever the length of the prompt.

Letters: `T` tokens, `B` copies of the prompt, `R` rows of all copies together, `D` d_model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ENCODED_ROWS = 128  # rows made features or logits at once: more gain nothing, and spill caches
_CACHE_NAMES = ("past_key_values", "layer_past")


class Where(NamedTuple):
    """Rows by copy and position, each once."""

    copies: Tensor  # [R]
    positions: Tensor  # [R]

    def __len__(self) -> int:  # not the number of fields
        return len(self.copies)

    @property
    def n_copies(self) -> int:
        """The copies up to the last one that has a row here."""
        return 1 + int(self.copies.max()) if len(self) else 0

    @classmethod
    def of(cls, chosen: Tensor) -> Where:
        """The true entries of `[B, T]`."""
        return cls(*chosen.nonzero(as_tuple=True))

    def chosen(self, which: Tensor) -> Where:
        """Those that are true in `[R]`, or named by indices."""
        return Where(self.copies[which], self.positions[which])

    def mask(self, n_copies: int, n_tokens: int) -> Tensor:
        """`[B, T]`, true at these rows."""
        chosen = torch.zeros(n_copies, n_tokens, dtype=torch.bool, device=self.copies.device)
        chosen[self.copies, self.positions] = True
        return chosen


class Rows(NamedTuple):
    """Copies of a stream that differ from the clean one in some rows, and only there."""

    where: Where
    streams: Tensor  # [R, D]

    def at(self, where: Where, clean: Tensor) -> Tensor:
        """The stream `[R', D]` at other rows, given the clean one `[T, D]`."""
        n_copies = max(self.where.n_copies, where.n_copies)
        known = torch.full((n_copies, len(clean)), -1, device=clean.device)
        known[self.where.copies, self.where.positions] = torch.arange(
            len(self.streams), device=clean.device
        )
        found = known[where.copies, where.positions]  # [R'], -1 where the stream is clean
        streams = clean[where.positions]
        changed = found >= 0
        streams[changed] = self.streams[found[changed]]
        return streams

    def chosen(self, which: Tensor) -> Rows:
        """Those that are true in `[R]`."""
        return Rows(self.where.chosen(which), self.streams[which])

    def whole(self, clean: Tensor, n_copies: int) -> Tensor:
        """All rows `[B, T, D]`, given the clean stream `[T, D]`."""
        streams = clean.repeat(n_copies, 1, 1)
        streams[self.where.copies, self.where.positions] = self.streams
        return streams


class KeysAndValues(NamedTuple):
    """What one block's attention read in the clean run, positions applied: `[1, heads, T, d]`."""

    keys: Tensor
    values: Tensor


class Recorder:
    """Takes the place of a cache to see what attention would put into it."""

    def __init__(self) -> None:
        self.seen: list[KeysAndValues] = []

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.seen.append(KeysAndValues(keys, values))
        return keys, values


class _Kept:
    """Takes the place of a cache to put other rows before those that are run."""

    def __init__(self, *others: KeysAndValues) -> None:
        self.others = others

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        merged_keys = torch.cat([*(held.keys for held in self.others), keys], dim=2)
        return merged_keys, torch.cat([*(held.values for held in self.others), values], dim=2)


class _Seen(Exception):
    def __init__(self, found: KeysAndValues) -> None:
        self.found = found


class _Peek:
    """Takes the place of a cache to leave the block as soon as it has its keys and values."""

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        raise _Seen(KeysAndValues(keys, values))


def with_cache(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], cache: object
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """A block's call, the stream aside, with this cache in it; None where it takes none."""
    names, name = _parameters(block)[1:], cache_name(block)
    if name is None:
        return None
    at = names.index(name)
    if at < len(args):
        return (*args[:at], cache, *args[at + 1 :]), dict(kwargs)
    return args, {**kwargs, name: cache}


def run_rows(
    block: nn.Module,
    rows: Rows,
    clean: KeysAndValues,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wanted: Tensor | None = None,
) -> Tensor | None:
    """A block's output `[R', D]` at those of the rows that are `wanted` `[R]`, by default all.

    The others are attended to: they are run as far as their keys and values. Rows that are not
    given are as in the clean run. None where the clean call had an argument that is not known to
    go by rows.
    """
    named = named_arguments(block, args, kwargs)
    name = cache_name(block)
    if named is None or name is None:
        return None
    n_tokens = clean.keys.shape[2]
    if named.get("attention_mask") is None:
        named["attention_mask"] = causal_mask(n_tokens, rows.streams)
    held = [clean]
    run, order = rows, rows.where
    if wanted is not None and not bool(wanted.all()):
        aside, run = rows.chosen(~wanted), rows.chosen(wanted)
        call = _call_of_rows(named, aside.where, aside.where, n_tokens)
        if call is None:
            return None
        held.extend(keys_and_values(block, aside.streams[None], call))
        order = Where(*(torch.cat(ends) for ends in zip(aside.where, run.where, strict=True)))
    call = _call_of_rows(named, run.where, order, n_tokens)
    if call is None or (run is not rows and len(held) == 1):
        return None
    out = block(run.streams[None], **call, **{name: _Kept(*held)})
    return (out[0] if isinstance(out, tuple) else out)[0]


def keys_and_values(
    block: nn.Module, streams: Tensor, call: Mapping[str, Any]
) -> list[KeysAndValues]:
    """What a block's attention makes of streams `[B, n, D]`, which are run no further.

    One, or none where the block does not ask a cache; `call` are its other arguments by name.
    """
    try:
        block(streams, **call, **{cache_name(block) or "": _Peek()})
    except _Seen as seen:
        return [seen.found]
    return []


def _call_of_rows(
    named: Mapping[str, Any], run: Where, attended: Where, n_tokens: int
) -> dict[str, Any] | None:
    """A block's arguments for some rows, the cache aside; None where one is not known."""
    call: dict[str, Any] = {}
    for name, value in named.items():
        if name in _CACHE_NAMES:
            continue
        call[name] = _by_rows(name, value, run, attended, n_tokens)
        if call[name] is NotImplemented:
            return None
    return call


def _parameters(block: nn.Module) -> list[str]:
    inner = getattr(block, "original_component", None)
    if inner is None:
        return []
    own = getattr(inner.forward, "__func__", None)  # None where it was put in place by hand
    return _names(inner.forward) if own is None else _names_of_method(own)


@cache
def _names_of_method(forward: Callable[..., Any]) -> list[str]:
    """Asked at every step of every block, and dear to find."""
    return _names(forward)[1:]  # without self


def _names(forward: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(forward).parameters)


def cache_name(block: nn.Module) -> str | None:
    """The argument by which a block takes a cache; None where it takes none."""
    names = _parameters(block)
    return next((name for name in _CACHE_NAMES if name in names), None)


def named_arguments(
    block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """A block's arguments, the stream aside, by name; None where there are more than it takes."""
    names = _parameters(block)[1:]  # the stream comes first
    if len(args) > len(names):
        return None
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _by_rows(name: str, value: Any, run: Where, attended: Where, n_tokens: int) -> Any:
    """An argument of the clean call for some rows alone; NotImplemented if unknown."""
    if name == "attention_mask" and isinstance(value, Tensor):
        if value.ndim != 4 or value.shape[0] != 1 or value.shape[2:] != (n_tokens, n_tokens):
            return NotImplemented
        return _mask_by_rows(value, run, attended)
    if name == "position_embeddings" and isinstance(value, tuple):
        parts = tuple(_by_rows("position_ids", part, run, attended, n_tokens) for part in value)
        return NotImplemented if any(part is NotImplemented for part in parts) else parts
    if name == "position_ids" and isinstance(value, Tensor):
        if value.ndim < 2 or value.shape[:2] != (1, n_tokens):
            return NotImplemented
        return value[:, run.positions]  # [1, R, ...]
    if isinstance(value, Tensor) and name != "cache_position":
        return NotImplemented
    return value


def _mask_by_rows(mask: Tensor, run: Where, attended: Where) -> Tensor:
    """The clean mask `[1, h, T, T]` as the rows `R` see it: `[1, h, R, T + A]`.

    A row sees a clean position where the clean mask lets it, unless its own copy has that
    position among the `A` rows that are attended to; and of these it sees its own copy's, where
    the clean mask lets it.
    """
    n_copies = max(run.n_copies, attended.n_copies)
    replaced = attended.mask(n_copies, mask.shape[-1])[run.copies]  # [R, T]
    others = run.copies[:, None] != attended.copies  # [R, A]
    by_row = mask[:, :, run.positions]  # [1, h, R, T]
    seen = torch.cat([by_row, by_row[..., attended.positions]], dim=-1)
    hidden = torch.cat([replaced, others], dim=-1)
    lowest = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    return seen.masked_fill_(hidden, lowest)


def causal_mask(n_tokens: int, like: Tensor) -> Tensor:
    """0 where a row may look, the lowest number elsewhere: `[1, 1, T, T]`."""
    lowest = torch.finfo(like.dtype).min
    mask = torch.full((n_tokens, n_tokens), lowest, dtype=like.dtype, device=like.device)
    return mask.triu(1)[None, None]


def reached_rows(changed: Tensor, wanted: Tensor) -> Tensor:
    """`[B, T]`: the rows from each copy's first changed one to the last that is wanted."""
    after_first = changed.cummax(1).values
    return after_first & wanted.flip(1).cummax(1).values.flip(1)
