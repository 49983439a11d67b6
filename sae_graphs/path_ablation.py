"""A path ablated in a prompt, beside its controls.

Letters: `B` copies, `T` tokens, `L` SAE layers, `V` vocabulary, `K` controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

import torch
from torch import Tensor

from sae_graphs.controls import (
    Controls,
    Member,
    active_members,
    feature_zero,
    matched,
    random_directions,
    selected,
    shuffled,
)
from sae_graphs.evidence import FeatureZero, Match, Null, NullKind, PromptResult, TokenChange
from sae_graphs.graph import FeatureId
from sae_graphs.joint import (
    Edit,
    adding,
    changing,
    logits_of,
    packs,
    run_edits,
    run_sets,
    scaled_by,
)
from sae_graphs.scores import (
    Scores,
    clean_scores,
    moved_tokens,
    rank,
    scores,
    token_changes,
    top_tokens,
)
from sae_graphs.significance import p_value
from sae_graphs.subjects import Subject, generator_for
from sae_graphs.validation_settings import ValidationSettings

Tick = Callable[[int], None]  # told how many copies more are done


def ablate_path(
    subject: Subject,
    features: Iterable[FeatureId],
    nodes: Iterable[FeatureId],
    settings: ValidationSettings,
    tick: Tick,
) -> PromptResult:
    """Ablate features together in a prompt, and so many controls in their place.

    `nodes` are all those of the graph, from which shuffles are drawn.
    """
    members, others = subject.members(features), subject.members(nodes)
    model, clean, question = subject.model, subject.clean, subject.question
    zeroth = feature_zero(members)
    sets = selected(model, subject.ablated, [members, zeroth])
    logits, moved = run_sets(model, clean, sets, 2, subject.read, progress=tick)
    found, before = scores(question, logits), clean_scores(question)
    nulls = _nulls(subject, members, others, moved[0], found, before, settings, tick)
    lowered, raised = moved_tokens(question, logits[0])

    def changes(tokens: list[int]) -> tuple[TokenChange, ...]:
        return token_changes(model, question, logits[0], tokens)

    contrast = question.contrast
    return PromptResult(
        prompt=clean.prompt,
        role=subject.role,
        tokens=clean.tokens,
        active=len(active_members(clean, subject.ablated, members)),
        target=changes([question.target])[0],
        rank_before=rank(question.logits, question.target),
        rank_after=rank(logits[0], question.target),
        kl=float(found.kl[0]),
        score=float(before.score[0]),
        change=float(found.score[0] - before.score[0]),
        top=changes(top_tokens(question)),
        lowered=changes(lowered),
        raised=changes(raised),
        nulls=nulls,
        feature_zero=FeatureZero(
            n=len(zeroth),
            active=len(active_members(clean, subject.ablated, zeroth)),
            change=float(found.score[1] - before.score[0]),
            kl=float(found.kl[1]),
        ),
        contrast=None if contrast is None else changes([contrast])[0],
    )


def _nulls(
    subject: Subject,
    members: tuple[Member, ...],
    others: tuple[Member, ...],
    moved: Tensor,
    found: Scores,
    before: Scores,
    settings: ValidationSettings,
    tick: Tick,
) -> tuple[Null, ...]:
    """The null distributions, where `moved` `[L, T]` is what the path itself takes."""
    model, clean, ablated = subject.model, subject.clean, subject.ablated
    change, kl = abs(float(found.score[0] - before.score[0])), float(found.kl[0])
    size = float(moved.double().norm())

    def null(
        kind: NullKind, drawn: Controls, run: Callable[[Controls], tuple[Tensor, Tensor]]
    ) -> Null:
        if drawn.refused is not None:
            return Null(kind, refused=drawn.refused)
        logits, took = run(drawn)
        theirs = scores(subject.question, logits)
        changes = (theirs.score - before.score[0]).tolist()
        return Null(
            kind,
            changes=tuple(changes),
            kls=tuple(theirs.kl.tolist()),
            p=p_value(change, [abs(value) for value in changes]),
            p_kl=p_value(kl, theirs.kl.tolist()),
            distinct=drawn.distinct,
            narrowest=drawn.narrowest,
            match=_match(took, size),
        )

    def generator(kind: str) -> torch.Generator:
        return generator_for(settings.seed, kind, members, clean.token_ids)

    def ablating(drawn: Controls) -> tuple[Tensor, Tensor]:
        return run_sets(model, clean, drawn.sets, drawn.n, subject.read, progress=tick)

    n, few = settings.controls, min(settings.controls, settings.other_controls)
    first = matched(model, clean, ablated, members, moved, n, generator("matched"))
    if size == 0.0:
        why = first.refused or "its ablation takes nothing from the stream"
        return tuple(Null(kind, refused=why) for kind in get_args(NullKind))
    again = first if first.refused else _part(first, few)
    mixed = shuffled(model, clean, ablated, members, others, few, generator("shuffles"))
    towards = random_directions(clean, moved, few, generator("directions"))
    anywhere = Controls({}, few, few)
    return (
        null("matched", first, ablating),
        null("scaled", again, _scaled(subject, tick)),
        null("directions", anywhere, lambda drawn: _pushed(subject, towards, drawn, tick)),
        null("shuffles", mixed, ablating),
    )


def _part(drawn: Controls, n: int) -> Controls:
    """The first `n` control sets."""
    sets = {depth: chosen.part(0, n) for depth, chosen in drawn.sets.items()}
    scale = {depth: values[:n] for depth, values in drawn.scale.items()}
    return Controls(sets, n, min(drawn.distinct, n), drawn.narrowest, scale)


def _scaled(subject: Subject, tick: Tick) -> Callable[[Controls], tuple[Tensor, Tensor]]:
    """Takes from the stream what each control takes, times what gives it the path's norm."""

    def run(drawn: Controls) -> tuple[Tensor, Tensor]:
        def edits(start: int, stop: int) -> Mapping[int, Edit]:
            return {
                depth: changing(
                    subject.model,
                    subject.clean,
                    depth,
                    chosen.part(start, stop),
                    scaled_by(1 - drawn.scale[depth][start:stop]),
                )
                for depth, chosen in drawn.sets.items()
            }

        return run_packs(subject, edits, drawn.n, tick)

    return run


