"""What the answer would be without features, as the explorer tells it: in words and as bars.

The one place where a changed distribution is put into words: of the page's own outcomes, and of
those that a server measures for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import output_words, score_words
from sae_graphs.graph.records import OutputToken, RunRecord
from sae_graphs.runs import slug_of
from sae_graphs.text import shortened, token
from sae_graphs.words import plain, probability_words

MOVED = 3  # tokens that are shown beside the answer: those that change most
SHOWN = 8  # likeliest next tokens that are looked at, before and after
LETTERS = 24  # of a token
LEAST = 0.0005  # nats: a smaller change is none that anybody sees

# What ticking a feature off puts in its place, by the first word of the run's intervention.
_ABLATED = {
    "mean": "its mean over reference text takes its place",
    "zero": "it becomes 0",
    "scale": "it is scaled as in this run's ablation",
    "resample": "its activation in the other prompt takes its place",
}


class Chance(NamedTuple):
    """A next token, and its probability, 0 to 1, before and after a change."""

    token: str
    before: float
    after: float


def what_if_data(graph: CausalGraph) -> dict[str, Any] | None:
    """What the script knows of changed answers; None where it is none of answers
    at single tokens.

    `outcomes` are by the features that are off, in order, with a `+` between; None where the run
    holds none. `off` says what ticking one off does, `command` what answers all else.
    """
    answer = graph.run.answer
    if answer is None or not graph.resolves_positions:  # a sum over tokens is no ablation
        return None
    drawn = [str(node.feature) for node in graph.nodes if node.feature.is_feature]
    known = answer.what_if
    means = str(graph.run.settings.get("intervention") or "").partition(" ")[0]
    outcomes: dict[str, Any] | None = None
    if known is not None:
        output = graph.run.outputs[0]
        outcomes = {
            key_of(outcome.features): outcome_told(
                output,
                [
                    Chance(*each)
                    for each in zip(known.tokens, known.clean, outcome.probabilities, strict=True)
                ],
                answer.score,
                outcome.score,
            )
            for outcome in known.of(drawn).outcomes
        }
    return {
        "off": _ABLATED.get(means, "it is ablated as in this run"),
        "command": command_of(graph.run),
        "outcomes": outcomes,
    }


def key_of(features: Sequence[str]) -> str:
    """What a set of features is called, in whatever order they are given."""
    return "+".join(sorted(features))


def outcome_told(
    answer: OutputToken, chances: Sequence[Chance], before: float, after: float
) -> dict[str, Any]:
    """A changed answer: its score `before` and `after`, in nats, as `words`, and `rows` of tokens.

    First of the rows is the answer, then what it is compared with, then those that change most.
    Each is a visible text, two probabilities, and these in words.
    """
    named = [answer.token, *([] if answer.contrast is None else [answer.contrast])]
    first = [next((it for it in chances if it.token == name), None) for name in named]
    rows = [it for it in first if it is not None]
    others = sorted(
        (it for it in chances if it not in rows), key=lambda it: -abs(it.after - it.before)
    )
    rows += others[:MOVED]
    return {"words": score_told(answer, before, after), "rows": [_row(row) for row in rows]}


def score_told(answer: OutputToken, before: float, after: float) -> str:
    """What becomes of the answer's score, given in nats.

    >>> score_told(OutputToken(7, " Mary", 9.0, 0.9), 7.75, -1.95)
    'the log-odds of ␣Mary fall by 9.70 nats, from 7.75 to −1.95'
    """
    many = answer.contrast is None
    subject = f"the {score_words(answer)} of {output_words(answer, 2 * LETTERS)}"
    change = after - before
    if abs(change) < LEAST:
        return f"{subject} {'do' if many else 'does'} not change: {plain(before)} nats"
    verb = "fall" if change < 0 else "rise"
    size = plain(abs(change))
    ends = f"from {plain(before)} to {plain(after)}"
    return f"{subject} {verb}{'' if many else 's'} by {size} nats, {ends}"


def _row(chance: Chance) -> list[Any]:
    shares = [float(f"{share:.4g}") for share in (chance.before, chance.after)]
    words = [probability_words(share) for share in (chance.before, chance.after)]
    return [shortened(token(chance.token), LETTERS), *shares, *words]


def command_of(run: RunRecord) -> str:
    """The command that answers what the page does not hold, for a run in its usual folder."""
    return f"sae-graphs view outputs/{slug_of(run.prompt, run.model)}"
