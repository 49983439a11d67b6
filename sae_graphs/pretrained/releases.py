"""Releases of SAEs: what sae-lens's own directory, or a repository's files, say of them.

A release is listed without reading a single weight: where an SAE stands on the residual stream is
told by its name, and checked against its own metadata once it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sae_graphs.model.stream import HOOK, StreamPoint

_SCOPE_2 = "layer_{layer}_width_16k_l0_big"  # closest to the mean L0 of 100 of Gemma Scope's own


class DefaultSAEs(NamedTuple):
    """A release of sae-lens, and which SAE of each layer."""

    release: str
    pattern: str | None = None


# By the last part of the model's name, lower case.
DEFAULTS: dict[str, DefaultSAEs] = {
    "gpt2": DefaultSAEs("gpt2-small-res-jb"),
    "gpt2-small": DefaultSAEs("gpt2-small-res-jb"),
    "pythia-70m-deduped": DefaultSAEs("pythia-70m-deduped-res-sm"),
    "gemma-2-2b": DefaultSAEs(
        "gemma-scope-2b-pt-res-canonical", "layer_{layer}/width_16k/canonical"
    ),
    "gemma-2-9b": DefaultSAEs(
        "gemma-scope-9b-pt-res-canonical", "layer_{layer}/width_16k/canonical"
    ),
    "gemma-3-270m": DefaultSAEs("gemma-scope-2-270m-pt-res-all", _SCOPE_2),
    "gemma-3-270m-it": DefaultSAEs("gemma-scope-2-270m-it-res-all", _SCOPE_2),
    "gemma-3-1b-pt": DefaultSAEs("gemma-scope-2-1b-pt-res-all", _SCOPE_2),
    "gemma-3-1b-it": DefaultSAEs("gemma-scope-2-1b-it-res-all", _SCOPE_2),
    "gemma-3-4b-pt": DefaultSAEs("gemma-scope-2-4b-pt-res-all", _SCOPE_2),
    "gemma-3-4b-it": DefaultSAEs("gemma-scope-2-4b-it-res-all", _SCOPE_2),
    "gemma-3-12b-pt": DefaultSAEs("gemma-scope-2-12b-pt-res-all", _SCOPE_2),
    "gemma-3-12b-it": DefaultSAEs("gemma-scope-2-12b-it-res-all", _SCOPE_2),
    "gemma-3-27b-pt": DefaultSAEs("gemma-scope-2-27b-pt-res-all", _SCOPE_2),
    "gemma-3-27b-it": DefaultSAEs("gemma-scope-2-27b-it-res-all", _SCOPE_2),
    "llama-3.1-8b": DefaultSAEs("llama_scope_lxr_8x"),
    "deepseek-r1-distill-llama-8b": DefaultSAEs(
        "llama_scope_r1_distill", "l{layer}r_800m_slimpajama"
    ),
    "qwen3-1.7b-base": DefaultSAEs("qwen-scope-3-1.7b-base-w32k-l50"),
    "qwen3-8b-base": DefaultSAEs("qwen-scope-3-8b-base-w64k-l50"),
}


LAYER = re.compile(r"(?:(?<=blocks\.)|(?<=layer_)|(?<=layer)|(?<=layers\.)|(?<=^l))\d+")
_RESIDUAL_WORD = re.compile(r"(^|[-_])res([-_]|$)|LXR|resid_post", re.IGNORECASE)
_RESIDUAL_ID = re.compile(r"l\d+r(_|$)")

# The files of an SAE in its repository, by sae-lens's name for their format; `{path}` is the SAE's
# path there. A format that is not named here has all files below the path.
_FILES: dict[str, tuple[str, ...]] = {
    "sae_lens": ("{path}/cfg.json", "{path}/sae_weights.safetensors"),
    "gemma_2": ("{path}/params.npz",),
    "gemma_3": ("{path}/params.safetensors",),
    "llama_scope": ("{path}/hyperparams.json", "{path}/checkpoints/final.safetensors"),
    "llama_scope_r1_distill": ("{path}/config.json", "{path}/sae_weights.safetensors"),
    "dictionary_learning_1": ("{path}/config.json", "{path}/ae.pt"),
    "qwen_scope": ("{path}",),
    "deepseek_r1": ("{path}",),
    "goodfire": ("{path}",),
    "sparsify": ("{path}/cfg.json", "{path}/sae.safetensors"),
}
# Where the directory is wrong: Pythia's embedding SAE has the id of an attention SAE there, and its
# own path is the name that its siblings have on Neuronpedia.
_ERRATA = {"pythia-70m-deduped/e-att-sm": "pythia-70m-deduped/e-res-sm"}
_OPTIONAL = {"gemma_3": ("{path}/config.json",)}


@dataclass(frozen=True)
class ListedSAE:
    """An SAE of a release: its id, its path in the repository, and where it stands.

    `point` is None where its name does not tell, or tells that it is not on the residual stream.
    """

    sae_id: str
    path: str
    point: StreamPoint | None
    neuronpedia_id: str | None = None

    @property
    def depth(self) -> int | None:
        """How deep in the stream it stands; None where that is not known."""
        return None if self.point is None else self.point.depth

    @property
    def pattern(self) -> str:
        """The id with `{layer}` for its layer, and a choice of `{l0:...}` for a mean L0."""
        text = LAYER.sub("{layer}", self.sae_id, count=1)
        return re.sub(r"(?<=average_l0_)\d+", "{l0:70}", text)


@dataclass(frozen=True)
class Release:
    """SAEs that were published together, for one model.

    `model` is as sae-lens calls it; `format` is how the files are laid out (`sae_lens`, `gemma_2`,
    ...). A repository that sae-lens does not list is a release of its own name.
    """

    name: str
    model: str | None
    repo_id: str
    format: str
    saes: tuple[ListedSAE, ...]

    @property
    def residual(self) -> tuple[ListedSAE, ...]:
        """Those on the residual stream, by depth."""
        return tuple(
            sorted((sae for sae in self.saes if sae.point is not None), key=lambda s: s.depth or 0)
        )

    @property
    def has_known_files(self) -> bool:
        """Whether the format says which files belong to an SAE."""
        return self.format in _FILES

    def files(self, sae: ListedSAE, listed: Iterable[str] = ()) -> tuple[str, ...]:
        """The files that an SAE needs, of those `listed` where the format does not say."""
        if self.format not in _FILES:
            return tuple(
                name for name in listed if name == sae.path or name.startswith(f"{sae.path}/")
            )
        return tuple(name.format(path=sae.path) for name in _FILES[self.format])

    def optional_files(self, sae: ListedSAE) -> tuple[str, ...]:
        """Files that are read where the repository has them."""
        return tuple(name.format(path=sae.path) for name in _OPTIONAL.get(self.format, ()))


def release_named(name: str) -> Release | None:
    """The release of that name in sae-lens's directory; None where there is none."""
    entry = _directory().get(name)
    return None if entry is None else _release(entry)