def _pushed(
    subject: Subject, towards: Mapping[int, Tensor], drawn: Controls, tick: Tick
) -> tuple[Tensor, Tensor]:
    def edits(start: int, stop: int) -> Mapping[int, Edit]:
        return {depth: adding(deltas[start:stop]) for depth, deltas in towards.items()}

    return run_packs(subject, edits, drawn.n, tick)


def run_packs(
    subject: Subject,
    edits: Callable[[int, int], Mapping[int, Edit]],
    n_copies: int,
    tick: Tick,
) -> tuple[Tensor, Tensor]:
    """Edited copies in batches: logits `[B, V]`, and what was moved `[B, L, T]`.

    `edits(start, stop)` are those of the copies from `start` to `stop`.
    """
    logits, moved = [], []
    for start, stop in packs(subject.model, subject.clean, n_copies):
        model, clean = subject.model, subject.clean
        ran = run_edits(model, clean, edits(start, stop), stop - start, subject.read)
        logits.append(logits_of(model, clean, ran, subject.read))
        moved.append(ran.moved)
        tick(stop - start)
    return torch.cat(logits), torch.cat(moved)


def _match(took: Tensor, size: float) -> Match:
    """Norms of what copies took, `[K, L, T]`, over the path's."""
    ratios = took.double().flatten(1).norm(dim=1) / size
    low, middle, high = ratios.quantile(torch.tensor([0.05, 0.5, 0.95]).to(ratios)).tolist()
    return Match(low, middle, high)
