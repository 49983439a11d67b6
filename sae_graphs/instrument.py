"""`InstrumentedModel`: a language model with a stack of SAEs on its residual stream.

A clean run records every block's call. Afterwards any stretch of the model can be run again from
a changed stream, block by block, with the recorded masks and rotary tensors: exactly what a full
forward pass with a hook would compute, without the layers below.

Letters: `B` batch, `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor, nn

from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.recording import BlockCall, outputs_of, recording_calls
from sae_graphs.rows import KeysAndValues, RowChange, keys_and_values, run_rows
from sae_graphs.saes import SAEStack, StreamPoint, stack_from

log = logging.getLogger(__name__)

CHECKED_ROWS = 8  # of a prompt, on which an SAE is checked to treat tokens one by one
REPLAY_TOLERANCE = 1e-4  # of the stream's norm, float32; a broken replay misses by far more


@dataclass(frozen=True, eq=False)
class CleanRun:
    """One undisturbed forward pass over one prompt.

    `points`, `streams` and `activations` have one entry per SAE layer: where it sits, the stream
    there `[T, D]`, its features' activations `[T, F]`; `inputs` the
    stream before each block `[T, D]`; `kept` the keys and values of each block's attention, None
    where rows cannot be run alone; `logits` is `[T, V]`.
    """

    prompt: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    points: tuple[StreamPoint, ...]
    streams: tuple[Tensor, ...]
    activations: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    calls: tuple[BlockCall, ...]
    kept: tuple[KeysAndValues | None, ...]
    logits: Tensor

    def __len__(self) -> int:
        return len(self.token_ids)


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
        self._replay_checked = False
        self._rows_checked = False
        self._rows_alone = hasattr(model, "original_model")
        d_model, n_blocks = int(model.cfg.d_model), len(model.blocks)
        for layer in self.stack.layers:
            if layer.sae.cfg.d_in != d_model:
                raise SAELoadError(
                    f"the SAE on {layer.point.hook_name} reads {layer.sae.cfg.d_in} dimensions, "
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
        tokens = torch.tensor([ids], device=self.model.cfg.device)
        with recording_calls(self.model.blocks) as recorded:
            logits = self._forward(tokens)[0]  # [T, V]
        inputs = tuple(stream[0] for stream in recorded.inputs)  # [T, D] each
        run = CleanRun(
            prompt=prompt,
            token_ids=ids,
            tokens=tuple(self.token_string(i) for i in ids),
            points=tuple(layer.point for layer in self.stack.layers),
            streams=(),
            activations=(),
            inputs=inputs,
            calls=tuple(recorded.calls),
            kept=(),
            logits=logits,
        )
        if not torch.isfinite(logits).all():
            raise SaeGraphsError(f"{self.name} answers NaN on this prompt; check its weights")
        streams = tuple(self._stream_at(run, layer.point) for layer in self.stack.layers)
        activations = tuple(
            layer.encode(stream) for layer, stream in zip(self.stack.layers, streams, strict=True)
        )
        run = replace(run, streams=streams, activations=activations, kept=self._keep(run))
        self._check_replay(run)
        return run

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
    def run_segment(self, clean: CleanRun, depth: int, change: RowChange) -> Tensor:
        """Run changed streams on from SAE layer `depth` to the next, at the row to read: `[B, D]`.

        Where one block lies between, only the changed rows are run; else all.
        """
        start, stop = (layer.point for layer in self.stack.layers[depth : depth + 2])
        if self._rows_alone and "mid" not in (start.site, stop.site):
            block = start.block + (start.site == "post")
            if stop.block + (stop.site == "post") == block + 1:
                out = self._replay_rows(clean, block, change)
                if out is not None:
                    return out[:, 0]
        streams = self._advance(clean, start, stop, change.whole(clean.streams[depth]))
        return streams[torch.arange(len(streams)), change.rows[:, 0]]

    @torch.no_grad()
    def run_to_logits(self, clean: CleanRun, depth: int, change: RowChange) -> Tensor:
        """Run changed streams on to the logits at the row to read: `[B, V]`."""
        end = StreamPoint(len(self.model.blocks) - 1, "post")
        streams = change.whole(clean.streams[depth])
        last = self._advance(clean, self.stack.layers[depth].point, end, streams)  # [B, T, D]
        rows = change.rows[:, :1, None].expand(-1, -1, last.shape[-1])
        return self._unembed(last.gather(1, rows))[:, 0]

    # -- inside ------------------------------------------------------------------------------------

    def _forward(self, tokens: Tensor) -> Tensor:
        if hasattr(self.model, "original_model"):  # a bridge; its cache would disturb replays
            return self.model(tokens, use_cache=False)
        return self.model(tokens)

    def _unembed(self, streams: Tensor) -> Tensor:
        logits = self.model.unembed(self.model.ln_final(streams))
        cap = getattr(self.model.cfg, "output_logits_soft_cap", None)
        return cap * torch.tanh(logits / cap) if cap and cap > 0 else logits

    def _stream_at(self, clean: CleanRun, point: StreamPoint) -> Tensor:
        if point.site == "mid":
            block_input = clean.inputs[point.block][None]
            return self._replay(clean, point.block, block_input, leave_at_mid=True)[0]
        return clean.inputs[point.block + (point.site == "post")]

    def _advance(
        self, clean: CleanRun, start: StreamPoint, stop: StreamPoint, streams: Tensor
    ) -> Tensor:
        """Run streams `[B, T, D]` from one point of the stream to a later one."""
        block = start.block
        if start.site == "mid":
            streams = self._replay_from_mid(clean, block, streams)
        if start.site != "pre":
            block += 1
        while block < stop.block or (block == stop.block and stop.site == "post"):
            streams = self._replay(clean, block, streams)
            block += 1
        if stop.site == "mid":
            streams = self._replay(clean, stop.block, streams, leave_at_mid=True)
        return streams

    def _replay(
        self, clean: CleanRun, block: int, streams: Tensor, *, leave_at_mid: bool = False
    ) -> Tensor:
        """One block on `[B, T, D]`, called as in the clean run."""
        call = clean.calls[block]
        streams = streams.contiguous()  # a `HookedTransformer` block views its input
        if leave_at_mid:
            with outputs_of(self._mid_hook(block)) as seen:
                self.model.blocks[block](streams, *call.args, **call.kwargs)
            return seen[0]
        out = self.model.blocks[block](streams, *call.args, **call.kwargs)
        return out[0] if isinstance(out, tuple) else out

    def _replay_rows(self, clean: CleanRun, block: int, change: RowChange) -> Tensor | None:
        """One block on some rows only: `[B, Q, D]`, or None where that cannot be done."""
        kept, call = clean.kept[block], clean.calls[block]
        if kept is None:
            return None
        return run_rows(self.model.blocks[block], change, kept, call.args, call.kwargs)

    def _keep(self, clean: CleanRun) -> tuple[KeysAndValues | None, ...]:
        if not self._rows_alone:
            return (None,) * len(clean.calls)
        return tuple(
            keys_and_values(block, stream, call.args, call.kwargs)
            for block, stream, call in zip(
                self.model.blocks, clean.inputs, clean.calls, strict=False
            )
        )

    def _replay_from_mid(self, clean: CleanRun, block: int, streams: Tensor) -> Tensor:
        """The second half of a block, from changed mid-block streams `[B, T, D]`."""
        clean_mid = self._stream_at(clean, StreamPoint(block, "mid"))
        handle = self._mid_hook(block).register_forward_hook(
            lambda module, args, output: streams.to(output.dtype).contiguous()
        )
        try:
            whole = clean.inputs[block].expand(len(streams), -1, -1)
            out = self._replay(clean, block, whole)
        finally:
            handle.remove()
        ln2 = getattr(self.model.blocks[block], "ln2", None)
        if self._mid_hook(block) is getattr(ln2, "hook_in", None):
            # A bridge's hook sits on the way into ln2 only: the skip connection went round it.
            out = out + (streams - clean_mid)
        return out

    def _mid_hook(self, block: int) -> nn.Module:
        name = StreamPoint(block, "mid").hook_name
        if name not in self.model.hook_dict:
            raise SAELoadError(f"{self.name} has no {name}; use SAEs on hook_resid_pre or _post")
        return self.model.hook_dict[name]

    def _check_replay(self, clean: CleanRun) -> None:
        """Once per model: replaying the clean stream must give the recorded streams and logits.

        Guards against architectures that the replay does not fit; they must fail loudly.
        """
        if self._rows_alone and not self._rows_checked and len(clean) > 1:
            self._rows_alone = self._rows_agree(clean)
            self._rows_checked = True
        if self._replay_checked:
            return
        self._check_saes(clean)
        for block in range(len(clean.calls)):
            again = self._replay(clean, block, clean.inputs[block][None])[0]
            self._require_equal(again, clean.inputs[block + 1], f"block {block}")
        self._require_equal(self._unembed(clean.inputs[-1][None])[0], clean.logits, "the logits")
        self._replay_checked = len(clean) > 1  # one token says nothing of masks and positions

    def _check_saes(self, clean: CleanRun) -> None:
        """Each SAE must treat tokens one by one, and decode from the rows of `W_dec` alone."""
        for layer, stream, acts in zip(
            self.stack.layers, clean.streams, clean.activations, strict=True
        ):
            stream, acts = stream[-CHECKED_ROWS:], acts[-CHECKED_ROWS:]
            alone = torch.cat([layer.encode(row[None]) for row in stream])
            active = (acts != 0).any(0).nonzero()[:, 0]
            part = layer.decoder_of(active)(acts[:, active], stream)
            whole = layer.decode(acts, stream)
            if not (self._close(alone, acts) and self._close(part, whole)):
                raise SAELoadError(
                    f"the SAE on {layer.point.hook_name} mixes tokens or does not decode feature "
                    "by feature; save it for inference with sae-lens, or use another kind"
                )

    def _rows_agree(self, clean: CleanRun) -> bool:
        """Whether each block gives on rows alone what it gives on all rows, for a disturbed one."""
        last = len(clean) - 1
        rows = torch.tensor([[last, last // 2]], device=clean.logits.device)
        for block in range(len(clean.calls)):
            stream = clean.inputs[block]
            change = RowChange(rows, stream[rows].flip(1))  # two rows change places
            alone = self._replay_rows(clean, block, change)
            whole = self._replay(clean, block, change.whole(stream))[:, rows[0]]
            if alone is None or not self._close(alone, whole):
                log.warning(
                    "block %d of %s cannot be run on some rows alone: all rows are run, which is "
                    "as exact and slower",
                    block,
                    self.name,
                )
                return False
        return True

    def _close(self, again: Tensor, recorded: Tensor) -> bool:
        tolerance = max(REPLAY_TOLERANCE, 20 * torch.finfo(recorded.dtype).eps)
        return float((again - recorded).norm()) <= tolerance * float(recorded.norm())

    def _require_equal(self, again: Tensor, recorded: Tensor, what: str) -> None:
        if not self._close(again, recorded):
            raise SaeGraphsError(
                f"re-running {what} of {self.name} does not give what the model computed: call "
                "model.eval() if it is training; else its architecture keeps a state between calls"
            )
