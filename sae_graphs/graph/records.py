"""The small types a graph is made of: nodes, edges, and the record of the run.

They check themselves, and say what they expected. Signs are those of the whole project: an effect
is *ablated minus clean*.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.anatomy import Anatomy, BlockShare, is_count
from sae_graphs.graph.answer import AnswerRecord
from sae_graphs.graph.feature_id import (
    ANSWER,
    ANSWER_LAYER,
    OUTPUT_LAYER,
    OWN_LAYERS,
    TOKEN_LAYER,
    FeatureId,
    feature_order,
)
from sae_graphs.graph.feature_page import FeaturePage
from sae_graphs.late import view
from sae_graphs.text import visible

Sign = Literal["promotes", "suppresses"]


@dataclass(frozen=True)
class TokenEffect:
    """What ablating a feature does to one output token at the read position.

    `effect_nats` is the log-probability ablated minus clean; `probability` is the clean one.
    """

    token: str
    effect_nats: float
    probability: float

    def __post_init__(self) -> None:
        numbers = (self.effect_nats, self.probability)
        if not isinstance(self.token, str) or not all(
            isinstance(value, int | float) and math.isfinite(value) for value in numbers
        ):
            raise SaeGraphsError(f"not a token's effect: {self.token!r}, {numbers}")


@dataclass(frozen=True)
class Context:
    """A stretch of corpus text on which a feature is active: one activation per token."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(token, str) for token in self.tokens):
            raise SaeGraphsError(f"the tokens of a context are texts, got {self.tokens!r:.60}")
        if len(self.tokens) != len(self.activations):
            raise SaeGraphsError(
                f"a context needs one activation per token, got {len(self.activations)} "
                f"for {len(self.tokens)} tokens"
            )
        if not all(math.isfinite(value) for value in self.activations):
            raise SaeGraphsError(
                f"an activation of the context {''.join(self.tokens)!r:.60} is not finite: "
                f"{self.activations!r:.60}"
            )

    @property
    def peak(self) -> int | None:
        """Where the feature is most active, the last of equals; None in a stretch of nothing."""
        places = range(len(self.tokens))
        return max(places, key=lambda i: (abs(self.activations[i]), i), default=None)


@dataclass(frozen=True)
class Node:
    """A feature in the graph and what is known of it; or an output token.

    `activation` is the clean activation at the read position (at its own, where the feature has
    one), `activations` at each token of the prompt. `promotes` holds tokens that ablating the
    feature makes less likely (negative `effect_nats`), `suppresses` those that it makes likelier.
    `written_by` says which blocks wrote the feature: shares of its clean pre-activation where it is
    most active, strongest first; `scrubbed_by` which later blocks remove it: the share of its
    contribution to the stream that they cancel there, 1 being all of it. Both are empty where that
    was not, or cannot be, measured. `page` is what Neuronpedia says, None where it was not asked.

    An output node (layer `out`) has the token's id for its index, its text in `token` and its clean
    logit, in nats, for its activation; the `answer` its score. A token of the prompt has its text.

    In an answer graph a feature has its `effect_on_answer`, ablated minus clean, in nats, the
    `direct_effect` that no feature of a later SAE layer mediates, and its `density`, the share of
    reference tokens on which it is on; `relay` where it is there for what another hands on by it.
    """

    feature: FeatureId
    activation: float
    component: int = 0
    neuronpedia: str | None = None
    activations: tuple[float, ...] = ()
    contexts: tuple[Context, ...] = ()
    promotes: tuple[TokenEffect, ...] = ()
    suppresses: tuple[TokenEffect, ...] = ()
    written_by: tuple[BlockShare, ...] = ()
    scrubbed_by: tuple[BlockShare, ...] = ()
    token: str | None = None
    page: FeaturePage | None = None
    effect_on_answer: float | None = None
    direct_effect: float | None = None
    density: float | None = None
    relay: bool | None = None

    def __post_init__(self) -> None:
        if self.feature.is_feature == isinstance(self.token, str):
            raise SaeGraphsError(f"{self.feature}: output nodes, and only they, name their token")
        if self.component < 0:
            raise SaeGraphsError(f"component {self.component} of {self.feature} is below 0")
        if not all(math.isfinite(value) for value in (self.activation, *self.activations)):
            raise SaeGraphsError(f"an activation of {self.feature} is not finite")
        known = (self.effect_on_answer, self.direct_effect, self.density)
        if not all(value is None or math.isfinite(value) for value in known):
            raise SaeGraphsError(f"an effect of {self.feature} on the answer is not finite")
        if not isinstance(self.neuronpedia, str | None):
            raise SaeGraphsError(f"{self.neuronpedia!r} of {self.feature} is not an address")

    def _repr_html_(self) -> str:
        shown: str = view("node_html")(self)
        return shown

    @property
    def label(self) -> str:
        """Its name and what it means: Neuronpedia's words, else the token that it fires on most;
        of a token, its text. All in one line."""
        if self.token is not None:
            return f'{self.feature} "{visible(self.token, space=" ")}"'
        if self.explanation:
            return f"{self.feature}: {visible(self.explanation, space=' ')}"
        for context in self.contexts[:1]:
            if context.peak is not None:
                return f'{self.feature}: on "{visible(context.tokens[context.peak], space=" ")}"'
        return str(self.feature)

    def __str__(self) -> str:
        if self.feature.is_token:
            return self.label
        what = {OUTPUT_LAYER: "logit", ANSWER_LAYER: "score"}.get(self.feature.layer, "activation")
        told = f"{self.label}; {what} {self.activation:.4g}"
        if self.effect_on_answer is None:
            return told
        does = "opposes" if self.effect_on_answer > 0 else "supports"
        return f"{told}, {does} the answer {-self.effect_on_answer:+.3g} nats"

    @property
    def explanation(self) -> str | None:
        """What the feature means in words, as Neuronpedia has it; None where that is not known."""
        return None if self.page is None else self.page.explanation


