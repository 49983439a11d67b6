"""SAEs of a release or a repository on the hub: which there are, their sizes, loading them.

They are loaded by sae-lens, always from the cache: what is not there is fetched before, by
`fetching`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from sae_lens import SAE

from sae_graphs.errors import HubError, SAELoadError, quoted
from sae_graphs.model.memory import SAESize
from sae_graphs.model.sae_setup import check_declared, ready
from sae_graphs.model.shelf import HubFile, SAESource
from sae_graphs.pretrained.hub import cached, fetch, is_offline, missing, offline
from sae_graphs.pretrained.listing import files_of_repository, remote_tensors
from sae_graphs.pretrained.releases import (
    ListedSAE,
    Release,
    release_named,
    release_of_repository,
    releases_in,
)
from sae_graphs.pretrained.sae_pattern import choose
from sae_graphs.pretrained.sizes import (
    ITEM_BYTES,
    size_of_tensors,
    sizes_of,
    tensor_sizes,
    tensors_in,
)

UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def find_hub_saes(
    source: str, pattern: str | None, *, device: str, dtype: str
) -> tuple[str, list[SAESource]]:
    """The name of the stack and its SAEs, one a layer, by depth.

    `source` is a release of sae-lens or a repository (`owner/name`). Raises `SAELoadError` where
    it holds none on the residual stream, or several a layer and no pattern chooses.
    """
    release = release_named(source) or _repository(source)
    saes = release.residual if release.model is not None else release.saes
    if not saes:
        raise SAELoadError(
            f"{source} holds no SAEs on the residual stream (it holds "
            f"{quoted((sae.sae_id for sae in release.saes), 3)}); `sae-graphs models` lists "
            "releases that do"
        )
    chosen = choose(saes, pattern, source)
    name = release.name if len(chosen) == len(saes) else f"{release.name}/{pattern}"
    known = None if release.has_known_files else _files_of(release, name)
    return name, [_source(release, sae, known, device, dtype) for sae in chosen]


def _repository(repo_id: str) -> Release:
    names = releases_in(repo_id)
    residual = [name for name in names if (found := release_named(name)) and found.residual]
    if len(residual) == 1:
        release = release_named(residual[0])
        assert release is not None
        return release
    if residual:
        raise SAELoadError(
            f"{repo_id} holds several releases of SAEs; name one of {quoted(residual, 12)}"
        )
    what = f"no folder of SAEs is called {repo_id!r}, and on the hub"
    found = release_of_repository(repo_id, files_of_repository(repo_id, what))
    if not found.saes:
        raise SAELoadError(
            f"{repo_id} holds no SAEs; expected folders with cfg.json and sae_weights.safetensors"
        )
    return found


def _files_of(release: Release, name: str) -> dict[str, int]:
    """All files of a repository: where the format does not say which belong to an SAE."""
    return files_of_repository(release.repo_id, f"SAEs {name}")


def _source(
    release: Release, sae: ListedSAE, listed: dict[str, int] | None, device: str, dtype: str
) -> SAESource:
    files = release.files(sae, listed or ())
    return SAESource(
        name=f"{sae.sae_id} of {release.name}",
        load=partial(_load, release, sae, device, dtype),
        size=size_here(release, sae, files, dtype),
        size_here=partial(size_here, release, sae, files, dtype),
        files=tuple(HubFile(release.repo_id, name) for name in files),
        optional=tuple(HubFile(release.repo_id, name) for name in release.optional_files(sae)),
        size_to_fetch=partial(size_to_fetch, release, sae, dtype),
        trained_on=release.model,
        point=sae.point,
        neuronpedia_id=sae.neuronpedia_id,
        width=partial(_width, release, sae),
    )


# -- sizes -----------------------------------------------------------------------------------------


def size_here(
    release: Release, sae: ListedSAE, files: tuple[str, ...], dtype: str
) -> SAESize | None:
    """What an SAE takes, by its files; None where they are not all here."""
    paths = [cached(release.repo_id, name) for name in files]
    if not paths or None in paths:
        return None
    tensors = [path for path in paths if path is not None and path.suffix == ".safetensors"]
    if tensors:
        return size_of_tensors(tensor_sizes(tensors, dtype))
    stored = sum(path.stat().st_size for path in paths if path is not None)
    return _size_by_shape(release, sae, stored, dtype)


def size_to_fetch(
    release: Release, sae: ListedSAE, dtype: str, sizes: dict[str, int]
) -> SAESize | None:
    """What an SAE will take, by the `sizes` of its files on the hub."""
    stored = sum(sizes.values())
    weights = [name for name in sizes if name.endswith(".safetensors")]
    tensors = remote_tensors(release.repo_id, weights)
    if tensors:
        return size_of_tensors(sizes_of(tensors, dtype))
    return _size_by_shape(release, sae, stored, dtype)


def _size_by_shape(release: Release, sae: ListedSAE, stored: int, dtype: str) -> SAESize | None:
    """What an SAE takes whose file does not tell: by its configuration, else taken for float32.

    It is read into float32 and copied once, to be transposed or converted.
    """
    cfg = configuration(release, sae)
    if "d_sae" in cfg:
        numbers = 2 * cfg["d_in"] * cfg["d_sae"] + cfg["d_in"] + 2 * cfg["d_sae"]
    elif stored:
        numbers = stored // ITEM_BYTES["float32"]
    else:
        return None
    held, read = numbers * ITEM_BYTES[dtype], numbers * ITEM_BYTES["float32"]
    return SAESize(held, loading=max(2 * read, read + held) - held)


def configuration(release: Release, sae: ListedSAE) -> dict[str, Any]:
    """An SAE's configuration as sae-lens reads it, from what is here; empty where it is not."""
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    with suppress(Exception), offline(), shapes_from_cache():  # it fails in a dozen ways
        return dict(load_sae_config_from_huggingface(release.name, sae.sae_id))
    return {}


