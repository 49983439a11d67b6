"""Every effect on the answer: all of them exactly, or where they are too many the likeliest.

Where measuring all would take more than some minutes, foretold from a timed sample, gradients say
which are worth it; a random sample of the others is measured, too, so that what may have been
missed is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sae_graphs.bars import Progress
from sae_graphs.effects.ablations import Ablations
from sae_graphs.effects.answer.measure import Asked, effects_on_answer
from sae_graphs.effects.answer.probe import Table
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.experiment import Experiment
from sae_graphs.effects.gradients import estimate_answer
from sae_graphs.effects.partial import Partial

MINUTES = 5.0  # that measuring may take, unless told how many to measure
ALWAYS = 2000  # so many are measured whatever the time
TIMED = 8  # ablations of each layer that time is foretold from
CHECKED = 64  # of those that are passed over, drawn at random and measured, at most
SPARED = 4  # one in so many of what is measured goes to them


class Shortlist(NamedTuple):
    """How many were measured, and the largest |effect| among a sample of those passed over.

    `missed` is None where none were.
    """

    exact: int
    total: int
    missed: float | None = None


def measured_table(
    asked: Asked,
    experiment: Experiment,
    dense: Sequence[Tensor],
    progress: Progress | None = None,
    partial: Partial | None = None,
) -> tuple[Table, Shortlist]:
    """The effects of all ablations on the answer, measured, or by the settings' method."""
    ablations, settings = experiment.ablations, experiment.settings
    total = sum(map(len, ablations))
    if settings.method != "exact":
        steps = settings.steps if settings.method == "integrated-gradients" else None
        effects = estimates(asked, ablations, steps, progress)
        return Table(ablations, effects, tuple(dense)), Shortlist(0, total)
    allowed = settings.budget or affordable(asked, ablations)
    if allowed >= total:
        chosen = [torch.ones_like(found.features, dtype=torch.bool) for found in ablations]
        effects = _measured(asked, ablations, chosen, progress, partial)
        return Table(ablations, effects, tuple(dense)), Shortlist(total, total)
    likely, sample = shortlist(estimates(asked, ablations, None, None), allowed)
    chosen = [a | b for a, b in zip(likely, sample, strict=True)]
    effects = _measured(asked, ablations, chosen, progress, partial)
    missed = max(
        float(found[drawn].abs().max()) if drawn.any() else 0.0
        for found, drawn in zip(effects, sample, strict=True)
    )
    exact = sum(int(some.sum()) for some in chosen)
    return Table(ablations, effects, tuple(dense)), Shortlist(exact, total, missed)


def estimates(
    asked: Asked, ablations: Sequence[Ablations], steps: int | None, progress: Progress | None
) -> tuple[Tensor, ...]:
    """The effects `[S]` of each layer's ablations by gradients, in nats."""
    found, done, total = [], 0, sum(map(len, ablations))
    for here in ablations:
        found.append(
            estimate_answer(asked.model, asked.clean, here, asked.places, asked.answer, steps=steps)
        )
        done += len(here)
        if progress is not None:
            progress(done, total)
    return tuple(found)


def affordable(asked: Asked, ablations: Sequence[Ablations]) -> int:
    """How many ablations the minutes allow; all of few, whatever the time."""
    total = sum(map(len, ablations))
    if total <= ALWAYS:
        return total
    seconds, work = 0.0, 0.0
    for found in ablations:
        if not len(found):
            continue
        rows = torch.linspace(0, len(found) - 1, min(TIMED, len(found))).long().unique()
        some = found.chosen(rows.to(found.features.device))
        effects_on_answer(asked, some.part(0, 1))  # what is done once is not timed
        started = time.perf_counter()
        effects_on_answer(asked, some)
        seconds += time.perf_counter() - started
        work += _work(asked, some)
    foretold = seconds / work * sum(_work(asked, found) for found in ablations)
    return max(ALWAYS, int(total * min(1.0, 60 * MINUTES / foretold)))


