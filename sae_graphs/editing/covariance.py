"""Second moments of an MLP's keys over reference text: C = E[k k^T], not centred.

Text is streamed through the model batch by batch; what was summed is kept every half minute, so
that an interrupted run goes on, and the result lies in the user's cache under a digest of the
model, the layer and the text. The first token of each row is left out: it is the attention sink.

Letters: `B` rows, `T` tokens, `F` inputs of the projection.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from sae_graphs.checkpoint import WhileWritable, run_key
from sae_graphs.editing.projection import Projection, projection_of
from sae_graphs.editing.prompts import keys_on
from sae_graphs.editing.update import Solvable, solvable
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.beside import cache_folder
from sae_graphs.features.reference import BUNDLED, bundled_text
from sae_graphs.features.token_rows import TokenRows
from sae_graphs.files import BUNDLED_TEXTS, bundled_folder, write_atomically
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.memory import format_size
from sae_graphs.pretrained.corpora import Corpus, check_corpus

log = logging.getLogger(__name__)

SCHEMA = "sae_graphs.covariance/2"
ROWS = 8  # run at once: the same however a run is interrupted
KEPT_EVERY = 30.0  # seconds
DEMO = "demo"
FACTS = "demo-texts.json"  # documents of facts in the bundled model's language
HELD_OUT = 10  # one so many-th piece of a text is in no covariance: perplexity is taken there

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Covariance:
    """E[k k^T] `[F, F]`, float64, over `tokens` tokens of the text called `text`.

    `made_for` stands for the layer and for all weights of the model but those of the projection,
    which decide nothing of what it reads; `key` for the text, too.
    """

    matrix: Tensor
    layer: int
    tokens: int
    text: str
    made_for: str
    key: str
    _solvable: dict[float | None, Solvable] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> str:
        """The memory it takes, in words."""
        return format_size(8 * self.matrix.numel())

    def solvable(self, ridge: float | None) -> Solvable:
        """What is solved, prepared once for each ridge."""
        if ridge not in self._solvable:
            self._solvable[ridge] = solvable(self.matrix, ridge)
        return self._solvable[ridge]


@dataclass(frozen=True)
class Text:
    """Reference text: what it is called, its pieces, and plain values that tell it from others."""

    name: str
    pieces: Callable[[], Iterable[str]]
    facts: Any

    def read(self) -> Iterator[str]:
        """The pieces that covariances are taken over: all but every tenth."""
        return (it for at, it in enumerate(self.pieces(), start=1) if at % HELD_OUT)

    def held_out(self) -> Iterator[str]:
        """Every tenth piece; none where there are fewer."""
        return itertools.islice(self.pieces(), HELD_OUT - 1, None, HELD_OUT)


def text_of(
    model: LanguageModel,
    given: str | Path | Sequence[str] | Text | None = None,
    *,
    without: Iterable[str] = (),
) -> Text:
    """The text to take a covariance over: a file's, given pieces, else one that is bundled.

    That is documents of the bundled model's language for it, most of them facts, and English for
    others. Of a bundled text, pieces that hold one of the words in `without` are left out: so no
    covariance is taken over what cases ask about their subjects.
    """
    if isinstance(given, Text):
        return given
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise SaeGraphsError(f"there is no text file {given}; give one, or leave it out")
        corpus = Corpus(str(path), is_dataset=False)
        check_corpus(corpus)
        facts = {k: v for k, v in corpus.facts().items() if k != "source"}
        return Text(path.name, corpus.texts, facts)
    if given is not None:
        pieces = list(given)
        return Text("the texts given", lambda: pieces, _digest(pieces))
    name, texts = BUNDLED, bundled_text
    if model.name == DEMO:
        name, texts = "the bundled model's language", _documents
    avoided = tuple(dict.fromkeys(without))
    kept = [piece for piece in texts() if not any(word in piece for word in avoided)]
    return Text(name, lambda: kept, _digest(kept))


def _documents() -> list[str]:
    """Those that ship with the bundled model, and as much again, twice, of facts; each once."""
    files = (bundled_folder() / BUNDLED_TEXTS, Path(__file__).parent / "cases" / FACTS)
    found = (text for file in files for text in json.loads(file.read_text(encoding="ascii")))
    return list(dict.fromkeys(found))


@torch.no_grad()
def covariance_of(
    model: LanguageModel,
    layer: int,
    text: Text,
    tokens: int,
    *,
    progress: Progress | None = None,
    told: Callable[[str], None] | None = None,
) -> Covariance:
    """The covariance of what the output projection of block `layer` reads, over so many tokens.

    From the cache where it is there; else it is summed, `progress` being told the tokens done and
    their number, and kept. `told` hears the memory that it takes before that. Raises
    `SaeGraphsError` where the text has no two tokens.
    """
    projection = projection_of(model.model, layer)
    made_for = _made_for(model, projection)
    key = run_key([SCHEMA, made_for, text.facts, tokens, model.prepend_bos], iter(()))
    file = cache_folder("covariance") / f"{key}.safetensors"
    held = _read(file, key)
    if held is None:
        size = projection.weights.matrix.shape[1]
        if told is not None:
            told(
                f"covariance of block {layer}: {size} x {size}, "
                f"{format_size(8 * size**2)}, over {text.name}"
            )
        held = _summed(model, projection, text, tokens, _Kept(file, key), progress)
    matrix, count = held
    return Covariance(matrix.to(model.model.cfg.device), layer, count, text.name, made_for, key)


def check_covariance(model: LanguageModel, covariance: Covariance, projection: Projection) -> None:
    """Raise `SaeGraphsError` where a covariance is not that of this model's projection."""
    size, block = projection.weights.matrix.shape[1], projection.block
    if covariance.layer != block or len(covariance.matrix) != size:
        raise SaeGraphsError(
            f"the covariance is of layer {covariance.layer}, {len(covariance.matrix)} inputs; "
            f"expected layer {block} with {size}: take one with covariance_of on this model"
        )
    if covariance.made_for != _made_for(model, projection):
        raise SaeGraphsError(
            f"the covariance is of another model than {model.name}, or of other weights; take one "
            "with covariance_of on this model"
        )