@dataclass(frozen=True)
class Edge:
    """The effect of ablating `source` on the activation of `target`: ablated minus clean.

    Where the target is an output token, on its logit, in nats; where it is the answer, on its
    score, with the features of later SAE layers held as they were. `anatomy` is None where it was
    not measured, or cannot be: the source's `LayerReport` then has the reason. In an answer graph
    `flow` is what the source does to the answer through the target alone, in nats.
    """

    source: FeatureId
    target: FeatureId
    effect: float
    anatomy: Anatomy | None = None
    relative_effect: float | None = None
    flow: float | None = None

    def __post_init__(self) -> None:
        known = (self.effect, self.relative_effect or 0.0, self.flow or 0.0)
        if not all(map(math.isfinite, known)):
            raise SaeGraphsError(f"edge {self} is not finite: check the model's and SAEs' weights")

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} ({self.effect:+.4g})"

    @property
    def strength(self) -> float:
        """What edges are ordered by: |flow| to the answer where it is known, else |effect|."""
        return abs(self.effect if self.flow is None else self.flow)

    @property
    def sign(self) -> Sign:
        """`promotes` where ablating the source lowers the target, else `suppresses`."""
        return "promotes" if self.effect < 0 else "suppresses"


@dataclass(frozen=True)
class LayerReport:
    """One SAE layer on this prompt.

    `fvu` is the fraction of the stream's variance that the SAE leaves unexplained and `l0` the mean
    number of active features per position, both over all positions but the first;
    `active_features` is how many are active at any ablated position. The others speak of the step
    to the next layer and are None for the last one: total and kept |effect|,
    `effect_in_features`, the share of the change that reaches the next layer's stream which its
    SAE can express (1 is all of it), how many features were measured, and why its edges have no
    anatomy, where they have none.
    """

    label: str
    hook_point: str
    active_features: int
    l0: float
    fvu: float
    total_abs_effect: float | None = None
    kept_abs_effect: float | None = None
    effect_in_features: float | None = None
    measured_features: int | None = None
    no_anatomy: str | None = None

    def __post_init__(self) -> None:
        known = (self.l0, self.fvu, self.total_abs_effect, self.kept_abs_effect)
        if not all(value is None or math.isfinite(value) for value in known):
            raise SaeGraphsError(f"a number of SAE layer {self.label} is not finite: {known}")


