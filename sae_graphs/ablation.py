"""Effects of every active feature on the next layer's features, measured one by one.

For a pair of neighbouring SAE layers: 1. find the features that the intervention changes at any
ablated position (the rest are exact no-ops); 2. in batches, change one feature in each copy of the
stream, the SAE's error passing through untouched; 3. re-run the blocks between the two layers;
4. encode at the read position; effect = changed minus clean.

Letters: `B` batch, `T` tokens, `D` d_model, `F` features, `S` source features of a selection.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError
from sae_graphs.graph import FeatureId
from sae_graphs.instrument import CleanRun, InstrumentedModel
from sae_graphs.rows import RowChange
from sae_graphs.saes import StreamPoint
from sae_graphs.settings import GraphSettings, Per

MOST_ROWS = 4096  # token rows in a batch: more gains nothing on a CPU
EXPRESSED_SAMPLE = 16  # sources per layer on which `effect_in_features` is measured


@dataclass(frozen=True)
class Intervention:
    """What a feature's activation becomes where it is ablated.

    `replace(point, activations)` gives the new activations `[T, F]` of the SAE at that point of
    the stream from the clean ones `[T, F]`; each feature is changed alone. `name` goes into the
    record and tells what is replaced by what.
    """

    name: str
    replace: Callable[[StreamPoint, Tensor], Tensor]


ZERO = Intervention("zero", lambda point, activations: torch.zeros_like(activations))


def scale(coefficient: float) -> Intervention:
    """Multiply the activation: 0 is zero-ablation, 1 changes nothing."""
    return Intervention(f"scale {coefficient:g}", lambda point, acts: acts * coefficient)


def mean_over(model: InstrumentedModel, prompts: Sequence[str]) -> Intervention:
    """Replace by the feature's mean activation over reference prompts, first tokens left out."""
    if not prompts:
        raise SaeGraphsError("no reference prompts given; a mean needs at least one")
    runs = [model.clean_run(prompt) for prompt in prompts]
    if all(len(run) == 1 for run in runs):
        raise SaeGraphsError("the reference prompts have one token each; give longer ones")
    means = {
        layer.point: torch.cat([run.activations[depth][1:] for run in runs]).mean(0)
        for depth, layer in enumerate(model.stack.layers)
    }
    name = f"mean of {len(prompts)} prompts ({_digest(prompts)})"
    return Intervention(name, lambda point, acts: _at(point, means).expand_as(acts))


def resample(model: InstrumentedModel, prompt: str, *, n_tokens: int) -> Intervention:
    """Replace by the activation in another prompt, of the same number of tokens."""
    other = model.clean_run(prompt)
    if len(other) != n_tokens:
        raise SaeGraphsError(
            f"the other prompt has {len(other)} tokens, this one {n_tokens}; resampling goes "
            "position by position, so give a prompt of the same length"
        )
    found = {
        layer.point: activations
        for layer, activations in zip(model.stack.layers, other.activations, strict=True)
    }
    return Intervention(f"resample ({_digest([prompt])})", lambda point, acts: _at(point, found))


def _at(point: StreamPoint, values: Mapping[StreamPoint, Tensor]) -> Tensor:
    if point not in values:
        raise SaeGraphsError(
            f"the intervention knows no SAE on {point.hook_name}; make it with this model"
        )
    return values[point]


def _digest(prompts: Sequence[str]) -> str:
    """A few letters that tell sets of prompts apart."""
    return hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()[:8]


class Places(NamedTuple):
    """Where features are changed and where effects are read."""

    ablated: Tensor  # [T] bool
    read: int


class EffectBlock(NamedTuple):
    """Effects of some features of the layer at `depth` on all features of the next one."""

    depth: int
    sources: Tensor  # [S] feature indices
    effects: Tensor  # [S, F of the next layer], changed minus clean, at the read position


class MeasuredEdge(NamedTuple):
    """One effect that was kept: source and target are feature indices at `depth`, `depth + 1`."""

    depth: int
    source: int
    target: int
    effect: float


def places_of(clean: CleanRun, settings: GraphSettings) -> Places:
    """The positions that the settings speak of; raises where `read` is outside the prompt."""
    n = len(clean)
    if not -n <= settings.read < n:
        raise SaeGraphsError(
            f"read position {settings.read} is outside the prompt of {n} tokens; expected "
            f"0 to {n - 1}, or negative from the end"
        )
    read = settings.read % n
    if settings.ablate == "read":
        ablated = torch.arange(n) == read
    else:
        ablated = torch.arange(n) <= read  # later positions cannot reach the one that is read
        ablated[0] = settings.ablate_first or n == 1
    if not ablated.any():
        raise SaeGraphsError(
            "the token that is read is the first, and there no feature is ablated by default: "
            "add --ablate-first, or --ablate read, or read another token"
        )
    return Places(ablated, read)


