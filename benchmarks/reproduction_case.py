"""What the parts of a reproduction share: a model, a way to measure, tokens beside tokens.

Probabilities are in percent, changes in percentage points. Letters: `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks.published import Points, Published
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import Subject, subject

Found = dict[str, Any]


class Variant(NamedTuple):
    """One way to measure: a name, what it means, and how prompts are run and ablated."""

    name: str
    words: str
    settings: GraphSettings


VARIANTS = (
    Variant(
        "ours",
        "BOS where the SAEs want it, nothing ablated at the first token",
        GraphSettings(select="effect"),
    ),
    Variant(
        "no BOS",
        "as published: no BOS but the prompt's own, ablated at the first token, too",
        GraphSettings(prepend_bos=False, ablate_first=True, select="effect"),
    ),
)


class Case(NamedTuple):
    """What the parts of one variant share."""

    model: InstrumentedModel
    published: Published
    variant: Variant
    settings: ValidationSettings
    texts: Callable[[], Iterable[str]]  # of a corpus

    def subject(self, prompt: str) -> Subject:
        """A prompt, run and ready to be ablated in."""
        return subject(
            self.model, prompt, "discovery", self.variant.settings, self.settings, own=True
        )

    def known(self, features: Iterable[FeatureId]) -> list[FeatureId]:
        """Those that the SAEs have."""
        layers = {layer.label: layer.n_features for layer in self.model.stack.layers}
        return [feature for feature in features if feature.index < layers.get(feature.layer, 0)]


def token_of(model: InstrumentedModel, text: str) -> int | None:
    """The id of a text that is one token; None where it is none or several."""
    ids = list(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    return int(ids[0]) if len(ids) == 1 else None


def beside(model: InstrumentedModel, points: Points, ours: Tensor) -> list[list[Any]]:
    """Rows of a token, what was published of it, and `ours` `[V]`; None where it is no token."""
    ids = [token_of(model, text) for text, _ in points]
    return [
        [text, value, None if token is None else float(ours[token])]
        for (text, value), token in zip(points, ids, strict=True)
    ]


def percent(logits: Tensor) -> Tensor:
    """Probabilities in percent."""
    return 100.0 * logits.double().softmax(-1)
