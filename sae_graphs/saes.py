"""`SAEStack`: sparse autoencoders on the residual stream, ordered by depth.

Each SAE is applied only through its own `encode` and `decode`, at the hook it was trained on.
Letters: `T` tokens, `D` d_model, `F` features of the SAE, `S` features of a selection.
"""

from __future__ import annotations

import copy
import difflib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from sae_lens import SAE
from torch import Tensor, nn

from sae_graphs.errors import SaeGraphsError, SAELoadError, quoted

Site = Literal["pre", "mid", "post"]
_SITES: tuple[Site, ...] = ("pre", "mid", "post")
UNSUPPORTED = (
    "temporal",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
_HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|in|out)")
_SITE_OF_HOOK: dict[str, Site] = {
    "resid_pre": "pre",
    "in": "pre",
    "resid_mid": "mid",
    "resid_post": "post",
    "out": "post",
}


class StreamPoint(NamedTuple):
    """A place in the residual stream: before, inside or after a block."""

    block: int
    site: Site

    @property
    def depth(self) -> int:
        """Places along the stream, in order; the end of a block is the start of the next."""
        return 2 * self.block + _SITES.index(self.site)

    @property
    def hook_name(self) -> str:
        """The TransformerLens name, such as `blocks.5.hook_resid_pre`."""
        return f"blocks.{self.block}.hook_resid_{self.site}"

    @classmethod
    def parse(cls, hook_name: str | None) -> StreamPoint:
        """Raises `SAELoadError` where the hook is not on the residual stream."""
        found = _HOOK.fullmatch(hook_name or "")
        if found is None:
            raise SAELoadError(
                f"an SAE was trained on {hook_name!r}, which is not on the residual stream; "
                "expected SAEs on blocks.N.hook_resid_pre, hook_resid_mid or hook_resid_post"
            )
        return cls(int(found[1]), _SITE_OF_HOOK[found[2]])


