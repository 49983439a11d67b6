"""What must hold of a model and its SAEs before their numbers are believed; asked once.

Guards against architectures that the replay does not fit, and SAEs that mix tokens: they must fail
loudly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from sae_graphs.clean_run import CleanRun
from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.replay import Replay, Step
from sae_graphs.rows import Rows, Where
from sae_graphs.saes import SAELayer

log = logging.getLogger(__name__)

REPLAY_TOLERANCE = 1e-4  # of the stream's norm, float32; a broken replay misses by far more


def check_replay(replay: Replay, clean: CleanRun, logits: Tensor, name: str) -> None:
    """Every block run again on a clean run must give the stream that the run had.

    `logits` `[T, V]` are those of the last stream, unembedded again.
    """
    for block in range(len(clean.calls)):
        again = replay.whole(clean, Step(block, "whole"), clean.inputs[block][None])[0]
        _require_equal(again, clean.inputs[block + 1], f"block {block} of {name}")
    _require_equal(logits, clean.logits, f"the logits of {name}")


def check_saes(layers: Sequence[SAELayer], clean: CleanRun) -> None:
    """Each SAE must treat tokens one by one, and decode from the rows of `W_dec` alone."""
    for layer, stream in zip(layers, clean.streams, strict=True):
        acts = layer.encode(stream)
        alone = torch.cat([layer.encode(row[None]) for row in stream])
        active = (acts != 0).any(0).nonzero()[:, 0]
        part = layer.decoder_of(active)(acts[:, active], stream)
        whole = layer.decode(acts, stream)
        if not (_close(alone, acts) and _close(part, whole)):
            raise SAELoadError(
                f"the SAE on {layer.point.hook_name} mixes tokens or does not decode feature "
                "by feature; save it for inference with sae-lens, or use another kind"
            )


def rows_agree(replay: Replay, clean: CleanRun, logits: Tensor, name: str) -> bool:
    """Whether each block gives on rows alone what it gives on all rows, for disturbed ones.

    And whether listening to its keys and values has left the run's `logits` as they were.
    """
    last = len(clean) - 1
    device = clean.logits.device
    copies = torch.tensor([0, 0, 1], device=device)
    where = Where(copies, torch.tensor([last // 2, last, last], device=device))
    agree = _close(clean.logits, logits)
    for block in range(len(clean.calls)):
        stream = clean.inputs[block]
        # In one copy two rows change places; in the other the last one is as the first.
        rows = Rows(where, stream[torch.tensor([last, last // 2, 0], device=device)])
        wanted = where.positions == last
        alone = replay.some_rows(clean, Step(block, "whole"), rows, wanted)
        whole = replay.whole(clean, Step(block, "whole"), rows.whole(stream, 2))[where]
        agree = agree and alone is not None and _close(alone, whole[wanted])
        if not agree:
            log.warning(
                "block %d of %s cannot be run on some rows alone: all rows are run, which is "
                "as exact and slower",
                block,
                name,
            )
            break
    return agree


def _close(again: Tensor, recorded: Tensor) -> bool:
    tolerance = max(REPLAY_TOLERANCE, 20 * torch.finfo(recorded.dtype).eps)
    return float((again - recorded).norm()) <= tolerance * float(recorded.norm())


def _require_equal(again: Tensor, recorded: Tensor, what: str) -> None:
    if not _close(again, recorded):
        raise SaeGraphsError(
            f"re-running {what} does not give what the model computed: call "
            "model.eval() if it is training; else its architecture keeps a state between calls"
        )
