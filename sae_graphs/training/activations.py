"""The first stage: the model is run over all rows, and its streams are kept on the disk.

Each file is of some rows, and made by whichever process comes first: the same command, started
twice, shares the work. A run that is stopped loses the file that it was at, and no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sae_graphs.files import locked
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.stream import StreamPoint
from sae_graphs.training.plan import SHARD_ROWS
from sae_graphs.training.rows import Rows
from sae_graphs.training.store import shard_file, write_shard

ROWS_AT_ONCE = 8
PATIENCE = 5.0  # seconds between looks at what another process makes


def n_shards(rows: Rows) -> int:
    """The files that the rows' activations fill."""
    return len(rows.ids) // SHARD_ROWS


def missing_shards(folder: Path, count: int) -> list[int]:
    """The numbers of those that are not there yet."""
    return [number for number in range(count) if not shard_file(folder, number).is_file()]


def make_shards(
    model: LanguageModel,
    rows: Rows,
    points: Sequence[StreamPoint],
    folder: Path,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make all that are missing; `told` hears the rows done, by anyone, and all of them."""
    from filelock import Timeout

    folder.mkdir(parents=True, exist_ok=True)
    count = n_shards(rows)
    while missing := missing_shards(folder, count):
        made = 0
        for number in missing:
            file = shard_file(folder, number)
            try:
                with locked(file.with_suffix(".lock"), wait=False):
                    if not file.is_file():  # since we looked
                        some = rows.ids[number * SHARD_ROWS :][:SHARD_ROWS]
                        write_shard(file, streams_of(model, some, points))
                        made += 1
            except Timeout:  # another process is at it
                continue
            done = count - len(missing_shards(folder, count))
            told(done * SHARD_ROWS, count * SHARD_ROWS)
        if not made:
            time.sleep(PATIENCE)
    told(count * SHARD_ROWS, count * SHARD_ROWS)


@torch.no_grad()
def streams_of(
    model: LanguageModel, ids: Tensor, points: Sequence[StreamPoint]
) -> dict[str, Tensor]:
    """The streams `[B, T, D]` of rows `[B, T]` at some places, by hook name."""
    device = next(model.model.parameters()).device
    parts = [model.streams_at(some.to(device), points) for some in ids.split(ROWS_AT_ONCE)]
    return {
        point.hook_name: torch.cat([part[number].cpu() for part in parts])
        for number, point in enumerate(points)
    }
