"""What attention and MLP of each block write into the stream, and how a change alters it.

The change of the stream at a row is what the skip connection carried there and what every block on
the way wrote differently. Each part is read at the model's own hook points, and checked: what
enters a block and the parts must add up to what leaves it. Where they do not, nothing is split.

Letters: `T` tokens, `R` rows that are run, `N` rows that are read, `H` heads, `D` d_model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sae_graphs.errors import CannotSplitError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.recording import outputs_of
from sae_graphs.model.replay import Step, steps_between
from sae_graphs.model.rows import Rows, Where
from sae_graphs.model.run import Run
from sae_graphs.model.stream import StreamPoint

SUM_TOLERANCE = 1e-5  # of a row's norm, float32; parts read at a wrong hook miss by far more
# Where each part is as it enters the stream; Gemma has a norm on the way.
ATTENTION_HOOKS = ("ln1_post.hook_out", "hook_attn_out")
MLP_HOOKS = ("ln2_post.hook_out", "hook_mlp_out")
HEADS_HOOKS = ("attn.hook_z",)


class Written(NamedTuple):
    """What one block wrote at some rows; `outputs` of its heads, before they are projected."""

    attention: Tensor  # [N, D]
    mlp: Tensor  # [N, D]
    outputs: Tensor | None  # [N, H * d]


class BlockChange(NamedTuple):
    """How the parts of one block change, changed minus clean; the heads add up to attention."""

    block: int
    attention: Tensor  # [N, D]
    mlp: Tensor  # [N, D]
    heads: Tensor | None  # [N, H, D]; None where it was not asked for, or cannot be told


class Changes(NamedTuple):
    """A change of the stream in its parts, changed minus clean; `streams` is the changed stream."""

    skip: Tensor  # [N, D]
    blocks: list[BlockChange]
    streams: Tensor  # [N, D]


ModelT = TypeVar("ModelT", bound=LanguageModel, covariant=True)
RunT = TypeVar("RunT", bound=Run, covariant=True)


class CleanWrites(Generic[ModelT, RunT]):
    """What each block writes in the clean run at some positions; a block is run when asked for.

    With `heads`, what each head gives, too.
    """

    def __init__(
        self, model: ModelT, clean: RunT, positions: Tensor, *, heads: bool = False
    ) -> None:
        self.model, self.clean, self.heads = model, clean, heads
        self.hooks: dict[str, nn.Module] = dict(model.model.hook_dict)  # slow to make
        self._positions = positions.unique()
        self._known: dict[int, Written] = {}

    def at(self, step: Step, positions: Tensor) -> Written:
        """What the block writes at `positions` `[N]`, which are among those given at first.

        In half a block only one part writes. Raises `CannotSplitError` where the model does not
        show the parts, or they do not add up to what the block gives.
        """
        if step.block not in self._known:
            self._known[step.block] = self._run(step.block)
        found = self._known[step.block]
        rows = torch.searchsorted(self._positions, positions.contiguous())
        rows = rows.clamp(max=len(self._positions) - 1)
        assert torch.equal(self._positions[rows], positions), "a position that was not given"
        outputs = None if found.outputs is None else found.outputs[rows]
        return _in_step(step, Written(found.attention[rows], found.mlp[rows], outputs))

    def _run(self, block: int) -> Written:
        where = Where(torch.zeros_like(self._positions), self._positions)
        rows = Rows(where, self.clean.inputs[block][self._positions])
        start, stop = StreamPoint(block, "pre"), StreamPoint(block, "post")
        with _listening(self, [block]) as ears:
            for step, out in self.model.walk(self.clean, start, stop, rows, where):
                written = ears[block].heard(where, step)
                check_sum(self.model.name, block, rows.streams, written, out.streams)
        return written


AnyWrites = CleanWrites[LanguageModel, Run]


@torch.no_grad()
def changes_by_block(
    writes: AnyWrites, start: StreamPoint, stop: StreamPoint, change: Rows, reads: Where
) -> Changes:
    """How what each block between `start` and `stop` writes changes at the rows `reads`.

    In half a block one part alone can change: the other is 0. Raises `CannotSplitError` where the
    parts do not add up, or a point lies in the middle of a block whose stream there was not kept.
    """
    model, clean = writes.model, writes.clean
    steps = steps_between(start, stop)
    clean_start, clean_stop = _kept(clean, start), _kept(clean, stop)
    first = Rows(change.where, change.streams - clean_start[change.where.positions])
    skip = first.at(reads, torch.zeros_like(clean_start))
    found: list[BlockChange] = []
    rows, at = change, start
    with _listening(writes, sorted({step.block for step in steps})) as ears:
        for step, out in model.walk(clean, start, stop, change, reads):
            written = ears[step.block].heard(out.where, step)
            entered = rows.at(out.where, _kept(clean, at))
            check_sum(model.name, step.block, entered, written, out.streams)
            found.append(_change(writes, step, written, out.where, reads))
            rows, at = out, StreamPoint(step.block, "mid" if step.part == "to mid" else "post")
    streams = rows.at(reads, clean_stop)
    missed = streams - clean_stop[reads.positions] - skip
    for block in found:
        missed = missed - block.attention - block.mlp
    if not (missed.norm(dim=-1) <= _tolerance(missed) * streams.norm(dim=-1)).all():
        raise CannotSplitError(
            f"what the blocks from {start.hook_name} to {stop.hook_name} write does not add up to "
            "the change of the stream"
        )
    return Changes(skip, found, streams)


def part_hook(
    name: str, hooks: Mapping[str, nn.Module], block: int, names: Sequence[str]
) -> nn.Module:
    """The first of these hook points that a block has, among the `hooks` of the model `name`.

    Raises `CannotSplitError` where it has none.
    """
    for each in names:
        if (full := f"blocks.{block}.{each}") in hooks:
            return hooks[full]
    raise CannotSplitError(
        f"{name} has no hook point blocks.{block}.{names[-1]}, where what is written there could "
        "be read"
    )


def check_sum(name: str, block: int, entered: Tensor, written: Written, left: Tensor) -> None:
    """What enters a block and what its parts write must add up to what leaves it, `[..., D]` each.

    Raises `CannotSplitError` where it does not.
    """
    missed = (entered + written.attention + written.mlp - left).norm(dim=-1)
    sizes = sum(part.norm(dim=-1) for part in (entered, written.attention, written.mlp))
    if not (missed <= _tolerance(left) * sizes).all():
        raise CannotSplitError(
            f"attention and MLP of block {block} of {name} do not add up to what it writes into "
            "the stream"
        )


# -- inside ----------------------------------------------------------------------------------------


def _kept(run: Run, point: StreamPoint) -> Tensor:
    """The stream `[T, D]` that the run kept at a point: to make it anew would be heard as well."""
    kept = run.kept_stream(point)
    if kept is None:
        raise CannotSplitError(f"the run kept no stream at {point.hook_name}; it has no SAE there")
    return kept


class _Ears(NamedTuple):
    """What passes the hook points of one block."""

    attention: list[Tensor]
    mlp: list[Tensor]
    outputs: list[Tensor] | None

    def heard(self, where: Where, step: Step) -> Written:
        """What the last step wrote at its rows."""
        outputs = None if self.outputs is None else _rows_of(self.outputs, where)
        attention, mlp = _rows_of(self.attention, where), _rows_of(self.mlp, where)
        return _in_step(step, Written(attention, mlp, outputs))


def _in_step(step: Step, written: Written) -> Written:
    """In half a block the other part writes nothing, whatever its hook shows."""
    if step.part == "from mid":
        none = None if written.outputs is None else torch.zeros_like(written.outputs)
        return Written(torch.zeros_like(written.attention), written.mlp, none)
    if step.part == "to mid":
        return written._replace(mlp=torch.zeros_like(written.mlp))
    return written


@contextmanager
def _listening(writes: AnyWrites, blocks: Iterable[int]) -> Iterator[dict[int, _Ears]]:
    with ExitStack() as hooks:

        def listen(block: int, names: Sequence[str]) -> list[Tensor]:
            return hooks.enter_context(
                outputs_of(part_hook(writes.model.name, writes.hooks, block, names))
            )

        yield {
            block: _Ears(
                listen(block, ATTENTION_HOOKS),
                listen(block, MLP_HOOKS),
                listen(block, HEADS_HOOKS) if writes.heads else None,
            )
            for block in blocks
        }


def _rows_of(heard: list[Tensor], where: Where) -> Tensor:
    """The rows `[R, D]` of the one tensor heard: of rows run alone, or of whole copies."""
    if len(heard) != 1 or heard[0].ndim < 3:
        shapes = [tuple(value.shape) for value in heard]
        raise CannotSplitError(
            f"a hook point of a block shows {shapes}, expected one tensor [B, T, D]"
        )
    value = heard.pop().flatten(2)  # heads, where they have a dimension of their own
    if value.shape[:2] == (1, len(where)):
        return value[0]
    return value[where.copies, where.positions]


def _tolerance(like: Tensor) -> float:
    return max(SUM_TOLERANCE, 20 * torch.finfo(like.dtype).eps)


def _change(
    writes: AnyWrites, step: Step, written: Written, where: Where, reads: Where
) -> BlockChange:
    """Changed minus clean at the rows `reads`; those that were not run have not changed."""
    n_tokens = len(writes.clean)
    keys, wanted = (rows.copies * n_tokens + rows.positions for rows in (where, reads))
    nearest = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    run = (keys[nearest] == wanted)[:, None]  # [N, 1]
    before = writes.at(step, reads.positions)
    attention = torch.where(run, written.attention[nearest] - before.attention, 0.0)
    mlp = torch.where(run, written.mlp[nearest] - before.mlp, 0.0)
    if written.outputs is None or before.outputs is None:
        return BlockChange(step.block, attention, mlp, None)
    outputs = torch.where(run, written.outputs[nearest] - before.outputs, 0.0)
    heads = _by_head(writes.model, step.block, outputs)
    missed = (heads.sum(1) - attention).norm(dim=-1)
    add_up = (missed <= _tolerance(missed) * before.attention.norm(dim=-1)).all()
    return BlockChange(step.block, attention, mlp, heads if add_up else None)


def _by_head(model: LanguageModel, block: int, outputs: Tensor) -> Tensor:
    """What each head's output `[N, H * d]` adds to the stream: `[N, H, D]`, the bias left out."""
    attention: Any = model.model.blocks[block].attn
    n_heads = int(model.model.cfg.n_heads)
    split = outputs.unflatten(-1, (n_heads, -1))  # [N, H, d]
    if not hasattr(attention, "o"):  # a `HookedTransformer`
        return torch.einsum("nhd,hdm->nhm", split, attention.W_O)
    alone = (
        torch.eye(n_heads, dtype=split.dtype, device=split.device)[..., None] * split[:, :, None]
    )
    projected: Tensor = attention.o(alone.flatten(2)) - attention.o(
        torch.zeros_like(alone).flatten(2)
    )
    return projected
