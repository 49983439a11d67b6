"""Is the bridge the model? Its streams and logits beside those of the plain transformers model.

A bridge rewrites the model that it wraps in place, so the plain one is heard before it is wrapped,
on a few tokens. Of a bridge that is already there, a plain model is made of the same weights.

Letters: `T` tokens, `D` d_model, `V` vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.recording import recording_calls

log = logging.getLogger(__name__)

N_TOKENS = 8  # heard: one token says nothing of masks and positions
# The largest part of its norm by which a stream may be off; a wrong formula misses by far more.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
ROUNDINGS = 16  # of lower precisions, in place of these
_WRAPPED = "._original_component"


class Compared(NamedTuple):
    """How far a bridge is from its plain model: parts of the norm, of the streams, of the logits.

    `unchecked` says why nothing was compared.
    """

    streams: float | None = None
    logits: float | None = None
    unchecked: str = ""

    @property
    def warning(self) -> str:
        """What a reader of a run should know; nothing, where the two were compared."""
        if not self.unchecked:
            return ""
        return (
            f"not checked: whether this model computes what transformers' own does, as "
            f"{self.unchecked}; load it by name with sae_graphs.load to have that compared"
        )


@dataclass(frozen=True, eq=False)
class Heard:
    """What a plain model made of some tokens: `[T, D]` before and after its modules in lists.

    `logits` is `[T, V]`.
    """

    tokens: Tensor  # [1, T]
    streams: dict[nn.Module, tuple[Tensor, Tensor]]
    logits: Tensor
    name: str  # of its class


@torch.no_grad()
def hear(plain: Any) -> Heard | None:
    """One short pass through a plain transformers model; None of one that is no decoder.

    Raises `SaeGraphsError` in place of what its own forward raises.
    """
    config = plain.config
    if getattr(config, "is_encoder_decoder", False):
        return None
    tokens = _tokens(config, next(plain.parameters()).device)
    with _listening(plain) as streams:
        answer = forward(plain, tokens, type(plain).__name__, use_cache=False)
    logits = getattr(answer, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        return None
    return Heard(tokens, streams, logits[0], type(plain).__name__)


@torch.no_grad()
def require_same(bridge: Any, heard: Heard) -> Compared:
    """How far a bridge is from what its plain model was heard to do.

    Raises `SaeGraphsError` naming the first stream that differs, or the logits.
    """
    with recording_calls(bridge.blocks) as recorded:
        logits = forward(bridge, heard.tokens, heard.name, use_cache=False)[0]
    worst, found = 0.0, 0
    for number, block in enumerate(bridge.blocks):
        plain = heard.streams.get(getattr(block, "original_component", block))
        if plain is None:
            continue
        found += 1
        worst = max(worst, _required(recorded.inputs[number][0], plain[0], "before", number, heard))
        if number == len(bridge.blocks) - 1:
            worst = max(worst, _required(recorded.inputs[-1][0], plain[1], "after", number, heard))
    off = deviation(logits, heard.logits)
    if not _close(off, logits.dtype):
        raise _not_the_model(heard, f"the logits are off by {off:.2g} of their norm", logits.dtype)
    if found < len(bridge.blocks):
        return Compared(None, off, "its blocks are not among the plain model's modules")
    return Compared(worst, off)


@torch.no_grad()
def require_same_answers(bridge: Any, heard: Heard) -> None:
    """After its weights were processed, which changes streams, probabilities must be the same."""
    logits = forward(bridge, heard.tokens, heard.name, use_cache=False)[0]
    off = deviation(logits.log_softmax(-1), heard.logits.log_softmax(-1))
    if not _close(off, logits.dtype):
        raise SaeGraphsError(
            f"{heard.name}: the processing of its weights that the SAEs ask for (folded norms, "
            f"centred weights) changes its log-probabilities, by {off:.2g} of their norm: "
            "transformer_lens does not process this architecture rightly; use SAEs that were "
            "trained on the model as it is"
        )


@torch.no_grad()
def compare_with_plain(model: Any) -> Compared:
    """A model that the user brought beside a plain one that shares its weights.

    Raises `SaeGraphsError` where they differ; says why where none can be had.
    """
    if not hasattr(model, "original_model"):
        return Compared(unchecked=f"a {type(model).__name__} holds no model of transformers")
    if getattr(model, "compatibility_mode", False) or getattr(model, "_weights_processed", False):
        return Compared(unchecked="its weights are processed")
    try:
        heard = heard_again(model)
    except Exception as problem:  # of many kinds: configurations are of many kinds
        log.debug("no plain model of %r", model, exc_info=problem)
        return Compared(unchecked="no plain model can be made of its weights and run")
    if heard is None or not torch.isfinite(heard.logits).all():
        return Compared(unchecked="its plain model gives no logits to compare")
    return require_same(model, heard)


@torch.no_grad()
def heard_again(bridge: Any) -> Heard | None:
    """What a plain model of the same weights does, by the modules that the bridge has wrapped.

    None of one that is no decoder; raises whatever keeps it from being made.
    """
    plain = plain_of(bridge)
    heard = hear(plain)
    if heard is None:
        return None
    held = {
        path.replace(_WRAPPED, ""): getattr(module, "original_component", module)
        for path, module in _in_lists(bridge.original_model)
    }
    streams = {
        held[path]: heard.streams[module]
        for path, module in _in_lists(plain)
        if path in held and module in heard.streams
    }
    return replace(heard, streams=streams)


def plain_of(bridge: Any) -> nn.Module:
    """A transformers model as it is before a bridge wraps it, of the same tensors: no copies.

    Raises `LookupError` where the bridge does not hold all of them.
    """
    wrapped: nn.Module = bridge.original_model
    held = {
        name.replace(_WRAPPED, ""): tensor
        for named in (wrapped.named_parameters, wrapped.named_buffers)
        for name, tensor in named(remove_duplicate=False)
    }
    with torch.device("meta"):
        plain: nn.Module = type(wrapped)(wrapped.config)
    for path, module in plain.named_modules():
        prefix = f"{path}." if path else ""
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                if tensor is not None:
                    slots[name] = held[prefix + name]
    return plain.eval()


def forward(model: Any, tokens: Tensor, name: str, **options: Any) -> Any:
    """A model's own forward pass; what it raises becomes one line with name, dtype and cause."""
    try:
        return model(tokens, **options)
    except Exception as problem:
        raise own_failure(name, next(model.parameters()).dtype, problem) from problem


