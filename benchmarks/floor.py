"""The floor: the bare matrix multiplications that the exact effects need, and nothing else.

One ablation changes some rows of the prompt; they and the row that is read go through one block,
and the next SAE encodes the row that is read. Rows of several ablations are put together in packs.
Counted are the products with the block's weights, those of attention with the clean keys and
values, and the encoder; norms, activation functions, softmax, masks and what is kept are not.

Letters: `R` rows of a pack, `C` ablations in it, `T` tokens, `D` d_model, `F` features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.shapes import Sizes

MOST_ROWS = 512  # in a pack
ENCODED_ROWS = 128  # rows that the SAE encodes at once


class Pack(NamedTuple):
    """How many ablations run together, and on how many rows in all."""

    ablations: int
    rows: int


def packs_of(rows: Tensor, most_rows: int = MOST_ROWS) -> list[Pack]:
    """Packs of at most `most_rows` rows, given the rows of each ablation `[S]`, in that order.

    An ablation with more rows than that is a pack of its own.
    """
    packs: list[Pack] = []
    ablations = taken = 0
    for count in rows.tolist():
        if ablations and taken + count > most_rows:
            packs.append(Pack(ablations, taken))
            ablations = taken = 0
        ablations, taken = ablations + 1, taken + count
    return [*packs, Pack(ablations, taken)] if ablations else packs


class _Weights(NamedTuple):
    """One block's matrices, and the encoder of the SAE after it."""

    qkv: Tensor  # [D, 3 D]
    out: Tensor  # [D, D]
    up: Tensor  # [D, 4 D]
    down: Tensor  # [4 D, D]
    encoder: Tensor  # [D, F]


class _Buffers(NamedTuple):
    """Where a pack's products are read from and written to."""

    streams: Tensor  # [R, D]
    qkv: Tensor  # [R, 3 D]
    queries: Tensor  # [heads, R, d]
    scores: Tensor  # [heads, R, T]
    mixed: Tensor  # [heads, R, d]
    attended: Tensor  # [R, D]
    hidden: Tensor  # [R, 4 D]
    read: tuple[Tensor, ...]  # [C, D] in parts
    features: tuple[Tensor, ...]  # [C, F] in the same parts, one after the other in one place


class Floor:
    """The products for some layer pairs: `rows` holds the rows of each ablation, `[S]` a pair.

    `encoders` are the `W_enc` `[D, F]` of the SAEs that the effects are read from.
    """

    def __init__(
        self,
        sizes: Sizes,
        n_tokens: int,
        rows: Sequence[Tensor],
        encoders: Sequence[Tensor],
        *,
        most_rows: int = MOST_ROWS,
        encoded_rows: int = ENCODED_ROWS,
    ) -> None:
        self.sizes, self.n_tokens, self.encoded_rows = sizes, n_tokens, encoded_rows
        self.packs = [packs_of(counts, most_rows) for counts in rows]
        generator = torch.Generator().manual_seed(0)
        self._weights = [self._weights_with(encoder, generator) for encoder in encoders]
        heads, depth = sizes.n_heads, sizes.d_model // sizes.n_heads
        self._keys = torch.randn(heads, depth, n_tokens, generator=generator)
        self._values = torch.randn(heads, n_tokens, depth, generator=generator)
        shapes = {pack for packs in self.packs for pack in packs}
        self._pool = self._make_pool(shapes, generator)
        self._buffers = {pack: self._buffers_of(pack) for pack in shapes}

    def run(self, pairs: Iterable[int] | None = None) -> None:
        """Multiply, for all layer pairs or those that are named."""
        for pair in range(len(self.packs)) if pairs is None else pairs:
            weights = self._weights[pair]
            for pack in self.packs[pair]:
                self._multiply(weights, self._buffers[pack])

    def operations(self) -> int:
        """Floating point operations of one run over all pairs."""
        width, n_features = self.sizes.d_model, self.sizes.n_features
        per_row = 2 * (12 * width * width + 2 * width * self.n_tokens)
        per_ablation = 2 * width * n_features
        return sum(
            pack.rows * per_row + pack.ablations * per_ablation
            for packs in self.packs
            for pack in packs
        )

    # -- inside ------------------------------------------------------------------------------------

    def _multiply(self, weights: _Weights, b: _Buffers) -> None:
        torch.mm(b.streams, weights.qkv, out=b.qkv)
        torch.bmm(b.queries, self._keys, out=b.scores)
        torch.bmm(b.scores, self._values, out=b.mixed)
        torch.mm(b.attended, weights.out, out=b.streams)
        torch.mm(b.streams, weights.up, out=b.hidden)
        torch.mm(b.hidden, weights.down, out=b.attended)
        for read, features in zip(b.read, b.features, strict=True):
            torch.mm(read, weights.encoder, out=features)

    def _weights_with(self, encoder: Tensor, generator: torch.Generator) -> _Weights:
        width = self.sizes.d_model

        def random(rows: int, columns: int) -> Tensor:  # of norm 1: repeated products stay finite
            return torch.randn(rows, columns, generator=generator) / rows**0.5

        return _Weights(
            random(width, 3 * width),
            random(width, width),
            random(width, 4 * width),
            random(4 * width, width),
            encoder,
        )

    def _make_pool(self, packs: Iterable[Pack], generator: torch.Generator) -> dict[str, Tensor]:
        """Flat memory for the largest pack; smaller ones use its beginning."""
        rows = max((pack.rows for pack in packs), default=0)
        ablations = max((pack.ablations for pack in packs), default=0)
        encoded = min(ablations, self.encoded_rows)
        width, heads = self.sizes.d_model, self.sizes.n_heads
        lengths = {
            "streams": rows * width,
            "qkv": rows * 3 * width,
            "queries": rows * width,
            "scores": heads * rows * self.n_tokens,
            "mixed": rows * width,
            "attended": rows * width,
            "hidden": rows * 4 * width,
            "read": ablations * width,
            "features": encoded * self.sizes.n_features,
        }
        return {name: torch.randn(length, generator=generator) for name, length in lengths.items()}

    def _buffers_of(self, pack: Pack) -> _Buffers:
        width, heads = self.sizes.d_model, self.sizes.n_heads
        read = self._view("read", pack.ablations, width).split(self.encoded_rows)
        return _Buffers(
            streams=self._view("streams", pack.rows, width),
            qkv=self._view("qkv", pack.rows, 3 * width),
            queries=self._view("queries", heads, pack.rows, width // heads),
            scores=self._view("scores", heads, pack.rows, self.n_tokens),
            mixed=self._view("mixed", heads, pack.rows, width // heads),
            attended=self._view("attended", pack.rows, width),
            hidden=self._view("hidden", pack.rows, 4 * width),
            read=read,
            features=tuple(self._view("features", len(p), self.sizes.n_features) for p in read),
        )

    def _view(self, name: str, *shape: int) -> Tensor:
        return self._pool[name][: torch.Size(shape).numel()].view(shape)
