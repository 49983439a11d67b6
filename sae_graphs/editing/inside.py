"""What an edit does inside: the answer graph before and after, and what key and value are made of.

The key's part: each active feature of the SAE before the edited block is zero-ablated alone at the
key's token, and the block run again; what that does to the match (C^-1 k*)^T k / ((C^-1 k*)^T k*),
which is 1 at k* itself and says how much of v* - W k* is added there. The value's part: the
features of the SAE after the block, at that token, without the edit and with it in force.

Letters: `N` features, `T` tokens, `D` d_model, `F` inputs of the projection or features of an SAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.editing.projection import projection_of
from sae_graphs.editing.prompts import placed
from sae_graphs.editing.record import Edit
from sae_graphs.effects.build import causal_graph
from sae_graphs.graph.difference import GraphDifference, difference
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Node
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel, with_saes
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.recording import outputs_of
from sae_graphs.model.replay import Step
from sae_graphs.model.saes import SAELayer

SHOWN = 12  # features of each kind


class Part(NamedTuple):
    """A feature, at the key's token, that the key is made of: the match changes by `effect`."""

    feature: FeatureId
    activation: float
    effect: float  # ablated minus clean: negative where the feature makes the key what it is


class Moved(NamedTuple):
    """A feature's activation without the edit, and with it; `effect` on the answer, in nats.

    Ablated minus clean, in the graph that has the feature; None of what stands in no graph.
    """

    feature: FeatureId
    label: str
    before: float
    after: float
    effect: float | None = None


@dataclass(frozen=True, eq=False)
class Inside:
    """An edit, seen through SAEs.

    `match` is the key's at the prompt's own token. `key` are features of the SAE before the block,
    `value` of the SAE after it, each empty where there is none; `missed` is the norm of what that
    SAE leaves out of the stream there, as a part of the stream's, without the edit and with it:
    where it grows much, what was added is not made of its features. `carries` are the features that
    only the second graph has, `carried` those that only the first one had.
    """

    edit: Edit
    difference: GraphDifference
    match: float
    key: tuple[Part, ...]
    value: tuple[Moved, ...]
    missed: tuple[float, float] | None
    carries: tuple[Moved, ...]
    carried: tuple[Moved, ...]

    @property
    def before(self) -> CausalGraph:
        """The answer graph without the edit."""
        return self.difference.left

    @property
    def after(self) -> CausalGraph:
        """That with the edit in force."""
        return self.difference.right


@torch.no_grad()
def inside(
    model: InstrumentedModel,
    edit: Edit,
    *,
    nodes: int = 16,
    intervention: Intervention | None = None,
    prepend_bos: bool | None = None,
) -> Inside:
    """What an edit does to the features of its prompt, and to the graph of its answer.

    `nodes` and `intervention` are those of the graphs.

    Raises `SaeGraphsError` where the edit was made for other weights, or the model has no SAEs.
    """
    model = with_saes(model)
    token = edit.settings.token
    ahead = edit.prompt.index("{}")
    ids, at, _ = placed(
        model, edit.asked, edit.subject, token, before=ahead, prepend_bos=prepend_bos
    )

    def graph() -> CausalGraph:
        return causal_graph(
            model, edit.asked, intervention=intervention, nodes=nodes, prepend_bos=prepend_bos
        )

    clean = model.clean_run(ids)
    match, key = _key(model, edit, clean, at)
    before = graph()
    with edit.applied(model):
        changed = model.clean_run(ids)
        after = graph()
    value, missed = _value(model, edit, clean, changed, at)
    found = difference(before, after)
    acts = [_activations(model, run) for run in (clean, changed)]
    return Inside(
        edit,
        found,
        match,
        key,
        value,
        missed,
        tuple(_moved(node, *acts) for node in found.new_features if node.feature.is_feature),
        tuple(_moved(node, *acts) for node in found.lost_features if node.feature.is_feature),
    )


# -- inside ----------------------------------------------------------------------------------------


def _layer_at(model: InstrumentedModel, depth: int) -> SAELayer | None:
    return next((it for it in model.stack.layers if it.point.depth == depth), None)


