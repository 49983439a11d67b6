"""`GraphSettings`: what to measure and what to keep, checked before anything slow is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.addresses import Address, feature_at, is_address, parse_address
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.stream import parse_layers

Select = Literal["answer", "effect"]
Per = Literal["layer", "source", "graph"]
Ablate = Literal["all", "read", "each"]
Method = Literal["exact", "gradient", "integrated-gradients"]
Read = int | Literal["all"]
Layers = str | Sequence[str | int] | None  # first and last, such as "3:8" or ("3", "8")
Pins = str | FeatureId | Address | Sequence[str | FeatureId | Address]

TOP_K = 8
ANSWER_TOP_K = 4  # edges into each target of an answer graph
NODES = 16
DEFAULT_INTERVENTIONS: Mapping[Select, str] = {"answer": "mean", "effect": "zero"}
_UNSET = {("answer", "per"): (None,)}  # options that a kind of graph does not have
MIN_PATH_EDGES = 3
STEPS = 10


@dataclass(frozen=True)
class GraphSettings:
    """The options of `causal_graph`.

    - `select`: the graph of what the `answer` hangs on, or of the strongest `effect`s of one layer
      on the next, the source's own graph.
    - `nodes`: in an answer graph, so many features at tokens with the largest |effect| on the
      answer are kept (16), rarely-on ones alone, unless `dense`: those that are on at 30 % of any
      text, or more, are kept, too.
    - `budget`: in an answer graph, so many features at tokens are measured, those of the largest
      gradients; None is as many as five minutes allow, foretold.
    - `top_k` edges with the largest |effect| are kept of each set of effects. In an answer graph
      these are the effects on one target (4); else what `per` names (8): the effects of one
      `layer` on the next, those of one `source` feature, or all of the `graph`.
    - `min_path_edges`: only edges on a path of at least this many edges stay. None is the
      default, 3, or as many as the layers measured allow; 1 where features are pinned. Not in an
      answer graph.
    - `ablate`: features are changed at `all` positions (but the first, unless `ablate_first`), at
      the `read` position alone, or at `each` position by itself: nodes then have positions. In an
      answer graph it is `each`.
    - `read`: the token position where effects are read, or whose next token is the answer; negative
      counts from the end. With `each`, for `effect`s, also `"all"`: then graphs have paths that
      move from token to token.
    - `layers`: first and last SAE layer by label, both included; None is the whole stack.
    - `pin`: measure these source features only; a feature, or its address on Neuronpedia. In an
      answer graph they are kept, whatever their effect.
    - `outputs`: so many of the likeliest next tokens are targets of the last SAE layer, with their
      logits at the last position that is read; `target` are tokens given by their text instead.
      With a `contrast`, a token's text, the target is the difference to its logit. In an answer
      graph the answer is the one target, or the likeliest token.
    - `method`: effects are measured (`exact`), or estimated from the `gradient` or from
      `integrated-gradients` in so many `steps`; `compare_methods` shows how far off these are.
    - `heads` splits what came through attention by head, in the edges' anatomies.
    - `prepend_bos`: None leaves it to the SAEs' metadata.
    - `seed` goes into the record. Nothing in a graph is drawn at random.
    """

    select: Select = "answer"
    nodes: int | None = None
    dense: bool = False
    budget: int | None = None
    top_k: int | None = None
    min_path_edges: int | None = None
    per: Per | None = None
    ablate: Ablate | None = None
    ablate_first: bool = False
    read: int | Literal["all"] = -1
    layers: tuple[str, str] | None = None
    pin: tuple[FeatureId | Address, ...] = ()
    outputs: int = 0
    target: tuple[str, ...] = ()
    contrast: str | None = None
    heads: bool = False
    prepend_bos: bool | None = None
    seed: int = 0
    method: Method = "exact"
    steps: int = STEPS

    def __post_init__(self) -> None:
        self._fill()
        pins = self.pin if isinstance(self.pin, tuple | list) else (self.pin,)
        object.__setattr__(self, "pin", tuple(_feature_or_address(pin) for pin in pins))
        object.__setattr__(self, "layers", _first_and_last(self.layers))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise SaeGraphsError(f"seed is {self.seed!r}; expected a whole number")
        if not 0 <= self.seed < 2**63:
            raise SaeGraphsError(f"seed is {self.seed}; expected 0 to {2**63 - 1}")
        object.__setattr__(self, "target", _texts(self.target))
        if self.outputs != 0:
            _require_whole("outputs", self.outputs)
            if self.target:
                raise SaeGraphsError("give outputs, a number, or target, their texts, not both")
        if not isinstance(self.contrast, str | None):
            raise SaeGraphsError(f"contrast is {self.contrast!r}; expected the text of a token")
        _require_whole("top_k", self.top_k)
        if self.select == "answer":
            _require_whole("nodes", self.nodes)
            if self.budget is not None:
                _require_whole("budget", self.budget)
        if self.min_path_edges is not None:
            _require_whole("min_path_edges", self.min_path_edges)
        _require_whole("steps", self.steps)
        choices_of = {"per": get_args(Per), "ablate": get_args(Ablate), "method": get_args(Method)}
        for name, choices in choices_of.items():
            if getattr(self, name) not in (*choices, *_UNSET.get((self.select, name), ())):
                raise SaeGraphsError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}"
                )

        if not _is_read(self.read):
            raise SaeGraphsError(f"read is {self.read!r}; expected a whole number, or 'all'")
        if self.read == "all" and self.ablate != "each":
            raise SaeGraphsError(
                f"read is 'all' and ablate {self.ablate!r}; reading at all positions needs "
                "ablate='each' (--ablate each)"
            )
        if self.select == "answer":
            self._check_answer()

    def _fill(self) -> None:
        """Put the defaults of the kind of graph in, and refuse what belongs to the other kind."""
        if self.select not in get_args(Select):
            raise SaeGraphsError(
                f"select is {self.select!r}; expected one of {', '.join(get_args(Select))}"
            )
        answer = self.select == "answer"
        foreign = ("per", "min_path_edges") if answer else ("nodes", "budget")
        given = [name for name in foreign if getattr(self, name) is not None]
        if not answer and self.dense:
            given.append("dense")
        if given:
            other = "effect" if answer else "answer"
            raise SaeGraphsError(
                f"{flagged(given[0])} is {getattr(self, given[0])!r}, but is for "
                f"select={other!r} (--select {other}), not for {self.select!r}; leave it out, or "
                "give that"
            )
        defaults: dict[str, Any] = {"top_k": TOP_K, "per": "layer", "ablate": "all"}
        if answer:
            defaults = {"top_k": ANSWER_TOP_K, "ablate": "each", "nodes": NODES}
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)

    def _check_answer(self) -> None:
        """Raise where an option does not fit an answer graph."""
        fixed = {"ablate": "each", "ablate_first": False}
        foreign = [name for name, value in fixed.items() if getattr(self, name) != value]
        foreign += ["read"] if self.read == "all" else []
        if foreign:
            raise SaeGraphsError(
                f"{flagged(foreign[0])} is {getattr(self, foreign[0])!r}: an answer graph ablates "
                "each token but the first, and reads the one whose next token is asked for; leave "
                "it out, or give select='effect' (--select effect)"
            )
        if self.outputs:
            raise SaeGraphsError(
                f"outputs (--outputs) is {self.outputs}: an answer graph has one answer, the "
                "likeliest token or the target (--target); leave it out, or give select='effect' "
                "(--select effect)"
            )
        if len(self.target) > 1:
            raise SaeGraphsError(
                f"{len(self.target)} targets: an answer graph has one answer; give one, or "
                "select='effect' (--select effect)"
            )

    @property
    def has_outputs(self) -> bool:
        """Whether output tokens are targets."""
        return bool(self.outputs or self.target or self.contrast is not None)

    @property
    def pins(self) -> tuple[FeatureId, ...]:
        """The pinned features; those given by address once they are `located`."""
        return tuple(pin for pin in self.pin if isinstance(pin, FeatureId))

    def located(self, layers: Mapping[str, str | None]) -> GraphSettings:
        """With the features that `pin` gives by address, by the layers' Neuronpedia ids."""
        found = (pin if isinstance(pin, FeatureId) else feature_at(pin, layers) for pin in self.pin)
        return replace(self, pin=tuple(dict.fromkeys(found)))

    def path_edges(self, layer_pairs: int) -> int:
        """The shortest path kept, given how many pairs of neighbouring layers are measured."""
        if self.min_path_edges is None:
            return 1 if self.pin else min(MIN_PATH_EDGES, layer_pairs)
        if self.min_path_edges > layer_pairs:
            raise SaeGraphsError(
                f"min_path_edges is {self.min_path_edges}, but the {layer_pairs + 1} SAE layers "
                f"measured allow paths of at most {layer_pairs} edges; give a smaller number"
            )
        return self.min_path_edges

    def to_json(self) -> Mapping[str, Any]:
        """Plain values, for the graph's record."""
        named = {"target": "targets"}  # as records have it
        foreign = {"answer": ("per", "min_path_edges"), "effect": ("nodes", "dense", "budget")}[
            self.select
        ]
        values = {
            named.get(it.name, it.name): getattr(self, it.name)
            for it in fields(self)
            if it.name not in foreign
        }
        values["pin"] = [str(feature) for feature in self.pin]
        values["layers"] = None if self.layers is None else list(self.layers)
        values["targets"] = list(self.target)
        values["steps"] = self.steps if self.method == "integrated-gradients" else None
        return values