def release_names() -> tuple[str, ...]:
    """The names of all releases in sae-lens's directory."""
    return tuple(_directory())


@cache  # as the directory is, within sae-lens
def all_releases() -> tuple[Release, ...]:
    """Every release in sae-lens's directory, by name."""
    return tuple(_release(entry) for _, entry in sorted(_directory().items()))


def releases_in(repo_id: str) -> tuple[str, ...]:
    """The names of the listed releases that lie in a repository."""
    return tuple(name for name, entry in _directory().items() if entry.repo_id == repo_id)


def release_of_repository(repo_id: str, files: Iterable[str]) -> Release:
    """A repository that sae-lens does not list: each folder with `cfg.json` is an SAE.

    Where an SAE stands is told by its folder's name where that names a layer; else the SAE's own
    metadata will.
    """
    folders = sorted(name.rpartition("/")[0] for name in files if name.endswith("/cfg.json"))
    saes = tuple(ListedSAE(folder, folder, _point(folder, folder, repo_id)) for folder in folders)
    return Release(repo_id, None, repo_id, "sae_lens", saes)


def _directory() -> dict[str, Any]:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    found: dict[str, Any] = get_pretrained_saes_directory()
    return found


def _release(entry: Any) -> Release:
    names = f"{entry.release} {entry.repo_id.rpartition('/')[2]}"
    saes = []
    for sae_id, path in entry.saes_map.items():
        point = _point(sae_id, path, names)
        known = entry.neuronpedia_id.get(sae_id)
        known = known if point is None else _ERRATA.get(known, known)
        saes.append(ListedSAE(sae_id, path, point, known if _fits(known, point) else None))
    return Release(
        entry.release, entry.model, entry.repo_id, entry.conversion_func or "sae_lens", tuple(saes)
    )


def _fits(neuronpedia_id: str | None, point: StreamPoint | None) -> bool:
    """Whether an id names the layer where the SAE stands: the directory has some that do not.

    An SAE after a block may be called by that block, or by the next.
    """
    layer = (neuronpedia_id or "").rpartition("/")[2].partition("-")[0]
    if point is None or not layer.isdigit():
        return True
    return int(layer) in (point.block, point.block + (point.site == "post"))


def _point(sae_id: str, path: str, names: str) -> StreamPoint | None:
    """Where on the residual stream an SAE stands, by the names it is known under."""
    hook = HOOK.search(sae_id) or HOOK.search(path)
    if hook is not None:
        return StreamPoint.parse(hook[0])
    layer = LAYER.search(sae_id)
    if layer is None or "hook_" in sae_id:
        return None
    residual = any(_RESIDUAL_WORD.search(name) for name in (sae_id, path, *names.split()))
    if residual or _RESIDUAL_ID.match(sae_id):
        return StreamPoint(int(layer[0]), "post")
    return None


def default_saes(model: str) -> DefaultSAEs | None:
    """The default for a model's name; None where there is none."""
    return DEFAULTS.get(model.rpartition("/")[2].lower())
