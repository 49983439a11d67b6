"""Finding SAEs in a folder or a sae-lens release, and reading them: safetensors only.

A folder holds one sub-folder per SAE, with `cfg.json` and `sae_weights.safetensors`.
"""

from __future__ import annotations

import difflib
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sae_lens import SAE

from sae_graphs.errors import SAELoadError, quoted
from sae_graphs.headers import tensor_sizes
from sae_graphs.memory import SAESize
from sae_graphs.shelf import SAESource
from sae_graphs.stream import HOOK

WEIGHTS = "sae_weights.safetensors"
CHECKED_VALUES = 2**20  # at once, so that the check takes next to no memory


def find_saes(source: str | Path, *, device: str, dtype: str) -> list[SAESource]:
    """The SAEs of a folder or release. None is read yet; sizes come from the files' headers.

    Raises `SAELoadError` where the source is neither, or holds no SAEs on the residual stream.
    """
    check_source(source)
    folder = Path(source)
    if folder.is_dir():
        return _in_folder(folder, device, dtype)
    return _in_release(str(source), device, dtype)


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


def check_finite(sae: SAE[Any], name: str) -> None:
    """Raise `SAELoadError` where a weight is NaN or infinite."""
    for parameter, values in sae.state_dict().items():
        for some in values.flatten().split(CHECKED_VALUES):
            if not torch.isfinite(some).all():
                raise SAELoadError(
                    f"{name}: {parameter} holds NaN or infinity; get the weights again"
                )


# -- folders ---------------------------------------------------------------------------------------


def _in_folder(folder: Path, device: str, dtype: str) -> list[SAESource]:
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
            f"{folder} holds no SAEs; expected one sub-folder per SAE with cfg.json and {WEIGHTS}"
        )
    return [
        SAESource(
            name=str(part),
            load=partial(_load_part, part, device, dtype),
            folder=part,
            size=_size_of_file(part / WEIGHTS, dtype),
        )
        for part in parts
    ]


def _pickles(parts: Sequence[Path]) -> list[str]:
    return [f.name for part in parts for f in part.iterdir() if f.suffix in (".pt", ".pth", ".pkl")]


def _size_of_file(file: Path, dtype: str) -> SAESize | None:
    tensors = tensor_sizes([file], dtype)
    if tensors is None:
        return None
    sizes = tensors.values()
    converts = any(size.converts for size in sizes)  # the whole file is open until it is read
    return SAESize(
        held=sum(size.loaded for size in sizes),
        loading=sum(size.stored for size in sizes) if converts else 0,
    )


def _load_part(part: Path, device: str, dtype: str) -> SAE[Any]:
    for name in ("cfg.json", WEIGHTS):
        if not (part / name).is_file():
            pickles = _pickles([part])
            hint = f" (pickles such as {pickles[0]} are never opened)" if pickles else ""
            raise SAELoadError(f"{part} has no {name}{hint}; save the SAE with sae-lens 6")
    try:
        return _ready(lambda: SAE.load_from_disk(part, device=device, dtype=dtype))
    except Exception as problem:  # sae-lens and safetensors raise many kinds here
        raise SAELoadError(
            f"{part} cannot be loaded ({_first_line(problem)}); save the SAE again with sae-lens"
        ) from problem


# -- releases --------------------------------------------------------------------------------------


def _in_release(release: str, device: str, dtype: str) -> list[SAESource]:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    entry = get_pretrained_saes_directory()[release]
    ids = [sae_id for sae_id in entry.saes_map if HOOK.fullmatch(sae_id)]
    if not ids:
        raise SAELoadError(
            f"{release} does not name its SAEs by residual hook ({quoted(entry.saes_map)}); "
            "download the ones you want into a folder, one sub-folder per SAE"
        )
    return [
        SAESource(
            name=f"{sae_id} of {release}",
            load=partial(_download, release, sae_id, device, dtype),
            size=_size_if_downloaded(entry.repo_id, entry.saes_map[sae_id], dtype),
        )
        for sae_id in ids
    ]


def _size_if_downloaded(repo_id: str, path: str, dtype: str) -> SAESize | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id, f"{path}/{WEIGHTS}")
    return _size_of_file(Path(found), dtype) if isinstance(found, str) else None


def _download(release: str, sae_id: str, device: str, dtype: str) -> SAE[Any]:
    """From the hub, or from its local cache where it has been downloaded before."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    try:
        sae = _ready(lambda: SAE.from_pretrained(release, sae_id, device=device, dtype=dtype))
    except Exception as problem:  # network, hub and format errors of many kinds
        raise SAELoadError(
            f"{sae_id} of {release} cannot be loaded ({_first_line(problem)}); check the network, "
            "or give a folder of SAEs"
        ) from problem
    if sae.cfg.metadata.neuronpedia_id is None:
        stored = get_pretrained_saes_directory()[release].neuronpedia_id
        sae.cfg.metadata.neuronpedia_id = stored.get(sae_id)
    return sae


def _ready(load: Callable[[], SAE[Any]]) -> SAE[Any]:
    """Load without gradients and without sae-lens's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae = load()
    sae.requires_grad_(False).eval()
    normalise_without_cycle(sae)
    return sae


def normalise_without_cycle(sae: SAE[Any]) -> None:
    """Let the SAE's normalisation refer to the SAE weakly.

    sae-lens stores functions on the SAE that hold the SAE itself, so that it would outlive its
    last user until the garbage collector runs.
    """
    type(sae)._setup_activation_normalization(weakref.proxy(sae))


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip() or type(problem).__name__
    return text.splitlines()[0][:200]
