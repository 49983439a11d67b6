"""The floor: the bare matrix multiplications that the exact effects need, and nothing else.

One ablation changes some rows of the prompt. They go through one block: all as far as their keys
and values, and to its end those that are read; the next SAE encodes these. How many rows go
together, and for which of them only the features near their thresholds are encoded, is what the
engine did when it was watched (`work.py`). Counted are the products with the block's weights,
those of attention with the keys and values it sees, and the encoder; norms, activation functions,
softmax, masks, decoding the sources and what is kept are not.

Letters: `R` rows, `A` rows that are attended to, `T` tokens, `D` d_model, `F` features, `K`
features that are encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.shapes import Sizes
from benchmarks.work import Encoded, Ran, Work


class _Weights(NamedTuple):
    """One block's matrices, and the encoder of the SAE after it by number of features."""

    qkv: Tensor  # [D, 3 D]
    out: Tensor  # [D, D]
    up: Tensor  # [D, 4 D]
    down: Tensor  # [4 D, D]
    encoders: dict[int, Tensor]  # [D, K]


class Floor:
    """The products for some layer pairs: the `work` of each, and the `W_enc` `[D, F]` after it."""

    def __init__(
        self, sizes: Sizes, n_tokens: int, work: Sequence[Work], encoders: Sequence[Tensor]
    ) -> None:
        self.sizes, self.n_tokens, self.work = sizes, n_tokens, list(work)
        generator = torch.Generator().manual_seed(0)
        self._weights = [
            self._weights_with(encoder, done, generator)
            for encoder, done in zip(encoders, work, strict=True)
        ]
        everything = [done for some in work for done in some]
        self._pool = {
            name: torch.randn(
                max((torch.Size(self._shapes(done)[name]).numel() for done in of_kind), default=0),
                generator=generator,
            )
            for of_kind in (
                [done for done in everything if isinstance(done, Ran)],
                [done for done in everything if isinstance(done, Encoded)],
            )
            for name in (self._shapes(of_kind[0]) if of_kind else ())
        }
        self._buffers = {
            done: {name: self._view(name, shape) for name, shape in self._shapes(done).items()}
            for done in set(everything)
        }

    def run(self, pairs: Iterable[int] | None = None) -> None:
        """Multiply, for all layer pairs or those that are named."""
        for pair in range(len(self.work)) if pairs is None else pairs:
            weights = self._weights[pair]
            for done in self.work[pair]:
                b = self._buffers[done]
                if isinstance(done, Encoded):
                    torch.mm(b["reads"], weights.encoders[done.features], out=b["features"])
                    continue
                torch.mm(b["streams"], weights.qkv, out=b["qkv"])
                torch.bmm(b["queries"], b["keys"], out=b["scores"])
                torch.bmm(b["scores"], b["values"], out=b["mixed"])
                torch.mm(b["attended"], weights.out, out=b["middle"])
                torch.mm(b["middle"], weights.up, out=b["hidden"])
                torch.mm(b["hidden"], weights.down, out=b["ended"])

    def operations(self) -> int:
        """Floating point operations of one run over all pairs."""
        return sum(self._operations(done) for some in self.work for done in some)

    # -- inside ------------------------------------------------------------------------------------

    def _operations(self, done: Ran | Encoded) -> int:
        width = self.sizes.d_model
        if isinstance(done, Encoded):
            return 2 * done.rows * width * done.features
        rows, seen = sum(done), self.n_tokens + sum(done)
        return 2 * (rows * 3 * width**2 + done.read * (9 * width**2 + 2 * width * seen))

    def _weights_with(self, encoder: Tensor, work: Work, generator: torch.Generator) -> _Weights:
        width = self.sizes.d_model

        def random(rows: int, columns: int) -> Tensor:  # of norm 1: products stay of usual size
            return torch.randn(rows, columns, generator=generator) / rows**0.5

        counts = {done.features for done in work if isinstance(done, Encoded)}
        return _Weights(
            random(width, 3 * width),
            random(width, width),
            random(width, 4 * width),
            random(4 * width, width),
            {n: encoder[:, :n].contiguous() for n in counts},  # itself, where all are encoded
        )

    def _shapes(self, done: Ran | Encoded) -> dict[str, tuple[int, ...]]:
        """Where the products are read from and written to."""
        width, heads = self.sizes.d_model, self.sizes.n_heads
        if isinstance(done, Encoded):
            return {"reads": (done.rows, width), "features": (done.rows, done.features)}
        rows, read, depth = sum(done), done.read, width // heads
        seen = self.n_tokens + rows
        return {
            "streams": (rows, width),
            "qkv": (rows, 3 * width),
            "queries": (heads, read, depth),
            "keys": (heads, depth, seen),
            "values": (heads, seen, depth),
            "scores": (heads, read, seen),
            "mixed": (heads, read, depth),
            "attended": (read, width),
            "middle": (read, width),
            "hidden": (read, 4 * width),
            "ended": (read, width),
        }

    def _view(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The beginning of the memory that the largest of this name takes."""
        return self._pool[name][: torch.Size(shape).numel()].view(shape)