@dataclass(frozen=True, eq=False)
class SAELayer:
    """One SAE of a stack. `label` is its layer number as in feature names (`5` in `5.10603`)."""

    label: str
    sae: SAE[Any]
    point: StreamPoint
    neuronpedia_id: str | None = None
    folder: Path | None = None

    @property
    def n_features(self) -> int:
        """`F`."""
        return int(self.sae.cfg.d_sae)

    def encode(self, stream: Tensor) -> Tensor:
        """Activations `[..., F]` of the stream `[..., D]`."""
        return self.sae.encode(stream)

    def decode(self, activations: Tensor, stream: Tensor) -> Tensor:
        """The reconstruction `[..., D]` of activations `[..., F]`.

        Some SAEs undo at the output a normalisation that they read off their input, and forget
        it after one use: hence `stream` `[..., D]`, the input that the activations came from.
        """
        self.sae.process_sae_in(stream)
        return self.sae.decode(activations)

    def decoder_of(self, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """`decode` for activations `[..., S]` of the `features` `[S]` alone, the rest being 0.

        The SAE's own `decode`, run on a copy whose decoder holds only these rows: as exact, and
        cheaper by the share of features left out.
        """
        part = copy.copy(self.sae)
        part.__dict__ = dict(self.sae.__dict__)
        part._parameters = dict(self.sae._parameters)
        part.W_dec = nn.Parameter(self.sae.W_dec.detach()[features], requires_grad=False)
        part._setup_activation_normalization()  # its closures must remember for the copy

        def decode(activations: Tensor, stream: Tensor) -> Tensor:
            part.process_sae_in(stream)
            return part.decode(activations)

        return decode


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
        said = {layer.sae.cfg.metadata.prepend_bos for layer in self.layers} - {None}
        if len(said) > 1:
            raise SAELoadError(
                f"{self.name}: the SAEs disagree on prepend_bos; use SAEs that were trained alike"
            )
        return bool(said.pop()) if said else True

    def between(self, first: str, last: str) -> SAEStack:
        """The layers from label `first` to label `last`, both included."""
        for label in (first, last):
            if label not in self.depths:
                raise SaeGraphsError(
                    f"no SAE layer {label!r}; {self.name} has {quoted(self.depths, limit=40)}"
                )
        start, end = self.depths[first], self.depths[last]
        if start >= end:
            raise SaeGraphsError(
                f"layers {first}:{last} hold fewer than two SAE layers; give the lower one first"
            )
        return replace(self, layers=self.layers[start : end + 1])


def stack_from(saes: Sequence[SAE[Any]], *, name: str = "custom") -> SAEStack:
    """A stack of SAE objects, in any order. Labels follow their Neuronpedia ids, else the hooks."""
    return _stack([(sae, None) for sae in saes], name)


def load_stack(
    source: str | Path, *, device: str = "cpu", dtype: str = "float32", name: str | None = None
) -> SAEStack:
    """Load SAEs from a folder (one sub-folder an SAE) or by sae-lens release name.

    `name` is what the stack is called, by default its source.

    Raises `SAELoadError` naming the folder or SAE at fault. Weights are read from safetensors
    only and must be finite.
    """
    check_source(source)
    folder = Path(source)
    if folder.is_dir():
        return _stack(_load_folder(folder, device, dtype), name or str(source))
    return _stack(_load_release(str(source), device, dtype), name or str(source))


def _stack(saes: Sequence[tuple[SAE[Any], Path | None]], name: str) -> SAEStack:
    for sae, folder in saes:
        if sae.cfg.architecture() in UNSUPPORTED:
            raise SAELoadError(
                f"{folder or name}: an SAE of kind {sae.cfg.architecture()!r} does not read and "
                "rebuild the stream token by token; use another kind"
            )
    points = [StreamPoint.parse(sae.cfg.metadata.hook_name) for sae, _ in saes]
    counts_from_pre = any(point.site == "pre" for point in points)
    layers = [
        SAELayer(
            label=_label(sae, point, counts_from_pre),
            sae=sae.requires_grad_(False).eval(),
            point=point,
            neuronpedia_id=sae.cfg.metadata.neuronpedia_id,
            folder=folder,
        )
        for (sae, folder), point in zip(saes, points, strict=True)
    ]
    layers.sort(key=lambda layer: layer.point.depth)
    labels = [layer.label for layer in layers]
    layers = [
        layer
        if labels.count(layer.label) == 1
        else replace(layer, label=f"{layer.label}-{layer.point.site}")
        for layer in layers
    ]
    return SAEStack(tuple(layers), name)


def _label(sae: SAE[Any], point: StreamPoint, counts_from_pre: bool) -> str:
    """`5` for `gpt2-small/5-res-jb`; without an id, the block number of the hook.

    In a stack that has SAEs before blocks, the one after the last block counts one further.
    """
    neuronpedia_id = sae.cfg.metadata.neuronpedia_id
    found = re.fullmatch(r"[^/]+/([A-Za-z0-9]+)(-.*)?", neuronpedia_id or "")
    if found is not None:
        return found[1]
    return str(point.block + (1 if counts_from_pre and point.site == "post" else 0))


def _load_folder(folder: Path, device: str, dtype: str) -> list[tuple[SAE[Any], Path | None]]:
    try:
        parts = sorted(part for part in folder.iterdir() if part.is_dir())
        parts = [part for part in parts if not part.name.startswith(".")]
        for part in parts:
            next(part.iterdir(), None)
    except OSError as problem:
        raise SAELoadError(
            f"cannot read {problem.filename}: {problem.strerror}; give a folder of SAEs"
        ) from problem
    if not any((part / "cfg.json").is_file() for part in parts) and not _pickles(parts):
        raise SAELoadError(
            f"{folder} holds no SAEs; expected one sub-folder per SAE with cfg.json and "
            "sae_weights.safetensors"
        )
    return [(_load_part(part, device, dtype), part) for part in parts]


def _pickles(parts: Sequence[Path]) -> list[str]:
    return [f.name for part in parts for f in part.iterdir() if f.suffix in (".pt", ".pth", ".pkl")]


def _load_part(part: Path, device: str, dtype: str) -> SAE[Any]:
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (part / name).is_file():
            pickles = _pickles([part])
            hint = f" (pickles such as {pickles[0]} are never opened)" if pickles else ""
            raise SAELoadError(f"{part} has no {name}{hint}; save the SAE with sae-lens 6")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sae = SAE.load_from_disk(part, device=device, dtype=dtype)
    except Exception as problem:  # sae-lens and safetensors raise many kinds here
        raise SAELoadError(
            f"{part} cannot be loaded ({_first_line(problem)}); save the SAE again with sae-lens"
        ) from problem
    _check_finite(sae, str(part))
    return sae


def check_source(source: str | Path) -> None:
    """Raise `SAELoadError` where the source is neither a folder nor a sae-lens release."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    if Path(source).is_dir():
        return
    if Path(source).exists():
        raise SAELoadError(f"{source} is a file; expected a folder with one sub-folder per SAE")
    directory = get_pretrained_saes_directory()
    if str(source) not in directory:
        near = difflib.get_close_matches(str(source), directory, n=3) or ["gpt2-small-res-jb"]
        raise SAELoadError(
            f"no folder and no sae-lens release is called {str(source)!r}; expected a folder with "
            f"one sub-folder per SAE, or a release such as {quoted(near)}"
        )


def _load_release(release: str, device: str, dtype: str) -> list[tuple[SAE[Any], Path | None]]:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    entry = get_pretrained_saes_directory()[release]
    ids = [sae_id for sae_id in entry.saes_map if _HOOK.fullmatch(sae_id)]
    if not ids:
        raise SAELoadError(
            f"{release} does not name its SAEs by residual hook ({quoted(entry.saes_map)}); "
            "download the ones you want into a folder, one sub-folder per SAE"
        )
    return [(_download(release, sae_id, device, dtype), None) for sae_id in ids]


def _download(release: str, sae_id: str, device: str, dtype: str) -> SAE[Any]:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sae = SAE.from_pretrained(release, sae_id, device=device, dtype=dtype)
    except Exception as problem:  # network, hub and format errors of many kinds
        raise SAELoadError(
            f"{sae_id} of {release} cannot be loaded ({_first_line(problem)}); check the network, "
            "or give a folder of SAEs"
        ) from problem
    if sae.cfg.metadata.neuronpedia_id is None:
        stored = get_pretrained_saes_directory()[release].neuronpedia_id
        sae.cfg.metadata.neuronpedia_id = stored.get(sae_id)
    _check_finite(sae, f"{sae_id} of {release}")
    return sae


def _twice(layers: Sequence[SAELayer]) -> str:
    labels = [layer.label for layer in layers]
    return next(label for label in labels if labels.count(label) > 1)


def _check_finite(sae: SAE[Any], name: str) -> None:
    for parameter, values in sae.state_dict().items():
        if not torch.isfinite(values).all():
            raise SAELoadError(f"{name}: {parameter} holds NaN or infinity; get the weights again")


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip() or type(problem).__name__
    return text.splitlines()[0][:200]
