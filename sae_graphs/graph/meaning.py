"""What a feature stands for, in one line: an explanation, or what it peaks on and where.

A line made of contexts has the tokens on which the feature is most active, and the token before or
after them where nearly all contexts have the same one there: `When [Victor, Laura] and`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sae_graphs.graph.records import Context, Node
from sae_graphs.text import visible

PEAKS = 3  # different tokens that are named
ALIKE = 2 / 3  # of the contexts, and two at least, have the token that is named beside the peak


class Meaning(NamedTuple):
    """What a feature peaks on and between what; or, with no peaks, an explanation in `before`."""

    before: str
    peaks: tuple[str, ...] = ()
    after: str = ""

    @property
    def words(self) -> str:
        """The line as text; empty where nothing is known."""
        peaks = f"[{', '.join(self.peaks)}]" if self.peaks else ""
        return " ".join(part for part in (self.before, peaks, self.after) if part)


def meaning_of(node: Node, label: str | None = None) -> Meaning:
    """A reader's `label`, else Neuronpedia's explanation, else what the contexts show."""
    said = label or node.explanation
    if said:
        return Meaning(visible(said, space=" "))
    if node.token is not None:
        return Meaning(visible(node.token, space=" "))
    return of_contexts(node.contexts)


def of_contexts(contexts: Sequence[Context]) -> Meaning:
    """The line that some contexts make; the first is the most active one."""
    found = [(context.tokens, peak) for context in contexts if (peak := context.peak) is not None]
    if not found:
        return Meaning("")
    peaks = Counter(_text(tokens[peak]) for tokens, peak in found)
    before = [tokens[peak - 1] if peak else "" for tokens, peak in found]
    after = [tokens[peak + 1] if peak + 1 < len(tokens) else "" for tokens, peak in found]
    named = tuple(text for text, _ in peaks.most_common(PEAKS))
    return Meaning(_shared(before), named, _shared(after))


def _shared(tokens: Sequence[str]) -> str:
    """The token that nearly all have, as text; empty where they differ."""
    text, times = Counter(map(_text, tokens)).most_common(1)[0]
    return text if times >= 2 and times >= ALIKE * len(tokens) else ""


def _text(token: str) -> str:
    """A token as part of a line: without the space before a word."""
    return visible(token.strip(" ") or token, space="␣") if token else ""
