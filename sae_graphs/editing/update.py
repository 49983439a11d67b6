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
    """A covariance `[F, F]`, float64, that can be solved, and what was done to make it so."""

    matrix: Tensor
    rank: int
    ridge: float
    note: str = ""


class Update(NamedTuple):
    """What is added to the weights is `right` `[D]` times `left` `[F]`, transposed."""

    right: Tensor
    left: Tensor


def solvable(covariance: Tensor, ridge: float | None) -> Solvable:
    """A covariance `[F, F]` that can be solved: with `ridge` times its mean diagonal added.

    By default nothing is added, unless its rank is short: then a thousandth.
    """
    matrix = covariance.double()
    size, scale = len(matrix), float(matrix.diagonal().mean())
    if not scale > 0:
        raise SaeGraphsError("the covariance is 0; take it over more text, with --text")
    values = torch.linalg.eigvalsh(matrix)
    rank = int((values > float(values[-1]) * size * torch.finfo(torch.float32).eps).sum())
    share = ridge if ridge is not None else (SHORT if rank < size else 0.0)
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
    identity = torch.eye(size, dtype=torch.float64, device=matrix.device)
    return Solvable(matrix + share * scale * identity, rank, share, note)


def rank_one(
    covariance: Tensor, key: Tensor, change: Tensor, *, divisor_key: Tensor | None = None
) -> Update:
    """The update after which the key `[F]` gives what it gave plus `change` `[D]`: v* - W k*.

    `covariance` is `[F, F]`, solvable. With a `divisor_key`, as in ROME's first form, that key is
    divided by, and it is that key that gives `change` more.
    """
    solved = torch.linalg.solve(covariance.double(), key.double())  # C^-1 k*
    divisor = float(solved @ (key if divisor_key is None else divisor_key).double())
    if abs(divisor) < torch.finfo(torch.float64).tiny:
        raise SaeGraphsError("the key is 0: this MLP says nothing there; choose another layer")
    return Update(change.double(), solved / divisor)
