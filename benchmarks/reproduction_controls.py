"""Controls of an ablation, as logits: what else of the same size would have done.

Letters: `K` controls, `T` tokens, `L` SAE layers, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.model.joint import Edit, Selected, adding, keeping_only, run_packs, run_sets
from sae_graphs.model.next_token import scores
from sae_graphs.validation.controls import (
    Controls,
    Member,
    active_members,
    matched,
    random_directions,
)
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import Subject, generator_for

KEPT = 19  # sets that are kept alone, as few as can tell: each encodes every row with every SAE


class Control(NamedTuple):
    """What controls of one kind do: logits `[K, V]`, or why there are none."""

    logits: Tensor | None
    refused: str | None = None


def ablated_controls(
    here: Subject, members: Collection[Member], moved: Tensor, settings: ValidationSettings
) -> dict[str, Control]:
    """Matched sets of other features ablated, and random directions of the norms `[L, T]` added."""
    model, clean, n = here.model, here.clean, settings.fewer_controls
    if not active_members(clean, here.ablated, members) or not bool(moved.any()):
        none = Control(None, "none of its features is active here")
        return {"matched": none, "directions": none}
    drawn = _matched(here, members, moved, n, settings.seed)
    found = {"matched": Control(None, drawn.refused)}
    if drawn.refused is None:
        found["matched"] = Control(run_sets(model, clean, drawn.sets, drawn.n, here.read)[0])
    generator = generator_for(settings.seed, "signs of directions", members, clean.token_ids)
    towards = random_directions(clean, moved, n, generator)

    def pushed(start: int, stop: int) -> Mapping[int, Edit]:
        return {depth: adding(deltas[start:stop]) for depth, deltas in towards.items()}

    found["directions"] = Control(run_packs(model, clean, pushed, n, here.read)[0])
    return found


def kept_controls(
    here: Subject,
    members: Collection[Member],
    moved: Tensor,
    settings: ValidationSettings,
    *,
    errors: bool,
) -> tuple[list[float], str | None]:
    """The metric, in nats, where a set as large as the path is kept alone; or why there is none."""
    model, clean = here.model, here.clean
    drawn = _matched(here, members, moved, min(settings.fewer_controls, KEPT), settings.seed)
    if drawn.refused is not None:
        return [], drawn.refused
    depths = [member.depth for member in members]
    span = range(min(depths), max(depths) + 1)
    shape = (drawn.n, len(clean), 0)
    nothing = Selected(
        torch.zeros(0, dtype=torch.int64, device=here.ablated.device),
        torch.zeros(shape, dtype=torch.bool, device=here.ablated.device),
    )

    def kept(start: int, stop: int) -> Mapping[int, Edit]:
        return {
            depth: keeping_only(
                model,
                clean,
                depth,
                drawn.sets.get(depth, nothing).part(start, stop),
                here.ablated,
                errors=errors,
            )
            for depth in span
        }

    logits, _ = run_packs(model, clean, kept, drawn.n, here.read)
    return scores(here.question, logits).metric.tolist(), None


def _matched(
    here: Subject, members: Collection[Member], moved: Tensor, n: int, seed: int
) -> Controls:
    generator = generator_for(seed, "reproduction", members, here.clean.token_ids)
    return matched(here.model, here.clean, here.ablated, here.read, members, moved, n, generator)