def changed_activations(
    clean: CleanRun, depth: int, places: Places, intervention: Intervention
) -> Tensor:
    """The activations `[T, F]` that the intervention asks for, at the ablated positions only."""
    activations = clean.activations[depth]
    ablated = places.ablated.to(activations.device)[:, None]
    return torch.where(ablated, intervention.replace(clean.points[depth], activations), activations)


def source_features(
    clean: CleanRun,
    depth: int,
    places: Places,
    intervention: Intervention = ZERO,
    pin: Sequence[FeatureId] = (),
    label: str = "",
) -> Tensor:
    """Indices `[S]` of the features that the intervention changes at any ablated position.

    With pins, only those of this layer (`label`); a pin that changes nothing raises.
    """
    changed = changed_activations(clean, depth, places, intervention) != clean.activations[depth]
    sources = changed.any(0).nonzero()[:, 0]
    if not pin:
        return sources
    wanted = sorted({feature.index for feature in pin if feature.layer == label})
    silent = sorted(set(wanted) - set(sources.tolist()))
    if silent:
        raise UnknownFeatureError(
            f"pinned feature {label}.{silent[0]} is inactive at every ablated position of this "
            "prompt, so ablating it changes nothing; pin a feature that is active"
        )
    return torch.tensor(wanted, dtype=sources.dtype, device=sources.device)


def row_change(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    features: Tensor,
    places: Places,
    intervention: Intervention = ZERO,
) -> RowChange:
    """The stream with one feature changed, for each feature `[B]`: the rows that differ.

    `x' = x - (decode(a) - decode(a with the feature changed))`: the SAE's error stays. The
    decoder is affine, so all other activations cancel and only the feature's own is decoded.
    """
    after = changed_activations(clean, depth, places, intervention)[:, features].T  # [B, T]
    before = clean.activations[depth][:, features].T
    rows = _changed_rows(after != before, places.read)  # [B, Q]
    stream = clean.streams[depth][rows]  # [B, Q, D]
    before, after = before.gather(1, rows), after.gather(1, rows)
    decode = model.stack.layers[depth].decoder_of(features)
    alone = torch.eye(len(features), dtype=before.dtype, device=before.device)[:, None]
    removed = decode(before[..., None] * alone, stream) - decode(after[..., None] * alone, stream)
    # A row that does not change is left as it is: there the difference is rounding, at most.
    changed = (before != after)[..., None]
    return RowChange(rows, torch.where(changed, stream - removed.to(stream.dtype), stream))


def _changed_rows(changed: Tensor, read: int) -> Tensor:
    """Positions `[B, Q]` that differ, the read position first; it also fills short rows up."""
    others = changed.clone()  # [B, T]
    others[:, read] = False
    counts = others.sum(1, keepdim=True)
    order = others.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    within = torch.arange(order.shape[1], device=order.device) < counts
    first = torch.full_like(counts, read)
    return torch.cat([first, torch.where(within, order, first)], dim=1)


@torch.no_grad()
def measure(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    sources: Tensor,
    places: Places,
    intervention: Intervention = ZERO,
    *,
    batch: int | None = None,
) -> Iterator[EffectBlock]:
    """Effects of `sources` `[S]` at `depth` on every feature of the next layer, batch by batch.

    Units: activation of the target's SAE; sign: changed minus clean; at the read position.
    """
    target = model.stack.layers[depth + 1]
    clean_target = target.encode(clean.streams[depth + 1][places.read][None])  # [1, F]
    changed = changed_activations(clean, depth, places, intervention) != clean.activations[depth]
    n_rows = changed.sum(0)[sources]
    for chunk in _batches(model, len(clean), sources, n_rows, batch):
        change = row_change(model, clean, depth, chunk, places, intervention)
        onward = model.run_segment(clean, depth, change)  # [B, D]
        yield EffectBlock(depth, chunk, target.encode(onward) - clean_target)


