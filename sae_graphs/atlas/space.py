"""Prompts as points: by what flows along each edge of their graphs. Torch-free.

Letters: `P` prompts, `E` edges, features summed over tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.atlas.database import Database
from sae_graphs.atlas.recurring import check_count
from sae_graphs.atlas.views import identifier
from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import p_value

EQUAL = 1e-9  # a difference of cosines that is none
_WEIGHTS = """
WITH drawn AS (SELECT prompt_id FROM prompts ORDER BY md5(concat(prompt_id, ?)) LIMIT ?)
SELECT prompt_id, dense_rank() OVER (
        ORDER BY source_layer, source_index, target_layer, target_index) - 1 AS edge,
    sum(strength) AS weight
FROM edges JOIN drawn USING (prompt_id) WHERE source_layer <> 'token'
GROUP BY prompt_id, source_layer, source_index, target_layer, target_index
ORDER BY prompt_id, edge"""


class Separation(NamedTuple):
    """How often a prompt's nearest other prompt is of its own category.

    Nearest by the cosine between the two graphs' edges, weighed by what flows along them; of
    several that are equally near, the share that is of its category. `share` is the mean over the
    `prompts`, `by_chance` the same where categories are dealt out at random among them, and `p` how
    often chance does as well. `left_out` are prompts without edges, or without a category.
    """

    share: float
    by_chance: float
    p: float
    prompts: int
    left_out: int
    by_category: dict[str, float]


def separation(atlas: Database, by: str | None, shuffles: int, most: int, seed: int) -> Separation:
    """See `Separation`; at most so many prompts, drawn at random."""
    from scipy.sparse import csr_array

    for name, number in {"shuffles": shuffles, "most": most}.items():
        check_count(name, number)
    column = atlas.needed_column(by)
    names, points = _points(atlas, most, seed)
    asked = f"SELECT prompt_id, {identifier(column)} AS kind FROM prompts"
    held = atlas.table(asked).set_index("prompt_id")["kind"]
    kinds = held.reindex(names).to_numpy()
    there = np.array([isinstance(kind, str) for kind in kinds], dtype=bool)
    points, kinds = points[there], kinds[there].astype(str)
    if len(set(kinds)) < 2:
        raise SaeGraphsError(f"all prompts are of one {column}; separation needs two at least")
    cosine = (points @ points.T).toarray()  # [P, P]
    np.fill_diagonal(cosine, -np.inf)
    largest = cosine.max(axis=1, keepdims=True)
    nearest = csr_array(cosine >= largest - EQUAL)  # [P, P]
    ties = np.asarray(nearest.sum(axis=1)).ravel()
    same = _alike(nearest, kinds) / ties
    rng = np.random.default_rng(seed)
    controls = [
        float((_alike(nearest, rng.permutation(kinds)) / ties).mean()) for _ in range(shuffles)
    ]
    share = float(same.mean())
    return Separation(
        share,
        float(np.mean(controls)),
        p_value(share, controls),
        len(kinds),
        min(len(held), most) - len(kinds),
        {str(kind): float(same[kinds == kind].mean()) for kind in sorted(set(kinds))},
    )


def _alike(nearest: Any, kinds: NDArray[Any]) -> NDArray[np.float64]:
    """Of each prompt how many of its nearest `[P, P]` are of its category."""
    found = np.zeros(len(kinds))
    for kind in set(kinds):
        own = kinds == kind
        found[own] = (nearest @ own.astype(np.float64))[own]
    return found


def coordinates(atlas: Database, most: int, seed: int) -> Any:
    """The prompts' table with `x` and `y`, by the two largest principal components."""
    import pandas as pd
    from scipy.sparse.linalg import ArpackError, LinearOperator, svds

    check_count("most", most)
    names, points = _points(atlas, most, seed)
    if min(points.shape) < 3:
        raise SaeGraphsError(
            f"{len(names)} prompts with {points.shape[1]} edges; a map needs at least 3 of each"
        )
    mean = np.asarray(points.mean(axis=0)).ravel()  # [E]
    centred = LinearOperator(
        points.shape,
        matvec=lambda v: points @ v.ravel() - mean @ v.ravel(),
        rmatvec=lambda v: points.T @ v.ravel() - mean * v.sum(),
        dtype=np.float64,
    )
    rows = np.asarray((points * points).sum(axis=1)).ravel()
    spread = float(rows.sum() - len(names) * mean @ mean)  # around the mean
    if spread <= EQUAL * len(names):
        raise SaeGraphsError(f"the graphs of all {len(names)} prompts are alike; a map has no axes")
    start = np.random.default_rng(seed).standard_normal(min(points.shape))
    try:
        left, sizes, _ = svds(centred, k=2, v0=start)
    except ArpackError as problem:
        reason = " ".join(str(problem).split())[:120]
        raise SaeGraphsError(f"no map of these prompts can be made: {reason}") from problem
    order = np.argsort(-sizes)
    found = left[:, order] * sizes[order]  # [P, 2]
    found *= np.where(
        found[np.abs(found).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0
    )  # one of two signs
    table = pd.DataFrame({"prompt_id": names, "x": found[:, 0], "y": found[:, 1]})
    columns = ", ".join(map(identifier, ["prompt_id", "prompt", "target", *atlas.categories]))
    return table.merge(atlas.table(f"SELECT {columns} FROM prompts"), on="prompt_id")


def _points(atlas: Database, most: int, seed: int) -> tuple[list[str], Any]:
    """Prompts `[P]` and their edges' weights `[P, E]`, sparse, each row of length 1."""
    from scipy.sparse import csr_array

    found = atlas.table(_WEIGHTS, [str(seed), most])
    names, rows = np.unique(found["prompt_id"].to_numpy(dtype=str), return_inverse=True)
    weights: NDArray[np.float64] = found["weight"].to_numpy(dtype=np.float64)
    lengths = np.sqrt(np.bincount(rows, weights**2, minlength=len(names)))
    scaled = weights / np.where(lengths > 0, lengths, 1.0)[rows]
    edges = found["edge"].to_numpy(dtype=np.int64)
    shape = len(names), int(edges.max(initial=-1)) + 1
    return [str(name) for name in names], csr_array((scaled, (rows, edges)), shape=shape)
