"""Finding SAEs: in a folder, in a release of sae-lens, or in a repository on the hub.

A folder holds one sub-folder per SAE, with `cfg.json` and `sae_weights.safetensors`; it is read
here. The others are in `hub_saes`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sae_lens import SAE

from sae_graphs.errors import SAELoadError, quoted
from sae_graphs.model.sae_setup import check_declared, ready
from sae_graphs.model.saes import RoomFor, SAEStack, stack_of
from sae_graphs.model.shelf import SAESource
from sae_graphs.model.stream import StreamPoint, ends, labels_of
from sae_graphs.pretrained.hub_saes import find_hub_saes
from sae_graphs.pretrained.releases import ListedSAE, release_names
from sae_graphs.pretrained.sae_pattern import choose
from sae_graphs.pretrained.sizes import size_of_tensors, tensor_sizes

WEIGHTS = "sae_weights.safetensors"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def find_saes(
    source: str | Path,
    pattern: str | None = None,
    layers: tuple[str, str] | None = None,
    *,
    device: str,
    dtype: str,
) -> tuple[str, list[SAESource]]:
    """What the stack is called, and its SAEs. None is read yet; sizes come from files' headers.

    `pattern` chooses where there are several a layer (see `sae_pattern`), `layers` the first and
    the last by label. Raises `SAELoadError` where the source is nothing of the kind, or holds no
    SAEs on the residual stream.
    """
    name, found = _found(source, pattern, device, dtype)
    points = [at.point for at in found]
    if layers is None or None in points:
        return name, found  # those whose place is not known yet are chosen from once it is
    found.sort(key=lambda at: at.point.depth if at.point else 0)
    labels = labels_of([(at.point, at.neuronpedia_id) for at in found if at.point is not None])
    named = [replace(at, label=label) for at, label in zip(found, labels, strict=True)]
    start, end = ends(labels, *layers, name)
    return name, named[start:end]


def _found(
    source: str | Path, pattern: str | None, device: str, dtype: str
) -> tuple[str, list[SAESource]]:
    folder = Path(source)
    if folder.is_dir():
        chosen = _in_folder(folder, pattern, device, dtype)
        return str(source) if pattern is None else f"{source}/{pattern}", chosen
    if folder.exists():
        raise SAELoadError(f"{source} is a file; expected a folder with one sub-folder per SAE")
    names = release_names()
    if str(source) in names or _REPOSITORY.fullmatch(str(source)):
        return find_hub_saes(str(source), pattern, device=device, dtype=dtype)
    near = difflib.get_close_matches(str(source), names, n=3) or ["gpt2-small-res-jb"]
    raise SAELoadError(
        f"no folder and no sae-lens release is called {str(source)!r}; expected a folder with one "
        f"sub-folder per SAE, a release such as {quoted(near)} (`sae-graphs models` lists them), "
        "or a repository on the hub, owner/name"
    )


def _in_folder(folder: Path, pattern: str | None, device: str, dtype: str) -> list[SAESource]:
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
    chosen = choose(
        [ListedSAE(part.name, part.name, *_place(part)) for part in parts],
        pattern,
        str(folder),
    )
    return [
        SAESource(
            name=str(folder / sae.path),
            load=partial(_load_part, folder / sae.path, device, dtype),
            folder=folder / sae.path,
            size=size_of_tensors(tensor_sizes([folder / sae.path / WEIGHTS], dtype)),
            point=sae.point,
            neuronpedia_id=sae.neuronpedia_id,
        )
        for sae in chosen
    ]


def _place(part: Path) -> tuple[StreamPoint | None, str | None]:
    """Where the SAE of a sub-folder stands, and its Neuronpedia id, by its configuration."""
    try:
        cfg: dict[str, Any] = json.loads((part / "cfg.json").read_text(encoding="utf-8"))
        about = {**cfg, **cfg.get("metadata", {})}
        point = StreamPoint.parse(about.get("hook_name") or about.get("hook_point"))
    except (OSError, ValueError, TypeError, AttributeError, SAELoadError):
        return None, None  # loading it says what is wrong
    known = about.get("neuronpedia_id")
    return point, known if isinstance(known, str) else None


def _pickles(parts: Sequence[Path]) -> list[str]:
    return [f.name for part in parts for f in part.iterdir() if f.suffix in (".pt", ".pth", ".pkl")]


def _load_part(part: Path, device: str, dtype: str) -> SAE[Any]:
    for name in ("cfg.json", WEIGHTS):
        if not (part / name).is_file():
            pickles = _pickles([part])
            hint = f" (pickles such as {pickles[0]} are never opened)" if pickles else ""
            raise SAELoadError(f"{part} has no {name}{hint}; save the SAE with sae-lens 6")
    check_declared(part / "cfg.json", str(part))
    return ready(lambda: SAE.load_from_disk(part, device=device, dtype=dtype), str(part))


def load_stack(
    source: str | Path,
    pattern: str | None = None,
    layers: tuple[str, str] | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    name: str | None = None,
    room_for: RoomFor | None = None,
) -> SAEStack:
    """Load SAEs from a folder (one sub-folder an SAE), a sae-lens release or a hub's repository.

    `pattern` chooses where there are several a layer (see `sae_pattern`), `layers` the first and
    the last by label. `name` is what the stack is called, by default its source. `room_for` says
    how many bytes loaded SAEs may take, given the sizes known so far; SAEs that do not fit are
    read again when they are needed, and two always stay. Without it all stay.

    Raises `SAELoadError` naming the folder or SAE at fault. Every SAE is read once and checked
    here: weights must be finite. No file is ever run: a release that comes as pickles is read by
    torch's reader of weights alone.
    """
    found, sources = find_saes(source, pattern, layers, device=device, dtype=dtype)
    return stack_of(sources, layers, name=name or found, room_for=room_for)