def _width(release: Release, sae: ListedSAE) -> int | None:
    width = configuration(release, sae).get("d_in")
    return width if isinstance(width, int) else None


# -- loading ---------------------------------------------------------------------------------------


def _load(release: Release, sae: ListedSAE, device: str, dtype: str) -> SAE[Any]:
    """From the cache, by sae-lens, which knows each format and each release's overrides."""
    name = f"{sae.sae_id} of {release.name}"
    needed = [HubFile(release.repo_id, file) for file in release.files(sae)]
    fetch(missing(needed), name)  # nothing, where all was fetched before
    if os.environ.get(UNSAFE):
        raise SAELoadError(
            f"{name}: {UNSAFE} is set, with which torch runs code that a file of weights may "
            "hold; unset it"
        )
    for file in needed:
        if file.name.endswith("cfg.json") and (there := cached(file.repo_id, file.name)):
            check_declared(there, name)
    at = cached(needed[-1].repo_id, needed[-1].name)
    with offline(), shapes_from_cache():
        loaded = ready(
            lambda: SAE.from_pretrained(release.name, sae.sae_id, device=device, dtype=dtype),
            name,
            remedy=f"if its file is damaged, remove {at} to fetch it again",
        )
    if release.model is not None:  # else only its own metadata can say
        loaded.cfg.metadata.neuronpedia_id = sae.neuronpedia_id
    return loaded


@contextmanager
def shapes_from_cache() -> Iterator[None]:
    """sae-lens asks the hub for the shapes in Gemma Scope 2's files, each time: read them here."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    asked = loaders.get_safetensors_tensor_shapes

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        path = cached(repo_id, filename)
        if path is None and is_offline():
            raise HubError(f"{filename} of {repo_id} is not here")
        if path is None:
            return asked(repo_id, filename)
        return {tensor.name: list(tensor.shape) for tensor in tensors_in(path)}

    loaders.get_safetensors_tensor_shapes = shapes
    try:
        yield
    finally:
        loaders.get_safetensors_tensor_shapes = asked
