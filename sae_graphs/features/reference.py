"""What a feature does on ordinary text: its mean, and how often it is on.

Reference ablation puts the mean in a feature's place where the feature is active. The means are
taken over the text that contexts are found in, and lie beside these, one `reference.safetensors`
per SAE; a stack that has none gets them once from a small bundled English text.

Letters: `B` rows, `T` tokens, `F` features of the SAE.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.checkpoint import run_key
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.batches import Pace, encoded
from sae_graphs.features.beside import cache_folder, file_beside, opened, write_tensors
from sae_graphs.features.token_rows import TokenRows
from sae_graphs.graph.answer import DENSE
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention, mean_where_active
from sae_graphs.model.saes import SAELayer

log = logging.getLogger(__name__)

FILE_NAME = "reference.safetensors"
SCHEMA = "sae_graphs/reference/1"
TOKENS = 20_000  # read of the bundled text
BUNDLED = "bundled English text"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Reference:
    """One SAE layer's features on reference text, the first token of each row left out.

    `corpus` are letters that stand for the text, and `text` says which it was.
    """

    mean: Tensor  # [F] float32, in activation units; a token where the feature is silent counts 0
    density: Tensor  # [F] float32, the share of tokens at which it is not 0
    tokens: int
    corpus: str
    text: str

    def __post_init__(self) -> None:
        for name in ("mean", "density"):
            values = getattr(self, name)
            if values.dtype != torch.float32 or values.shape != (len(self.mean),):
                raise ValueError(f"{name} is {values.dtype} {tuple(values.shape)}, not float32 [F]")
            if not values.isfinite().all():
                raise ValueError(f"{name} is not finite")
        if self.tokens < 1 or not ((self.density >= 0) & (self.density <= 1)).all():
            raise ValueError(f"a density over {self.tokens} tokens is not between 0 and 1")

    @property
    def dense(self) -> Tensor:
        """Which features `[F]` are dense: on at 30 % of the tokens, or more."""
        return self.density >= DENSE


def mean_intervention(model: InstrumentedModel, references: Sequence[Reference]) -> Intervention:
    """Put the mean in place of each activation that is not 0; silent features stay silent.

    `references` are those of the model's layers, by depth.
    """
    means = {
        layer.point: reference.mean.to(model.model.cfg.device)
        for layer, reference in zip(model.stack.layers, references, strict=True)
    }
    tokens = sorted({reference.tokens for reference in references})
    number = f"{tokens[0]:,}" if len(tokens) == 1 else f"{tokens[0]:,} to {tokens[-1]:,}"
    corpora = list(dict.fromkeys(reference.corpus for reference in references))
    corpus = corpora[0] if len(corpora) == 1 else _digest("\n".join(corpora))
    return mean_where_active(means, f"mean (of {number} tokens, {corpus[:8]})")


def references_of(
    model: InstrumentedModel,
    *,
    progress: Progress | None = None,
    foretold: Callable[[float], None] | None = None,
    texts: Sequence[str] | None = None,
) -> list[Reference]:
    """Each layer's reference, by depth: the stored one, or one from the bundled English text.

    What was taken from the bundled text is kept in the user's cache. Where something is to be run,
    `progress` is told the tokens done and their number, and `foretold`, after a first batch, the
    seconds that the rest will take. With `texts` all of these are read instead, and nothing is
    kept. Raises `SaeGraphsError` where a stored reference is damaged or of other weights, and
    where a text is empty.
    """
    told = _Told(progress, foretold)
    layers = model.stack.layers
    if texts is not None:
        every = range(len(layers))
        found = _measured(model, _rows_of(model, texts, None, "the texts given"), every, told)
        return [found[depth] for depth in every]
    found = _stored(model)
    if missing := [depth for depth in range(len(layers)) if depth not in found]:
        rows = _rows_of(model, bundled_text(), TOKENS, BUNDLED)
        kept = _kept_files(model, missing, rows)
        found |= _read_kept(model, kept)
        made = _measured(model, rows, [depth for depth in missing if depth not in found], told)
        for depth, reference in made.items():
            _keep(kept[depth], layers[depth], reference)
        found |= made
    return [found[depth] for depth in range(len(layers))]


# -- files -----------------------------------------------------------------------------------------


def reference_file(model: InstrumentedModel, layer: SAELayer) -> Path:
    """Where a layer's reference lies: beside its contexts."""
    return file_beside(model, layer, FILE_NAME)


def read_reference(file: Path, layer: SAELayer) -> Reference:
    """A layer's reference; `SaeGraphsError` where it is damaged, or of another SAE."""
    with opened(file, layer, SCHEMA, "mean") as store:
        about = store.metadata()
        mean, density = (store.get_tensor(name).clone() for name in ("mean", "density"))
        return Reference(mean, density, int(about["tokens_seen"]), about["corpus"], about["text"])


def write_reference(file: Path, layer: SAELayer, reference: Reference) -> None:
    """A layer's reference into its file, in one step. Raises `OSError`."""
    about = {
        "tokens_seen": str(reference.tokens),
        "corpus": reference.corpus,
        "text": reference.text,
    }
    tensors = {"mean": reference.mean, "density": reference.density}
    write_tensors(file, layer, SCHEMA, tensors, about)


