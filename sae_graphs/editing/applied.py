"""An edit in force inside a context, and undone to the last bit when it is left.

Letters: `D` d_model, `F` inputs of the projection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sae_graphs.editing.projection import (
    Weights,
    below,
    digest_of,
    other_weights,
    projection_of,
    put,
    weights_with,
)
from sae_graphs.editing.record import Edit
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel


@contextmanager
def applied(model: Any, *edits: Edit) -> Iterator[None]:
    """The model, edited while the context is open; several edits are added to one another.

    A `LanguageModel`, a bridge, or the plain transformers model of the same weights. An edit fits
    the weights that it was made on, and stays fitting while others are applied to these; one that
    was made while another was applied fits there. Contexts are left in the reverse order.
    Raises `SaeGraphsError` where an edit was made for other weights.
    """
    with ExitStack() as held:
        for edit in edits:
            held.enter_context(_applied(model, edit))
        yield


@contextmanager
def _applied(model: Any, edit: Edit) -> Iterator[None]:
    weights = weights_for(model, edit)
    with replaced(weights, edited(weights.matrix, edit)):
        yield


def edited(matrix: Tensor, edit: Edit) -> Tensor:
    """The matrix `[D, F]` after the edit: added in double precision, then rounded once."""
    right = torch.tensor(edit.right, dtype=torch.float64, device=matrix.device)  # [D]
    left = torch.tensor(edit.left, dtype=torch.float64, device=matrix.device)  # [F]
    return (matrix.double() + torch.outer(right, left)).to(matrix.dtype)


def weights_for(model: Any, edit: Edit) -> Weights:
    """The weights that an edit is for; raises `SaeGraphsError` where the model has others."""
    name = model.name if isinstance(model, LanguageModel) else type(model).__name__
    inner = model.model if isinstance(model, LanguageModel) else model
    if not hasattr(inner, "blocks"):
        if isinstance(inner, nn.Module):
            return weights_with(inner, edit.weights, edit.shape)
        raise SaeGraphsError(f"{model!r:.60} is no model; give one that the edit was made on")
    if edit.layer >= len(inner.blocks):
        raise other_weights(name)
    weights = projection_of(inner, edit.layer).weights
    known = (*below(weights.tensors[0]), digest_of(weights.matrix))
    if edit.weights not in known or tuple(weights.matrix.shape) != edit.shape:
        raise other_weights(name)
    return weights


@contextmanager
def replaced(weights: Weights, matrix: Tensor) -> Iterator[None]:
    """Another matrix `[D, F]` in place of theirs while the context is open; then the very same."""
    first, clean = weights.tensors[0], [tensor.detach().clone() for tensor in weights.tensors]
    mark, depth = digest_of(weights.matrix), len(below(first)) + 1
    try:
        first.sae_graphs_below = [*below(first), mark]  # type: ignore[attr-defined]
        put(weights, matrix)
        yield
    except BaseException:
        _undo(weights, clean, depth)  # what went wrong inside is told, not the order
        raise
    if _undo(weights, clean, depth) > depth:
        raise SaeGraphsError(
            "an edit was undone before those that were applied after it, and these with it; "
            "nest the contexts"
        )


def _undo(weights: Weights, clean: list[Tensor], depth: int) -> int:
    """Put the weights back below the edit at this depth; returns how many were applied."""
    first = weights.tensors[0]
    applied_now = len(below(first))
    if applied_now >= depth:  # else what is below this one was undone before
        with torch.no_grad():
            for tensor, before in zip(weights.tensors, clean, strict=True):
                tensor.copy_(before)
        first.sae_graphs_below = below(first)[: depth - 1]  # type: ignore[attr-defined]
    return applied_now
