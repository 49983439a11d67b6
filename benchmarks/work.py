"""What the engine multiplies, seen while it runs: the shapes of the floor come from here alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from torch import Tensor

from sae_graphs.effects import exact as ablation
from sae_graphs.model import replay
from sae_graphs.model.preactivations import Nearby
from sae_graphs.model.rows import ENCODED_ROWS, KeysAndValues, Rows
from sae_graphs.model.saes import SAELayer


class Ran(NamedTuple):
    """Rows that went through a block: `kept` as far as their keys and values, `read` to its end."""

    kept: int
    read: int


class Encoded(NamedTuple):
    """Rows that an SAE encoded, and for how many of its features."""

    rows: int
    features: int


Work = Sequence[Ran | Encoded]


@contextmanager
def recorded() -> Iterator[list[Ran | Encoded]]:
    """The work of what is run inside, in order.

    Choosing the features near their thresholds, one encoded row for each layer pair, is left out.
    Raises `RuntimeError` where a block is run on more than the rows that need it.
    """
    seen: list[Ran | Encoded] = []
    run_rows, encode, nearby = replay.run_rows, SAELayer.encode, ablation.nearby

    def watched_rows(
        block: Any,
        rows: Rows,
        clean: KeysAndValues,
        args: Any,
        kwargs: Any,
        wanted: Tensor | None = None,
    ) -> Tensor | None:
        read = len(rows.where) if wanted is None else int(wanted.sum())
        seen.append(Ran(len(rows.where) - read, read))
        return run_rows(block, rows, clean, args, kwargs, wanted)

    def watched_encode(layer: SAELayer, stream: Tensor) -> Tensor:
        seen.append(Encoded(stream.numel() // stream.shape[-1], layer.n_features))
        return encode(layer, stream)

    def watched_nearby(layer: SAELayer, row: Tensor) -> Nearby | None:
        before = len(seen)
        near = nearby(layer, row)
        del seen[before:]
        if near is None:
            return None

        def encode_near(stream: Tensor) -> Tensor:
            seen.append(Encoded(stream.numel() // stream.shape[-1], len(near.features)))
            return near.encode(stream)

        return near._replace(encode=encode_near)

    def refused(*args: Any) -> Tensor:
        raise RuntimeError("a block was run on all rows; the floor is for rows run alone")

    with (
        patch.object(replay, "run_rows", watched_rows),
        patch.object(replay.Replay, "whole", refused),
        patch.object(SAELayer, "encode", watched_encode),
        patch.object(ablation, "nearby", watched_nearby),
    ):
        yield seen


def every_feature(work: Work, n_features: int) -> Work:
    """The same work with all features encoded in all rows that are read."""
    found: list[Ran | Encoded] = []
    reads = 0
    for done in [*work, None]:
        if isinstance(done, Encoded):
            reads += done.rows
            continue
        while reads:
            rows = min(reads, ENCODED_ROWS)
            found.append(Encoded(rows, n_features))
            reads -= rows
        if done is not None:
            found.append(done)
    return found


def reads_near(work: Work, n_features: int) -> int:
    """Rows that were encoded for some features only."""
    encoded = [done for done in work if isinstance(done, Encoded)]
    return sum(done.rows for done in encoded if done.features < n_features)


def reads_in(work: Work) -> int:
    """Rows that were encoded."""
    return sum(done.rows for done in work if isinstance(done, Encoded))
