"""`InstrumentedModel`: a language model with a stack of SAEs on its residual stream.

A clean run records every block's call. Afterwards any stretch of the model can be run again from
a changed stream, block by block, with the recorded masks and rotary tensors: exactly what a full
forward pass with a hook would compute, without the layers below.

Letters: `B` batch, `T` tokens, `D` d_model, `F` features, `V` vocabulary.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.model.clean_run import ENCODED_ROWS, CleanRun, encode_layer
from sae_graphs.model.recording import outputs_of, recording_calls
from sae_graphs.model.replay import PACK_ROWS, Replay, Step, steps_between
from sae_graphs.model.rows import Rows, Where
from sae_graphs.model.saes import SAEStack, stack_from
from sae_graphs.model.self_check import check_replay, check_saes, rows_agree, same
from sae_graphs.model.stream import StreamPoint

log = logging.getLogger(__name__)

CHECKED_TOKENS = 16  # of the first prompt, on which replays and SAEs are checked
WORKING_MEMORY = 2**30  # bytes, where no budget was given


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
        self.replay = Replay(model)
        self._checked = False
        self._longest = 0  # tokens of a prompt on which running rows alone was checked
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

    def __repr__(self) -> str:
        labels = [layer.label for layer in self.stack.layers]
        return f"<InstrumentedModel {self.name}, {self.stack.name}: layers {', '.join(labels)}>"

    def between(self, first: str, last: str) -> InstrumentedModel:
        """The model with the SAE layers from label `first` to label `last`, both included."""
        part = copy.copy(self)
        part.stack = self.stack.between(first, last)
        return part

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
        return self.run_tokens(self.tokenize(prompt, prepend_bos=prepend_bos), prompt)

    @torch.no_grad()
    def run_tokens(self, token_ids: Sequence[int], prompt: str = "") -> CleanRun:
        """`clean_run` of token ids, BOS included where it is wanted."""
        ids = tuple(token_ids)
        if not self._checked:
            self._check(ids[:CHECKED_TOKENS])
            self._checked = len(ids) > 1  # one token says nothing of masks and positions
        clean = self._run(ids, prompt, keep=self.replay.rows_alone and self._checked)
        if self.replay.rows_alone and self._checked and len(ids) > 2 * self._longest:
            self._longest = len(ids)  # a block may treat long prompts in another way
            rows = self.rows_at_once(len(ids))
            self.replay.rows_alone = rows_agree(self.replay, clean, self.name, n_rows=rows)
        found = [
            encode_layer(layer, stream)  # one SAE after the other
            for layer, stream in zip(self.stack.layers, clean.streams, strict=True)
        ]
        activations, fits = zip(*found, strict=True)
        return replace(clean, activations=activations, fits=fits)

    @torch.no_grad()
    def streams_of(self, tokens: Tensor) -> list[Tensor]:
        """The stream at every SAE layer for a batch of token ids `[B, T]`: `[B, T, D]` each."""
        mids = [layer.point for layer in self.stack.layers if layer.point.site == "mid"]
        with ExitStack() as hooks:
            recorded = hooks.enter_context(recording_calls(self.model.blocks))
            seen = {
                point: hooks.enter_context(outputs_of(self.replay.mid_hook(point.block)))
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
        return rows.at(reads, self.replay.stream_at(clean, stop))

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
                rows = Rows(where, rows.at(where, self.replay.stream_at(clean, at)))
                asked = wanted[where] if last else torch.ones_like(where.copies, dtype=torch.bool)
            else:
                asked = torch.ones_like(rows.where.copies, dtype=torch.bool)
            if len(rows.where):
                out = self.replay.step(clean, step, rows, asked, n_copies)
                rows = Rows(rows.where.chosen(asked), out)
            at = StreamPoint(step.block, "mid" if step.part == "to mid" else "post")
            yield step, rows

    def unembed(self, streams: Tensor) -> Tensor:
        """The logits `[N, V]` of streams after the last block `[N, D]`."""
        logits = self.model.unembed(self.model.ln_final(streams[None]))[0]
        cap = getattr(self.model.cfg, "output_logits_soft_cap", None)
        return cap * torch.tanh(logits / cap) if cap and cap > 0 else logits

    def rows_at_once(self, n_tokens: int) -> int:
        """How many token rows may be run at once in the working memory."""
        cfg = self.model.cfg
        heads = int(getattr(cfg, "n_heads", 1))
        size = next(self.model.parameters()).element_size()
        widest = max(layer.n_features for layer in self.stack.layers)
        widest = max(widest, int(getattr(cfg, "d_vocab", 0)))
        rows = PACK_ROWS
        while rows > 1:
            floats = rows * (30 * int(cfg.d_model) + 4 * heads * (n_tokens + rows))
            floats += min(rows, ENCODED_ROWS) * 5 * widest
            if floats * size <= self.working_memory:
                break
            rows //= 2
        return rows

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
        return replace(
            run, streams=tuple(self.replay.stream_at(run, point) for point in run.points)
        )

    def _check(self, ids: tuple[int, ...]) -> None:
        """Once per model: its replays and its SAEs must do what they are taken to do."""
        clean = self._run(ids, "", keep=False)
        check_saes(self.stack.layers, clean)
        check_replay(self.replay, clean, self.unembed(clean.inputs[-1]), self.name)
        if not self.replay.rows_alone:
            log.warning("%s is no TransformerBridge: all rows are run, which is slower", self.name)
        elif not same(self._run(ids, "", keep=True).logits, clean.logits):
            self.replay.rows_alone = False
            log.warning("%s does not show its keys and values: all rows are run", self.name)


def _reached(changed: Tensor, wanted: Tensor) -> Tensor:
    """`[B, T]`: the rows from each copy's first changed one to the last that is wanted."""
    after_first = changed.cummax(1).values
    return after_first & wanted.flip(1).cummax(1).values.flip(1)


def weights_of(model: InstrumentedModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a model and its SAEs, by name, for `run_key`."""
    yield from model.model.named_parameters()
    for layer in model.stack.layers:
        for name, weights in layer.sae.state_dict().items():
            yield f"{layer.label}.{name}", weights
