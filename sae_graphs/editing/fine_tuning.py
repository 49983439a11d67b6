"""What edits are compared with: constrained fine-tuning of the same matrix.

After ROME's baseline FT+L, with another bound (`Tuning`): Adam on the whole output projection of
one MLP until the prompt is followed by the target, no entry moving further than the bound; nothing
is asked of other prompts.

Letters: `B` prompts, `T` tokens, `D` d_model, `F` inputs of the projection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae_graphs.editing.prompts import Rows
from sae_graphs.editing.settings import EditSettings, Tuning


def fine_tuned(rows: Rows, target: int, settings: EditSettings, tuning: Tuning) -> Tensor:
    """The matrix `[D, F]` with which the first of the prompts is followed by the target.

    In at most `steps` steps, until its surprisal is below `stop`. Gradients are taken of what the
    matrix's change adds at all tokens; what it reads does not depend on it.
    """
    matrix = rows.projection.weights.matrix
    size = float(matrix.double().square().mean().sqrt())
    bound, rate = tuning.bound * size, tuning.rate * size
    change = torch.zeros_like(matrix, requires_grad=True)
    adam = torch.optim.Adam([change], lr=rate)
    for step in range(settings.steps + 1):
        with torch.enable_grad():
            logits = rows.logits_with(rows.read @ change.T)[:1]
            surprisal = -logits.log_softmax(-1)[0, target]
            if float(surprisal.detach()) < settings.stop or step == settings.steps:
                break
            (change.grad,) = torch.autograd.grad(surprisal, [change])
        adam.step()
        with torch.no_grad():
            change.clamp_(-bound, bound)
    return matrix + change.detach()
