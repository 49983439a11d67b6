"""What things are called in pictures, pages and tables: `3.512@4`, `out.340 " )"`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sae_graphs.records import FeatureId, Node, OutputToken, RunRecord
from sae_graphs.text import shortened, token, visible
from sae_graphs.words import counted

_PLACES = {"pre": "before", "mid": "inside", "post": "after"}
_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)")


def name_of(run: RunRecord, feature: FeatureId) -> str:
    """A feature's name; that of an output token with its text, made visible."""
    if not feature.is_output:
        return str(feature)
    output = run.output(feature)
    words = f'{feature} "{visible(output.token, space=" ")}"'
    if output.contrast is not None:
        words += f' - "{visible(output.contrast, space=" ")}"'
    return words


def output_words(output: OutputToken, limit: int = 80) -> str:
    """An output token standing alone, every space shown, in at most `limit` characters; with a
    contrast `A - B`."""
    words = token(output.token)
    if output.contrast is None:
        return shortened(words, limit)
    other = token(output.contrast)
    room = limit - 3 - min(len(other), (limit - 3) // 2)
    words = shortened(words, room)
    return f"{words} - {shortened(other, limit - 3 - len(words))}"


def logit_words(output: OutputToken) -> str:
    """What an output token's number is called: its logit, or the difference of two."""
    return "logit" if output.contrast is None else "logit difference"


def token_at(run: RunRecord, feature: FeatureId) -> str | None:
    """The prompt's token at the feature's position, every space shown; None without a position."""
    return None if feature.position is None else token(run.tokens[feature.position])


def counted_nodes(nodes: Iterable[Node]) -> str:
    """`12 features`, or `12 features and 2 output tokens`."""
    kinds = [node.feature.is_output for node in nodes]
    words = counted(kinds.count(False), "feature")
    return words + (f" and {counted(kinds.count(True), 'output token')}" if any(kinds) else "")


def place_words(hook_point: str) -> str:
    """Where in the model an SAE layer is: `before block 5`.

    >>> place_words("blocks.11.hook_resid_post")
    'after block 11'
    """
    found = _HOOK.fullmatch(hook_point)
    return visible(hook_point) if found is None else f"{_PLACES[found[2]]} block {found[1]}"