def parse_read(text: str) -> int | Literal["all"]:
    """`"-1"` as -1, `"all"` as itself: where effects are read.

    >>> parse_read("5")
    5
    """
    if text.strip() == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise SaeGraphsError(
            f"read {text!r}; expected a position such as 5, or -1 for the last, or all"
        ) from None


def _first_and_last(layers: object) -> tuple[str, str] | None:
    if layers is None or isinstance(layers, str):
        return parse_layers(layers)
    if not isinstance(layers, tuple | list) or len(layers) != 2:
        raise SaeGraphsError(f"layers {layers!r}; expected first:last, or the two as a pair")
    return str(layers[0]), str(layers[1])


def _feature_or_address(pin: str | FeatureId | Address) -> FeatureId | Address:
    if isinstance(pin, Address):
        return pin
    return parse_address(str(pin)) if is_address(pin) else FeatureId.parse(pin)


def _texts(texts: object) -> tuple[str, ...]:
    given = (texts,) if isinstance(texts, str) else texts
    if not isinstance(given, tuple | list) or not all(isinstance(text, str) for text in given):
        raise SaeGraphsError(f"target is {texts!r}; expected the texts of tokens")
    return tuple(given)


def flagged(name: str) -> str:
    """An option by its name, and by its flag on the command line."""
    return f"{name} (--{name.replace('_', '-')})"


def _is_read(read: object) -> bool:
    whole = isinstance(read, int) and not isinstance(read, bool)
    return read == "all" or whole


def _require_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SaeGraphsError(f"{name} is {value!r}; expected a whole number of at least 1")