# -- inside ----------------------------------------------------------------------------------------


def _made_for(model: LanguageModel, projection: Projection) -> str:
    own = {id(tensor) for tensor in projection.weights.tensors}
    named = model.model.named_parameters()
    weights = ((name, tensor) for name, tensor in named if id(tensor) not in own)
    return run_key([projection.block], weights)


class _Kept:
    """What was summed so far, beside the file that it becomes."""

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key
        self.part = file.with_suffix(".partial.safetensors")
        self._writer = WhileWritable(self.part)
        self._last = time.monotonic()

    def begun(self) -> tuple[Tensor, int, int] | None:
        """The sum, its tokens and the rows read for it, of an interrupted run."""
        held = _opened(self.part, self.key)
        return None if held is None else (held[0], int(held[1]["tokens"]), int(held[1]["rows"]))

    def keep(self, total: Tensor, tokens: int, rows: int) -> None:
        """Now and then."""
        if time.monotonic() - self._last < KEPT_EVERY:
            return
        self._last = time.monotonic()
        about = {"tokens": str(tokens), "rows": str(rows)}
        self._writer.write(lambda: _write(self.part, self.key, total, about))

    def done(self, matrix: Tensor, tokens: int) -> None:
        """The result in place of the parts."""
        if self._writer.write(lambda: _write(self.file, self.key, matrix, {"tokens": str(tokens)})):
            with suppress(OSError):
                self.part.unlink(missing_ok=True)


def _summed(
    model: LanguageModel,
    projection: Projection,
    text: Text,
    tokens: int,
    kept: _Kept,
    progress: Progress | None,
) -> tuple[Tensor, int]:
    reader = TokenRows(model, text.read())
    size = projection.weights.matrix.shape[1]
    device = model.model.cfg.device
    begun = kept.begun()
    total = torch.zeros(size, size, dtype=torch.float64)
    count = 0
    if begun is not None:
        total, count, rows = begun
        while reader.rows < rows and reader.take(ROWS) is not None:
            pass
    total = total.to(device)
    while count < tokens and (batch := reader.take(ROWS)) is not None:
        keys = keys_on(model, projection, batch.to(device))[:, 1:].reshape(-1, size)
        keys = keys[: tokens - count].double()
        total += keys.T @ keys
        count += len(keys)
        kept.keep(total, count, reader.rows)
        if progress is not None:
            progress(min(count, tokens), tokens)
    if count < 2:
        raise SaeGraphsError(
            f"{text.name} has {count} tokens to take a covariance over; give more text, with --text"
        )
    matrix = (total / count).cpu()
    kept.done(matrix, count)
    return matrix, count


def _write(file: Path, key: str, matrix: Tensor, about: Mapping[str, str]) -> None:
    told = {"schema": SCHEMA, "key": key, **about}
    data = safetensors_bytes({"matrix": matrix.cpu().contiguous()}, metadata=told)
    write_atomically(file, data)


def _read(file: Path, key: str) -> tuple[Tensor, int] | None:
    held = _opened(file, key)
    return None if held is None else (held[0], int(held[1]["tokens"]))


def _opened(file: Path, key: str) -> tuple[Tensor, Mapping[str, str]] | None:
    """What lies there, if it is whole and belongs here; else it is made again."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as held:
            about = held.metadata() or {}
            if (about.get("schema"), about.get("key")) != (SCHEMA, key):
                return None
            return held.get_tensor("matrix"), about
    except (SafetensorError, OSError) as problem:
        log.info("%s is damaged (%s): it is made again", file, problem)
        return None


def _digest(pieces: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:32]
