"""A corpus that is streamed, and what a run over it keeps, leaves and tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sae_graphs.features.contexts import store_file
from sae_graphs.features.store import Told
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.models import CORPUS

WORDS = CORPUS.split()
TEXTS = [" ".join(WORDS[n % 7 : n % 7 + 3 + n % 11]) + "\n" for n in range(60)]
TEXTS[5] = "".join(TEXTS[:9])  # longer than several rows
TEXTS[6] = ""


class Stopped(Exception):
    """An interruption."""


def until(stop: int, texts: list[str] = TEXTS) -> Callable[[], Iterator[str]]:
    """Texts that break off."""

    def read() -> Iterator[str]:
        yield from texts[:stop]
        raise Stopped

    return read


def whole(texts: list[str] = TEXTS) -> Callable[[], Iterator[str]]:
    return lambda: iter(texts)


def contents(model: InstrumentedModel) -> list[bytes]:
    return [store_file(model, layer).read_bytes() for layer in model.stack.layers]


def left_over(model: InstrumentedModel) -> list[Path]:
    folder = store_file(model, model.stack.layers[0]).parent.parent
    return sorted(folder.rglob("*partial*"))


class Heard:
    """What a run told."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.resumed: list[int] = []
        self.refused: list[str] = []
        self.kept: list[int] = []

    @property
    def told(self) -> Told:
        return Told(self.read.append, self.resumed.append, self.refused.append, self.kept.append)