def shortlist(guessed: Sequence[Tensor], allowed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Masks `[S]` of the layers: those of the largest |estimate|, and a sample of the others."""
    sizes = torch.cat([each.abs() for each in guessed])
    drawn = min(CHECKED, len(sizes) - allowed, max(allowed // SPARED, 1))
    order = sizes.argsort(descending=True, stable=True)
    likely = torch.zeros_like(sizes, dtype=torch.bool)
    likely[order[: allowed - drawn]] = True
    rest = order[allowed - drawn :]
    generator = torch.Generator().manual_seed(len(sizes))
    sample = torch.zeros_like(likely)
    sample[rest[torch.randperm(len(rest), generator=generator)[:drawn].to(rest.device)]] = True
    counts = [len(each) for each in guessed]
    return list(likely.split(counts)), list(sample.split(counts))


# -- inside ----------------------------------------------------------------------------------------


def _work(asked: Asked, ablations: Ablations) -> float:
    """Rows times blocks that are run for these."""
    last, point = len(asked.model.model.blocks), asked.clean.points[ablations.depth]
    blocks = last - point.block - (point.site == "post")
    return float((asked.read + 1 - ablations.positions).sum()) * max(blocks, 0.5)


def _measured(
    asked: Asked,
    ablations: Sequence[Ablations],
    chosen: Sequence[Tensor],
    progress: Progress | None,
    partial: Partial | None,
) -> tuple[Tensor, ...]:
    """The effects `[S]` of those chosen of each layer, 0 of the others; kept in `partial`."""
    found, done, total = [], 0, sum(int(some.sum()) for some in chosen)
    for here, some in zip(ablations, chosen, strict=True):
        asked_of = here if bool(some.all()) else here.chosen(some)

        def told(within: int, before: int = done) -> None:
            if progress is not None:
                progress(before + within, total)

        def blocks(
            ablations: Ablations = asked_of, told: Callable[[int], None] = told
        ) -> Iterator[Effects]:
            yield effects_of(asked, ablations, effects_on_answer(asked, ablations, told=told))

        measured = list(blocks() if partial is None else partial.layer(here.depth, blocks))
        if not _holds(measured, asked_of):  # an earlier run could afford other ones
            measured = list(blocks())
        found.append(_column(here, measured, asked.clean.logits))
        done += len(asked_of)
        told(len(asked_of))
    return tuple(found)


def effects_of(asked: Asked, ablations: Ablations, effects: Tensor) -> Effects:
    """Effects on the answer as entries: its token is the target."""
    alike = np.ones(len(ablations), dtype=np.int32)
    return Effects(
        ablations.depth,
        ablations.features.to(torch.int32).cpu().numpy(),
        ablations.positions.to(torch.int32).cpu().numpy(),
        alike * np.int32(asked.answer.token_id),
        alike * np.int32(asked.read),
        effects.cpu().numpy(),
    )


def _holds(blocks: Sequence[Effects], ablations: Ablations) -> bool:
    """Whether all of these were measured."""
    pairs = zip(ablations.features.tolist(), ablations.positions.tolist(), strict=True)
    known = {
        pair
        for block in blocks
        for pair in zip(block.sources.tolist(), block.source_positions.tolist(), strict=True)
    }
    return known.issuperset(pairs)


def _column(ablations: Ablations, blocks: Sequence[Effects], like: Tensor) -> Tensor:
    """The effects `[S]` by ablation, 0 where there is none."""
    width = 1 + int(ablations.features.max()) if len(ablations) else 1
    effects = torch.zeros(len(ablations), dtype=torch.promote_types(like.dtype, torch.float32))
    keys = (ablations.positions * width + ablations.features).cpu().numpy()
    order = np.argsort(keys)
    for block in blocks:
        wanted = block.source_positions.astype(np.int64) * width + block.sources
        inside = np.isin(wanted, keys)
        at = order[np.searchsorted(keys[order], wanted[inside])]
        effects[torch.from_numpy(at)] = torch.from_numpy(block.values[inside]).to(effects.dtype)
    return effects.to(like.device)
