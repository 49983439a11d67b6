"""Effects of one layer pair as named tensors, in safetensors files that are written in one step.

The tensors of the layer at depth 3 are `3.sources`, `3.targets`, `3.values`, where positions are
resolved `3.source_positions` and `3.target_positions`, and `3.blocks`: how many effects each block
that was measured holds. In the same blocks, sums come out the same to the last digit.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from sae_graphs.effects.arrays import NOWHERE, Effects
from sae_graphs.errors import GraphFileError
from sae_graphs.files import write_atomically

INDICES = ("sources", "source_positions", "targets", "target_positions")
_POSITIONS = ("source_positions", "target_positions")
_LIMIT = np.iinfo(np.int32).max

Tensors = Mapping[str, NDArray[Any]]


def layer_tensors(depth: int, blocks: Sequence[Effects]) -> dict[str, NDArray[Any]]:
    """All that was measured of one layer pair, by name."""
    tensors: dict[str, NDArray[Any]] = {
        f"{depth}.blocks": np.array([len(block) for block in blocks], dtype=np.int64)
    }
    if blocks:
        resolved = any((block.source_positions != NOWHERE).any() for block in blocks)
        for name, column in Effects.joined(blocks).arrays.items():
            if resolved or name not in _POSITIONS:
                tensors[f"{depth}.{name}"] = np.ascontiguousarray(column)
    return tensors


def write_tensors(file: Path, tensors: Tensors, about: Mapping[str, str]) -> None:
    """A safetensors file, whole or not there at all. Raises `OSError`."""
    write_atomically(file, safetensors_bytes(dict(tensors), metadata=dict(about)))


def about_file(file: Path) -> Mapping[str, str]:
    """What a safetensors file says of itself; raises `GraphFileError` where it is damaged."""
    with opened(file) as held:
        return held.metadata() or {}


class opened:
    """A safetensors file for reading; what is wrong with it becomes a `GraphFileError`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Any:
        try:
            self._held = safe_open(self._file, framework="np")
            return self._held.__enter__()
        except (SafetensorError, OSError) as problem:
            raise damaged(self._file, problem) from problem

    def __exit__(self, kind: Any, problem: Any, trace: Any) -> None:
        self._held.__exit__(kind, problem, trace)
        if isinstance(problem, SafetensorError | OSError | KeyError | ValueError | TypeError):
            raise damaged(self._file, problem) from problem


def damaged(file: Path, problem: object) -> GraphFileError:
    """The error that says so."""
    return GraphFileError(f"{file} is damaged ({problem}); make the graph again")


def read_layer(file: Path, depth: int, widths: tuple[int, int] | None = None) -> Iterator[Effects]:
    """The blocks of one layer pair as they were measured.

    `widths` are the numbers of features of its sources and targets, where they are known. Raises
    `GraphFileError` where the file is damaged.
    """
    with opened(file) as held:
        sizes = held.get_tensor(f"{depth}.blocks")
        if len(sizes) == 0:
            return
        values = held.get_tensor(f"{depth}.values")
        names = set(held.keys())
        columns = {
            name: held.get_tensor(f"{depth}.{name}")
            if f"{depth}.{name}" in names or name not in _POSITIONS
            else np.full(len(values), NOWHERE, dtype=np.int32)
            for name in INDICES
        }
        _check(columns, values, sizes, widths)
    whole = Effects(depth, **columns, values=values)
    for stop, size in zip(np.cumsum(sizes), sizes, strict=True):
        yield whole.chosen(slice(stop - size, stop))


def _check(
    columns: Tensors,
    values: NDArray[Any],
    sizes: NDArray[Any],
    widths: tuple[int, int] | None,
) -> None:
    if (sizes < 0).any() or sizes.sum() != len(values):
        raise ValueError("its blocks do not add up")
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError("an effect is not a finite number")
    limits = dict(zip(("sources", "targets"), widths or (_LIMIT, _LIMIT), strict=True))
    for name, column in columns.items():
        if column.dtype != np.int32 or column.shape != values.shape:
            raise ValueError(f"its {name} do not fit its values")
        least = NOWHERE if name in _POSITIONS else 0
        if len(column) and not least <= column.min() <= column.max() < limits.get(name, _LIMIT):
            raise ValueError(f"its {name} are outside their layer")


# -- one file from several -------------------------------------------------------------------------


class _Part(NamedTuple):
    file: Path
    header: dict[str, Any]
    start: int  # where the tensors begin
    size: int


def merge_tensors(file: Path, parts: Sequence[Path], about: Mapping[str, str]) -> None:
    """One safetensors file of all tensors in some others, copied one after the other.

    Nothing is held in memory, and the file is there whole or not at all. Raises `OSError`.
    """
    opened_parts = [_part(part) for part in parts]
    header: dict[str, Any] = {"__metadata__": dict(about)}
    offset = 0
    for part in opened_parts:
        for name, tensor in part.header.items():
            begin, end = tensor["data_offsets"]
            header[name] = {**tensor, "data_offsets": [begin + offset, end + offset]}
        offset += part.size
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            for part in opened_parts:
                with part.file.open("rb") as source:
                    source.seek(part.start)
                    shutil.copyfileobj(source, target, 2**20)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _part(file: Path) -> _Part:
    with file.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        header = json.loads(source.read(length))
    header.pop("__metadata__", None)
    return _Part(file, header, 8 + length, file.stat().st_size - 8 - length)
