"""What edits are compared with: constrained fine-tuning of the same matrix.

As in ROME's baseline FT+L: Adam on the whole output projection of one MLP until the prompt is
followed by the target, no entry moving further than a bound; nothing is asked of other prompts.

Letters: `B` prompts, `T` tokens, `D` d_model, `F` inputs of the projection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae_graphs.editing.prompts import Rows
from sae_graphs.editing.settings import EditSettings

CONSTRAINT = 0.2  # of the matrix's root mean square: how far an entry may move
SHARE = 0.1  # of that, a step


def fine_tuned(rows: Rows, target: int, settings: EditSettings) -> Tensor:
    """The matrix `[D, F]` with which the first of the prompts is followed by the target.

    In at most `steps` steps, until its surprisal is below `stop`. Gradients are taken of what the
    matrix's change adds at all tokens; what it reads does not depend on it.
    """
    matrix = rows.projection.weights.matrix
    bound = CONSTRAINT * float(matrix.double().square().mean().sqrt())
    change = torch.zeros_like(matrix, requires_grad=True)
    adam = torch.optim.Adam([change], lr=SHARE * bound)
    for step in range(settings.steps):
        with torch.enable_grad():
            logits = rows.logits_with(rows.read @ change.T)[:1]
            surprisal = -logits.log_softmax(-1)[0, target]
            if float(surprisal.detach()) < settings.stop or step == settings.steps - 1:
                break
            (change.grad,) = torch.autograd.grad(surprisal, [change])
        adam.step()
        with torch.no_grad():
            change.clamp_(-bound, bound)
    return matrix + change.detach()
