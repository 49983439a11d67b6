"""Activations on the disk: files of half-precision streams, and any of their positions read back.

A file holds the streams of some rows of text at every place that is trained, the first position of
each row left out, and the norms that they had before they were rounded.

Letters: `N` positions, `D` d_model, `L` places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically

LARGEST = 65504.0  # in half precision; what is larger is an outlier that nobody trains on
NORM_SAMPLE = 64  # of so many positions of a file, one has its norm counted for the mean


def shard_file(folder: Path, number: int) -> Path:
    """Where the activations of a shard lie."""
    return folder / f"{number:05d}.safetensors"


def write_shard(file: Path, streams: Mapping[str, Tensor]) -> None:
    """Write streams `[B, T, D]` by hook name, in one step; position 0 is left out."""
    tensors: dict[str, Tensor] = {}
    for name, stream in streams.items():
        kept = stream[:, 1:].flatten(0, 1).float().cpu()  # [N, D]
        tensors[name] = kept.clamp(-LARGEST, LARGEST).half().contiguous()
        tensors[f"{name}.norm"] = kept.norm(dim=-1)
    write_atomically(file, save(tensors))


def read_shard(file: Path) -> dict[str, Tensor]:
    """The streams of a file, `[N, D]` by hook name, in half precision."""
    return {
        name: torch.from_numpy(np.array(_mapped(file, name)))
        for name in sorted(places_in(file) or ())
    }


@dataclass(frozen=True)
class Store:
    """The activations at one place, in some files: any positions of it, in any order.

    Files are mapped into memory, never read as a whole. Positions are numbered through all files,
    those left out not counted.
    """

    hook_name: str
    files: tuple[Path, ...]
    outlier: float

    @cached_property
    def _streams(self) -> list[NDArray[np.float16]]:
        return [_mapped(file, self.hook_name) for file in self.files]

    @cached_property
    def _kept(self) -> NDArray[np.int64]:
        """The numbers of the positions that are trained on, as if the files were one. `[N]`"""
        kept: NDArray[np.int64] = np.flatnonzero(self._all_norms <= self.limit)
        return kept

    @cached_property
    def _all_norms(self) -> NDArray[np.float32]:
        return np.concatenate([_mapped(file, f"{self.hook_name}.norm") for file in self.files])

    @cached_property
    def limit(self) -> float:
        """The norm above which a position is an outlier."""
        return self.outlier * float(np.median(self._all_norms))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(len(some) for some in self._streams)])

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def width(self) -> int:
        """The dimensions of the stream."""
        return int(self._streams[0].shape[1])

    @cached_property
    def left_out(self) -> int:
        """Positions whose norm is an outlier's."""
        return int(self._starts[-1]) - len(self)

    @cached_property
    def mean(self) -> Tensor:
        """The mean of the positions that are kept, `[D]`, in float32, of one in `NORM_SAMPLE`."""
        return self.at(torch.arange(0, len(self), NORM_SAMPLE)).double().mean(0).float()

    @cached_property
    def mean_norm(self) -> float:
        """Their mean norm."""
        return float(self._all_norms[self._kept].astype(np.float64).mean())

    def at(self, numbers: Tensor) -> Tensor:
        """The stream at some positions, `[n, D]`, in float32, in the order they are given."""
        wanted = self._kept[numbers.numpy()]
        shards = np.searchsorted(self._starts, wanted, side="right") - 1
        found = np.empty((len(wanted), self.width), np.float16)
        for shard in np.unique(shards):
            mine = np.flatnonzero(shards == shard)
            found[mine] = self._streams[shard][wanted[mine] - self._starts[shard]]
        return torch.from_numpy(found).float()

    def read_ahead(self) -> None:
        """Have the system read the files in order: in any other, the first reads are slow."""
        for some in self._streams:
            int(np.asarray(some).view(np.uint16)[:, 0].sum(dtype=np.int64))


def open_store(folder: Path, hook_name: str, numbers: Sequence[int], outlier: float) -> Store:
    """The activations at a place in some shards. Raises `SaeGraphsError` where one is damaged."""
    store = Store(hook_name, tuple(shard_file(folder, number) for number in numbers), outlier)
    if len(store) < 1:
        raise SaeGraphsError(f"{folder} holds no activations at {hook_name}")
    return store


def places_in(file: Path) -> set[str] | None:
    """The hook names whose streams a file holds; None where there is no such file."""
    try:
        held = _header(file)[1].keys() - {"__metadata__"}
        return {name for name in held if not name.endswith(".norm")}
    except (OSError, ValueError):
        return None


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and what it says of each."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        return 8 + size, json.loads(opened.read(size))


def _mapped(file: Path, name: str) -> NDArray[Any]:
    """A tensor of a safetensors file, mapped into memory."""
    kinds: dict[str, type] = {"F16": np.float16, "F32": np.float32}
    try:
        start, held = _header(file)
        about = held[name]
        return np.memmap(
            file,
            dtype=kinds[about["dtype"]],
            mode="r",
            offset=start + about["data_offsets"][0],
            shape=tuple(about["shape"]),
        )
    except (OSError, ValueError, KeyError) as problem:
        raise SaeGraphsError(
            f"{file} is damaged or lacks {name} ({problem}); remove it, and run the same again"
        ) from problem
