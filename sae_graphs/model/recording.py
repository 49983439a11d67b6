"""Listening to a model while it runs; every hook is gone when the context closes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sae_graphs.model.rows import KeysAndValues, Recorder, with_cache


@dataclass(frozen=True)
class BlockCall:
    """What a block was called with in a run, its input stream aside."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Recording:
    """`inputs` ends with the last block's output: one stream more than there are blocks.

    `recorders` saw what each block's attention read; None where it cannot be seen.
    """

    inputs: list[Tensor]
    calls: list[BlockCall]
    recorders: list[Recorder | None]

    @property
    def kept(self) -> list[KeysAndValues | None]:
        """The keys and values of each block, None where it did not show them."""
        return [
            held.seen[0] if held is not None and len(held.seen) == 1 else None
            for held in self.recorders
        ]


@contextmanager
def outputs_of(hook: nn.Module) -> Iterator[list[Tensor]]:
    """Everything that passes a hook point while the context is open."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen.append(output)

    handle = hook.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def entering(block: nn.Module, streams: Tensor) -> Iterator[None]:
    """Other streams `[B, T, D]` enter a block while the context is open."""

    def replace(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return streams, *args[1:]

    handle = block.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


class _Left(BaseException):
    """The forward pass is left: no error, and not to be taken for one on its way out."""


@contextmanager
def leaving_after(block: nn.Module) -> Iterator[list[Tensor]]:
    """The forward pass inside the context ends with a block, whose output is in the list."""
    left: list[Tensor] = []

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        left.append(output[0] if isinstance(output, tuple) else output)
        raise _Left

    handle = block.register_forward_hook(leave)
    try:
        yield left
    except _Left:
        pass
    finally:
        handle.remove()


@contextmanager
def recording_calls(blocks: nn.ModuleList, *, keep: bool = False) -> Iterator[Recording]:
    """Record the call of every block, and the last one's output, while the context is open.

    With `keep`, also the keys and values that its attention reads.
    """
    recording = Recording([], [], [])

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recording.inputs.append(args[0])
        recording.calls.append(BlockCall(args[1:], kwargs))
        recorder = Recorder()
        call = with_cache(module, args[1:], kwargs, recorder) if keep else None
        recording.recorders.append(None if call is None else recorder)
        return None if call is None else ((args[0], *call[0]), call[1])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        recording.inputs.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        for block in blocks:
            handle = block.register_forward_pre_hook(before, with_kwargs=True)
            hooks.callback(handle.remove)
        hooks.callback(blocks[-1].register_forward_hook(after).remove)
        yield recording