def own_failure(name: str, dtype: torch.dtype, problem: Exception) -> SaeGraphsError:
    """The error for what a model's own code raises."""
    said = " ".join(str(problem).split())[:200] or "no words"
    kind = str(dtype).removeprefix("torch.")
    return SaeGraphsError(
        f"{name} fails in its own forward pass, in {kind}: {type(problem).__name__}, {said}; try "
        f"another dtype ({'float32' if kind != 'float32' else 'bfloat16'}) or model"
    )


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """How far rows `[T, D]` are from others, as a part of their norm: the worst row.

    In half precision the median row: there a router of experts may choose others by rounding.
    """
    if ours.shape != theirs.shape:
        return float("inf")
    precise = ours.dtype in TOLERANCE
    ours, theirs = ours.double(), theirs.to(ours.device).double()
    off = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp(min=1e-30)  # [T]
    return float(off.max() if precise else off.median())


# -- inside ----------------------------------------------------------------------------------------


def _close(off: float, dtype: torch.dtype) -> bool:
    return off <= TOLERANCE.get(dtype, ROUNDINGS * torch.finfo(dtype).eps)


def _required(ours: Tensor, theirs: Tensor, side: str, block: int, heard: Heard) -> float:
    off = deviation(ours, theirs)
    if not _close(off, ours.dtype):
        what = f"the stream {side} block {block} is off by {off:.2g} of its norm"
        raise _not_the_model(heard, what, ours.dtype)
    return off


def _not_the_model(heard: Heard, what: str, dtype: torch.dtype) -> SaeGraphsError:
    return SaeGraphsError(
        f"{heard.name} through transformer_lens's bridge is not the model: {what} from "
        f"transformers' own, in {str(dtype).removeprefix('torch.')}; nothing measured on it would "
        "be true of the model, and no option helps: use another model"
    )


def _tokens(config: Any, device: torch.device) -> Tensor:
    """Some distinct tokens `[1, T]`, the same each time; none that means more than itself."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = int(text.vocab_size)
    special = {
        value
        for part in (config, text)
        for name, value in vars(part).items()
        if name.endswith("token_id") and isinstance(value, int)
    }
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()
    most = getattr(text, "max_position_embeddings", None) or N_TOKENS
    chosen = [token for token in order if token not in special][: min(N_TOKENS, int(most))]
    return torch.tensor([chosen], device=device)


def _in_lists(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The members of a model's outermost lists of modules: its blocks are one of these."""
    outer: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{other}.") for other in outer)
        if isinstance(module, nn.ModuleList) and not inside and len(module):
            outer.append(path)
            yield from ((f"{path}.{number}", member) for number, member in enumerate(module))


@contextmanager
def _listening(plain: nn.Module) -> Iterator[dict[nn.Module, tuple[Tensor, Tensor]]]:
    """What enters and leaves the members of the lists of a model, batch of one: `[T, D]`."""
    heard: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        before = args[0] if args else kwargs.get("hidden_states")
        after = out[0] if isinstance(out, tuple) else out
        if isinstance(before, Tensor) and isinstance(after, Tensor) and module not in heard:
            heard[module] = before[0].clone(), after[0].clone()

    with ExitStack() as hooks:
        for _, module in _in_lists(plain):
            handle = module.register_forward_hook(keep, with_kwargs=True)
            hooks.callback(handle.remove)
        yield heard
