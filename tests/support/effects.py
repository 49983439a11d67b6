"""Effects for tests, from dense tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sae_graphs.effects.arrays import NOWHERE, Effects


def effects_of(
    depth: int, sources: Sequence[int], dense: Sequence[Sequence[float]], at: int = NOWHERE
) -> Effects:
    """The entries of `[S, F]` that are not 0, for these source features (at position `at`)."""
    table = np.array(dense, dtype=np.float32).reshape(len(sources), -1)
    rows, targets = np.nonzero(np.nan_to_num(table, nan=1.0))
    places = np.full(len(rows), at, dtype=np.int32)
    return Effects(
        depth,
        np.array(sources, dtype=np.int32)[rows],
        places,
        targets.astype(np.int32),
        places,
        table[rows, targets],
    )
