"""`LanguageModel`: a language model whose blocks can be run again from a changed stream.

A run records every block's call. Afterwards any stretch of the model can be run again from a
changed stream, block by block, with the recorded masks and rotary tensors: exactly what a full
forward pass with a hook would compute, without the layers below. The run may start from changed
embeddings: replays from it are as exact, so a corrupted run can be restored piece by piece.

Letters: `B` copies, `T` tokens, `R` rows run, `N` rows read, `D` d_model, `V` vocabulary.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.model.head import Head
from sae_graphs.model.memory import MemoryPlan
from sae_graphs.model.plain import Compared, compare_with_plain, forward
from sae_graphs.model.recording import entering, leaving_after, outputs_of, recording_calls
from sae_graphs.model.replay import PACK_ROWS, Replay, Step, steps_between
from sae_graphs.model.rows import ENCODED_ROWS, Rows, Where, reached_rows
from sae_graphs.model.run import Run
from sae_graphs.model.self_check import check_left_to_right, check_replay, rows_agree, same
from sae_graphs.model.stream import StreamPoint
from sae_graphs.model.vocabulary import Vocabulary, prepends_bos
from sae_graphs.text import joined

log = logging.getLogger(__name__)

CHECKED_TOKENS = 16  # of the first prompt, on which replays are checked
PARTS = ("cfg", "blocks")  # without which nothing is run again
WORKING_MEMORY = 2**30  # bytes, where no budget was given


class LanguageModel:
    """A `TransformerBridge` or `HookedTransformer` to be run, and run again from any block on.

    `working_memory` is what activations and batches may take, in bytes; `memory_plan`, of a model
    that `sae_graphs.load` made, how its memory is shared out. `name` is what errors and
    records call the model, by default as its configuration does. `prepend_bos` says whether BOS is
    put before a prompt, unless told otherwise; by default it is the tokenizer's own habit.
    `compared` says how far it is
    from the plain transformers model, None before the first run of one that was not loaded here.
    """

    def __init__(
        self, model: Any, *, name: str | None = None, prepend_bos: bool | None = None
    ) -> None:
        lacking = [part for part in PARTS if not hasattr(model, part)]
        if lacking:
            raise SaeGraphsError(
                f"{type(model).__name__} has no {quoted(lacking)}; expected a TransformerBridge or "
                "a HookedTransformer of a model that writes text from left to right, or a name for "
                "sae_graphs.load_model"
            )
        if getattr(model, "acts_to_saes", None):
            raise SaeGraphsError(
                f"SAEs are attached to this {type(model).__name__}, which changes what it "
                "computes; take them off with reset_saes(), and give them apart: "
                "InstrumentedModel(model, saes)"
            )
        self.model = model
        self.name = name or str(getattr(model.cfg, "model_name", None) or "custom")
        self._prepend_bos = prepend_bos
        self.replay = Replay(model)
        self.head = Head(model)
        self.compared: Compared | None = None
        self.working_memory = WORKING_MEMORY
        self.memory_plan: MemoryPlan | None = None
        self._vocabulary: tuple[Vocabulary | None, int] = None, 0
        self._checked = False
        self._longest = 0  # tokens of a prompt on which running rows alone was checked

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    # -- text and tokens ---------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.model.tokenizer

    @property
    def prepend_bos(self) -> bool:
        """Whether BOS is put before a prompt, unless told otherwise."""
        return self._tokenizer_prepends_bos if self._prepend_bos is None else self._prepend_bos

    @cached_property
    def _tokenizer_prepends_bos(self) -> bool:
        return self.tokenizer is not None and prepends_bos(self.tokenizer)

    def tokenize(self, prompt: str, *, prepend_bos: bool | None = None) -> tuple[int, ...]:
        """Token ids of the prompt; BOS comes first as `prepend_bos` says, and only once.

        Raises `SaeGraphsError` where the prompt is no text, empty, or too long for the model.
        """
        if not isinstance(prompt, str):
            raise SaeGraphsError(f"the prompt is {prompt!r}; give some text")
        if self.tokenizer is None:
            raise SaeGraphsError(f"{self.name} has no tokenizer; give it one, model.tokenizer")
        if not isinstance(prepend_bos, bool | None):
            raise SaeGraphsError(f"prepend_bos is {prepend_bos!r:.40}; expected True or False")
        text = prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not prompt or not ids:
            raise SaeGraphsError("the prompt is empty; give some text")
        bos = self.tokenizer.bos_token_id
        wanted = self.prepend_bos if prepend_bos is None else prepend_bos
        if wanted and bos is not None and ids[0] != bos:
            ids.insert(0, bos)
        self._check_length(len(ids))
        return tuple(ids)

    def given(
        self, prompt: str | Sequence[int], *, prepend_bos: bool | None = None
    ) -> tuple[tuple[int, ...], str]:
        """Token ids and the text of a prompt that is given as text, or as ids, run as they are.

        Raises `SaeGraphsError` where it does not fit the model, and for `prepend_bos` with ids.
        """
        if isinstance(prompt, str):
            return self.tokenize(prompt, prepend_bos=prepend_bos), prompt
        ids = self._ids(prompt)
        if prepend_bos is not None:
            raise SaeGraphsError(
                f"prepend_bos={prepend_bos} with token ids, which are run as they are; put BOS "
                "among the ids, or give text"
            )
        return ids, joined(self.token_string(token_id) for token_id in ids)

    def token_string(self, token_id: int) -> str:
        """A token as text, with the leading space that sentencepiece tokenizers hide.

        Bytes of half a character are `<0xC3>`, a token that the tokenizer lacks is `#50300`.
        """
        return self.vocabulary.shown(token_id)

    @property
    def vocabulary(self) -> Vocabulary:
        """What the tokens are shown as; of the tokenizer that the model has now."""
        tokenizer, (held, n_held) = self.model.tokenizer, self._vocabulary
        n_tokens = len(tokenizer or ())  # more, where some were added since
        if held is None or held.tokenizer is not tokenizer or n_held != n_tokens:
            held = Vocabulary(tokenizer, int(getattr(self.model.cfg, "d_vocab", 0) or n_tokens))
            self._vocabulary = held, n_tokens
        return held

    # -- forward passes ----------------------------------------------------------------------------

    @torch.no_grad()
    def run(
        self,
        prompt: str | Sequence[int],
        *,
        prepend_bos: bool | None = None,
        embeddings: Tensor | None = None,
    ) -> Run:
        """One forward pass over a prompt, or over token ids as they are, to replay from.

        `embeddings` `[T, D]` take the place of the stream before the first block, `inputs[0]` of a
        run: what the model makes of them is recorded, and replayed as exactly.

            clean = model.run("The Eiffel Tower is in")
            noisy = clean.inputs[0].clone()
            noisy[1:4] += noise  # [3, D]
            corrupted = model.run(clean.token_ids, embeddings=noisy)

        Raises `SaeGraphsError` where the prompt, the ids or the embeddings do not fit the model,
        it answers NaN, or its blocks cannot be run again.
        """
        return self._run(*self.given(prompt, prepend_bos=prepend_bos), embeddings)

    @torch.no_grad()
    def streams_at(self, tokens: Tensor, points: Sequence[StreamPoint]) -> list[Tensor]:
        """The stream at some points for a batch of token ids `[B, T]`: `[B, T, D]` each.

        What lies above the deepest of them is not run.
        """
        with ExitStack() as hooks:
            recorded = hooks.enter_context(recording_calls(self.model.blocks))
            seen = {
                point: hooks.enter_context(outputs_of(self.replay.mid_hook(point.block)))
                for point in points
                if point.site == "mid"
            }
            deepest = max(points, key=lambda point: point.depth, default=self.end).block
            with leaving_after(self.model.blocks[deepest]) as left:
                self._forward(tokens)
        streams = [*recorded.inputs, *left]  # before every block that was run, and after the last
        return [
            seen[point][0].view(*tokens.shape, -1)
            if point in seen
            else streams[point.block + (point.site == "post")]
            for point in points
        ]

    # -- running stretches again -------------------------------------------------------------------

    @property
    def end(self) -> StreamPoint:
        """After the last block."""
        return StreamPoint(len(self.model.blocks) - 1, "post")

    @torch.no_grad()
    def advance(
        self, run: Run, start: StreamPoint, stop: StreamPoint, change: Rows, reads: Where
    ) -> Tensor:
        """Run changed copies of the stream on from `start` to `stop`: `[N, D]` at the rows `reads`.

        Exactly what a full forward pass with the change would give there. Only rows that the
        change reaches are run, and those that are read; all else is as `run` had it.
        """
        rows = change
        for _, reached in self.walk(run, start, stop, change, reads):
            rows = reached
        return rows.at(reads, self.replay.stream_at(run, stop))

    @torch.no_grad()
    def run_to_logits(self, run: Run, start: StreamPoint, change: Rows, reads: Where) -> Tensor:
        """Run changed copies of the stream on to the logits `[N, V]` at the rows `reads`."""
        return self.unembed(self.advance(run, start, self.end, change, reads))

    def walk(
        self, run: Run, start: StreamPoint, stop: StreamPoint, change: Rows, reads: Where
    ) -> Iterator[tuple[Step, Rows]]:
        """`advance` block by block: after each, the rows that may differ from `run`.

        Before the last block these are all rows from a copy's first change to its last read; at
        the end those that are read, and others or not. Gradients flow through.
        """
        steps = steps_between(start, stop)
        n_copies = max(change.where.n_copies, reads.n_copies)
        wanted = reads.mask(n_copies, len(run))
        rows, at = change, start
        for number, step in enumerate(steps):
            if step.part != "from mid":  # attention: the change spreads to later rows
                changed = rows.where.mask(n_copies, len(run))
                last = number == len(steps) - 1
                where = Where.of(changed | wanted if last else reached_rows(changed, wanted))
                rows = Rows(where, rows.at(where, self.replay.stream_at(run, at)))
                asked = wanted[where] if last else torch.ones_like(where.copies, dtype=torch.bool)
            else:
                asked = torch.ones_like(rows.where.copies, dtype=torch.bool)
            if len(rows.where):
                out = self.replay.step(run, step, rows, asked, n_copies)
                rows = Rows(rows.where.chosen(asked), out)
            at = StreamPoint(step.block, "mid" if step.part == "to mid" else "post")
            yield step, rows

    def unembed(self, streams: Tensor) -> Tensor:
        """The logits `[N, V]` of streams after the last block `[N, D]`."""
        return self.head(streams)

    def rows_at_once(self, n_tokens: int) -> int:
        """How many token rows may be run at once in the working memory."""
        cfg = self.model.cfg
        heads = int(getattr(cfg, "n_heads", 1))
        size = next(self.model.parameters()).element_size()
        rows = PACK_ROWS
        while rows > 1:
            floats = rows * (30 * int(cfg.d_model) + 4 * heads * (n_tokens + rows))
            floats += min(rows, ENCODED_ROWS) * 5 * self._widest
            if floats * size <= self.working_memory:
                break
            rows //= 2
        return rows

    # -- inside ------------------------------------------------------------------------------------

    @property
    def _widest(self) -> int:
        """The most numbers that are made of one row of the stream."""
        return int(getattr(self.model.cfg, "d_vocab", 0))

    def _ids(self, given: Sequence[int]) -> tuple[int, ...]:
        """Token ids as given, checked."""
        try:
            if isinstance(given, bytes | bytearray | Set) or any(
                isinstance(token_id, bool) for token_id in given
            ):
                raise TypeError  # numbers of another kind, or in no order
            ids = tuple(operator.index(token_id) for token_id in given)
        except TypeError:
            raise SaeGraphsError(
                f"the prompt is {given!r:.60}; give some text, or token ids in one row"
            ) from None
        if not ids:
            raise SaeGraphsError("the prompt has no tokens; give at least one token id")
        n_known = int(getattr(self.model.cfg, "d_vocab", 0)) or len(self.tokenizer)
        wrong = next((token_id for token_id in ids if not 0 <= token_id < n_known), None)
        if wrong is not None:
            raise SaeGraphsError(
                f"token id {wrong} is none of {self.name}'s; expected 0 to {n_known - 1}"
            )
        self._check_length(len(ids))
        return ids

    def _check_length(self, n_tokens: int) -> None:
        limit = int(self.model.cfg.n_ctx)
        if n_tokens > limit:
            raise SaeGraphsError(
                f"the prompt has {n_tokens} tokens, {self.name} reads at most {limit}; shorten it"
            )

    def _run(self, ids: tuple[int, ...], prompt: str, embeddings: Tensor | None = None) -> Run:
        """`run` of token ids; the first prompts, and longer ones than before, are checked."""
        if embeddings is not None:
            embeddings = self._fitting(embeddings, len(ids))
        if not self._checked:
            self._check(ids[:CHECKED_TOKENS])
            self._checked = len(ids) > 1  # one token says nothing of masks and positions
        keep = self.replay.rows_alone and self._checked
        run = self._recorded(ids, prompt, embeddings, keep=keep)
        if keep and len(ids) > 2 * self._longest:
            self._longest = len(ids)  # a block may treat long prompts in another way
            rows = self.rows_at_once(len(ids))
            self.replay.rows_alone = rows_agree(self.replay, run, self.name, n_rows=rows)
        return run

    def _recorded(
        self, ids: tuple[int, ...], prompt: str, embeddings: Tensor | None = None, *, keep: bool
    ) -> Run:
        """The forward pass and its calls; with `keep`, also what attention reads."""
        tokens = torch.tensor([ids], device=self.model.cfg.device)
        with ExitStack() as hooks:
            if embeddings is not None:  # before the recording, which hears what truly enters
                hooks.enter_context(entering(self.model.blocks[0], embeddings[None]))
            recorded = hooks.enter_context(recording_calls(self.model.blocks, keep=keep))
            logits = self._forward(tokens)[0]  # [T, V]
        if not torch.isfinite(logits).all():
            raise SaeGraphsError(f"{self.name} answers NaN on this prompt; check its weights")
        return Run(
            prompt=prompt,
            token_ids=ids,
            tokens=tuple(self.token_string(i) for i in ids),
            inputs=tuple(stream[0] for stream in recorded.inputs),
            calls=tuple(recorded.calls),
            kept=tuple(recorded.kept),
            logits=logits,
        )

    def _forward(self, tokens: Tensor) -> Tensor:
        # The cache of a bridge would disturb replays.
        options = {"use_cache": False} if hasattr(self.model, "original_model") else {}
        if self._checked:
            return self.model(tokens, **options)
        return forward(self.model, tokens, self.name, **options)

    def _fitting(self, embeddings: Tensor, n_tokens: int) -> Tensor:
        """Embeddings in the model's precision and place; raises where they do not fit it."""
        expected = (n_tokens, int(self.model.cfg.d_model))
        if not isinstance(embeddings, Tensor) or tuple(embeddings.shape) != expected:
            what = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else repr(embeddings)
            raise SaeGraphsError(
                f"the embeddings are {what!s:.60}; expected a tensor {list(expected)}, one row a "
                f"token of the prompt and {self.name}'s {expected[1]} dimensions"
            )
        if not torch.isfinite(embeddings).all():
            raise SaeGraphsError("the embeddings hold NaN or infinity; expected finite numbers")
        weights = next(self.model.parameters())
        return embeddings.to(device=self.model.cfg.device, dtype=weights.dtype)

    def _check(self, ids: tuple[int, ...]) -> None:
        """Once per model: it must be the model it is taken for, and replays what they are."""
        if self.compared is None:
            self.compared = compare_with_plain(self.model)
            if self.compared.warning:
                log.warning("%s: %s", self.name, self.compared.warning)
        run = self._recorded(ids, "", keep=False)
        try:
            check_replay(self.replay, run, self.name)
            check_left_to_right(self.replay, run, self.name)
            logits = self.unembed(run.inputs[-1])
            agrees = not self.replay.rows_alone or same(
                self._recorded(ids, "", keep=True).logits, run.logits
            )
        except SaeGraphsError:
            raise
        except Exception as problem:  # of the model's parts, called one by one
            raise SaeGraphsError(
                f"{self.name} runs, but its blocks cannot be run again one by one: "
                f"{type(problem).__name__}, {' '.join(str(problem).split())[:200]}; choose another "
                "model"
            ) from problem
        if not same(logits, run.logits):
            raise SaeGraphsError(
                f"{self.name} cannot be measured: {self.head.misses(logits, run.logits)}"
            )
        if not self.replay.rows_alone:
            log.warning("%s is no TransformerBridge: all rows are run, which is slower", self.name)
        elif not agrees:
            self.replay.rows_alone = False
            log.warning("%s does not show its keys and values: all rows are run", self.name)
