"""Series of a model's clean run over many texts, by name; and which features are most often on.

Texts of one group are cut to one length and run together: nothing is padded, and what follows a
token does not reach it.

Letters: `B` texts run at once, `M` texts of a group, `T` tokens, `D` d_model, `F` features, `S`
series.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sae_graphs.bars import Progress
from sae_graphs.editing.granger.panel import Array, Panel, Together, gathered
from sae_graphs.editing.granger.records import SeriesName
from sae_graphs.editing.granger.settings import LEAST_TEXTS, GrangerSettings
from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.features.batches import encoded, rows_encoded, rows_run
from sae_graphs.features.contexts import read_contexts
from sae_graphs.features.reference import DENSE
from sae_graphs.graph.meaning import of_contexts
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.saes import SAELayer
from sae_graphs.tracing.attention import patterns

SPARE = 4  # rows that a text must leave its regression, beside the lags and the first token


class Reader:
    """A model and the texts that it reads, gathered into groups of one length."""

    def __init__(
        self, model: InstrumentedModel, ids: Sequence[tuple[int, ...]], settings: GrangerSettings
    ) -> None:
        """Raises `SaeGraphsError` where fewer than `LEAST_TEXTS` texts are long enough."""
        self.model = model
        lag = settings.lag or settings.max_lag
        least = lag + SPARE + 1  # the first token is left out
        self.groups = gathered([len(it) for it in ids], together=settings.together, least=least)
        self._ids = ids
        self.n_texts = sum(len(group.texts) for group in self.groups)
        if self.n_texts < LEAST_TEXTS:
            raise SaeGraphsError(
                f"{self.n_texts} of {len(ids)} texts have the {least} tokens that a lag of {lag} "
                f"needs; give at least {LEAST_TEXTS} such texts, or a smaller lag"
            )

    @property
    def digest(self) -> str:
        """Letters that stand for the texts, as they are cut."""
        cut = [[self._ids[n][: group.length] for n in group.texts] for group in self.groups]
        return hashlib.sha256(json.dumps(cut).encode()).hexdigest()[:32]

    def tokens(self, group: Together) -> Tensor:
        """The texts of a group, `[M, T]`."""
        return torch.tensor([self._ids[number][: group.length] for number in group.texts])

    @torch.no_grad()
    def most_active(self, count: int, told: Progress | None = None) -> list[list[SeriesName]]:
        """By layer, the features that are on at most tokens, dense ones aside.

        Fewer than `count` where so many are never on. `told` hears how many texts are read.
        """
        layers = self.model.stack.layers
        times = [torch.zeros(layer.n_features, dtype=torch.int64) for layer in layers]
        seen = done = 0
        for group in self.groups:
            tokens = self.tokens(group)
            for depth, parts in encoded(self.model, tokens):
                for _, activations in parts:
                    times[depth] += (activations != 0).sum(dim=(0, 1))
            seen += tokens[:, 1:].numel()
            done += len(tokens)
            if told is not None:
                told(done, self.n_texts)
        return [
            [SeriesName("feature", layer.label, index) for index in _most(count_of, seen, count)]
            for layer, count_of in zip(layers, times, strict=True)
        ]

    @torch.no_grad()
    def panel(self, names: Sequence[SeriesName], told: Progress | None = None) -> Panel:
        """The series by name, each text's first token left out.

        `told` hears how many texts are read. Raises `SaeGraphsError` where a name is none of the
        model's, or a value is no number.
        """
        depths = [depth_of(self.model, name) for name in names]
        groups, done = [], 0
        for group in self.groups:
            tokens = self.tokens(group)
            size = rows_run(self.model, group.length)
            parts = []
            for rows in tokens.split(size):
                parts.append(_series(self.model, rows, names, depths))
                done += len(rows)
                if told is not None:
                    told(done, self.n_texts)
            values = np.concatenate(parts, axis=1)[:, :, 1:]  # [S, M, T - 1]
            if not np.isfinite(values).all():
                raise SaeGraphsError(
                    "a series holds what is no number: the activations overflow; use --dtype "
                    "float32"
                )
            groups.append(values)
        orders = tuple(order_of(self.model, name) for name in names)
        return Panel(tuple(map(str, names)), orders, tuple(groups))


def depth_of(model: InstrumentedModel, name: SeriesName) -> int:
    """The depth of a series' layer; raises `UnknownFeatureError` where the model has none such."""
    depths = model.stack.depths
    if name.layer not in depths:
        raise UnknownFeatureError(
            f"{name}: no SAE layer {name.layer!r:.40}; choose from {quoted(depths, 40)}"
        )
    layer = model.stack.layers[depths[name.layer]]
    if name.index is not None and name.index >= layer.n_features:
        raise UnknownFeatureError(
            f"{name}: layer {name.layer} has features 0 to {layer.n_features - 1}"
        )
    if name.kind == "attended" and _next_attention(layer) >= len(model.model.blocks):
        raise SaeGraphsError(
            f"{name}: no attention follows layer {name.layer}; give a feature of an earlier layer"
        )
    return depths[name.layer]