@dataclass(frozen=True)
class OutputToken:
    """A token whose logit was a target; with a `contrast`, its logit minus the contrast's.

    `logit` is clean, at the read position, in nats, and so is `probability` (of the token itself).
    """

    token_id: int
    token: str
    logit: float
    probability: float
    contrast: str | None = None

    def __post_init__(self) -> None:
        texts = isinstance(self.token, str) and isinstance(self.contrast, str | None)
        if not texts or not is_count(self.token_id):
            raise SaeGraphsError(
                f"not an output token: id {self.token_id!r}, text {self.token!r}, contrast "
                f"{self.contrast!r}"
            )
        if not (math.isfinite(self.logit) and 0 <= self.probability <= 1):
            raise SaeGraphsError(
                f"output token {self.token_id}: logit {self.logit}, probability {self.probability}"
            )


@dataclass(frozen=True)
class RunRecord:
    """What was run: everything needed to read the graph, and to run it again."""

    model: str
    saes: str
    prompt: str
    tokens: tuple[str, ...]
    read_position: int
    settings: Mapping[str, Any]
    total_abs_effect: float
    kept_abs_effect: float
    next_tokens: tuple[tuple[str, float], ...]
    layers: tuple[LayerReport, ...]
    warnings: tuple[str, ...] = ()
    outputs: tuple[OutputToken, ...] = ()
    answer: AnswerRecord | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(value, float) and 0 <= value <= 1 for _, value in self.next_tokens):
            raise SaeGraphsError(f"not probabilities of next tokens: {self.next_tokens!r:.80}")
        if not math.isfinite(self.total_abs_effect) or not math.isfinite(self.kept_abs_effect):
            raise SaeGraphsError("the total or the kept |effect| of a run is not finite")
        if not 0 <= self.read_position < len(self.tokens):
            raise SaeGraphsError(
                f"read position {self.read_position} is outside the {len(self.tokens)} tokens"
            )
        if len({output.token_id for output in self.outputs}) != len(self.outputs):
            raise SaeGraphsError("a run holds each output token once, got one twice")
        if self.answer is not None and not self.outputs:
            raise SaeGraphsError("an answer graph names its answer among the output tokens")
        taken = [layer.label for layer in self.layers if layer.label in OWN_LAYERS]
        if taken:
            raise SaeGraphsError(f"an SAE layer is called {taken[0]!r}, as other nodes are")

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """Layer label to depth, counted from 0 at the first SAE layer; output tokens come last.

        In an answer graph the prompt's tokens have depth -1, and the answer comes last.
        """
        labels = [layer.label for layer in self.layers]
        if self.answer is not None:
            return {
                label: depth
                for depth, label in enumerate([TOKEN_LAYER, *labels, ANSWER_LAYER], start=-1)
            }
        labels += [OUTPUT_LAYER] if self.outputs else []
        return {label: depth for depth, label in enumerate(labels)}

    @property
    def summed_at(self) -> int | str | None:
        """The target position at which effects were summed, `"all"`, or None where none were."""
        at: int | str | None = self.settings.get("summed_at")
        return at

    def output(self, feature: FeatureId) -> OutputToken:
        """The output token that an output node stands for."""
        if feature == ANSWER and self.answer is not None:
            return self.outputs[0]
        for output in self.outputs:
            if feature.is_output and output.token_id == feature.index:
                return output
        raise SaeGraphsError(f"{feature} is not an output token of this run")

    @property
    def kept_share(self) -> float:
        """The share of the total |effect| that the graph's edges hold, 0 to 1."""
        return self.kept_abs_effect / self.total_abs_effect if self.total_abs_effect else 0.0


def edge_order(edge: Edge, depths: Mapping[str, int]) -> tuple[Any, ...]:
    """Strongest first; ties by layer, source, target."""
    ends = feature_order(edge.source, depths), feature_order(edge.target, depths)
    return -edge.strength, *ends


class GraphParts(NamedTuple):
    """What a graph is made of, as files hold it: `CausalGraph(*parts)` is the graph."""

    run: RunRecord
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def features(self) -> frozenset[FeatureId]:
        """Those of the nodes."""
        return frozenset(node.feature for node in self.nodes)

    @property
    def resolves_positions(self) -> bool:
        """True where each node is a feature at one token position, such as `5.10603@2`."""
        if not self.nodes:
            return self.run.settings.get("ablate") == "each" and self.run.summed_at is None
        if self.run.answer is not None:
            return self.run.summed_at is None
        return self.nodes[0].feature.position is not None
