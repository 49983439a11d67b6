"""The tokens on which a held-out case's answer hangs: do a graph's strongest features stand there?

The corpus says which characters of a prompt decide (`Case.deciding`), before any model is asked.
Eligible is every position but the first, where the marker stands, and the last, which is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import comb
from typing import TYPE_CHECKING

from training.demo.corpus.case import Case

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def deciding_positions(tokenizer: Tokenizer, case: Case) -> tuple[int, ...]:
    """The eligible positions whose tokens hold a deciding character, in order.

    Positions count the marker before the prompt, as in `encode_case` and a clean run. A token
    holds the space that it begins with.
    """
    offsets = tokenizer.encode(case.prompt).offsets
    return positions_at(enumerate(offsets[:-1], 1), case.deciding)


def positions_at(
    offsets: Iterable[tuple[int, tuple[int, int]]], spans: Sequence[tuple[int, int]]
) -> tuple[int, ...]:
    """Of positions with the characters that their tokens stand for, those that share one with
    `spans`."""
    return tuple(
        position
        for position, (start, end) in offsets
        if any(start < last and first < end for first, last in spans)
    )


def source_hit(ranked: Sequence[int], deciding: Collection[int], *, first: int = 1) -> bool:
    """True when one of the `first` first of the `ranked` positions is a deciding one.

    ranked: the positions of a graph's features away from the read token, the strongest first.
    """
    if first < 1:
        raise ValueError(f"expected one position or more to look at, got {first}")
    return any(position in deciding for position in ranked[:first])


def chance(deciding: Collection[int], tokens: int, *, first: int = 1) -> float:
    """How probable a source hit is for `first` different positions drawn at random.

    deciding: eligible positions. tokens: those of the prompt and its marker, of which all but two
    are eligible. Where fewer than `first` are eligible, all are drawn.
    """
    places = set(deciding)
    if not places <= set(range(1, tokens - 1)):
        raise ValueError(
            f"deciding positions of {tokens} tokens must be eligible (1 to {tokens - 2}), "
            f"got {sorted(places)}"
        )
    if first < 1:
        raise ValueError(f"expected one position or more to draw, got {first}")
    eligible = tokens - 2
    drawn = min(first, eligible)
    if drawn < 1:
        return 0.0
    # Hypergeometric: of all choices of `drawn` positions, those that are not all beside them.
    return 1.0 - comb(eligible - len(places), drawn) / comb(eligible, drawn)
