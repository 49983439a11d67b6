"""Running blocks again, from a changed stream, as a run called them.

The run may be the clean one, or itself a corrupted one: what is replayed differs from it in some
rows, and is exact.

Letters: `B` copies of the prompt, `T` tokens, `R` rows of all copies together, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sae_graphs.errors import SAELoadError
from sae_graphs.model.recording import outputs_of
from sae_graphs.model.rows import Rows, run_rows
from sae_graphs.model.run import Run
from sae_graphs.model.stream import StreamPoint


class Step(NamedTuple):
    """One block on the way from one point of the stream to another, or half of it."""

    block: int
    part: Literal["whole", "to mid", "from mid"]


def steps_between(start: StreamPoint, stop: StreamPoint) -> list[Step]:
    """The blocks between two points of the stream, in order."""
    steps = [Step(start.block, "from mid")] if start.site == "mid" else []
    first = start.block + (start.site != "pre")
    last = stop.block + (stop.site == "post")
    steps += [Step(block, "whole") for block in range(first, last)]
    return [*steps, Step(stop.block, "to mid")] if stop.site == "mid" else steps


PACK_ROWS = 512  # rows run at once: more gain nothing on a CPU, and share no attention
MOST = 0.75  # of all rows of the copies: where more are run, whole copies are cheaper


class Replay:
    """The blocks of a model, to be run again one by one.

    `rows_alone`: whether blocks can be run on some rows of the prompt; else all rows are run.
    `together`: whether several copies of the prompt can be run as one batch. `tails_alone`: whether
    the last rows of copies can be run without those before them; asked of prompts of up to
    `tails_checked` tokens.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows_alone = hasattr(model, "original_model")  # a bridge
        self.together = True
        self.tails_alone = True
        self.tails_checked = 0

    def stream_at(self, run: Run, point: StreamPoint) -> Tensor:
        """The stream `[T, D]` that the run had at a point."""
        kept = run.kept_stream(point)
        if kept is not None:
            return kept
        block_input = run.inputs[point.block][None]
        return self.whole(run, Step(point.block, "to mid"), block_input)[0]

    def step(self, run: Run, step: Step, rows: Rows, wanted: Tensor, n_copies: int) -> Tensor:
        """One block, or half of it, on some rows: `[R', D]` at those wanted `[R]`."""
        most = self.together and len(rows.where) > MOST * n_copies * len(run)
        if self.rows_alone and not most:
            out = self.some_rows(run, step, rows, wanted)
            if out is not None:
                return out
        start = StreamPoint(step.block, "mid" if step.part == "from mid" else "pre")
        whole = rows.whole(self.stream_at(run, start), n_copies)
        out = self.whole(run, step, whole)
        return out[rows.where.copies[wanted], rows.where.positions[wanted]]

    def some_rows(
        self, run: Run, step: Step, rows: Rows, wanted: Tensor | None = None
    ) -> Tensor | None:
        """One block on some rows alone, or None where that cannot be done."""
        kept, call = run.kept[step.block], run.calls[step.block]
        if kept is None:
            return None
        block = self.model.blocks[step.block]

        def alone(rows: Rows, wanted: Tensor | None = None) -> Tensor | None:
            return run_rows(block, rows, kept, call.args, call.kwargs, wanted)

        if step.part == "whole":
            return alone(rows, wanted)
        if step.part == "to mid":
            with outputs_of(self.mid_hook(step.block)) as seen:
                done = alone(rows, wanted)
            return None if done is None else seen[0].reshape(-1, seen[0].shape[-1])
        before = Rows(rows.where, run.inputs[step.block][rows.where.positions])
        with self._mid_replaced(step.block, rows.streams[None]):
            out = alone(before)
        if out is None or not self._skip_goes_round(step.block):
            return out
        mid = self.stream_at(run, StreamPoint(step.block, "mid"))
        return out + (rows.streams - mid[rows.where.positions])

    def whole(self, run: Run, step: Step, streams: Tensor) -> Tensor:
        """One block, or half of it, on all rows `[B, T, D]`, called as in the run."""
        if len(streams) > 1 and not self.together:
            return torch.cat([self.whole(run, step, stream[None]) for stream in streams])
        call, block = run.calls[step.block], self.model.blocks[step.block]
        streams = streams.contiguous()  # a `HookedTransformer` block views its input
        if step.part == "to mid":
            with outputs_of(self.mid_hook(step.block)) as seen:
                block(streams, *call.args, **call.kwargs)
            return seen[0].view(streams.shape)  # OPT's rows stand in one line there
        if step.part == "whole":
            out = block(streams, *call.args, **call.kwargs)
            return out[0] if isinstance(out, tuple) else out
        before = run.inputs[step.block].expand(len(streams), -1, -1)
        with self._mid_replaced(step.block, streams):
            out = self.whole(run, Step(step.block, "whole"), before)
        if not self._skip_goes_round(step.block):
            return out
        return out + (streams - self.stream_at(run, StreamPoint(step.block, "mid")))

    def mid_hook(self, block: int) -> nn.Module:
        """Where the stream passes between a block's attention and its MLP."""
        name = StreamPoint(block, "mid").hook_name
        if name not in self._hooks:
            raise SAELoadError(f"the model has no {name}; use SAEs on hook_resid_pre or _post")
        return self._hooks[name]

    @cached_property
    def _hooks(self) -> dict[str, nn.Module]:
        hooks: dict[str, nn.Module] = self.model.hook_dict  # slow to make
        return hooks

    def _skip_goes_round(self, block: int) -> bool:
        """A bridge's hook sits on the way into ln2 only: the skip connection goes round it."""
        ln2 = getattr(self.model.blocks[block], "ln2", None)
        return self.mid_hook(block) is getattr(ln2, "hook_in", None)

    @contextmanager
    def _mid_replaced(self, block: int, streams: Tensor) -> Iterator[None]:
        """Other streams `[B, T, D]` enter the second half of a block."""
        handle = self.mid_hook(block).register_forward_hook(
            lambda module, args, output: streams.to(output.dtype).reshape(output.shape)
        )
        try:
            yield
        finally:
            handle.remove()
