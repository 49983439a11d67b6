"""What each feature at each token does to the answer, and what flows there from one to another.

All exact, by ablation: the model is run on from changed rows to the score of the answer. Effects
are changed minus clean, in nats: what is below 0 speaks for the answer.

Letters: `S` ablations of a layer, `B` copies, `T` tokens, `F` features, `U` features of a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.effects.ablations import Ablations, Places
from sae_graphs.effects.exact import changed_rows, packs, reads_of
from sae_graphs.effects.rounding import above, floor_of_features, floor_of_logits
from sae_graphs.model.answer import Answer
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import Edit, becoming_rows, holding_features, logits_of, run_edits
from sae_graphs.model.joint import packs as joint_packs
from sae_graphs.model.rows import ENCODED_ROWS

Told = Callable[[int], None]  # told the ablations done


class Asked(NamedTuple):
    """A model, its clean run, and the answer whose score is measured at the read position."""

    model: InstrumentedModel
    clean: CleanRun
    answer: Answer
    read: int

    @property
    def score(self) -> float:
        """The clean score, in nats."""
        return float(self.answer.score(self.clean.logits[self.read]))

    @property
    def floor(self) -> Tensor:
        """What is no more than rounding of a score, in nats."""
        return floor_of_logits(self.clean, self.places.reads)[0]

    @property
    def places(self) -> Places:
        """One token at a time is ablated, all but the first; read where the answer is."""
        positions = torch.arange(len(self.clean), device=self.clean.logits.device)
        ablated = (positions > 0) & (positions <= self.read)
        return Places(ablated, positions[self.read][None], each=True)


@torch.no_grad()
def effects_on_answer(
    asked: Asked, ablations: Ablations, *, rows: int | None = None, told: Told | None = None
) -> Tensor:
    """The effect `[S]` on the answer's score of each of a layer's ablations, alone, in nats."""
    answer, before = asked.answer, asked.answer.score(asked.clean.logits[asked.read])
    parts = logits_after(asked, ablations, rows=rows, told=told)
    found = [answer.score(part) - before for part in parts]
    return above(torch.cat([before.new_zeros(0), *found]), asked.floor)


@torch.no_grad()
def logits_after(
    asked: Asked, ablations: Ablations, *, rows: int | None = None, told: Told | None = None
) -> Iterator[Tensor]:
    """The answer's logits `[N, V]` after each of a layer's ablations, alone: part after part."""
    model, clean, _, _ = asked
    start = clean.points[ablations.depth]
    for first, pack in packs(model, clean, ablations, asked.places, model.end, rows):
        reads = reads_of(pack, asked.places)  # the answer's row of each
        after = model.advance(clean, start, model.end, changed_rows(model, clean, pack), reads)
        for part in after.split(ENCODED_ROWS):
            yield model.unembed(part)
        if told is not None:
            told(first + len(pack))


@torch.no_grad()
def direct_effects(asked: Asked, ablations: Ablations) -> Tensor:
    """The part `[S]` of each ablation's effect on the answer that no later SAE feature carries.

    All features of later SAE layers are held as they were; what the SAEs do not express may change.
    """
    model, clean, answer, read = asked
    before = answer.score(clean.logits[read])
    found = [before.new_zeros(0)]
    later = range(ablations.depth + 1, len(model.stack.layers))
    for start, stop in joint_packs(model, clean, len(ablations)):
        edits: dict[int, Edit] = {
            ablations.depth: becoming_rows(changed_rows(model, clean, ablations.part(start, stop)))
        }
        edits |= {depth: holding_features(model, clean, depth) for depth in later}
        ran = run_edits(model, clean, edits, stop - start, read)
        found.append(answer.score(logits_of(model, clean, ran, read)) - before)
    return above(torch.cat(found), asked.floor)


class Changes(NamedTuple):
    """The activations of the next layer that an ablation changes: `N` entries, by position."""

    positions: Tensor  # [N]
    features: Tensor  # [N]
    before: Tensor  # [N]
    after: Tensor  # [N]


@torch.no_grad()
def changes_after(asked: Asked, ablations: Ablations) -> list[Changes]:
    """What each ablation changes in the next layer, at its token and up to the answer's."""
    model, clean, _, read = asked
    depth = ablations.depth + 1
    target = model.stack.layers[depth]
    positions = torch.arange(read + 1, device=clean.logits.device)
    places = Places(asked.places.ablated, positions, each=True)
    before = clean.activations[depth].rows(positions)  # [T, F]
    floor = floor_of_features(clean, depth, positions)
    found: list[Changes] = []
    for _, pack in packs(model, clean, ablations, places, target.point):
        reads = reads_of(pack, places)
        change = changed_rows(model, clean, pack)
        after = model.advance(clean, clean.points[ablations.depth], target.point, change, reads)
        parts = []
        for which in torch.arange(len(reads), device=after.device).split(ENCODED_ROWS):
            part, encoded = reads.chosen(which), target.encode(after[which])
            clean_rows = before[part.positions]
            changed = (encoded - clean_rows).abs() > floor[part.positions][:, None]
            row, feature = changed.nonzero(as_tuple=True)
            ends = clean_rows[row, feature], encoded[row, feature].to(before.dtype)
            parts.append((part.copies[row], part.positions[row], feature, *ends))
        copies, *columns = (torch.cat(column) for column in zip(*parts, strict=True))
        sizes = torch.bincount(copies, minlength=len(pack)).tolist()
        found += [Changes(*own) for own in zip(*(c.split(sizes) for c in columns), strict=True)]
    return found


def setting(
    depth: int, features: Sequence[int], positions: Sequence[int], before: Tensor, after: Tensor
) -> Ablations:
    """Each of some features becomes something at its token, alone: `before`, `after` `[S]`."""
    device = before.device
    return Ablations(
        depth,
        torch.tensor(features, dtype=torch.int64, device=device),
        torch.arange(len(features), device=device),
        torch.tensor(positions, dtype=torch.int64, device=device),
        before,
        after,
    )