def order_of(model: InstrumentedModel, name: SeriesName) -> int:
    """Where a series stands: twice the depth of its layer; what attention brings stands before the
    first layer that it is written to, and after what it is made of."""
    layers = model.stack.layers
    if name.kind != "attended":
        return 2 * depth_of(model, name)
    block = _next_attention(layers[depth_of(model, name)])
    after = [depth for depth, layer in enumerate(layers) if _next_attention(layer) > block]
    return 2 * min(after, default=len(layers)) - 1


def meanings(model: InstrumentedModel, names: Sequence[SeriesName]) -> dict[str, str]:
    """What the features of series peak on, by the series' names; where contexts are stored."""
    found: dict[str, str] = {}
    for label, depth in model.stack.depths.items():
        own = [name for name in names if name.layer == label and name.index is not None]
        indices = sorted({name.index for name in own if name.index is not None})
        held = read_contexts(model, model.stack.layers[depth], indices) if indices else ()
        words = {index: of_contexts(it).words for index, it in zip(indices, held, strict=True)}
        found |= {str(name): words[name.index] for name in own if name.index is not None}
    return found


# -- inside ----------------------------------------------------------------------------------------


def _most(times: Tensor, seen: int, count: int) -> list[int]:
    known = [
        (-number, index) for index, number in enumerate(times.tolist()) if 0 < number < DENSE * seen
    ]
    return [index for _, index in sorted(known)[:count]]


def _series(
    model: InstrumentedModel, tokens: Tensor, names: Sequence[SeriesName], depths: Sequence[int]
) -> Array:
    """The series of texts of one length `[B, T]`: `[S, B, T]`."""
    layers = model.stack.layers
    wanted = sorted(set(depths))
    device = model.model.cfg.device
    streams = model.streams_at(tokens.to(device), [layers[depth].point for depth in wanted])
    found: dict[int, Tensor] = {}
    blocks = {
        _next_attention(layers[depth])
        for name, depth in zip(names, depths, strict=True)
        if name.kind == "attended"
    }
    looked = {block: [*_looked_at(model, tokens, block)] for block in blocks}
    for depth, stream in zip(wanted, streams, strict=True):
        own = [number for number, it in enumerate(depths) if it == depth]
        read = [names[n].index for n in own if names[n].kind in ("feature", "attended")]
        indices = [index for index in dict.fromkeys(read) if index is not None]
        acts = dict(zip(indices, _activations(layers[depth], stream, indices), strict=True))
        for number in own:
            weights = looked.get(_next_attention(layers[depth]), [])
            found[number] = _one(names[number], layers[depth], stream, acts, weights)
    values: Array = torch.stack([found[n].double().cpu() for n in range(len(names))]).numpy()
    return values


def _activations(layer: SAELayer, stream: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """Of some features, `[B, T]` each, on the stream `[B, T, D]`."""
    if not indices:
        return []
    rows = rows_encoded(layer, stream.shape[1])
    parts = [layer.encode(part)[..., indices] for part in stream.split(rows)]
    return list(torch.cat(parts).unbind(-1))


def _one(
    name: SeriesName,
    layer: SAELayer,
    stream: Tensor,
    acts: dict[int, Tensor],
    looked: Sequence[Tensor],
) -> Tensor:
    """One series `[B, T]`; `looked` is the next attention, `[T, T]` of each text."""
    if name.index is None:  # the norm
        return stream.norm(dim=-1)
    if name.kind == "feature":
        return acts[name.index]
    if name.kind == "projection":
        direction = layer.sae.W_dec.detach()[name.index].to(stream.dtype)
        return stream @ (direction / direction.norm())
    brought = [
        weights[:, 1:] @ values[1:].to(weights.dtype)
        for weights, values in zip(looked, acts[name.index], strict=True)
    ]
    return torch.stack(brought)


def _looked_at(model: InstrumentedModel, tokens: Tensor, block: int) -> Iterator[Tensor]:
    """The attention `[T, T]` of a block in each text, heads averaged."""
    for ids in tokens.tolist():
        found = patterns(model, model.run(ids))
        yield next(it for number, it in enumerate(found) if number == block).mean(0)


def _next_attention(layer: SAELayer) -> int:
    """The block whose attention is the next one to read the stream at a layer."""
    return layer.point.block + (layer.point.site != "pre")
