"""Which token of one prompt is which of another: the one rule for features at tokens.

By position only where both prompts have the same number of tokens and differ in few; by the roles
that the user names, where there are any; else a feature is summed over its tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.text import token

FEW = 0.25  # of the tokens, at most, differ in prompts that are aligned by position
SHOWN = 4  # of the tokens that differ

Roles = Sequence[Mapping[str, str]]  # of each prompt, the name of a role to the text that has it


@dataclass(frozen=True)
class Alignment:
    """Which tokens of two prompts are one place, and why, in one line.

    `left` and `right` lead from a position in either prompt to the place that it is, named by a
    position in the left one: its own, or that of the last token of a role. What stands at other
    positions is summed over all of these.
    """

    kind: Literal["position", "summed", "roles"]
    left: Mapping[int, int]
    right: Mapping[int, int]
    words: str

    def place_of(self, feature: FeatureId) -> FeatureId:
        """A feature of the left prompt at its place, without a position where it is summed."""
        return placed(feature, self.left)

    def holds(self, place: int | None, position: int) -> bool:
        """Whether a position of the right prompt is that place, or, for None, one of the rest."""
        return self.right.get(position) == place


SUMMED = Alignment("summed", {}, {}, "summed over tokens, as the graph is")


def alignment(left: Sequence[str], right: Sequence[str], roles: Roles | None = None) -> Alignment:
    """How the tokens of two prompts are aligned.

    `roles` are one mapping for each of the two prompts, with the same names: the tokens at which a
    role's text stands (first, past the first token, at which nothing is measured) are one place.

    Raises `SaeGraphsError` for roles that are not of two prompts, that have different names or
    share a token, and for a text that is not in its prompt.

    >>> alignment(["^", "Mary", "ran", "."], ["^", "John", "ran", "."]).words
    'by position: the prompts differ in 1 of 4 tokens, Mary and John at 1'
    >>> alignment(["^", "Mary"], ["^", "John", "ran"]).words
    'summed over tokens: the prompts have 2 and 3 tokens'
    """
    if roles is not None:
        return _by_roles(left, right, roles)
    if len(left) != len(right):
        words = f"summed over tokens: the prompts have {len(left)} and {len(right)} tokens"
        return Alignment("summed", {}, {}, words)
    places = [place for place, pair in enumerate(zip(left, right, strict=True)) if len({*pair}) > 1]
    if not places:
        told = "the prompts have the same tokens"
    else:
        shown = quoted(
            (f"{token(left[place])} and {token(right[place])} at {place}" for place in places),
            SHOWN,
        )
        told = f"the prompts differ in {len(places)} of {len(left)} tokens, {shown}"
    if len(places) > FEW * len(left):
        return Alignment("summed", {}, {}, f"summed over tokens: {told}")
    own = {place: place for place, _ in enumerate(left)}
    return Alignment("position", own, own, f"by position: {told}")


def placed(feature: FeatureId, places: Mapping[int, int]) -> FeatureId:
    """A feature at the place that its position is; without a position where it is none."""
    if feature.position is None:
        return feature
    return replace(feature, position=places.get(feature.position))


# -- roles -----------------------------------------------------------------------------------------


def _by_roles(left: Sequence[str], right: Sequence[str], roles: Roles) -> Alignment:
    check_roles(roles)
    ours, theirs = (
        {name: _positions(tokens, name, text) for name, text in own.items()}
        for tokens, own in zip((left, right), roles, strict=True)
    )
    for found in (ours, theirs):
        for one, other in itertools.combinations(found, 2):
            if shared := {*found[one]} & {*found[other]}:
                raise SaeGraphsError(
                    f"the roles {one!r:.40} and {other!r:.40} share the token at {min(shared)}; "
                    "give each a text of its own"
                )
    names = {name: positions[-1] for name, positions in ours.items()}
    told = quoted(
        (
            f"{token(name)} {token(''.join(left[i] for i in ours[name]))} and "
            f"{token(''.join(right[i] for i in theirs[name]))} at {ours[name][-1]} and "
            f"{theirs[name][-1]}"
            for name in ours
        ),
        SHOWN,
    )
    return Alignment(
        "roles",
        {at: names[name] for name, positions in ours.items() for at in positions},
        {at: names[name] for name, positions in theirs.items() for at in positions},
        f"by roles: {told}; all other tokens are summed over",
    )


def check_roles(roles: Roles, n: int = 2, what: str = "each prompt") -> None:
    """Raise `SaeGraphsError` unless these are `n` mappings of the same names to some text."""
    several = isinstance(roles, Sequence) and not isinstance(roles, str)
    if not several or not all(isinstance(own, Mapping) for own in roles) or len(roles) != n:
        raise SaeGraphsError(
            f"roles are {roles!r:.60}; expected {n} mappings of role to text, one for {what}, such "
            "as [{'subject': 'Mary'}, {'subject': 'Alice'}]"
        )
    for own in roles:
        for name, text in own.items():
            if not isinstance(name, str) or not isinstance(text, str) or not text.strip():
                raise SaeGraphsError(
                    f"role {name!r:.40} is {text!r:.60}; expected a name and some of its prompt's "
                    "text"
                )
        if own.keys() != roles[0].keys() or not own:
            names = [quoted(map(repr, each)) or "none" for each in (roles[0], own)]
            raise SaeGraphsError(
                f"the roles are {names[0]:.80} in one prompt and {names[1]:.80} in another; name "
                "the same in all"
            )


def _positions(tokens: Sequence[str], name: str, text: str) -> tuple[int, ...]:
    """The tokens at which a text stands: first, where more than the first token holds it."""
    starts = [0, *itertools.accumulate(map(len, tokens))]
    for begin in _found(text, "".join(tokens)):
        end = begin + len(text)
        held = tuple(
            place
            for place, (start, stop) in enumerate(itertools.pairwise(starts))
            if place > 0 and start < end and begin < stop
        )
        if held:
            return held
    raise SaeGraphsError(
        f"the role {name!r:.40} is {text!r:.60}, which is not in the prompt "
        f"{''.join(tokens)!r:.60} past its first token; give a text as it stands there"
    )


def _found(text: str, whole: str) -> Iterator[int]:
    """Where it begins, each time."""
    begin = whole.find(text)
    while begin >= 0:
        yield begin
        begin = whole.find(text, begin + 1)
