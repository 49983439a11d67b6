"""The output projection of a block's MLP: what it reads, what it writes, where its weights are.

It is `c_proj` of GPT-2, stored the other way round, `dense_4h_to_h` of GPT-NeoX, `down_proj` of
gated MLPs. What is taken for it is checked on what passes through: output = weight x input + bias.

Letters: `D` d_model, `F` inputs of the projection, `N` rows.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sae_graphs.errors import SaeGraphsError

TOLERANCE = 1e-4  # of the output's norm; a wrong matrix misses by all of it
HALF = (torch.float16, torch.bfloat16)


class Weights(NamedTuple):
    """The tensors that hold one matrix, all of them alike; `transposed`: they are `[F, D]`."""

    tensors: tuple[Tensor, ...]
    transposed: bool

    @property
    def matrix(self) -> Tensor:
        """The matrix `[D, F]`, as it is now: a view, not a copy."""
        held = self.tensors[0].detach()
        return held.T if self.transposed else held


class Projection(NamedTuple):
    """The output projection of one block's MLP.

    What passes the module `reads` is its input `[..., F]`, what passes `writes` its output
    `[..., D]`.
    """

    block: int
    reads: nn.Module
    writes: nn.Module
    weights: Weights


def projection_of(model: Any, block: int) -> Projection:
    """That of a block of a `TransformerBridge`, a `HookedTransformer`, or the like.

    Raises `SaeGraphsError` where its MLP has not one such matrix: a mixture of experts; where
    another block has the same one; and in half precision.
    """
    found = _projection_of(model, block)
    held = found.weights.tensors[0]
    if held.dtype in HALF:
        raise SaeGraphsError(
            f"the weights of the MLP of block {block} are {str(held.dtype).removeprefix('torch.')},"
            " in which most of a change of rank one is rounded away; load the model in float32"
        )
    for other in range(len(model.blocks)):
        if other != block and _is_of(model, other, held):
            raise SaeGraphsError(
                f"blocks {min(block, other)} and {max(block, other)} have one output projection "
                "between them: a fact written into one is written into both; choose another layer "
                "or model"
            )
    return found


def _is_of(model: Any, block: int, tensor: Tensor) -> bool:
    """Whether another block's MLP, where it has one, holds the same tensor."""
    mlp = getattr(model.blocks[block], "mlp", None)
    held = mlp.parameters() if isinstance(mlp, nn.Module) else ()
    return any(each.data_ptr() == tensor.data_ptr() for each in held)


def _projection_of(model: Any, block: int) -> Projection:
    held = model.blocks[block]
    mlp: Any = getattr(held, "mlp", None)
    out = getattr(mlp, "out", None)
    if out is not None and isinstance(getattr(out, "weight", None), Tensor):  # a bridge
        layer = getattr(out, "original_component", out)
        weights = [layer.weight]
        if getattr(mlp, "_use_processed_weights", False):  # then the forward pass reads a copy
            weights.append(mlp._processed_W_out)
        if all(each.ndim == 2 for each in weights):
            transposed = not isinstance(layer, nn.Linear)
            return Projection(block, out.hook_in, out.hook_out, Weights(tuple(weights), transposed))
    if isinstance(getattr(mlp, "W_out", None), nn.Parameter) and mlp.W_out.ndim == 2:
        heard = mlp.hook_post, held.hook_mlp_out  # a `HookedTransformer`
        return Projection(block, *heard, Weights((mlp.W_out,), True))
    raise SaeGraphsError(
        f"the MLP of block {block} has not one output projection, as in a mixture of experts; "
        "a fact can be written into a dense MLP only: choose another layer or model"
    )


def check_projection(projection: Projection, keys: Tensor, values: Tensor) -> None:
    """What it read `[N, F]` and wrote `[N, D]` at the same rows must fit its weights.

    Raises `SaeGraphsError` where the output is not weight x input plus the same for all rows.
    """
    made = keys.double() @ projection.weights.matrix.double().T  # [N, D]
    off = values.double() - made
    missed = (off - off.mean(0)).norm()
    if len(keys) < 2 or not missed <= TOLERANCE * values.double().norm():
        raise SaeGraphsError(
            f"the MLP of block {projection.block} does not write what its output projection makes "
            "of its input; facts cannot be written into this model"
        )


def digest_of(matrix: Tensor) -> str:
    """Letters that tell matrices `[D, F]` apart, in float32, however they are stored."""
    data = matrix.detach().float().cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(f"{tuple(matrix.shape)}".encode() + data).hexdigest()[:32]


def weights_with(model: nn.Module, digest: str, shape: tuple[int, int]) -> Weights:
    """The weights of any model with this digest and the shape `[D, F]`, stored either way round.

    Raises `SaeGraphsError` where there are none, or several that are not the same tensor.
    """
    found: dict[int, Weights] = {}
    for tensor in model.parameters():
        for transposed in (False, True):
            stored = shape[::-1] if transposed else shape
            if tuple(tensor.shape) != stored:
                continue
            held = Weights((tensor,), transposed)
            if digest in (*below(tensor), digest_of(held.matrix)):
                found.setdefault(tensor.data_ptr(), held)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise SaeGraphsError(
            f"{len(found)} matrices of this model are the one that the edit was made for; an edit "
            "can be applied where there is one"
        )
    raise other_weights(type(model).__name__)


def other_weights(name: str) -> SaeGraphsError:
    """The error for an edit that was made for other weights."""
    return SaeGraphsError(
        f"the edit was made for other weights than {name} has; apply it to the model that it was "
        "made on, as it was then, or edit this one"
    )


def below(tensor: Tensor) -> list[str]:
    """Digests of what a tensor held before the edits that are applied to it now, oldest first."""
    held: list[str] = getattr(tensor, "sae_graphs_below", [])
    return held


@torch.no_grad()
def put(weights: Weights, matrix: Tensor) -> None:
    """Put a matrix `[D, F]` in place of the one that the tensors hold."""
    for tensor in weights.tensors:
        tensor.copy_(matrix.T if weights.transposed else matrix)
