"""Building the store of contexts: a corpus is streamed, and each feature keeps its best texts.

In the same pass each feature's mean and density are taken, and written beside that (`reference`).

1. Rows of tokens are run through the model. 2. One SAE after the other encodes the streams, so that
where only two are loaded at a time none is read twice for one batch. 3. From time to time what was
found is kept, so that an interrupted run goes on there. 4. Files are written at the end.

What is found does not depend on how rows are gathered into batches, to the last bit: see `batches`.

Letters: `B` rows, `T` tokens, `F` features, `K` contexts per feature, `W` tokens per context.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.batches import ENCODED_AT_ONCE, Pace, encoded
from sae_graphs.features.beside import write_tensors
from sae_graphs.features.contexts import SCHEMA, narrowed, store_file
from sae_graphs.features.layer_store import LayerStore
from sae_graphs.features.partial import ContextsPartial, Kept, alone_with
from sae_graphs.features.reference import reference_file, write_reference
from sae_graphs.features.token_rows import LENGTH, TokenRows, passed
from sae_graphs.files import write_atomically
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.memory import format_size
from sae_graphs.model.saes import SAELayer

SAVED_EVERY = 60.0  # seconds: so much work may be lost

Progress = Callable[[int], None]


class Told(NamedTuple):
    """Who hears of a run.

    `read` is told the tokens done so far, `resumed` those that an earlier run left done, `refused`
    why what it left is of no use, and `kept` the tokens done whenever what was found is kept.
    """

    read: Progress = lambda tokens: None
    resumed: Progress = lambda tokens: None
    refused: Callable[[str], None] = lambda why: None
    kept: Progress = lambda tokens: None


@torch.no_grad()
def build_store(
    model: InstrumentedModel,
    token_batches: Iterable[Tensor],
    *,
    text: str = "token ids",
    progress: Progress | None = None,
) -> list[Path]:
    """Stream batches of token ids `[B, T]` and write every layer's contexts; returns their files.

    Each row is one text whose first token (BOS) is not counted. Reference means, which are written
    beside them, say that they are of `text`. `progress` is told the tokens done so far. Nothing is
    written before the end.
    """
    found, digest = _Found.nothing(model), hashlib.sha256()
    for tokens in token_batches:
        found.add(model, tokens)
        digest.update(tokens.cpu().to(torch.int32).numpy().tobytes())
        if progress is not None:
            progress(found.done)
    return found.write(model, _Read(digest.hexdigest()[:16], text))


@torch.no_grad()
def stream_store(
    model: InstrumentedModel,
    texts: Callable[[], Iterator[str]],
    *,
    tokens: int | None = None,
    corpus: Mapping[str, Any] | None = None,
    told: Told | None = None,
) -> list[Path]:
    """Stream texts, of which `tokens` are read (rounded up to whole rows; None: all of them).

    Every so often what was found is kept beside the store, and the same call goes on from there,
    to the same store as without the interruption. `texts` starts at the beginning each time it is
    called; `corpus` are plain facts that tell it from others. Reference means are written beside
    the contexts, whose files are returned. Raises `SaeGraphsError` where the text is empty, and
    where contexts would not fit in memory, cannot be written, or are being written by another run:
    before anything is run.
    """
    told = told or Told()
    if tokens is not None and tokens < 1:
        raise SaeGraphsError(f"tokens is {tokens}; expected at least 1")
    _check_room(model)
    files = [store_file(model, layer) for layer in model.stack.layers]
    _check_writable(files)
    with alone_with(files):
        return _streamed(model, texts, files, tokens, corpus, told)


def _streamed(
    model: InstrumentedModel,
    texts: Callable[[], Iterator[str]],
    files: Sequence[Path],
    tokens: int | None,
    corpus: Mapping[str, Any] | None,
    told: Told,
) -> list[Path]:
    """What `stream_store` does once nothing stands in its way."""
    settings = {"tokens": tokens, "length": LENGTH}
    partial = ContextsPartial(files, model, {"corpus": corpus, "settings": settings})
    found, reader = _begun(model, texts, partial, told)
    most = None if tokens is None else ceil(tokens / reader.length)
    pace, saved = Pace(model, reader.length), time.monotonic()
    while True:
        left = pace.rows if most is None else min(pace.rows, most - reader.rows)
        started = time.monotonic()
        batch = reader.take(left)
        if batch is None:
            break
        found.add(model, batch)
        told.read(found.done)
        now = time.monotonic()
        if now - saved + pace.next(now - started) >= SAVED_EVERY:
            if partial.write(Kept(found.tensors(), reader.place, found.done, found.counted)):
                told.kept(found.done)
            saved = time.monotonic()
    digest = reader.place.digest[:16]
    written = found.write(model, _Read(digest, _called(corpus)), digest)
    partial.remove()
    return written


def _begun(
    model: InstrumentedModel,
    texts: Callable[[], Iterator[str]],
    partial: ContextsPartial,
    told: Told,
) -> tuple[_Found, TokenRows]:
    """Where an earlier run left something that fits, what it found, and the texts after it."""
    kept, why = partial.read()
    if kept is not None:
        after = texts()
        if passed(after, kept.place):
            told.resumed(kept.done)
            found = _Found([LayerStore(**part) for part in kept.layers], kept.done, kept.counted)
            return found, TokenRows(model, after, place=kept.place)
        why = "the texts are others"
    if why is not None:
        told.refused(why)
    return _Found.nothing(model), TokenRows(model, texts())


# -- what was found --------------------------------------------------------------------------------


@dataclass
class _Found:
    """The best contexts of all layers; tokens run, and those of them that count."""

    layers: list[LayerStore]
    done: int = 0
    counted: int = 0

    @classmethod
    def nothing(cls, model: InstrumentedModel) -> _Found:
        return cls([LayerStore.empty(layer.n_features) for layer in model.stack.layers])

    def tensors(self) -> list[dict[str, Tensor]]:
        return [store.tensors() for store in self.layers]

    def add(self, model: InstrumentedModel, tokens: Tensor) -> None:
        """Run rows `[B, T]`, encode their streams, and keep what is better."""
        for depth, parts in encoded(model, tokens):
            for ids, activations in parts:
                self.layers[depth].add(ids, activations)
        self.done += tokens.numel()
        self.counted += tokens[:, 1:].numel()

    def write(self, model: InstrumentedModel, read: _Read, named: str = "") -> list[Path]:
        """Both files of each layer; returns the contexts'. `named` is the texts' name in these."""
        if self.done == 0:
            raise SaeGraphsError("the text is empty; give some text to find contexts in")
        seen = max(self.counted, 1)
        files = []
        for layer, store in zip(model.stack.layers, self.layers, strict=True):
            reference = store.tally.reference(seen, *read)
            file = reference_file(model, layer)
            try:
                write_reference(file, layer, reference)
                files.append(_write(model, layer, store, seen, named))
            except OSError as problem:
                why = problem.strerror or problem
                raise SaeGraphsError(f"cannot write into {file.parent}: {why}") from problem
        return files


class _Read(NamedTuple):
    """The texts that were read: letters that stand for them, and what they are called."""

    corpus: str
    text: str


def _called(corpus: Mapping[str, Any] | None) -> str:
    """What a corpus is called, without the folders that it lies in."""
    source = str((corpus or {}).get("source", "text"))
    return Path(source).name if Path(source).exists() else source


def _write(
    model: InstrumentedModel, layer: SAELayer, store: LayerStore, seen: int, digest: str
) -> Path:
    """A layer's contexts into its file."""
    ids = narrowed(store.tokens.transpose(0, 1), len(model.tokenizer))
    tensors = {
        "tokens": ids.contiguous(),  # [F, K, W]
        "activations": store.activations.transpose(0, 1).contiguous(),
        "fraction_active": (store.times_active.double() / seen).float(),  # [F]
        "max_activation": store.max_activation(),
    }
    about = {"tokens_seen": str(seen), **({"corpus": digest[:16]} if digest else {})}
    file = store_file(model, layer)
    write_tensors(file, layer, SCHEMA, tensors, about)
    return file


def _check_writable(files: Sequence[Path]) -> None:
    """Fail before the work, not after it."""
    for file in files:
        probe = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
        try:
            write_atomically(probe, b"")
            probe.unlink()
        except OSError as problem:
            raise SaeGraphsError(
                f"cannot write into {file.parent}: {problem.strerror or problem}; make it writable"
            ) from problem


# -- checked before the work
def _check_room(model: InstrumentedModel) -> None:
    """Refuse what cannot fit: the store of all layers, and what running one batch takes."""
    layers = model.stack.layers
    stores = sum(LayerStore.size(layer.n_features) for layer in layers)
    widest = max(layer.n_features for layer in layers)
    encoded = 4 * max(ENCODED_AT_ONCE, LENGTH * widest)
    needed = stores + LayerStore.size(widest) + 4 * encoded
    if needed > model.working_memory:
        raise SaeGraphsError(
            f"the contexts of {sum(layer.n_features for layer in layers):,} features take "
            f"{format_size(needed)} of memory, and {format_size(model.working_memory)} is left "
            f"beside the model and the SAEs; give {format_size(needed - model.working_memory)} "
            "more (--memory)"
        )
