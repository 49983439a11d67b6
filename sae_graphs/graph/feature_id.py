"""Names of features and of the other nodes of a graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sae_graphs.errors import SaeGraphsError

OUTPUT_LAYER = "out"  # the label of output nodes: `out.340` is the token with id 340
ANSWER_LAYER = "answer"  # that of the answer of an answer graph, a node called `answer`
TOKEN_LAYER = "token"  # that of the prompt's tokens there, called `token@2`
OWN_LAYERS = (OUTPUT_LAYER, ANSWER_LAYER, TOKEN_LAYER)

_FEATURE = re.compile(
    r"(?P<layer>[A-Za-z0-9_-]+)\.(?P<index>[0-9]{1,15})(?:@(?P<position>[0-9]{1,15}))?"
)
_TOKEN = re.compile(TOKEN_LAYER + r"@(?P<position>[0-9]{1,15})")


@dataclass(frozen=True)
class FeatureId:
    """One feature of one SAE layer, at one token position where the graph resolves positions.

    `str(FeatureId("5", 10603))` is `5.10603`; with a position, `5.10603@2`. Answer graphs have
    two further kinds of node: the `answer`, and the prompt's tokens, such as `token@2`.
    """

    layer: str
    index: int
    position: int | None = None

    def __post_init__(self) -> None:
        kinds = type(self.layer), type(self.index), type(self.position or 0)
        at = "" if self.position is None else f"@{self.position}"
        if kinds != (str, int, int) or not _FEATURE.fullmatch(f"{self.layer}.{self.index}{at}"):
            raise SaeGraphsError(
                f"not a feature: layer {self.layer!r}, index {self.index!r}, position "
                f"{self.position!r}; expected a layer label, a whole index and a whole position"
            )

    def __str__(self) -> str:
        at = "" if self.position is None else f"@{self.position}"
        if self.layer in (ANSWER_LAYER, TOKEN_LAYER):
            return f"{self.layer}{at}"
        return f"{self.layer}.{self.index}{at}"

    @property
    def is_output(self) -> bool:
        """True where this names an output token, or the answer, instead of a feature."""
        return self.layer in (OUTPUT_LAYER, ANSWER_LAYER)

    @property
    def is_token(self) -> bool:
        """True where this names a token of the prompt instead of a feature."""
        return self.layer == TOKEN_LAYER

    @property
    def is_feature(self) -> bool:
        """True where this names a feature of an SAE."""
        return self.layer not in OWN_LAYERS

    @classmethod
    def parse(cls, text: str | FeatureId) -> FeatureId:
        """`FeatureId.parse("5.10603@2")`; raises `SaeGraphsError` where the text is no feature.

        >>> FeatureId.parse("5.10603")
        FeatureId(layer='5', index=10603, position=None)
        """
        if isinstance(text, FeatureId):
            return text
        if isinstance(text, str) and text.strip() == ANSWER_LAYER:
            return ANSWER
        place = _TOKEN.fullmatch(text.strip()) if isinstance(text, str) else None
        if place is not None:
            return cls(TOKEN_LAYER, 0, int(place["position"]))
        found = _FEATURE.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            raise SaeGraphsError(
                f"not a feature: {text!r}; expected layer.index such as 5.10603, as a string "
                "(a number would lose its last zeros)"
            )
        position = found["position"]
        return cls(found["layer"], int(found["index"]), None if position is None else int(position))


ANSWER = FeatureId(ANSWER_LAYER, 0)


def feature_order(feature: FeatureId, depths: Mapping[str, int]) -> tuple[int, int, int]:
    """The order of features everywhere: depth, index, position."""
    position = -1 if feature.position is None else feature.position
    return depths[feature.layer], feature.index, position
