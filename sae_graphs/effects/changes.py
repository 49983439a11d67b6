"""What `ablate` is asked to do to features: `{"3.309": 0, "4.34@5": 2.0, "5.1": "x0.5"}`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.addresses import is_address, parse_address
from sae_graphs.graph.feature_id import FeatureId

Kind = Literal["set", "scale", "mean"]
Value = float | str
Changes = Mapping[Any, Value]  # features, by name or as `FeatureId`, and what becomes of them

_EXPECTED = 'a number such as 0 or 2.5, a multiple such as "x0.5", or "mean"'
_EXAMPLE = '{"3.309": 0, "4.34@5": 2.0, "5.1": "x0.5"}'


@dataclass(frozen=True)
class Change:
    """What becomes of one feature's activation, at its own token or at all but the first.

    `set` to `value` in activation units, `scale` by it, or put its `mean` over reference text in
    place wherever it is active.
    """

    feature: FeatureId
    kind: Kind
    value: float = 0.0

    @property
    def words(self) -> str:
        """The change as it is given: `0`, `x0.5`, `mean`."""
        if self.kind == "mean":
            return self.kind
        short = f"{self.value:g}"
        exact = short if float(short) == self.value else repr(self.value)
        return f"{'x' if self.kind == 'scale' else ''}{exact}"

    @property
    def takes_away(self) -> bool:
        """Whether it does nothing where the feature is silent."""
        return self.kind != "set" or self.value == 0.0

    def __str__(self) -> str:
        return f"{self.feature}={self.words}"


def parse_changes(
    changes: Changes,
    feature_of: Callable[[str | FeatureId], FeatureId] = FeatureId.parse,
) -> tuple[Change, ...]:
    """The changes, one a feature and token.

    `feature_of` reads the names of features. Raises `SaeGraphsError` where there are none, where a
    name or a value is wrong, and where a feature is named twice.

    >>> [str(change) for change in parse_changes({"3.309": 0, "5.1@2": "x0.5"})]
    ['3.309=0', '5.1@2=x0.5']
    """
    if not isinstance(changes, Mapping):
        raise SaeGraphsError(f"the changes are {changes!r:.60}; expected such as {_EXAMPLE}")
    if not changes:
        raise SaeGraphsError(f"no feature is given; expected such as {_EXAMPLE}")
    found: dict[FeatureId, Change] = {}
    for name, value in changes.items():
        feature = feature_of(name)
        if not feature.is_feature:
            raise SaeGraphsError(f"{feature} is no feature of an SAE, and cannot be set")
        if feature in found:
            raise SaeGraphsError(f"{feature} is given twice; give it one value")
        found[feature] = _change(feature, value)
    return tuple(found.values())


def _change(feature: FeatureId, value: object) -> Change:
    """One change from its value, a number or a word."""
    said = value.strip().lower() if isinstance(value, str) else value
    if said == "mean":
        return Change(feature, "mean")
    kind: Kind = "set"
    if isinstance(said, str) and said[:1] in ("x", "\N{MULTIPLICATION SIGN}"):
        kind, said = "scale", said[1:]
    try:
        number = math.nan if isinstance(said, bool | bytes) else float(said)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SaeGraphsError(f"{feature} cannot become {value!r:.40}; expected {_EXPECTED}")
    return Change(feature, kind, number)


def given_changes(words: Sequence[str]) -> dict[str, Value]:
    """Changes as the command line has them: `3.309=0`, `4.34@5=2.0`, `5.1=x0.5`.

    Raises `SaeGraphsError` for a word that is none, and for one that is wrong as far as can be
    seen without a model.

    >>> given_changes(["3.309=0", "5.1@2=x0.5"])
    {'3.309': '0', '5.1@2': 'x0.5'}
    """
    found: dict[str, Value] = {}
    for word in words:
        name, sign, value = word.rpartition("=")
        if not sign or not name:
            raise SaeGraphsError(
                f"not a change: {word!r}; expected feature=value such as 3.309=0, 4.34@5=2.0, "
                "5.1=x0.5 or 5.1=mean"
            )
        if name in found:
            raise SaeGraphsError(f"{name} is given twice: {quoted([found[name], value])}")
        found[name] = value
    plain = {name: value for name, value in found.items() if not is_address(name)}
    for name in found.keys() - plain.keys():
        parse_address(name)
    if plain or not found:
        parse_changes(plain)
    return found
