"""v*: what the MLP's output at the key must gain so that the model says the target.

Adam on a vector that is added there, in all prefixed prompts at once: the target's surprisal, and
a divergence that keeps what the model says of the subject otherwise.

Letters: `B` prompts, `D` d_model, `V` vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.bars import Progress, step
from sae_graphs.editing.prompts import Rows
from sae_graphs.editing.settings import EditSettings
from sae_graphs.model.next_token import divergence

REACHED = 0.1  # nats: a target that surprises more than this was not found
TRIES = 4  # at twice the rate each


class Found(NamedTuple):
    """`change` `[D]` is what the output gains: v* - W k*.

    `surprisal` in nats, before the first step and after each.
    """

    change: Tensor
    surprisal: tuple[float, ...]
    divergence: float  # of "{subject} is a", in nats
    at_bound: bool
    rate: float


def value_for(
    rows: Rows,
    essence: Rows,
    target: int,
    settings: EditSettings,
    *,
    progress: Progress | None = None,
) -> Found:
    """The change of the MLP's output at the key, from gradients.

    `rows` are the prefixed prompts, which end where the target is to follow; `essence` is
    "{subject} is a", whose next token at the key and at its end is to stay. The change is held to
    `bound` times the mean output's length, and the rate is in its root mean square. A search that
    does not find the target is made again at twice the rate, three times: some values lie behind a
    plateau. The one that surprises least is taken.
    """
    found: list[Found] = []
    for number in range(TRIES):
        rate = settings.rate * 2**number
        more = f", search {number + 1} of {TRIES}, at twice the rate" if number else ""
        step(progress, f"finding the value{more}")
        found.append(_search(rows, essence, target, settings, rate, progress))
        if found[-1].surprisal[-1] <= max(REACHED, settings.stop) or not found[-1].change.any():
            break
    return min(found, key=lambda each: each.surprisal[-1])


def _search(
    rows: Rows,
    essence: Rows,
    target: int,
    settings: EditSettings,
    rate: float,
    progress: Progress | None,
) -> Found:
    length = float(rows.values.mean(0).norm())
    bound = settings.bound * length
    change = torch.zeros_like(rows.values[0], requires_grad=True)
    with torch.no_grad():
        ends = (essence.at, essence.last)
        clean = essence.logits(torch.zeros_like(change), *ends)
    adam = torch.optim.Adam([change], lr=rate * length / len(rows.values[0]) ** 0.5)
    heard: list[float] = []
    for number in range(settings.steps + 1):
        with torch.enable_grad():
            logits = rows.logits(change)
            surprisal = -logits.log_softmax(-1)[:, target].mean()
            moved = essence.logits(change, *ends)
            strayed = torch.stack(
                [divergence(one, other[None])[0] for one, other in zip(clean, moved, strict=True)]
            ).mean()
            loss = surprisal + settings.kl * strayed
            heard.append(float(surprisal.detach()))
            if progress is not None:
                progress(number, settings.steps)
            if float(loss.detach()) < settings.stop or number == settings.steps:
                break
            (change.grad,) = torch.autograd.grad(loss, [change])
        adam.step()
        with torch.no_grad():
            if (longer := float(change.norm())) > bound:
                change *= bound / longer
    if progress is not None:
        progress(settings.steps, settings.steps)
    found = change.detach()
    at_bound = float(found.norm()) >= bound * (1 - 1e-6)
    return Found(found, tuple(heard), float(strayed.detach()), at_bound, rate)
