"""Rows of tokens for training: whole documents packed behind beginning-of-text markers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from training.demo.corpus.stream import documents
from training.demo.tokenizer import marker_id

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

DOCUMENTS_AT_ONCE = 4096


def packed_rows(tokenizer: Tokenizer, seed: int, part: str, context: int) -> Iterator[list[int]]:
    """Rows of exactly `context` tokens, without end.

    Each row begins with the marker; documents follow, a marker before each. The last document of
    a row is cut at its end, and the next row begins with a new document.
    """
    marker = marker_id(tokenizer)
    texts = documents(seed, part)
    row: list[int] = []
    while True:
        batch = list(islice(texts, DOCUMENTS_AT_ONCE))
        for encoding in tokenizer.encode_batch_fast(batch):
            row += [marker, *encoding.ids]
            if len(row) >= context:
                yield row[:context]
                row = []


def equal_length_batches(
    tokenizer: Tokenizer, seed: int, context: int, *, rows: int = 64
) -> Iterator[list[list[int]]]:
    """Batches of `rows` fresh documents of one length, each behind its marker, without end."""
    marker = marker_id(tokenizer)
    texts = documents(seed, "contexts")
    waiting: dict[int, list[list[int]]] = {}
    while True:
        for encoding in tokenizer.encode_batch_fast(list(islice(texts, DOCUMENTS_AT_ONCE))):
            row = [marker, *encoding.ids][:context]
            found = waiting.setdefault(len(row), [])
            found.append(row)
            if len(found) == rows:
                yield waiting.pop(len(row))


def token_rows(
    tokenizer: Tokenizer,
    seed: int,
    part: str,
    *,
    context: int,
    rows: int,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """The first `rows` packed rows as an array of 16-bit token ids, shape [rows, context]."""
    import numpy as np

    found = np.empty((rows, context), dtype=np.uint16)
    source = packed_rows(tokenizer, seed, part, context)
    for number in range(rows):
        found[number] = next(source)
        if advance and number % 1000 == 999:
            advance(1000)
    return found


def cached_token_rows(
    path: Path,
    tokenizer: Tokenizer,
    seed: int,
    part: str,
    *,
    context: int,
    rows: int,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Like `token_rows`, but kept in the `.npy` file `path` and read from there the next time."""
    import numpy as np

    if path.exists():
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if found.shape == (rows, context):
            return found
    found = token_rows(tokenizer, seed, part, context=context, rows=rows, advance=advance)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.npy")
    np.save(unfinished, found, allow_pickle=False)
    unfinished.replace(path)
    return found
