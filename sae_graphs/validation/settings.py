"""`ValidationSettings`: what is tested, and against how many controls, checked early."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId

# What may be given: one by itself, or several; each as text, or as features.
Paths = str | Sequence[str] | Sequence[FeatureId] | Sequence[Sequence[FeatureId]]
Curves = str | Sequence[str] | Sequence[FeatureId] | Sequence[Sequence[FeatureId | str]]

CONTROLS = 200
OTHER_CONTROLS = 50
PATHS = 3
SNIPPETS = 32


@dataclass(frozen=True)
class ValidationSettings:
    """The options of `validate`.

    - `controls`: matched control sets for each path; `other_controls` of each further kind.
    - `paths`: so many of each component's strongest paths are tested beside the component itself.
    - `path`: these paths alone instead, each as text such as `0.715 > 1.187 > 2.795`, or as
      features; every step must be an edge of the graph.
    - `target`: the token, by its text, whose log-odds are the score; by default each prompt's
      likeliest next token. With a `contrast`, the score is the difference of their logits.
    - `curve`: pairs of a feature and what follows it, a feature or a token, whose response curves
      are measured, such as `3.953 > 4.7780` or `3.953 > )`.
    - `quick`: of an answer graph, whether it and its paths are necessary, sufficient, and mediate,
      the default; in full also single features and other features of the graph in a path's place.
      Of other graphs, ablation and controls alone, without path patching, keep-only, curves and
      snippets; here the whole report is the default.
    - `snippets`: so many pieces of other text are drawn for the change off the distribution.
    - `seed`: of all that is drawn.
    """

    controls: int = CONTROLS
    other_controls: int = OTHER_CONTROLS
    paths: int = PATHS
    path: tuple[tuple[FeatureId, ...], ...] = ()
    target: str | None = None
    contrast: str | None = None
    curve: tuple[tuple[FeatureId, FeatureId | str], ...] = ()
    snippets: int = SNIPPETS
    quick: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("controls", 1), ("other_controls", 1), ("paths", 0), ("snippets", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                what = name.replace("_", " ")
                raise SaeGraphsError(
                    f"{what} is {value!r}; expected a whole number of at least {least}"
                )
        if not isinstance(self.quick, bool | None):
            raise SaeGraphsError(f"quick is {self.quick!r}; expected True or False")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise SaeGraphsError(f"seed is {self.seed!r}; expected a whole number")
        if not 0 <= self.seed < 2**63:
            raise SaeGraphsError(f"seed is {self.seed}; expected 0 to {2**63 - 1}")
        for name in ("target", "contrast"):
            if not isinstance(getattr(self, name), str | None):
                raise SaeGraphsError(
                    f"{name} is {getattr(self, name)!r}; expected the text of a token"
                )
        if self.contrast is not None and self.contrast == self.target:
            raise SaeGraphsError(f"target and contrast are both {self.target!r}; give two tokens")
        object.__setattr__(self, "path", tuple(parse_path(path) for path in _several(self.path)))
        curves = self.curve
        if isinstance(curves, list | tuple) and curves and isinstance(curves[0], FeatureId):
            curves = (curves,)  # one pair by itself
        object.__setattr__(self, "curve", tuple(parse_curve(pair) for pair in _several(curves)))

    @property
    def fewer_controls(self) -> int:
        """Controls of each further kind: never more than matched ones."""
        return min(self.controls, self.other_controls)

    def to_json(self) -> Mapping[str, Any]:
        """Plain values, for the report."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("path", "curve"):
            values[name] = [[str(feature) for feature in path] for path in values[name]]
        return values


def parse_path(path: object) -> tuple[FeatureId, ...]:
    """`"0.715 > 1.187"` as features; arrows (`->`), commas and spaces will do as well.

    >>> [str(feature) for feature in parse_path("0.715 > 1.187")]
    ['0.715', '1.187']
    """
    if isinstance(path, str):
        for sign in ("->", ">", "→", ","):
            path = path.replace(sign, " ")
        path = path.split()
    if not isinstance(path, list | tuple) or not path:
        raise SaeGraphsError(
            f"path {path!r}; expected features in order, such as 0.715 > 1.187 > 2.795"
        )
    return tuple(FeatureId.parse(feature) for feature in path)


def parse_curve(pair: object) -> tuple[FeatureId, FeatureId | str]:
    """`"3.953 > 4.7780"` as two features, `"3.953 > )"` as a feature and the text of a token.

    One space after the sign is not the token's.

    >>> parse_curve("3.953 >  Paris")
    (FeatureId(layer='3', index=953, position=None), ' Paris')
    """
    if isinstance(pair, str):
        cause, *effects = re.split("->|>|→|,", pair, maxsplit=1)  # what follows may be a token's
        pair = (cause, *(text.removeprefix(" ") for text in effects))
    if not isinstance(pair, list | tuple) or len(pair) != 2 or "" in pair:
        raise SaeGraphsError(
            f"curve {pair!r}; expected a cause and an effect, such as 3.953 > 4.7780"
        )
    cause, effect = pair
    try:
        return FeatureId.parse(cause), FeatureId.parse(effect)
    except SaeGraphsError:
        if not isinstance(effect, str):
            raise
        return FeatureId.parse(cause), effect


def _several(paths: object) -> list[Any]:
    """One path given by itself as a list of one."""
    if isinstance(paths, str):
        return [paths]
    if not isinstance(paths, list | tuple):
        raise SaeGraphsError(f"paths {paths!r}; expected texts such as 0.715 > 1.187")
    if paths and all(isinstance(item, FeatureId) for item in paths):
        return [paths]
    return list(paths)
