"""The rank-one update of ROME, as a formula of keys, values and a covariance.

    W + (v* - W k*) (C^-1 k*)^T / ((C^-1 k*)^T k*)

Of all changes after which the key gives the value, the one that changes least what W gives for
other keys, in the mean over text whose second moments are C. Meng et al., "Locating and Editing
Factual Associations in GPT" (2022); with one key in both places as in Gupta, Baskaran and
Anumanchipalli, "Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing" (2024).

Letters: `D` d_model, `F` inputs of the projection.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError

SHORT = 1e-3  # of the mean diagonal, added to the diagonal where the rank is short


class Solvable(NamedTuple):
    """A covariance `[F, F]`, float64, and its Cholesky factor; what was done to make it one.

    `condition` is its largest eigenvalue over the smallest, as it is solved.
    """

    matrix: Tensor
    factor: Tensor
    rank: int
    ridge: float
    condition: float
    note: str = ""

    def solve(self, key: Tensor) -> Tensor:
        """C^-1 k for a key `[F]`, in float64."""
        return torch.cholesky_solve(key.double()[:, None], self.factor)[:, 0]


class Update(NamedTuple):
    """What is added to the weights is `right` `[D]` times `left` `[F]`, transposed."""

    right: Tensor
    left: Tensor


def solvable(covariance: Tensor, ridge: float | None) -> Solvable:
    """A covariance `[F, F]` that can be solved: with `ridge` times its mean diagonal added.

    By default nothing is added, unless its rank is short in double precision, as it is where it was
    taken over fewer tokens than it has rows: then a thousandth. Raises `SaeGraphsError` where it
    cannot be solved.
    """
    matrix = covariance.double()
    size, scale = len(matrix), float(matrix.diagonal().mean())
    if not scale > 0:
        raise SaeGraphsError("the covariance is 0; take it over more text, with --text")
    values = torch.linalg.eigvalsh(matrix)
    least = float(values[-1]) * size * torch.finfo(torch.float64).eps
    rank = int((values > least).sum())
    share = ridge if ridge is not None else (SHORT if rank < size else 0.0)
    added = share * scale
    note = ""
    if rank < size:
        note = (
            f"the covariance has rank {rank} of {size}: more text would help; {share:g} of its "
            "mean diagonal was added to the diagonal"
        )
        if share == 0:
            raise SaeGraphsError(
                f"the covariance has rank {rank} of {size} and cannot be solved; give more text, "
                "or a ridge, such as 0.001"
            )
    elif share:
        clean, now = (float((values[-1] + it) / (values[0] + it)) for it in (0.0, added))
        note = (
            f"{share:g} of the covariance's mean diagonal was added to its diagonal: its condition "
            f"number is {now:.2g}, {clean:.2g} without"
        )
    whole = matrix + added * torch.eye(size, dtype=torch.float64, device=matrix.device)
    factor, failed = torch.linalg.cholesky_ex(whole)
    if int(failed) or float(values[0]) + added <= least:
        raise SaeGraphsError(
            f"the covariance cannot be solved with a ridge of {share:g}; give a larger one, such "
            "as 0.001, or more text"
        )
    condition = float((values[-1] + added) / (values[0] + added))
    return Solvable(whole, factor, rank, share, condition, note)


def rank_one(
    covariance: Solvable, key: Tensor, change: Tensor, *, divisor_key: Tensor | None = None
) -> Update:
    """The update after which the key `[F]` gives what it gave plus `change` `[D]`: v* - W k*.

    With a `divisor_key`, as in ROME's first form, that key is divided by, and it is that key that
    gives `change` more.
    """
    solved = covariance.solve(key)  # C^-1 k*
    divisor = float(solved @ (key if divisor_key is None else divisor_key).double())
    if abs(divisor) < torch.finfo(torch.float64).tiny:
        raise SaeGraphsError("the key is 0: this MLP says nothing there; choose another layer")
    return Update(change.double(), solved / divisor)
