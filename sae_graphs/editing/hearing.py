"""What a model says to all that a case asks: probabilities, text that it writes on, other text.

Letters: `B` prompts, `T` tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.editing.cases_file import FactCase
from sae_graphs.editing.generate import continued, next_logits, text_of_ids
from sae_graphs.editing.prompts import target_of
from sae_graphs.editing.scores import Asked, Heard, Kept, fluency_of
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.token_rows import TokenRows
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.words import said

WRITTEN = 40  # tokens that are written on from each prompt
DRAWN_OF = 5  # of so many likeliest, each time
OTHER_TOKENS = 8192  # of other text, whose perplexity is taken
ROWS = 8  # of it, run at once


class Questions(NamedTuple):
    """The prompts of a case as token ids, and the first tokens of its objects."""

    new: int
    true: int
    rewrite: tuple[int, ...]
    paraphrase: tuple[tuple[int, ...], ...]
    neighbour: tuple[tuple[int, ...], ...]
    retained: tuple[tuple[tuple[int, ...], int], ...]
    generation: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]


def questions_of(
    model: LanguageModel, case: FactCase, *, prepend_bos: bool | None = None
) -> Questions:
    """A case in a model's tokens; raises `SaeGraphsError` where it does not fit the model."""

    def ids(prompt: str) -> tuple[int, ...]:
        return model.tokenize(prompt, prepend_bos=prepend_bos)

    new, true = (
        target_of(model, case.asked, target, prepend_bos=prepend_bos)
        for target in (case.new, case.true)
    )
    if new.token_id == true.token_id:
        shared = said(model.token_string(new.token_id))
        raise SaeGraphsError(
            f"the objects {said(case.new)} and {said(case.true)} begin with the same token, "
            f"{shared}: which of them is said cannot be told"
        )
    others = (
        (ids(it.prompt), target_of(model, it.prompt, it.target, prepend_bos=prepend_bos).token_id)
        for it in case.retained
    )
    return Questions(
        new.token_id,
        true.token_id,
        ids(case.asked),
        tuple(map(ids, case.paraphrases)),
        tuple(map(ids, case.neighbours)),
        tuple(others),
        tuple(map(ids, case.generation)),
        tuple(filter(None, (new.note,))),
    )


class Said(NamedTuple):
    """What was heard, and how the prompts for it went on."""

    heard: Heard
    texts: tuple[str, ...]


@torch.no_grad()
def hear(model: LanguageModel, asked: Questions, other: Sequence[Tensor], *, seed: int = 0) -> Said:
    """What the model says now. `other` is other text in batches of token ids `[B, T]`."""
    prompts = [
        asked.rewrite,
        *asked.paraphrase,
        *asked.neighbour,
        *(ids for ids, _ in asked.retained),
    ]
    chances = next_logits(model, prompts).double().softmax(-1)
    pairs = [Asked(*each) for each in chances[:, [asked.new, asked.true]].tolist()]
    first, second = 1 + len(asked.paraphrase), 1 + len(asked.paraphrase) + len(asked.neighbour)
    kept = tuple(
        Kept(float(row[token]), int(row.argmax()) == token)
        for row, (_, token) in zip(chances[second:], asked.retained, strict=True)
    )
    texts: list[tuple[int, ...]] = []
    if asked.generation:
        texts = continued(model, asked.generation, WRITTEN, top_k=DRAWN_OF, seed=seed)
    heard = Heard(
        tuple(pairs[:1]),
        tuple(pairs[1:first]),
        tuple(pairs[first:second]),
        kept,
        fluency_of(texts),
        surprisal(model, other) if other else None,
    )
    return Said(heard, tuple(text_of_ids(model, ids) for ids in texts))


def other_text(model: LanguageModel, texts: Iterable[str]) -> list[Tensor]:
    """The first tokens of a text, in batches of rows `[B, T]`."""
    reader, found, count = TokenRows(model, texts), list[Tensor](), 0
    while count < OTHER_TOKENS and (rows := reader.take(ROWS)) is not None:
        found.append(rows.to(model.model.cfg.device))
        count += rows.numel()
    return [rows for rows in found if rows.shape[1] > 1]


@torch.no_grad()
def surprisal(model: LanguageModel, batches: Sequence[Tensor]) -> float:
    """The mean surprisal of all tokens but each row's first, in nats."""
    total, count = 0.0, 0
    for rows in batches:
        (streams,) = model.streams_at(rows, [model.end])
        logits = model.unembed(streams[:, :-1].flatten(0, 1)).float()  # [B * (T - 1), V]
        total += float(
            torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten()).double()
        ) * (rows[:, 1:].numel())
        count += rows[:, 1:].numel()
    return total / count
