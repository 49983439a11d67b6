"""How large weights are, from the headers of safetensors files alone.

A safetensors file begins with the length of its header and the header itself, JSON: no weights
are read, and torch is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_STORED = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_LONGEST_HEADER = 100_000_000  # bytes, as in the safetensors library


class WeightSizes(NamedTuple):
    """Bytes that weights take: `stored` in their files, `loaded` in the precision asked for.

    `largest` is the largest tensor, loaded; `converts` says whether the two precisions differ.
    """

    stored: int
    loaded: int
    largest: int
    converts: bool


def weight_sizes(files: Iterable[Path], dtype: str) -> WeightSizes | None:
    """Sizes of the tensors in some safetensors files; None where a file is missing or damaged.

    Floating-point tensors are loaded as `dtype`, others as they are.
    """
    stored, loaded = 0, [0]
    converts = False
    try:
        for file in files:
            for kind, shape, n_stored in _tensors(file):
                is_float = kind.startswith(("F", "BF"))
                stored += n_stored
                loaded.append(prod(shape) * ITEM_BYTES[dtype] if is_float else n_stored)
                converts |= is_float and kind != _STORED[dtype]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whoever loads the file says what is wrong with it
    return WeightSizes(stored, sum(loaded), max(loaded), converts)


def _tensors(file: Path) -> Iterator[tuple[str, list[int], int]]:
    """Kind, shape and stored bytes of each tensor."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{file} has no header")
        header: dict[str, Any] = json.loads(opened.read(length))
    for name, about in header.items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            yield about["dtype"], about["shape"], end - begin