@torch.no_grad()
def effect_in_features(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    sources: Tensor,
    places: Places,
    intervention: Intervention = ZERO,
) -> float | None:
    """How much of the change of the next layer's stream its SAE expresses: 1 is all of it.

    `1 - sum |dx - dx_hat|^2 / sum |dx|^2` at the read position, over the sources that are most
    active (16 at most). What is left over flows on in the SAE's error, out of the graph's sight.
    """
    strength = clean.activations[depth][:, sources].amax(0)
    chunk = sources[strength.argsort(descending=True, stable=True)[:EXPRESSED_SAMPLE]]
    if len(chunk) == 0:
        return None
    target = model.stack.layers[depth + 1]
    before = clean.streams[depth + 1][places.read][None]  # [1, D]
    change = row_change(model, clean, depth, chunk, places, intervention)
    after = model.run_segment(clean, depth, change)  # [B, D]
    expressed = target.decode(target.encode(after), after)
    expressed = expressed - target.decode(target.encode(before), before)
    moved = after - before
    total = float(moved.double().square().sum())
    if total == 0.0:
        return None
    return 1.0 - float((moved - expressed).double().square().sum()) / total


def batch_size(model: InstrumentedModel, n_tokens: int, n_rows: int) -> int:
    """How many changed prompts to run at once, in a quarter of the memory that is free.

    `n_rows` of the `n_tokens` are run in each.
    """
    cfg = model.model.cfg
    width = max(layer.n_features for layer in model.stack.layers)
    parameter = next(model.model.parameters())
    heads = int(getattr(cfg, "n_heads", 1))
    floats = n_rows * (30 * int(cfg.d_model) + 4 * heads * n_tokens)
    floats += 8 * n_tokens * int(cfg.d_model) + 6 * width
    if parameter.is_cuda:
        free = torch.cuda.mem_get_info(parameter.device)[0]
    else:
        free = psutil.virtual_memory().available
    fits = free // 4 // (floats * parameter.element_size())
    return int(max(1, min(fits, MOST_ROWS // n_rows or 1)))


def _batches(
    model: InstrumentedModel, n_tokens: int, sources: Tensor, n_rows: Tensor, batch: int | None
) -> Iterator[Tensor]:
    """The sources in batches, those with the same number of changed rows beside each other."""
    order = n_rows.argsort(stable=True)
    sources, n_rows = sources[order], n_rows[order]
    while len(sources):
        # Rows grow along the order: what fits at the end of a batch sets its size.
        size = batch or batch_size(model, n_tokens, int(n_rows[0]) + 1)
        size = min(size, len(sources))
        size = min(size, batch or batch_size(model, n_tokens, int(n_rows[size - 1]) + 1))
        yield sources[:size]
        sources, n_rows = sources[size:], n_rows[size:]


# -- what is kept ----------------------------------------------------------------------------------


def keep_top(
    blocks: Iterable[EffectBlock], k: int, per: Per
) -> tuple[list[MeasuredEdge], dict[int, float]]:
    """The k largest |effect| of each set of effects, and the total |effect| by depth.

    A set is what `per` says: a layer pair, a source feature, or everything. Ties break by layer,
    source, target, so the result does not depend on the batches; an effect of 0 is no edge.
    """
    kept: list[MeasuredEdge] = []
    totals: dict[int, float] = {}
    for block in blocks:
        size = float(block.effects.abs().sum(dtype=torch.float64))
        if not math.isfinite(size):
            raise SaeGraphsError(
                "an effect is not finite: the activations overflow; use --dtype float32"
            )
        totals[block.depth] = totals.get(block.depth, 0.0) + size
        rows = block.effects.split(1) if per == "source" else (block.effects,)
        start = 0
        for effects in rows:
            found = _largest(block, effects, start, k)
            start += len(effects)
            if per == "source":
                kept += sorted(found, key=_edge_order)[:k]
            else:
                others = [e for e in kept if per == "layer" and e.depth != block.depth]
                rivals = [e for e in kept if per == "graph" or e.depth == block.depth]
                kept = others + sorted(rivals + found, key=_edge_order)[:k]
    return sorted(kept, key=_edge_order), totals


def _largest(block: EffectBlock, effects: Tensor, start: int, k: int) -> list[MeasuredEdge]:
    """At least the k largest of some rows of a block: every tie with the last one is included."""
    sizes = effects.abs()
    least = sizes.flatten().topk(min(k, sizes.numel())).values[-1]
    rows, targets = ((sizes >= least) & (sizes > 0)).nonzero(as_tuple=True)
    values = effects[rows, targets].tolist()
    sources = block.sources[start + rows].tolist()
    return [
        MeasuredEdge(block.depth, source, target, value)
        for source, target, value in zip(sources, targets.tolist(), values, strict=True)
    ]


def _edge_order(edge: MeasuredEdge) -> tuple[float, int, int, int]:
    return -abs(edge.effect), edge.depth, edge.source, edge.target
