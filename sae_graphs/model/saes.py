"""`SAEStack`: sparse autoencoders on the residual stream, ordered by depth.

Each SAE is applied only through its own `encode` and `decode`, at the hook it was trained on. It
is loaded when it is needed: where memory is short, only two are at a time.
Letters: `T` tokens, `D` d_model, `F` features of the SAE, `S` features of a selection.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor, nn

from sae_graphs.errors import SAELoadError
from sae_graphs.model.memory import SAESize
from sae_graphs.model.sae_setup import check_finite, check_normalisation, normalise_without_cycle
from sae_graphs.model.shelf import SAEShelf, SAESource
from sae_graphs.model.stream import StreamPoint, ends, labels_of

UNSUPPORTED = (
    "temporal",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
RoomFor = Callable[[tuple[SAESize, ...]], int]


@dataclass(frozen=True, eq=False)
class SAELayer:
    """One SAE of a stack. `label` is its layer number as in feature names (`5` in `5.10603`).

    `cfg` is the SAE's configuration and `dtype` its precision: to ask these loads nothing.
    """

    label: str
    cfg: Any
    dtype: torch.dtype
    point: StreamPoint
    neuronpedia_id: str | None
    folder: Path | None
    source: SAESource = field(repr=False)
    shelf: SAEShelf = field(repr=False)

    @property
    def sae(self) -> SAE[Any]:
        """The SAE itself, loaded if need be: hold on to it no longer than for one layer's work."""
        return self.shelf.take(self.source)

    @property
    def n_features(self) -> int:
        """`F`."""
        return int(self.cfg.d_sae)

    @property
    def d_in(self) -> int:
        """`D`."""
        return int(self.cfg.d_in)

    def encode(self, stream: Tensor) -> Tensor:
        """Activations `[..., F]` of the stream `[..., D]`."""
        return self.sae.encode(stream)

    def decode(self, activations: Tensor, stream: Tensor) -> Tensor:
        """The reconstruction `[..., D]` of activations `[..., F]`.

        Some SAEs undo at the output a normalisation that they read off their input, and forget
        it after one use: hence `stream` `[..., D]`, the input that the activations came from.
        """
        sae = self.sae
        sae.process_sae_in(stream)
        return sae.decode(activations)

    def encoder_of(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        """`encode` for the `features` `[S]` alone: activations `[..., S]` of streams `[..., D]`.

        The SAE's own `encode`, run on a copy that holds only their weights: right for kinds that
        treat features one by one.
        """
        sae = self.sae
        part = copy.copy(sae)
        part.__dict__ = dict(sae.__dict__)
        part._parameters = {
            name: nn.Parameter(of_features(name, weights, features), requires_grad=False)
            for name, weights in sae._parameters.items()
            if weights is not None and name != "W_dec"
        }
        normalise_without_cycle(part)
        encode: Callable[[Tensor], Tensor] = part.encode
        return encode

    def decoder_of(self, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`decode` for activations `[..., S]` of the `features` `[S]` alone, the rest being 0.

        The SAE's own `decode`, run on a copy whose decoder holds only these rows: as exact, and
        cheaper by the share of features left out. The copy keeps nothing of the SAE in memory.
        """
        sae = self.sae
        part = copy.copy(sae)
        part.__dict__ = dict(sae.__dict__)
        kept = {name: w for name, w in sae._parameters.items() if name not in ("W_enc", "W_dec")}
        kept = {name: w if w is None else w.detach().clone() for name, w in kept.items()}
        kept["W_dec"] = sae.W_dec.detach()[features]
        part._parameters = {
            name: w if w is None else nn.Parameter(w, requires_grad=False)
            for name, w in kept.items()
        }
        normalise_without_cycle(part)  # and what it remembers is the copy's own

        def decode(activations: Tensor, stream: Tensor) -> Tensor:
            part.process_sae_in(stream)
            return part.decode(activations)

        return decode


def of_features(name: str, weights: Tensor, features: Tensor) -> Tensor:
    """The share that some features have in a parameter of an SAE."""
    weights = weights.detach()
    if name == "b_dec":
        return weights
    return weights.index_select(0 if name == "W_dec" else -1, features)


@dataclass(frozen=True)
class SAEStack:
    """At least two SAEs on one model's residual stream, ordered by depth.

    `name` is what the user called it: a release, a folder, or `custom`.
    """

    layers: tuple[SAELayer, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        if len(self.layers) < 2:
            raise SAELoadError(
                f"{self.name}: {len(self.layers)} SAE layers; a causal graph needs at least 2"
            )
        for below, above in zip(self.layers, self.layers[1:], strict=False):
            if below.point.depth >= above.point.depth:
                raise SAELoadError(
                    f"{self.name}: two SAEs at one place of the stream "
                    f"({below.point.hook_name} and {above.point.hook_name}); keep one of them"
                )

        if len(self.depths) < len(self.layers):
            raise SAELoadError(
                f"{self.name}: two SAE layers are both called {_twice(self.layers)}; their "
                "Neuronpedia ids must differ in the layer"
            )

    @cached_property
    def depths(self) -> dict[str, int]:
        """Layer label to depth, from 0."""
        return {layer.label: depth for depth, layer in enumerate(self.layers)}

    @property
    def prepend_bos(self) -> bool:
        """Whether the SAEs were trained with BOS before the text, by their metadata."""
        said = {layer.cfg.metadata.prepend_bos for layer in self.layers} - {None}
        if len(said) > 1:
            raise SAELoadError(
                f"{self.name}: the SAEs disagree on prepend_bos; use SAEs that were trained alike"
            )
        return bool(said.pop()) if said else True

    @property
    def sizes(self) -> tuple[SAESize, ...]:
        """What each SAE takes in memory, by depth."""
        return tuple(layer.shelf.sizes([layer.source])[0] for layer in self.layers)

    def between(self, first: str, last: str) -> SAEStack:
        """The layers from label `first` to label `last`, both included."""
        start, end = ends(list(self.depths), first, last, self.name)
        return replace(self, layers=self.layers[start:end])


def stack_from(
    saes: Sequence[SAE[Any]] | Mapping[Any, SAE[Any]], *, name: str = "custom"
) -> SAEStack:
    """A stack of SAE objects, in any order. Labels follow their Neuronpedia ids, else the hooks.

    Of a dict, the SAEs themselves are taken: each knows its hook. Raises `SAELoadError` for what is
    no SAE.
    """
    if isinstance(saes, Mapping):
        saes = list(saes.values())
    if isinstance(saes, SAE | str | Path) or not isinstance(saes, Iterable):
        raise SAELoadError(
            f"the SAEs are a {type(saes).__name__}; expected several SAEs of sae-lens, as a list "
            "or dict, or a name for sae_graphs.load"
        )
    saes = list(saes)
    wrong = next((sae for sae in saes if not isinstance(sae, SAE)), None)
    if wrong is not None:
        raise SAELoadError(
            f"a {type(wrong).__name__} is among the SAEs; expected SAEs of sae-lens "
            "(`sae_graphs.load` takes names and folders)"
        )
    shelf = SAEShelf()
    return _stack([_read(_source_of(sae, name), shelf) for sae in saes], name)


def stack_of(
    sources: Sequence[SAESource],
    layers: tuple[str, str] | None = None,
    *,
    name: str,
    room_for: RoomFor | None = None,
) -> SAEStack:
    """The stack of some SAEs that were found: each is read once, and checked."""
    shelf = SAEShelf()
    read: list[SAELayer] = []
    for at in sources:
        _make_room(shelf, sources, room_for)
        read.append(_read(at, shelf))
        check_finite(shelf.take(at), at.name)
    _make_room(shelf, sources, room_for)
    stack = _stack(read, name)
    unknown = any(at.label is None for at in sources)  # where they stand was not known before
    return stack.between(*layers) if layers is not None and unknown else stack


def _make_room(shelf: SAEShelf, sources: Sequence[SAESource], room_for: RoomFor | None) -> None:
    sizes = shelf.sizes(sources)
    if room_for is not None and sizes:
        shelf.room = room_for(sizes)


def _source_of(sae: SAE[Any], name: str) -> SAESource:
    """An SAE that is already there, and is there to stay: without gradients from now on."""
    name = f"the SAE on {sae.cfg.metadata.hook_name} of {name}"
    check_normalisation(sae, name)
    check_finite(sae, name)
    sae.requires_grad_(False).eval()
    return SAESource(name=name, load=lambda: sae)


def _read(source: SAESource, shelf: SAEShelf) -> SAELayer:
    """The layer of a source, after reading its SAE; its label does not know of the others yet."""
    sae = shelf.take(source)
    kind = sae.cfg.architecture()
    if kind in UNSUPPORTED:
        raise SAELoadError(
            f"{source.name}: an SAE of kind {kind!r} does not read and rebuild the stream token by "
            "token; use another kind"
        )
    point = StreamPoint.parse(sae.cfg.metadata.hook_name)
    if source.trained_on is not None and source.point not in (None, point):
        raise SAELoadError(
            f"{source.name} says of itself that it was trained on {point.hook_name}, which is not "
            "where its release puts it; use another release"
        )
    return SAELayer(
        label="",
        cfg=sae.cfg,
        dtype=sae.dtype,
        point=point,
        neuronpedia_id=sae.cfg.metadata.neuronpedia_id,
        folder=source.folder,
        source=source,
        shelf=shelf,
    )


def _stack(layers: Sequence[SAELayer], name: str) -> SAEStack:
    """The layers by depth, with their labels: those of their sources, where these know them."""
    layers = sorted(layers, key=lambda layer: layer.point.depth)
    labels = labels_of([(layer.point, layer.neuronpedia_id) for layer in layers])
    return SAEStack(
        tuple(
            replace(layer, label=layer.source.label or label)
            for layer, label in zip(layers, labels, strict=True)
        ),
        name,
    )


def _twice(layers: Sequence[SAELayer]) -> str:
    labels = [layer.label for layer in layers]
    return next(label for label in labels if labels.count(label) > 1)
