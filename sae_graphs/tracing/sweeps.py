"""All cells of a trace, measured: walks that fit the memory, one after the other.

Letters: `S` sweeps, `R` noise runs, `T` tokens, `L` layers, `C` copies of a group, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.rows import ENCODED_ROWS
from sae_graphs.tracing.cells import Group, groups
from sae_graphs.tracing.climb import Ground, climb
from sae_graphs.tracing.partial import TracePartial
from sae_graphs.tracing.scores import Asked
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.tracing.walk import carry

SCORED = 40  # bytes that one logit takes while it is scored, in double precision
SAVED = 5  # times that noise runs are kept on the way, where they are
COPIES_SHARE = 0.5  # of the working memory, for the streams of the copies; blocks take the rest

Progress = Callable[[int, int], None]


class Measured(NamedTuple):
    """Log-odds, probability and divergence of every cell, and of the corrupted runs."""

    cells: NDArray[np.float64]  # [S, 3, R, T, L]
    corrupted: NDArray[np.float64]  # [3, R]
    logits: Tensor  # [R, V]


def answers(ground: Ground, embeddings: Tensor) -> Tensor:
    """The logits `[R, V]` of corrupted runs at the read token."""
    step = (
        1 if not ground.model.replay.together else max(1, ground.rows_at_once // len(ground.clean))
    )
    ends = [climb(ground, part).ends for part in embeddings.split(step)]
    return ground.model.unembed(torch.cat(ends))


def measure(
    ground: Ground,
    asked: Asked,
    settings: TraceSettings,
    embeddings: Tensor,
    *,
    progress: Progress | None = None,
    partial: TracePartial | None = None,
    tokens: Sequence[int] | None = None,
) -> Measured:
    """Every cell of a trace, with the corrupted `embeddings` `[R, T, D]`.

    Cells that have no copy (see `cells`) are the corrupted run's scores, exactly. Given `tokens`,
    their cells alone are measured; those of others are NaN.
    """
    changed = (embeddings != ground.clean.inputs[0]).any(-1).any(0).tolist()
    n_blocks, sweeps, n_runs = ground.n_blocks, settings.sweeps, len(embeddings)
    every = groups(sweeps, changed, ground.read, n_blocks, settings.window_of(n_blocks), tokens)
    found = np.empty((len(sweeps), 3, n_runs, len(ground.clean), n_blocks))
    logits, corrupted = list[Tensor](), list[NDArray[np.float64]]()
    most = n_runs if partial is None else -(-n_runs // SAVED)
    walks = list(_walks(ground, every, n_runs, embeddings.element_size(), most))
    told = _Told(progress, sum(_steps(every, n_blocks) * len(runs) for runs, _ in walks))
    for runs, parts in walks:
        some_runs = slice(runs.start, runs.stop)
        kept = [None if partial is None else partial.read(run) for run in runs]
        cells = [each for each in kept if each is not None]
        whole = len(cells) == len(runs)
        logits.append(ground.clean.logits[ground.read].repeat(len(runs), 1))  # to the last digit
        if every:
            climbed = climb(ground, embeddings[some_runs], every)
            logits[-1] = ground.model.unembed(climbed.ends)
        corrupted.append(asked.every(logits[-1]))
        found[:, :, some_runs] = corrupted[-1][None, :, :, None, None]
        if whole:
            found[:, :, some_runs] = np.stack(cells, 2)
            told(_steps(every, n_blocks) * len(runs))
            continue
        for some in parts:
            for group, streams in zip(some, carry(climbed, some, told), strict=True):
                scores = _scored(ground, asked, streams)  # [3, C, R]
                for number, copy in enumerate(group.copies):
                    at = sweeps.index(copy.sweep)
                    found[at, :, some_runs, group.token, copy.layer] = scores[:, number]
        if partial is not None:
            for run in runs:
                partial.write(run, found[:, :, run])
    if not np.isfinite(found).all():
        raise SaeGraphsError(
            "with a part restored the model answers what is no number; take another dtype, such as "
            "float32"
        )
    if tokens is not None:
        found[:, :, :, np.setdiff1d(np.arange(len(ground.clean)), tokens)] = np.nan
    return Measured(found, np.concatenate(corrupted, 1), torch.cat(logits))


class _Told:
    """Adds up how many blocks copies have passed, for whoever is told of `total`."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, n: int) -> None:
        self._done += n
        if self._progress is not None:
            self._progress(self._done, self._total)


def _scored(ground: Ground, asked: Asked, streams: Tensor) -> NDArray[np.float64]:
    """The scores `[3, C, R]` of last streams `[C, R, D]`."""
    n_copies, n_runs = streams.shape[:2]
    bytes_of_row = SCORED * ground.clean.logits.shape[-1]
    at_once = max(1, min(ENCODED_ROWS, int(ground.model.working_memory // (4 * bytes_of_row))))
    scores = [
        asked.scores(ground.model.unembed(rows)).cpu()
        for rows in streams.flatten(0, 1).split(at_once)
    ]
    return torch.cat(scores, 1).unflatten(1, (n_copies, n_runs)).numpy()


def _steps(some: Sequence[Group], n_blocks: int) -> int:
    """How many blocks the copies of some groups pass, all together."""
    return sum(n_blocks - copy.birth for group in some for copy in group.copies)


def _walks(
    ground: Ground, every: Sequence[Group], n_runs: int, size: int, most: int
) -> Iterator[tuple[range, list[list[Group]]]]:
    """Noise runs that are walked together, and the groups of each walk of theirs.

    As many runs as the memory holds, `most` at most; where it does not hold one, its copies in
    several walks.
    """
    if not every:
        yield range(n_runs), []
        return
    room = COPIES_SHARE * ground.model.working_memory
    row = size * int(ground.clean.inputs[0].shape[-1])
    if not ground.tails.alone:
        row *= 2  # whole copies are made of tails

    def bytes_of(group: Group) -> int:
        return len(group.copies) * (ground.read + 1 - group.token) * row

    # What corrupted runs leave in every block: stream, keys and values, what the parts write.
    climbed = 5 * ground.n_blocks * (ground.read + 1 - ground.start) * row
    at_once = min(most, max(1, int(room // (sum(map(bytes_of, every)) + climbed))))
    if not ground.model.replay.together:
        at_once = 1
    parts: list[list[Group]] = [[]]
    taken = 0.0
    for group in _split(every, lambda group: max(1, int(room // (bytes_of(group) or 1)))):
        if taken and taken + bytes_of(group) > room:
            parts.append([])
            taken = 0.0
        parts[-1].append(group)
        taken += bytes_of(group)
    for first in range(0, n_runs, at_once):
        yield range(first, min(first + at_once, n_runs)), parts


def _split(every: Sequence[Group], fits: Callable[[Group], int]) -> Iterator[Group]:
    """The groups, those whose copies do not fit by themselves in pieces."""
    for group in every:
        whole = len(group.copies)
        one = fits(replace(group, copies=group.copies[:1]))
        step = min(whole, one)
        for first in range(0, whole, step):
            yield replace(group, copies=group.copies[first : first + step])