def _key(
    model: InstrumentedModel, edit: Edit, clean: CleanRun, at: int
) -> tuple[float, tuple[Part, ...]]:
    """The match at a token, and the features that it hangs on, strongest first."""
    stream = clean.inputs[edit.layer]  # [T, D]
    layer = _layer_at(model, 2 * edit.layer)
    active, changed = torch.empty(0, dtype=torch.long), stream[None]
    acts = None
    if layer is not None:
        acts = layer.encode(stream)[at]  # [F]
        active = acts.nonzero()[:, 0]
        kept = acts.repeat(len(active), 1)  # [N, F]
        kept[torch.arange(len(active)), active] = 0.0
        rows = stream[at].repeat(len(active), 1)
        lost = layer.decode(acts.repeat(len(active), 1), rows) - layer.decode(kept, rows)
        changed = stream.repeat(1 + len(active), 1, 1)  # the first as it was
        changed[1:, at] -= lost
    matches = _matches(model, edit, clean, changed, at)
    if layer is None or acts is None:
        return float(matches[0]), ()
    effects = (matches[1:] - matches[0]).tolist()
    parts = [
        Part(FeatureId(layer.label, index, at), float(acts[index]), effect)
        for index, effect in zip(active.tolist(), effects, strict=True)
    ]
    order = sorted(parts, key=lambda it: (-abs(it.effect), it.feature.index))
    return float(matches[0]), tuple(order[:SHOWN])


def _matches(
    model: InstrumentedModel, edit: Edit, clean: CleanRun, streams: Tensor, at: int
) -> Tensor:
    """The match of the key at a token, for streams `[N, T, D]` that enter the block: `[N]`."""
    projection = projection_of(model.model, edit.layer)
    left = torch.tensor(edit.left, dtype=torch.float64, device=streams.device)
    found = []
    for stream in streams.split(16):
        with outputs_of(projection.reads) as heard:
            model.replay.whole(clean, Step(edit.layer, "whole"), stream)
        keys = torch.cat([each.reshape(-1, stream.shape[1], len(left)) for each in heard])
        found.append(keys[:, at].double() @ left)
    return torch.cat(found)


def _value(
    model: InstrumentedModel, edit: Edit, clean: CleanRun, changed: CleanRun, at: int
) -> tuple[tuple[Moved, ...], tuple[float, float] | None]:
    """The features after the block that the edit moves at the key's token, furthest first."""
    layer = _layer_at(model, 2 * edit.layer + 2)
    if layer is None:
        return (), None
    rows = torch.stack([run.inputs[edit.layer + 1][at] for run in (clean, changed)])  # [2, D]
    acts = torch.stack([layer.encode(row[None])[0] for row in rows])  # [2, F]
    decoded = torch.stack(
        [layer.decode(each[None], row[None])[0] for each, row in zip(acts, rows, strict=True)]
    )
    before, after = ((rows - decoded).norm(dim=-1) / rows.norm(dim=-1)).tolist()
    by = (acts[1] - acts[0]).abs()
    order = by.argsort(descending=True, stable=True)[:SHOWN].tolist()
    moved = [
        Moved(
            FeatureId(layer.label, index, at),
            str(FeatureId(layer.label, index, at)),
            float(acts[0, index]),
            float(acts[1, index]),
        )
        for index in order
        if by[index] > 0
    ]
    return tuple(moved), (before, after)


def _activations(model: InstrumentedModel, run: CleanRun) -> dict[str, Tensor]:
    """All activations `[T, F]` of a run, by layer."""
    return {
        layer.label: layer.encode(model.replay.stream_at(run, layer.point))
        for layer in model.stack.layers
    }


def _moved(node: Node, before: dict[str, Tensor], after: dict[str, Tensor]) -> Moved:
    place = node.feature
    position = 0 if place.position is None else place.position
    one, two = (float(acts[place.layer][position, place.index]) for acts in (before, after))
    return Moved(place, node.label, one, two, node.effect_on_answer)
