"""Two traces beside each other: a true fact and a hallucinated one, say. Torch-free.

Where both prompts have as many tokens and their subjects and read tokens stand at the same places,
rows are aligned by place, else by roles: means over the first token, the subject's first, middle
and last, what follows it, the rest, and the token that is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import p_value
from sae_graphs.text import shortened, token, visible
from sae_graphs.tracing.reading import restored_runs
from sae_graphs.tracing.records import Trace
from sae_graphs.words import amount
from sae_graphs.words import p_value as p_words

PERMUTATIONS = 2000
ROLES = (
    "before the subject",
    "subject, first",
    "subject, between",
    "subject, last",
    "right after it",
    "further on",
    "read",
)
Shares = NDArray[np.float64]  # [rows, L]


@dataclass(frozen=True, eq=False)
class Difference:
    """What two traces restore, row by row: shares of what was lost, in log-odds.

    `change` is the first minus the second. `similarity` is the correlation of their cells, of rows
    that can differ from the corrupted run; `p` how often rows in another order, their layers
    turned around, are as alike. None where it is undefined.
    """

    names: tuple[str, str]
    sweep: str
    aligned: Literal["place", "role"]
    rows: tuple[str, ...]
    left: Shares
    right: Shares
    similarity: float | None
    p: float | None

    @property
    def change(self) -> Shares:
        """The first minus the second."""
        return self.left - self.right

    @property
    def words(self) -> str:
        """How they were aligned, and how alike they are."""
        how = "by place" if self.aligned == "place" else "by the tokens' roles"
        if self.similarity is None:
            return f"rows aligned {how}; the similarity is undefined"
        return (
            f"rows aligned {how}; correlation of their cells {amount(self.similarity)}, "
            f"p {p_words(self.p)} against rows in another order and layers turned around"
        )


def difference_of(left: Trace, right: Trace, *, sweep: str = "state", seed: int = 0) -> Difference:
    """Where two traces of one model restore alike, and where not.

    Raises `SaeGraphsError` where they have not as many layers, or one lost nothing.
    """
    if left.n_layers != right.n_layers:
        raise SaeGraphsError(
            f"traces of {left.n_layers} and {right.n_layers} layers have no layer in common; give "
            "two of one model"
        )
    both = [restored_runs(trace, sweep).mean(axis=0) for trace in (left, right)]
    names = (_name(left), _name(right))
    if (len(left.tokens), left.subject, left.read) == (
        len(right.tokens),
        right.subject,
        right.read,
    ):
        rows, drawn = _by_place(left, right), both
        aligned: Literal["place", "role"] = "place"
    else:
        parts = [roles(trace) for trace in (left, right)]
        common = [role for role in ROLES if all(role in part for part in parts)]
        drawn = [
            np.stack([shares[part[role]].mean(axis=0) for role in common])
            for shares, part in zip(both, parts, strict=True)
        ]
        rows, aligned = tuple(common), "role"
    similarity, p = _similarity(drawn[0], drawn[1], seed)
    return Difference(names, sweep, aligned, rows, drawn[0], drawn[1], similarity, p)


def roles(trace: Trace) -> dict[str, list[int]]:
    """The positions of each role that the prompt has."""
    first, last = trace.subject[0], trace.subject[-1]
    found: dict[str, list[int]] = {role: [] for role in ROLES}
    for at in range(trace.read + 1):
        if at == trace.read:
            role = "read"
        elif at < first:
            role = "before the subject"
        elif at == last:
            role = "subject, last"
        elif at == first:
            role = "subject, first"
        elif at < last:
            role = "subject, between"
        else:
            role = "right after it" if at == last + 1 else "further on"
        found[role].append(at)
    return {role: places for role, places in found.items() if places}


def _name(trace: Trace) -> str:
    return f"{visible(trace.prompt, space=' ')}"


def _by_place(left: Trace, right: Trace) -> tuple[str, ...]:
    rows = []
    for at, (one, other) in enumerate(zip(left.tokens, right.tokens, strict=True)):
        text = token(one) if one == other else f"{token(one)} | {token(other)}"
        rows.append(shortened(text, 22) + (" *" if at in left.subject else ""))
    return tuple(rows)


def _similarity(left: Shares, right: Shares, seed: int) -> tuple[float | None, float | None]:
    """The correlation of cells, and its p: rows are permuted whole, layers turned around."""
    kept = np.abs(left).max(axis=1) + np.abs(right).max(axis=1) > 0
    left, right = left[kept], right[kept]
    observed = _correlation(left, right)
    if observed is None:
        return None, None
    rng = np.random.default_rng(seed)
    rows, layers = right.shape
    one, other = (each - each.mean() for each in (left, right))
    size = float(np.linalg.norm(one) * np.linalg.norm(other))  # another order does not change it
    drawn = [
        float((one * np.roll(other[rng.permutation(rows)], rng.integers(layers), axis=1)).sum())
        for _ in range(PERMUTATIONS)
    ]
    return observed, p_value(observed, np.array(drawn) / size)


def _correlation(left: Shares, right: Shares) -> float | None:
    if left.size < 3 or not left.std() or not right.std():
        return None
    return float(np.corrcoef(left.ravel(), right.ravel())[0, 1])
