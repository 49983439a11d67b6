"""What ablation does to the next token: scores of many copies, tokens that rise and fall.

A change is ablated minus clean. Letters: `B` copies, `V` vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.model.run import Run

NEXT_TOKENS = 8


SHOWN = 8  # tokens of each kind


class Question(NamedTuple):
    """What is asked of a prompt's next token: the clean logits `[V]`, the target, the contrast."""

    logits: Tensor
    target: int
    contrast: int | None = None

    @property
    def rival(self) -> int:
        """The token whose logit is taken off: the contrast, or the likeliest other token."""
        if self.contrast is not None:
            return self.contrast
        order: list[int] = self.logits.topk(min(2, len(self.logits))).indices.tolist()
        return next((token for token in order if token != self.target), self.target)


class Scores(NamedTuple):
    """Of each copy, `[B]`, in double precision.

    `metric` is the target's logit minus the rival's, in nats, which adds up. `score` is the
    target's log-odds, in nats, which does not run out where the model is sure; with a contrast the
    metric. `kl` is the divergence from the clean distribution, in nats.
    """

    score: Tensor
    metric: Tensor
    probability: Tensor
    kl: Tensor


def log_odds(logits: Tensor, *tokens: int) -> Tensor:
    """A token's log-odds `[...]`, in nats, of logits `[..., V]`: `logit - logsumexp(all others)`.

    Of several tokens those of the group: the `logsumexp` of its logits takes the logit's place.

    >>> round(float(log_odds(torch.tensor([2.0, 1.0]), 0)), 6)
    1.0
    """
    group, others = list(tokens), logits.clone()
    if not group or len({*group}) < len(group):
        raise ValueError(f"tokens {group}: expected one or more, each once")
    others[..., group] = -torch.inf
    return logits[..., group].logsumexp(-1) - others.logsumexp(-1)


def divergence(clean: Tensor, logits: Tensor) -> Tensor:
    """Of the clean distribution from those of some logits `[B, V]`: `[B]`, in nats, not negative.

    `sum p_clean (log p_clean - log p)`, the clean logits being `[V]`; 0 where the logits are equal.
    """
    expected = clean.log_softmax(-1)
    weights = expected.exp()
    found = weights @ expected - logits @ weights + logits.logsumexp(-1)
    return torch.where((logits == clean).all(-1), 0.0, found.clamp(min=0))


def scores(question: Question, logits: Tensor) -> Scores:
    """The scores of some logits `[B, V]`."""
    clean, ablated = question.logits.double(), logits.double()
    probability = ablated.log_softmax(-1)[:, question.target].exp()
    metric = ablated[:, question.target] - ablated[:, question.rival]
    score = log_odds(ablated, question.target) if question.contrast is None else metric
    return Scores(score, metric, probability, divergence(clean, ablated))


def clean_scores(question: Question) -> Scores:
    """Those of the clean run: one copy."""
    return scores(question, question.logits[None])


def rank(logits: Tensor, token: int) -> int:
    """The place of a token among the logits `[V]`, 1 being the likeliest."""
    return 1 + int((logits > logits[token]).sum())


def top_tokens(question: Question, limit: int = SHOWN) -> list[int]:
    """The likeliest next tokens of the clean run."""
    top: list[int] = question.logits.topk(min(limit, len(question.logits))).indices.tolist()
    return top


def moved_tokens(
    question: Question, logits: Tensor, limit: int = SHOWN
) -> tuple[list[int], list[int]]:
    """The tokens whose probability falls most, and those whose rises most, furthest first."""
    change = logits.double().softmax(-1) - question.logits.double().softmax(-1)
    order = change.argsort(stable=True)
    lowered = [token for token in order[:limit].tolist() if change[token] < 0]
    raised = [token for token in order.flip(0)[:limit].tolist() if change[token] > 0]
    return lowered, raised


def next_tokens(
    model: LanguageModel, clean: Run, read: int, limit: int = NEXT_TOKENS
) -> tuple[tuple[str, float], ...]:
    """The likeliest next tokens at the read position, with their probabilities."""
    top = clean.logits[read].float().softmax(-1).topk(min(limit, clean.logits.shape[-1]))
    return tuple(
        (model.token_string(token), probability)
        for token, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    )


def token_id(model: LanguageModel, text: str) -> int:
    """The id of a token by the text that it is shown as; by id, `#276`; by byte, `<0x0A>`.

    Raises `SaeGraphsError` where no token is shown so, and where `#276` could be two.
    """
    if not isinstance(text, str):
        raise SaeGraphsError(
            f"the token is {text!r:.40}; expected its text, such as ' Paris', or its id, such as "
            "'#276'"
        )
    known = model.vocabulary
    given = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    by_text, by_id = known.with_text(given), known.with_id(given)
    if by_id is not None:
        if by_text not in (None, by_id):
            raise SaeGraphsError(
                f"{text!r} is the text of token #{by_text}, and the token with the id {by_id} is "
                f"{model.token_string(by_id)!r}; give #{by_text}, or that text"
            )
        if by_id >= known.size:
            raise SaeGraphsError(
                f"token id {by_id} is none of {model.name}'s; expected #0 to #{known.size - 1}"
            )
        return by_id
    found = known.with_bytes(given) if by_text is None else by_text
    if found is None:
        raise SaeGraphsError(_no_token(model, text, given))
    return found


def _no_token(model: LanguageModel, text: str, given: str) -> str:
    """What is wrong with a text that no token is shown as."""
    if model.tokenizer is None:
        return f"{model.name} has no tokenizer, so {text!r} is no token; give an id such as #276"
    ids = list(model.tokenizer(given, add_special_tokens=False)["input_ids"])
    pieces = quoted([repr(model.token_string(i)) for i in ids], 8)
    if len(ids) == 1:
        return (
            f"no token of {model.name} is shown as {text!r}, which is read as {pieces}; give "
            f"that, or the token's id such as #{ids[0]}"
        )
    return (
        f"{text!r} is {len(ids)} tokens of {model.name} ({pieces or 'none'}); "
        "give the text of one token, with its leading space if it has one"
    )
