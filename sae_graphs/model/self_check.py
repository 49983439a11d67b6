"""What must hold of a model before its replays are believed; asked once.

Guards against architectures that the replay does not fit: they must fail loudly.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.replay import Replay, Step
from sae_graphs.model.rows import Rows, Where
from sae_graphs.model.run import Run

log = logging.getLogger(__name__)

CANNOT = (RuntimeError, IndexError, TypeError, ValueError)  # what a block may answer
LOOK_AHEAD = 1e-5  # of a row's norm, float32; causal rows move by rounding at most
REPLAY_TOLERANCE = 1e-4  # of the stream's norm, float32; a broken replay misses by far more


def check_replay(replay: Replay, run: Run, name: str) -> None:
    """Every block run again from its own input must give the stream that the run had.

    Finds out whether copies of the prompt can be run together.
    """
    for block in range(len(run.calls)):
        step, stream = Step(block, "whole"), run.inputs[block]
        again = replay.whole(run, step, stream[None])[0]
        _require_equal(again, run.inputs[block + 1], f"block {block} of {name}")
        try:
            twice = replay.whole(run, step, torch.stack([stream.flip(0), stream]))
            replay.together = replay.together and same(twice[1], again)
        except CANNOT:
            replay.together = False
    if not replay.together:
        log.warning("%s takes one copy of a prompt at a time, which is slower", name)


def check_left_to_right(replay: Replay, run: Run, name: str) -> None:
    """No block may let a token reach an earlier one: seen by changing the last row.

    Raises `SaeGraphsError` naming the block: what is measured here takes that for granted, from the
    rows that are run to the positions that are ablated.
    """
    if len(run) < 2:
        return
    for block in range(len(run.calls)):
        step, stream = Step(block, "whole"), run.inputs[block]
        clean = replay.whole(run, step, stream[None])[0][:-1]
        for last in (-stream[-1], stream[0]):
            changed = torch.cat([stream[:-1], last[None]])
            moved = replay.whole(run, step, changed[None])[0][:-1]
            off = (moved - clean).norm(dim=-1) / clean.norm(dim=-1).clamp(min=1e-30)
            if not float(off.max()) <= max(LOOK_AHEAD, 20 * torch.finfo(off.dtype).eps):
                raise SaeGraphsError(
                    f"{name} does not read from left to right: in block {block} a later token "
                    f"changes an earlier one, by {float(off.max()):.2g} of its stream; only models "
                    "with causal attention can be measured"
                )


def rows_agree(replay: Replay, run: Run, name: str, *, n_rows: int) -> bool:
    """Whether each block gives on rows alone what it gives on all rows, for disturbed ones.

    Asked with as many rows as will ever be run at once, and of the prompt itself: a block may look
    at how long its input is.
    """
    last, device = len(run) - 1, run.logits.device
    n_copies = max(1, n_rows // 2)
    pair = torch.tensor([last // 2, last], device=device)
    where = Where(torch.arange(n_copies, device=device).repeat_interleave(2), pair.repeat(n_copies))
    for block in range(len(run.calls)):
        step, stream = Step(block, "whole"), run.inputs[block]
        swapped = stream[pair.flip(0)]  # in every copy the two rows change places
        expected = replay.whole(run, step, stream.index_copy(0, pair, swapped)[None])[0][pair]
        rows = Rows(where, swapped.repeat(n_copies, 1))
        if not _rows_are(replay, run, step, rows, expected):
            log.warning(
                "block %d of %s cannot be run on some rows alone: all rows are run, which is as "
                "exact and slower",
                block,
                name,
            )
            return False
    return True


def _rows_are(replay: Replay, run: Run, step: Step, rows: Rows, expected: Tensor) -> bool:
    """Whether every copy's two rows are as expected `[2, D]`; and the second without the first."""
    second = torch.arange(len(rows.where), device=expected.device) % 2 == 1
    try:
        both = replay.some_rows(run, step, rows)
        one = replay.some_rows(run, step, rows, second)
    except CANNOT:
        return False
    if both is None or one is None:
        return False
    both, one = both.view(-1, *expected.shape), one[:, None]
    n_copies = len(both)
    return same(both, expected.expand_as(both)) and same(
        one[:, 0], expected[-1:].expand(n_copies, -1)
    )


def same(again: Tensor, recorded: Tensor) -> bool:
    """Whether two tensors differ by no more than rounding, in norm."""
    tolerance = max(REPLAY_TOLERANCE, 20 * torch.finfo(recorded.dtype).eps)
    return float((again - recorded).norm()) <= tolerance * float(recorded.norm())


def _require_equal(again: Tensor, recorded: Tensor, what: str) -> None:
    if not same(again, recorded):
        raise SaeGraphsError(
            f"re-running {what} does not give what the model computed: call "
            "model.eval() if it is training; else its architecture keeps a state between calls"
        )
