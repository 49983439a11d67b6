"""What `ablate` found: the next tokens before and after features were set, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sae_graphs.effects.changes import Change
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.late import view
from sae_graphs.schema import plain
from sae_graphs.text import columns, encodable, token
from sae_graphs.words import probability, signed

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 8  # next tokens that are shown of each run


@dataclass(frozen=True)
class NextToken:
    """One next token: its probability, 0 to 1, before and after the change."""

    token: str
    token_id: int
    before: float
    after: float


@dataclass(frozen=True, repr=False)
class Ablation:
    """Features of one prompt set to something, all together, and what comes next then.

    `answer` is the clean run's likeliest next token, or the one that was asked for; `score` its
    log-odds, in nats, in the clean run, and `score_after` that with the features set; with a
    `contrast` it is the difference of the two logits. `kl` is the divergence of the next token's
    distribution from the clean one, in nats. `next_tokens` are the likeliest before, and after,
    and those asked for, the likeliest of either first.
    """

    model: str
    saes: str
    prompt: str
    tokens: tuple[str, ...]
    read_position: int
    changes: tuple[Change, ...]
    answer: str
    score: float
    score_after: float
    kl: float
    next_tokens: tuple[NextToken, ...]
    contrast: str | None = None
    warnings: tuple[str, ...] = ()
    token_ids: tuple[int, ...] = ()

    @property
    def change(self) -> float:
        """The change of the answer's score, in nats: after minus before."""
        return self.score_after - self.score

    @property
    def before(self) -> tuple[tuple[str, float], ...]:
        """The likeliest next tokens of the clean run, with their probabilities."""
        order = sorted(self.next_tokens, key=lambda it: -it.before)[:SHOWN]
        return tuple((it.token, it.before) for it in order)

    @property
    def after(self) -> tuple[tuple[str, float], ...]:
        """The likeliest next tokens with the features set, with their probabilities."""
        order = sorted(self.next_tokens, key=lambda it: -it.after)[:SHOWN]
        return tuple((it.token, it.after) for it in order)

    def __repr__(self) -> str:
        return (
            f"Ablation({self.prompt!r}, {', '.join(map(str, self.changes))}: "
            f"{self.before[0][0]!r} -> {self.after[0][0]!r})"
        )

    def __str__(self) -> str:
        notices = [f"notice: {warning}" for warning in self.warnings]
        return "\n".join([self.table_words, self.score_words, *notices])

    @property
    def table_words(self) -> str:
        """The next tokens with their probabilities, a line each."""
        head, rows = self.table()
        width = max(columns(row[0]) for row in (head, *rows))
        return "\n".join(
            f"{row[0]}{' ' * (width - columns(row[0]))}  {row[1]:>9}  {row[2]:>9}"
            for row in (head, *rows)
        )

    @property
    def score_words(self) -> str:
        """What became of the answer's score, in one line."""
        what = "log-odds" if self.contrast is None else "logit difference"
        subject = token(self.answer)
        if self.contrast is not None:
            subject += f" - {token(self.contrast)}"
        ends = " to ".join(signed(nats).lstrip("+") for nats in (self.score, self.score_after))
        kl = f"{self.kl:.3g}"
        return f"{what} of {subject}: {ends} ({signed(self.change)}) nats; KL {kl} nats"

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The next tokens as texts: a head, and a row each."""
        rows = tuple(
            (token(it.token), probability(it.before), probability(it.after))
            for it in self.next_tokens
        )
        return ("next token", "before", "after"), rows

    def to_pandas(self) -> pd.DataFrame:
        """One row a next token: its text, its id, its probability before and after."""
        import pandas as pd

        numbers = ("token_id", "before", "after")
        return pd.DataFrame(
            {
                "token": [encodable(it.token) for it in self.next_tokens],
                **{name: [getattr(it, name) for it in self.next_tokens] for name in numbers},
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The record as dictionaries, lists, strings and numbers."""
        data: dict[str, Any] = plain(self, {FeatureId: str})
        for change, written in zip(self.changes, data["changes"], strict=True):
            written["words"] = change.words
        return {**data, "change": self.change}

    def _repr_html_(self) -> str:
        shown: str = view("ablation_html")(self)
        return shown
