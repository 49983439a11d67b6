"""How many rows of tokens are run and encoded at once, and the loop that does it.

The model runs, and SAEs encode, so many rows at once as their shapes say, and batches are
multiples of that: what comes out does not depend on how rows are gathered into batches, to the
last bit.

Letters: `B` rows, `T` tokens, `D` d_model, `F` features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.saes import SAELayer

ROWS_TOGETHER = 32  # that are run or encoded at once, at most
RUN_AT_ONCE = 2**25  # logits that the model makes at once
ENCODED_AT_ONCE = 2**23  # activations that an SAE makes at once
MOST_ROWS = 512  # of a batch
SHORT, LONG = 10.0, 30.0  # seconds that a batch should take


def encoded(
    model: InstrumentedModel, tokens: Tensor, depths: Sequence[int] | None = None
) -> Iterator[tuple[int, Iterator[tuple[Tensor, Tensor]]]]:
    """Rows `[B, T]` run, and for each SAE layer (of some `depths`) parts of its activations.

    One SAE after the other, so that where only two are loaded at a time none is read twice for one
    batch. A part is some of the rows and their activations `[B, T, F]`, 0 at the first token.
    """
    tokens = tokens.cpu()
    parts = tokens.split(rows_run(model, tokens.shape[1]))
    streams = [model.streams_of(part.to(model.model.cfg.device)) for part in parts]
    for depth in range(len(model.stack.layers)) if depths is None else depths:
        stream = torch.cat([part[depth] for part in streams])  # [B, T, D]
        yield depth, _parts(model.stack.layers[depth], tokens, stream)


def _parts(layer: SAELayer, tokens: Tensor, stream: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    rows = rows_encoded(layer, tokens.shape[1])
    for ids, part in zip(tokens.split(rows), stream.split(rows), strict=True):
        activations = layer.encode(part).float().cpu()  # [B, T, F]
        activations[:, 0] = 0.0
        yield ids, activations


def rows_run(model: InstrumentedModel, n_tokens: int) -> int:
    """Rows that the model runs at once: their logits are the largest thing it makes."""
    return _rows(RUN_AT_ONCE // (n_tokens * _vocabulary(model)))


def _vocabulary(model: InstrumentedModel) -> int:
    return int(getattr(model.model.cfg, "d_vocab", 0)) or len(model.tokenizer)


def rows_encoded(layer: SAELayer, n_tokens: int) -> int:
    """Rows that an SAE encodes at once."""
    return _rows(ENCODED_AT_ONCE // (n_tokens * layer.n_features))


class Pace:
    """How many rows a batch has, so that it takes some seconds, whatever the machine.

    Long enough that loading SAEs, where only two are at a time, takes a small part of it; short
    enough that little is lost. Always a multiple of the rows that are run or encoded at once.
    """

    def __init__(self, model: InstrumentedModel, n_tokens: int) -> None:
        layers = model.stack.layers
        encoded = max(rows_encoded(layer, n_tokens) for layer in layers)
        self.least = self.rows = max(encoded, rows_run(model, n_tokens))
        size = next(model.model.parameters()).element_size()
        streams = n_tokens * len(layers) * int(model.model.cfg.d_model) * size  # bytes of a row
        self.most = max(self.least, min(_floor(model.working_memory // 4 // streams), MOST_ROWS))

    def next(self, seconds: float) -> float:
        """Choose the next batch's rows, given the last one's time; returns the time expected."""
        rows = self.rows
        if seconds < SHORT:
            self.rows = min(2 * rows, self.most)
        elif seconds > LONG:
            self.rows = max(rows // 2, self.least)
        return seconds * self.rows / rows


def _rows(n: int) -> int:
    """A power of two no larger than a number, from 1 to `ROWS_TOGETHER`."""
    return _floor(min(n, ROWS_TOGETHER))


def _floor(n: int) -> int:
    """A power of two no larger than a number."""
    return 1 << max(n, 1).bit_length() - 1
