"""Files of tensors, one for each SAE, that lie beside its weights: where, whole, and whose.

Letters: `F` features of the SAE.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.saes import SAELayer

AGAIN = "build it again with `sae-graphs contexts`"


def file_beside(model: InstrumentedModel, layer: SAELayer, name: str) -> Path:
    """Where a layer's file lies: beside its weights, or in the user's cache for a release."""
    if layer.folder is not None:
        return layer.folder / name
    hook, stack = layer.point.hook_name, model.stack.name
    one = layer.source.name.removesuffix(f" of {stack}")  # a release may have several at a hook
    names = (model.name, stack, hook if one == stack else one)
    plain = (re.sub(r"[^\w.-]+", "_", part).strip("_.") or "_" for part in names)
    return cache_folder("contexts").joinpath(*plain, name)


def cache_folder(name: str) -> Path:
    """A folder of the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sae_graphs" / name


@contextmanager
def opened(
    file: Path, layer: SAELayer, schema: str, one_each: str, *, weights: bool = True
) -> Iterator[Any]:
    """A layer's file, if it is whole and this SAE's; all reading is to be done within.

    `one_each` names a tensor `[F, ...]`; `weights` says whether these are compared, which loads
    the SAE. Raises `SaeGraphsError`, and makes one of what is raised within.
    """
    try:
        with safe_open(file, framework="pt") as store:
            about = store.metadata() or {}
            if (about.get("schema"), about.get("hook")) != (schema, layer.point.hook_name):
                raise SaeGraphsError(
                    f"{file} was made for {about.get('hook')!r} in format "
                    f"{about.get('schema')!r}; {AGAIN}"
                )
            held = store.get_slice(one_each).get_shape()[0]
            if held != layer.n_features:
                raise SaeGraphsError(
                    f"{file} holds {held} features, the SAE has {layer.n_features}; {AGAIN}"
                )
            made_for = about.get("sae")
            if weights and "" not in (mine := fingerprint(layer), made_for) and mine != made_for:
                raise SaeGraphsError(f"{file} was made for other weights of this SAE; {AGAIN}")
            yield store
    except (SafetensorError, OSError, KeyError, ValueError) as problem:
        raise SaeGraphsError(f"{file} is damaged ({problem}); {AGAIN}") from problem


def write_tensors(
    file: Path,
    layer: SAELayer,
    schema: str,
    tensors: Mapping[str, Tensor],
    about: Mapping[str, str],
) -> None:
    """A layer's file, in one step; the same tensors give the same bytes. Raises `OSError`."""
    whole = {"schema": schema, "hook": layer.point.hook_name, "sae": fingerprint(layer), **about}
    write_atomically(file, _in_order(safetensors_bytes(dict(tensors), metadata=whole)))


def fingerprint(layer: SAELayer) -> str:
    """A few letters that tell SAEs apart by their weights; none where these are rounded."""
    if layer.dtype != torch.float32:
        return ""
    column = layer.sae.W_dec.detach()[:, 0].cpu().contiguous()
    return hashlib.sha256(column.numpy().tobytes()).hexdigest()[:16]


def _in_order(data: bytes) -> bytes:
    """A safetensors file whose header is in order: the library's differs from time to time."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[start:]
