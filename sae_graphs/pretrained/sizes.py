"""How large weights are, from the headers of safetensors files alone.

No weights are read, and torch is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from sae_graphs.model.memory import MIB, SAESize

JOINT_PROJECTION = re.compile(r"c_attn\.|query_key_value|qkv", re.IGNORECASE)
BUFFERS = 64 * MIB  # attention masks and rotary tensors, which no file holds


ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_STORED = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}


class TensorSize(NamedTuple):
    """Bytes that a tensor takes: `stored` in its file, `loaded` in the precision asked for.

    `converts` says whether the two precisions differ.
    """

    stored: int
    loaded: int
    converts: bool


class StoredTensor(NamedTuple):
    """A tensor in a file: `kind` is its precision as safetensors calls it, such as `F32`."""

    name: str
    kind: str
    shape: tuple[int, ...]
    stored: int


def tensor_sizes(files: Iterable[Path], dtype: str) -> dict[str, TensorSize] | None:
    """Sizes of the tensors in some safetensors files; None where a file is missing or damaged."""
    try:
        return sizes_of([tensor for file in files for tensor in tensors_in(file)], dtype)
    except (OSError, SafetensorError):
        return None  # whoever loads the file says what is wrong with it


def sizes_of(tensors: Iterable[StoredTensor], dtype: str) -> dict[str, TensorSize]:
    """Sizes of tensors: floating-point ones are loaded as `dtype`, others as they are."""
    sizes: dict[str, TensorSize] = {}
    for name, kind, shape, stored in tensors:
        is_float = kind.startswith(("F", "BF"))
        loaded = prod(shape) * ITEM_BYTES[dtype] if is_float else stored
        sizes[name] = TensorSize(stored, loaded, is_float and kind != _STORED[dtype])
    return sizes


def tensors_in(file: Path) -> Iterator[StoredTensor]:
    """The tensors of a safetensors file."""
    with safe_open(file, framework="np") as opened:
        for name in opened.keys():  # noqa: SIM118
            header = opened.get_slice(name)
            kind, shape = str(header.get_dtype()), tuple(header.get_shape())
            bits = re.search(r"\d+", kind)  # of F8_E4M3, 8; a BOOL is a byte
            n_bits = prod(shape) * int(bits[0] if bits else 8)
            yield StoredTensor(name, kind, shape, -(-n_bits // 8))


def size_of_tensors(tensors: Mapping[str, TensorSize] | None) -> SAESize | None:
    """What an SAE takes whose weights are these."""
    if not tensors:
        return None
    sizes = tensors.values()
    converts = any(size.converts for size in sizes)  # the whole file is open until it is read
    return SAESize(
        held=sum(size.loaded for size in sizes),
        loading=sum(size.stored for size in sizes) if converts else 0,
    )


def size_of_files(
    tensors: Sequence[StoredTensor], dtype: str, *, tied: bool | None = True
) -> int | None:
    """What a model takes whose files hold these tensors; None where there are none.

    `tied` says whether the unembedding is the embedding; where that is None, it may be.
    """
    if not tensors:
        return None
    sizes = sizes_of(tensors, dtype)
    weights = sum(size.loaded for size in sizes.values())
    split = sum(size.loaded for name, size in sizes.items() if JOINT_PROJECTION.search(name))
    largest = max(size.loaded for size in sizes.values())
    return _whole(weights + split, 0 if tied is False else largest)


def size_of_loaded(bridge: Any) -> int:
    """What a loaded model takes once its weights are processed."""
    tensors = [*bridge.parameters(), *bridge.buffers()]
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return _whole(sum(sizes.values()), max(sizes.values()))


def _whole(weights: int, untied: int) -> int:
    return weights + weights // 50 + untied + BUFFERS  # a fiftieth: biases that processing adds
