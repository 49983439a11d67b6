"""`InstrumentedModel`: a language model with a stack of SAEs on its residual stream.

A clean run records every block's call. Afterwards any stretch of the model can be run again from
a changed stream, block by block, with the recorded masks and rotary tensors: exactly what a full
forward pass with a hook would compute, without the layers below.

Letters: `B` batch, `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from sae_lens import SAE
from torch import Tensor, nn

from sae_graphs.activations import Activations
from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.recording import BlockCall, outputs_of, recording_calls
from sae_graphs.rows import KeysAndValues, Rows, Where, run_rows
from sae_graphs.saes import SAELayer, SAEStack, StreamPoint, stack_from

log = logging.getLogger(__name__)

CHECKED_TOKENS = 16  # of the first prompt, on which replays and SAEs are checked
REPLAY_TOLERANCE = 1e-4  # of the stream's norm, float32; a broken replay misses by far more
ENCODED_ROWS = 128  # rows that an SAE encodes at once: more gain nothing, and spill the caches
WORKING_MEMORY = 2**30  # bytes, where no budget was given
SAME = 1e-8  # of the squared norm: a spread below this is rounding


class Fit(NamedTuple):
    """How well an SAE fits its stream on a prompt (see `LayerReport`)."""

    fvu: float
    l0: float


@dataclass(frozen=True, eq=False)
class CleanRun:
    """One undisturbed forward pass over one prompt.

    `points`, `streams`, `activations` and `fits` have one entry per SAE layer: where it sits, the
    stream there `[T, D]`, its features' activations, how well it fits; `inputs` the stream before
    each block and after the last `[T, D]`; `kept` the keys and values of each block's attention,
    None where rows cannot be run alone; `logits` is `[T, V]`.
    """

    prompt: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    points: tuple[StreamPoint, ...]
    streams: tuple[Tensor, ...]
    activations: tuple[Activations, ...]
    fits: tuple[Fit, ...]
    inputs: tuple[Tensor, ...]
    calls: tuple[BlockCall, ...]
    kept: tuple[KeysAndValues | None, ...]
    logits: Tensor

    def __len__(self) -> int:
        return len(self.token_ids)


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


class InstrumentedModel:
    """A `TransformerBridge` or `HookedTransformer` with SAEs at its residual hook points.

    `saes` are sae-lens SAEs in any order, or a stack. The model must already carry the weight
    processing that the SAEs were trained with (`sae_graphs.load` sees to it).
    """

    def __init__(
        self, model: Any, saes: SAEStack | Sequence[SAE[Any]], *, name: str | None = None
    ) -> None:
        self.model = model
        self.stack = saes if isinstance(saes, SAEStack) else stack_from(saes)
        self.name = name or str(getattr(model.cfg, "model_name", None) or "custom")
        self._checked = False
        self._rows_alone = hasattr(model, "original_model")
        self.working_memory = WORKING_MEMORY
        d_model, n_blocks = int(model.cfg.d_model), len(model.blocks)
        for layer in self.stack.layers:
            if layer.d_in != d_model:
                raise SAELoadError(
                    f"the SAE on {layer.point.hook_name} reads {layer.d_in} dimensions, "
                    f"{self.name} has {d_model}; use SAEs that were trained on this model"
                )
            if layer.point.block >= n_blocks:
                raise SAELoadError(
                    f"the SAE on {layer.point.hook_name} lies outside {self.name}, which has "
                    f"{n_blocks} blocks; use SAEs that were trained on this model"
                )

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.model.tokenizer

    def tokenize(self, prompt: str, *, prepend_bos: bool | None = None) -> tuple[int, ...]:
        """Token ids of the prompt; BOS comes first as the SAEs' metadata says, and only once."""
        if not isinstance(prompt, str):
            raise SaeGraphsError(f"the prompt is {prompt!r}; give some text")
        text = prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not prompt or not ids:
            raise SaeGraphsError("the prompt is empty; give some text")
        bos = self.tokenizer.bos_token_id
        wanted = self.stack.prepend_bos if prepend_bos is None else prepend_bos
        if wanted and bos is not None and ids[0] != bos:
            ids.insert(0, bos)
        limit = int(self.model.cfg.n_ctx)
        if len(ids) > limit:
            raise SaeGraphsError(
                f"the prompt has {len(ids)} tokens, {self.name} reads at most {limit}; shorten it"
            )
        return tuple(ids)

    def token_string(self, token_id: int) -> str:
        """A token as text, with the leading space that sentencepiece tokenizers hide."""
        piece = self.tokenizer.convert_ids_to_tokens(token_id)
        if isinstance(piece, str) and piece.startswith("▁"):
            return piece.replace("▁", " ")
        return str(self.tokenizer.decode([token_id]))

    @torch.no_grad()
    def clean_run(self, prompt: str, *, prepend_bos: bool | None = None) -> CleanRun:
        """Run the prompt once and keep what the measurements need."""
        ids = self.tokenize(prompt, prepend_bos=prepend_bos)
        if not self._checked:
            self._check(ids[:CHECKED_TOKENS])
            self._checked = len(ids) > 1  # one token says nothing of masks and positions
        return self._with_features(self._run(ids, prompt, keep=self._rows_alone))

    @torch.no_grad()
    def streams_of(self, tokens: Tensor) -> list[Tensor]:
        """The stream at every SAE layer for a batch of token ids `[B, T]`: `[B, T, D]` each."""
        mids = [layer.point for layer in self.stack.layers if layer.point.site == "mid"]
        with ExitStack() as hooks:
            recorded = hooks.enter_context(recording_calls(self.model.blocks))
            seen = {
                point: hooks.enter_context(outputs_of(self._mid_hook(point.block)))
                for point in mids
            }
            self._forward(tokens)
        return [
            seen[layer.point][0]
            if layer.point in seen
            else recorded.inputs[layer.point.block + (layer.point.site == "post")]
            for layer in self.stack.layers
        ]

    @torch.no_grad()
    def advance(
        self, clean: CleanRun, start: StreamPoint, stop: StreamPoint, change: Rows, reads: Where
    ) -> Tensor:
        """Run changed copies of the stream on from `start` to `stop`: `[N, D]` at the rows `reads`.

        Exactly what a full forward pass with the change would give there. Only rows that the
        change reaches are run, and those that are read.
        """
        rows = change
        for _, reached in self.walk(clean, start, stop, change, reads):
            rows = reached
        return rows.at(reads, self._stream_at(clean, stop))

    @torch.no_grad()
    def run_to_logits(
        self, clean: CleanRun, start: StreamPoint, change: Rows, reads: Where
    ) -> Tensor:
        """Run changed copies of the stream on to the logits `[N, V]` at the rows `reads`."""
        return self.unembed(self.advance(clean, start, self.end, change, reads))

    @property
    def end(self) -> StreamPoint:
        """After the last block."""
        return StreamPoint(len(self.model.blocks) - 1, "post")

    def walk(
        self, clean: CleanRun, start: StreamPoint, stop: StreamPoint, change: Rows, reads: Where
    ) -> Iterator[tuple[Step, Rows]]:
        """`advance` block by block: after each, the rows that may differ from the clean run.

        Before the last block these are all rows from a copy's first change to its last read; at
        the end those that are read, and others or not. Gradients flow through.
        """
        steps = steps_between(start, stop)
        n_copies = max(change.where.n_copies, reads.n_copies)
        wanted = reads.mask(n_copies, len(clean))
        rows, at = change, start
        for number, step in enumerate(steps):
            if step.part != "from mid":  # attention: the change spreads to later rows
                changed = rows.where.mask(n_copies, len(clean))
                last = number == len(steps) - 1
                where = Where.of(changed | wanted if last else _reached(changed, wanted))
                rows = Rows(where, rows.at(where, self._stream_at(clean, at)))
                asked = wanted[where] if last else torch.ones_like(where.copies, dtype=torch.bool)
            else:
                asked = torch.ones_like(rows.where.copies, dtype=torch.bool)
            if len(rows.where):
                out = self._step(clean, step, rows, asked, n_copies)
                rows = Rows(rows.where.chosen(asked), out)
            at = StreamPoint(step.block, "mid" if step.part == "to mid" else "post")
            yield step, rows

    def unembed(self, streams: Tensor) -> Tensor:
        """The logits `[N, V]` of streams after the last block `[N, D]`."""
        logits = self.model.unembed(self.model.ln_final(streams[None]))[0]
        cap = getattr(self.model.cfg, "output_logits_soft_cap", None)
        return cap * torch.tanh(logits / cap) if cap and cap > 0 else logits

    # -- inside ------------------------------------------------------------------------------------

    def _forward(self, tokens: Tensor) -> Tensor:
        if hasattr(self.model, "original_model"):  # a bridge; its cache would disturb replays
            return self.model(tokens, use_cache=False)
        return self.model(tokens)

    def _run(self, ids: tuple[int, ...], prompt: str, *, keep: bool) -> CleanRun:
        """The forward pass, its streams and calls; the features are left out."""
        tokens = torch.tensor([ids], device=self.model.cfg.device)
        with recording_calls(self.model.blocks, keep=keep) as recorded:
            logits = self._forward(tokens)[0]  # [T, V]
        if not torch.isfinite(logits).all():
            raise SaeGraphsError(f"{self.name} answers NaN on this prompt; check its weights")
        run = CleanRun(
            prompt=prompt,
            token_ids=ids,
            tokens=tuple(self.token_string(i) for i in ids),
            points=tuple(layer.point for layer in self.stack.layers),
            streams=(),
            activations=(),
            fits=(),
            inputs=tuple(stream[0] for stream in recorded.inputs),
            calls=tuple(recorded.calls),
            kept=tuple(recorded.kept),
            logits=logits,
        )
        return replace(run, streams=tuple(self._stream_at(run, point) for point in run.points))

    def _with_features(self, clean: CleanRun) -> CleanRun:
        """The run with every layer's features encoded, one SAE after the other."""
        found = [
            _encoded(layer, stream)
            for layer, stream in zip(self.stack.layers, clean.streams, strict=True)
        ]
        activations, fits = zip(*found, strict=True)
        return replace(clean, activations=activations, fits=fits)

    def _stream_at(self, clean: CleanRun, point: StreamPoint) -> Tensor:
        """The clean stream `[T, D]` at a point."""
        if point.site != "mid":
            return clean.inputs[point.block + (point.site == "post")]
        if clean.streams and point in clean.points:
            return clean.streams[clean.points.index(point)]
        block_input = clean.inputs[point.block][None]
        return self._replay(clean, Step(point.block, "to mid"), block_input)[0]

    def _step(
        self, clean: CleanRun, step: Step, rows: Rows, wanted: Tensor, n_copies: int
    ) -> Tensor:
        """One block, or half of it, on some rows: `[R', D]` at those wanted `[R]`."""
        if self._rows_alone:
            out = self._run_rows(clean, step, rows, wanted)
            if out is not None:
                return out
        start = StreamPoint(step.block, "mid" if step.part == "from mid" else "pre")
        whole = rows.whole(self._stream_at(clean, start), n_copies)
        out = self._replay(clean, step, whole)
        return out[rows.where.copies[wanted], rows.where.positions[wanted]]

    def _run_rows(
        self, clean: CleanRun, step: Step, rows: Rows, wanted: Tensor | None = None
    ) -> Tensor | None:
        """One block on some rows alone, or None where that cannot be done."""
        kept, call = clean.kept[step.block], clean.calls[step.block]
        if kept is None:
            return None
        block = self.model.blocks[step.block]

        def run(rows: Rows, wanted: Tensor | None = None) -> Tensor | None:
            return run_rows(block, rows, kept, call.args, call.kwargs, wanted)

        if step.part == "whole":
            return run(rows, wanted)
        if step.part == "to mid":
            with outputs_of(self._mid_hook(step.block)) as seen:
                done = run(rows, wanted)
            return None if done is None else seen[0][0]
        before = Rows(rows.where, clean.inputs[step.block][rows.where.positions])
        with self._mid_replaced(step.block, rows.streams[None]):
            out = run(before)
        if out is None or not self._skip_goes_round(step.block):
            return out
        clean_mid = self._stream_at(clean, StreamPoint(step.block, "mid"))
        return out + (rows.streams - clean_mid[rows.where.positions])

    def _replay(self, clean: CleanRun, step: Step, streams: Tensor) -> Tensor:
        """One block, or half of it, on all rows `[B, T, D]`, called as in the clean run."""
        call, block = clean.calls[step.block], self.model.blocks[step.block]
        streams = streams.contiguous()  # a `HookedTransformer` block views its input
        if step.part == "to mid":
            with outputs_of(self._mid_hook(step.block)) as seen:
                block(streams, *call.args, **call.kwargs)
            return seen[0]
        if step.part == "whole":
            out = block(streams, *call.args, **call.kwargs)
            return out[0] if isinstance(out, tuple) else out
        before = clean.inputs[step.block].expand(len(streams), -1, -1)
        with self._mid_replaced(step.block, streams):
            out = self._replay(clean, Step(step.block, "whole"), before)
        if not self._skip_goes_round(step.block):
            return out
        return out + (streams - self._stream_at(clean, StreamPoint(step.block, "mid")))

    def _skip_goes_round(self, block: int) -> bool:
        """A bridge's hook sits on the way into ln2 only: the skip connection goes round it."""
        ln2 = getattr(self.model.blocks[block], "ln2", None)
        return self._mid_hook(block) is getattr(ln2, "hook_in", None)

    @contextmanager
    def _mid_replaced(self, block: int, streams: Tensor) -> Iterator[None]:
        """Other streams `[B, T, D]` enter the second half of a block."""
        handle = self._mid_hook(block).register_forward_hook(
            lambda module, args, output: streams.to(output.dtype).contiguous()
        )
        try:
            yield
        finally:
            handle.remove()

    def _mid_hook(self, block: int) -> nn.Module:
        name = StreamPoint(block, "mid").hook_name
        if name not in self.model.hook_dict:
            raise SAELoadError(f"{self.name} has no {name}; use SAEs on hook_resid_pre or _post")
        return self.model.hook_dict[name]

    def _check(self, ids: tuple[int, ...]) -> None:
        """Replaying a clean run must give its streams and logits, and rows alone as all rows do.

        Guards against architectures that the replay does not fit; they must fail loudly.
        """
        clean = self._run(ids, "", keep=False)
        self._check_saes(clean)
        for block in range(len(clean.calls)):
            again = self._replay(clean, Step(block, "whole"), clean.inputs[block][None])[0]
            self._require_equal(again, clean.inputs[block + 1], f"block {block}")
        self._require_equal(self.unembed(clean.inputs[-1]), clean.logits, "the logits")
        if self._rows_alone and len(ids) > 1:
            self._rows_alone = self._rows_agree(self._run(ids, "", keep=True), clean.logits)

    def _check_saes(self, clean: CleanRun) -> None:
        """Each SAE must treat tokens one by one, and decode from the rows of `W_dec` alone."""
        for layer, stream in zip(self.stack.layers, clean.streams, strict=True):
            acts = layer.encode(stream)
            alone = torch.cat([layer.encode(row[None]) for row in stream])
            active = (acts != 0).any(0).nonzero()[:, 0]
            part = layer.decoder_of(active)(acts[:, active], stream)
            whole = layer.decode(acts, stream)
            if not (self._close(alone, acts) and self._close(part, whole)):
                raise SAELoadError(
                    f"the SAE on {layer.point.hook_name} mixes tokens or does not decode feature "
                    "by feature; save it for inference with sae-lens, or use another kind"
                )

    def _rows_agree(self, clean: CleanRun, logits: Tensor) -> bool:
        """Whether each block gives on rows alone what it gives on all rows, for disturbed ones.

        And whether listening to its keys and values has left the run's `logits` as they were.
        """
        last = len(clean) - 1
        device = clean.logits.device
        copies = torch.tensor([0, 0, 1], device=device)
        where = Where(copies, torch.tensor([last // 2, last, last], device=device))
        agree = self._close(clean.logits, logits)
        for block in range(len(clean.calls)):
            stream = clean.inputs[block]
            # In one copy two rows change places; in the other the last one is as the first.
            rows = Rows(where, stream[torch.tensor([last, last // 2, 0], device=device)])
            wanted = where.positions == last
            alone = self._run_rows(clean, Step(block, "whole"), rows, wanted)
            whole = self._replay(clean, Step(block, "whole"), rows.whole(stream, 2))[where]
            agree = agree and alone is not None and self._close(alone, whole[wanted])
            if not agree:
                log.warning(
                    "block %d of %s cannot be run on some rows alone: all rows are run, which is "
                    "as exact and slower",
                    block,
                    self.name,
                )
                break
        return agree

    def _close(self, again: Tensor, recorded: Tensor) -> bool:
        tolerance = max(REPLAY_TOLERANCE, 20 * torch.finfo(recorded.dtype).eps)
        return float((again - recorded).norm()) <= tolerance * float(recorded.norm())

    def _require_equal(self, again: Tensor, recorded: Tensor, what: str) -> None:
        if not self._close(again, recorded):
            raise SaeGraphsError(
                f"re-running {what} of {self.name} does not give what the model computed: call "
                "model.eval() if it is training; else its architecture keeps a state between calls"
            )


def _reached(changed: Tensor, wanted: Tensor) -> Tensor:
    """`[B, T]`: the rows from each copy's first changed one to the last that is wanted."""
    after_first = changed.cummax(1).values
    return after_first & wanted.flip(1).cummax(1).values.flip(1)


def _encoded(layer: SAELayer, stream: Tensor) -> tuple[Activations, Fit]:
    """A layer's features on the stream `[T, D]`, and how well they rebuild it.

    The first position is left out of the fit. Where positions do not differ (there is one, or one
    token repeated under rotary positions) there is no variance about the mean: the fraction is
    then of the squared norm.
    """
    parts, missed = [], []
    for rows in stream.split(ENCODED_ROWS):
        acts = layer.encode(rows)
        active = (acts != 0).any(0).nonzero()[:, 0]
        rebuilt = layer.decoder_of(active)(acts[:, active], rows)
        parts.append(Activations.of_dense(acts))
        missed.append((rows - rebuilt).double().square().sum(-1))
    activations = Activations.joined(parts)
    start = 1 if len(stream) > 1 else 0
    whole = stream.double()[start:]
    size, spread = whole.square().sum(), (whole - whole.mean(0)).square().sum()
    fvu = float(torch.cat(missed)[start:].sum() / (spread if spread > SAME * size else size))
    l0 = int((activations.positions >= start).sum()) / len(whole)
    return activations, Fit(fvu, l0)
