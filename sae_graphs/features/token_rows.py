"""Rows of tokens from texts; reading can go on later, exactly where it stopped.

Letters: `B` rows, `T` tokens of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel

LENGTH = 128  # tokens of a row, BOS included


class Place(NamedTuple):
    """How far a corpus was read.

    `waiting` are tokens that are in no row yet; `digest` stands for the texts that were read, so
    that others are noticed.
    """

    rows: int = 0
    texts: int = 0
    waiting: tuple[int, ...] = ()
    digest: str = ""


class TokenRows:
    """Texts as rows of tokens: each begins with BOS where the model does.

    Texts follow one another in a row; what is left at the end, shorter than a row, is dropped
    unless it is all there is. `texts` are those after `place`.
    """

    def __init__(
        self,
        model: LanguageModel,
        texts: Iterable[str],
        *,
        length: int = LENGTH,
        place: Place | None = None,
    ) -> None:
        place = place or Place()
        if model.tokenizer is None:
            raise SaeGraphsError(
                f"{model.name} has no tokenizer to read text with; give it one, model.tokenizer"
            )
        bos = model.tokenizer.bos_token_id
        self._head = [bos] if model.prepend_bos and bos is not None else []
        self.length = min(length, int(model.model.cfg.n_ctx))
        self._tokenizer = model.tokenizer
        self._texts = iter(texts)
        self.rows = place.rows  # taken so far
        self._read, self._digest = place.texts, place.digest
        self._waiting, self._start = list(place.waiting), 0

    @property
    def place(self) -> Place:
        """How far the texts are read by now."""
        waiting = tuple(self._waiting[self._start :])
        return Place(self.rows, self._read, waiting, self._digest)

    def take(self, n: int) -> Tensor | None:
        """The next `n` rows `[B, T]`, fewer at the end; None when there are no more."""
        inner = self.length - len(self._head)
        rows: list[list[int]] = []
        while len(rows) < n:
            stop = self._start + inner
            if stop <= len(self._waiting):
                rows.append(self._head + self._waiting[self._start : stop])
                self._start = stop
            elif not self._read_on():
                break
        if not rows and self.rows == 0 and self._waiting:
            rows, self._start = [self._head + self._waiting], len(self._waiting)
        self.rows += len(rows)
        return torch.tensor(rows) if rows else None

    def _read_on(self) -> bool:
        text = next(self._texts, None)
        if text is None:
            return False
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = self._tokenizer(whole, add_special_tokens=False)["input_ids"]
        self._waiting, self._start = [*self._waiting[self._start :], *ids], 0
        self._read, self._digest = self._read + 1, _digest(self._digest, text)
        return True


def passed(texts: Iterator[str], place: Place) -> bool:
    """Pass over the texts before a place; False where they are not those that were read."""
    digest = ""
    for _ in range(place.texts):
        text = next(texts, None)
        if text is None:
            return False
        digest = _digest(digest, text)
    return digest == place.digest


def batches_of_text(
    model: LanguageModel, texts: Iterable[str], *, length: int = LENGTH, rows: int = 32
) -> Iterator[Tensor]:
    """Texts as token batches `[B, T]`: see `TokenRows`."""
    reader = TokenRows(model, texts, length=length)
    while (batch := reader.take(rows)) is not None:
        yield batch


def _digest(before: str, text: str) -> str:
    """Stands for one more text after those before."""
    return hashlib.sha256((before + text).encode("utf-8", "surrogatepass")).hexdigest()
