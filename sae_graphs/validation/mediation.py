"""Is it the path, or only its nodes? Path patching, minimality, interaction, keep-only.

Path patching (Goldowsky-Dill et al., "Localizing model behavior with path patching", 2023) lets a
change through along the path alone; faithfulness and completeness are those of Marks et al.,
"Sparse feature circuits" (2024). All in nats of the metric, changed minus clean.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge
from sae_graphs.model.interventions import ZERO
from sae_graphs.model.joint import (
    Edit,
    Selected,
    becoming,
    changing,
    holding_others,
    keeping_only,
    logits_of,
    run_edits,
    run_packs,
    run_sets,
)
from sae_graphs.model.next_token import clean_scores, scores
from sae_graphs.validation.controls import Member, selected
from sae_graphs.validation.evidence import EdgeMediation, KeepOnly, Kept, Mediation
from sae_graphs.validation.path_ablation import Tick
from sae_graphs.validation.subjects import Subject


def mediation(
    subject: Subject, features: Sequence[FeatureId], edges: Sequence[Edge], tick: Tick
) -> Mediation:
    """What flows along the path alone, and what each of its features adds to the joint change."""
    inner = [feature for feature in features if not feature.is_output]
    between = [edge for edge in edges if not edge.target.is_output]
    reached = {edge.target for edge in between}
    sources = [feature for feature in inner if feature not in reached]
    sets = [subject.members(inner), subject.members(sources)]
    sets += [subject.members([feature]) for feature in inner]
    sets += [subject.members(set(inner) - {feature}) for feature in inner]
    change = _changes(subject, sets, tick).tolist()
    singles = dict(zip(inner, change[2:], strict=False))
    without = dict(zip(inner, change[2 + len(inner) :], strict=True))
    mediated = _along_edges(subject, between, tick)
    return Mediation(
        edges=tuple(
            EdgeMediation(edge.source, edge.target, edge.effect, singles[edge.source], through)
            for edge, through in zip(between, mediated, strict=True)
        ),
        total=change[1],
        mediated=_along_path(subject, inner, sources, tick),
        joint=change[0],
        without=without,
        singles=singles,
    )


def _changes(subject: Subject, sets: Sequence[Collection[Member]], tick: Tick) -> Tensor:
    """The change of the metric `[B]` where sets of features are ablated together."""
    chosen = selected(subject.model, subject.ablated, sets)
    logits, _ = run_sets(
        subject.model, subject.clean, chosen, len(sets), subject.read, progress=tick
    )
    return _change(subject, logits)


def _change(subject: Subject, logits: Tensor) -> Tensor:
    before = clean_scores(subject.question).metric
    return scores(subject.question, logits).metric - before


def _along_path(
    subject: Subject, inner: Sequence[FeatureId], sources: Sequence[FeatureId], tick: Tick
) -> float:
    """The change where the sources are ablated and only the path's features may follow."""
    model, clean = subject.model, subject.clean
    chosen = selected(model, subject.ablated, [subject.members(inner)])
    silent = selected(model, subject.ablated, [subject.members(sources)])
    edits: dict[int, Edit] = {}
    for depth, here in chosen.items():
        silenced = torch.zeros_like(here.chosen[0])  # [T, U]
        if depth in silent:
            where = torch.isin(here.features, silent[depth].features)  # both ascend
            silenced[:, where] = silent[depth].chosen[0]
        edits[depth] = holding_others(model, clean, depth, here, silenced)
    ran = run_edits(model, clean, edits, 1, subject.read)
    tick(1)
    return float(_change(subject, logits_of(model, clean, ran, subject.read))[0])


def _along_edges(subject: Subject, edges: Sequence[Edge], tick: Tick) -> list[float]:
    """The change through each edge: its source ablated, and at the next layer only its target free.

    Above the target everything may change.
    """
    model, clean, ablated = subject.model, subject.clean, subject.ablated
    found: dict[Edge, float] = {}
    by_layer = sorted(edges, key=lambda edge: model.stack.depths[edge.source.layer])
    for layer, group in itertools.groupby(by_layer, key=lambda edge: edge.source.layer):
        here, depth = list(group), model.stack.depths[layer]
        sources = selected(model, ablated, [subject.members([edge.source]) for edge in here])
        targets = selected(model, ablated, [subject.members([edge.target]) for edge in here])

        def edits(
            start: int,
            stop: int,
            depth: int = depth,
            sources: Mapping[int, Selected] = sources,
            targets: Mapping[int, Selected] = targets,
        ) -> Mapping[int, Edit]:
            become = becoming(ZERO, clean.points[depth])
            from_here, to_next = sources[depth].part(start, stop), targets[depth + 1]
            return {
                depth: changing(model, clean, depth, from_here, become),
                depth + 1: holding_others(model, clean, depth + 1, to_next.part(start, stop)),
            }

        logits, _ = run_packs(model, clean, edits, len(here), subject.read, tick)
        found |= dict(zip(here, _change(subject, logits).tolist(), strict=True))
    return [found[edge] for edge in edges]


def keep_only(subject: Subject, features: Sequence[FeatureId], tick: Tick) -> KeepOnly:
    """What is left of the metric where only the path's features stay in the layers it spans."""
    model, clean, ablated = subject.model, subject.clean, subject.ablated
    members = subject.members(features)
    path = selected(model, ablated, [members, ()])
    span = range(members[0].depth, members[-1].depth + 1)
    nothing = torch.zeros(0, dtype=torch.int64, device=ablated.device)
    empty = Selected(nothing, torch.zeros(2, len(ablated), 0, dtype=torch.bool).to(ablated.device))

    def kept(errors: bool) -> list[Kept]:
        edits = {
            depth: keeping_only(model, clean, depth, path.get(depth, empty), ablated, errors=errors)
            for depth in span
        }
        ran = run_edits(model, clean, edits, 2, subject.read)
        tick(2)
        return _kept(subject, logits_of(model, clean, ran, subject.read))

    with_errors, bare = kept(True), kept(False)
    alone = selected(model, ablated, [members])
    logits, _ = run_sets(model, clean, alone, 1, subject.read, progress=tick)
    labels = [layer.label for layer in model.stack.layers]
    return KeepOnly(
        first=labels[span[0]],
        last=labels[span[-1]],
        clean=_kept(subject, subject.question.logits[None])[0],
        kept=with_errors[0],
        none=with_errors[1],
        complement=_kept(subject, logits)[0],
        all_bare=_all_bare(subject, span, tick),
        kept_bare=bare[0],
        none_bare=bare[1],
    )


def _all_bare(subject: Subject, span: range, tick: Tick) -> Kept:
    """Every feature kept, and only the SAEs' errors gone."""
    model, clean, ablated = subject.model, subject.clean, subject.ablated
    edits = {}
    for depth in span:
        features = torch.arange(model.stack.layers[depth].n_features, device=ablated.device)
        everything = Selected(features, ablated[None, :, None].expand(1, -1, len(features)))
        edits[depth] = keeping_only(model, clean, depth, everything, ablated, errors=False)
    ran = run_edits(model, clean, edits, 1, subject.read)
    tick(1)
    return _kept(subject, logits_of(model, clean, ran, subject.read))[0]


def _kept(subject: Subject, logits: Tensor) -> list[Kept]:
    found = scores(subject.question, logits)
    pairs = zip(found.metric.tolist(), found.probability.tolist(), strict=True)
    return [Kept(metric, probability) for metric, probability in pairs]