def _stored(model: InstrumentedModel) -> dict[int, Reference]:
    """What lies beside the SAEs, by depth."""
    files = [reference_file(model, layer) for layer in model.stack.layers]
    return {
        depth: read_reference(file, model.stack.layers[depth])
        for depth, file in enumerate(files)
        if file.is_file()
    }


def _kept_files(model: InstrumentedModel, depths: Iterable[int], rows: _Rows) -> dict[int, Path]:
    """Where references are kept: a file's name tells what determines its numbers."""
    tokens = _digest(json.dumps(rows.tokens.tolist()))
    of_model = run_key([tokens, rows.corpus], model.model.named_parameters())
    folder, layers = cache_folder("reference"), model.stack.layers
    return {depth: folder / f"{_key(layers[depth], of_model)}.safetensors" for depth in depths}


def _key(layer: SAELayer, of_model: str) -> str:
    facts = [of_model, layer.point.hook_name, str(layer.cfg.to_dict())]
    return run_key(facts, iter(layer.sae.state_dict().items()))


def _read_kept(model: InstrumentedModel, files: Mapping[int, Path]) -> dict[int, Reference]:
    """Those that are there and whole: others are taken again."""
    found = {}
    for depth, file in files.items():
        if file.is_file():
            try:
                found[depth] = read_reference(file, model.stack.layers[depth])
            except SaeGraphsError as problem:
                log.info("%s", problem)
    return found


def _keep(file: Path, layer: SAELayer, reference: Reference) -> None:
    try:
        write_reference(file, layer, reference)
    except OSError as problem:  # then they are taken again the next time
        log.info("cannot write %s: %s", file, problem)


def bundled_text() -> list[str]:
    """The paragraphs of the bundled English text."""
    data = Path(__file__).with_name("english.json").read_text(encoding="utf-8")
    return [f"{paragraph}\n\n" for paragraph in json.loads(data)["paragraphs"]]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


# -- measuring -------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Sums over the tokens so far of one layer's features."""

    sums: Tensor  # [F] float64
    times_active: Tensor  # [F] int64

    @classmethod
    def empty(cls, n_features: int) -> Tally:
        return cls(torch.zeros(n_features, dtype=torch.float64), torch.zeros(n_features).long())

    def add(self, activations: Tensor) -> None:
        """Take activations `[B, T, F]` in, 0 at each row's first token.

        Row after row, so that how rows are batched does not show, to the last bit.
        """
        self.times_active += (activations != 0).sum((0, 1))
        for row in activations.sum(1, dtype=torch.float64):  # [F]
            self.sums += row

    def reference(self, tokens: int, corpus: str, text: str) -> Reference:
        """Over so many tokens, first ones not counted; raises where something is not finite."""
        mean = (self.sums / tokens).float()
        if not mean.isfinite().all():
            raise SaeGraphsError(
                "an SAE's activations are not finite; check the model's and SAEs' weights, and "
                "give --dtype float32"
            )
        density = (self.times_active.double() / tokens).float()
        return Reference(mean, density, tokens, corpus, text)


@dataclass(frozen=True)
class _Told:
    """Who hears of the tokens done, and of the seconds left."""

    progress: Progress | None
    foretold: Callable[[float], None] | None


class _Rows(NamedTuple):
    """A text as rows of tokens `[B, T]`, letters that stand for it, and what it is called."""

    tokens: Tensor
    corpus: str
    text: str


def _rows_of(
    model: InstrumentedModel, texts: Sequence[str], tokens: int | None, text: str
) -> _Rows:
    """The first `tokens` of texts (rounded up to whole rows; None: all); raises where none are."""
    reader = TokenRows(model, texts)
    rows = reader.take(2**62 if tokens is None else ceil(tokens / reader.length))
    if rows is None or rows.shape[1] < 2:
        raise SaeGraphsError(f"the model reads no two tokens in {text}; give longer texts")
    return _Rows(rows, reader.place.digest[:16], text)


@torch.no_grad()
def _measured(
    model: InstrumentedModel, rows: _Rows, depths: Sequence[int], told: _Told
) -> dict[int, Reference]:
    """The references of some layers to rows of tokens."""
    if not depths:
        return {}
    layers, tokens = model.stack.layers, rows.tokens
    tallies = {depth: Tally.empty(layers[depth].n_features) for depth in depths}
    pace = Pace(model, tokens.shape[1])
    started, loading, total, done = time.monotonic(), 0.0, tokens.numel(), 0
    batches = [tokens[: pace.least], *tokens[pace.least :].split(pace.most)]  # a short one is timed
    batches = [batch for batch in batches if len(batch)]
    for batch in batches:
        for n_done, (depth, parts) in enumerate(encoded(model, batch, depths), start=1):
            loading += _seconds_to_load(layers[depth])
            for _, activations in parts:
                tallies[depth].add(activations)
            if told.progress is not None:
                told.progress(done + batch.numel() * n_done // len(depths), total)
        if done == 0 and told.foretold is not None:  # SAEs are loaded once a batch, or not again
            running = time.monotonic() - started - loading
            rest = total / batch.numel() - 1
            told.foretold(running * rest + loading * (len(batches) - 1))
        done += batch.numel()
    counted = tokens[:, 1:].numel()
    return {
        depth: tally.reference(counted, rows.corpus, rows.text) for depth, tally in tallies.items()
    }


def _seconds_to_load(layer: SAELayer) -> float:
    before = time.monotonic()
    _ = layer.sae
    return time.monotonic() - before
