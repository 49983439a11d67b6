"""A path ablated in a prompt, beside its controls.

Letters: `B` copies, `T` tokens, `L` SAE layers, `V` vocabulary, `K` controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

import torch
from torch import Tensor

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO
from sae_graphs.model.joint import Edit, adding, run_packs, run_sets
from sae_graphs.model.next_token import (
    Question,
    Scores,
    clean_scores,
    moved_tokens,
    rank,
    scores,
    top_tokens,
)
from sae_graphs.significance import p_value
from sae_graphs.validation.controls import (
    Controls,
    Member,
    active_members,
    feature_zero,
    matched,
    random_directions,
    selected,
    shuffled,
)
from sae_graphs.validation.evidence import (
    FeatureZero,
    Null,
    NullKind,
    PromptResult,
    TokenChange,
)
from sae_graphs.validation.scaling import match_of, scaled_to
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import Subject, generator_for

MOST_IDLE = 0.5  # of the controls may change nothing at all

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
    ) -> tuple[Null, Tensor | None]:
        if drawn.refused is not None:
            return Null(kind, refused=drawn.refused), None
        logits, took = run(drawn)
        theirs = scores(subject.question, logits)
        idle = int((logits == subject.question.logits).all(-1).sum())
        if idle > MOST_IDLE * drawn.n:
            return Null(kind, refused=f"{idle} of {drawn.n} controls change nothing"), None
        changes = (theirs.score - before.score[0]).tolist()
        found = Null(
            kind,
            changes=tuple(changes),
            kls=tuple(theirs.kl.tolist()),
            p=p_value(change, [abs(value) for value in changes]),
            p_kl=p_value(kl, theirs.kl.tolist()),
            distinct=drawn.distinct,
            narrowest=drawn.narrowest,
            match=match_of(took, moved),
        )
        return found, took

    def generator(kind: str) -> torch.Generator:
        return generator_for(settings.seed, kind, members, clean.token_ids)

    def ablating(drawn: Controls) -> tuple[Tensor, Tensor]:
        return run_sets(model, clean, drawn.sets, drawn.n, read, progress=tick)

    n, few, read = settings.controls, settings.fewer_controls, subject.read
    first = matched(model, clean, ablated, read, members, moved, n, generator("matched"))
    if size == 0.0:
        why = first.refused or "its ablation takes nothing from the stream"
        return tuple(Null(kind, refused=why) for kind in get_args(NullKind))
    plain, took = null("matched", first, ablating)
    scaled = Null("scaled", refused=plain.refused)
    if took is not None:
        again = _part(first, few)
        scaled, _ = null("scaled", again, lambda drawn: _scaled(subject, drawn, moved, tick))
    towards = random_directions(clean, moved, few, generator("directions"))
    anywhere = Controls({}, few, few)
    pushed, _ = null("directions", anywhere, lambda drawn: _pushed(subject, towards, drawn, tick))
    mixed = shuffled(model, clean, ablated, members, others, few, generator("shuffles"))
    return plain, scaled, pushed, null("shuffles", mixed, ablating)[0]


def _part(drawn: Controls, n: int) -> Controls:
    """The first `n` control sets."""
    sets = {depth: chosen.part(0, n) for depth, chosen in drawn.sets.items()}
    return Controls(sets, n, min(drawn.distinct, n), drawn.narrowest)


def _scaled(subject: Subject, drawn: Controls, moved: Tensor, tick: Tick) -> tuple[Tensor, Tensor]:
    """Takes what each control takes, scaled in each layer to what the path takes, `[L, T]`."""
    model, clean = subject.model, subject.clean
    norms = moved.double().norm(dim=-1)

    def edits(start: int, stop: int) -> Mapping[int, Edit]:
        return {
            depth: scaled_to(model, clean, depth, chosen.part(start, stop), ZERO, norms[depth])
            for depth, chosen in drawn.sets.items()
        }

    return run_packs(model, clean, edits, drawn.n, subject.read, tick)


def _pushed(
    subject: Subject, towards: Mapping[int, Tensor], drawn: Controls, tick: Tick
) -> tuple[Tensor, Tensor]:
    def edits(start: int, stop: int) -> Mapping[int, Edit]:
        return {depth: adding(deltas[start:stop]) for depth, deltas in towards.items()}

    return run_packs(subject.model, subject.clean, edits, drawn.n, subject.read, tick)


def token_changes(
    model: InstrumentedModel, question: Question, logits: Tensor, tokens: list[int]
) -> tuple[TokenChange, ...]:
    """What becomes of some tokens, given one copy's logits `[V]`."""
    before, after = (values.double().log_softmax(-1) for values in (question.logits, logits))
    return tuple(
        TokenChange(
            token=model.token_string(token),
            token_id=token,
            before=float(before[token].exp()),
            after=float(after[token].exp()),
            logit_change=float(logits[token].double() - question.logits[token].double()),
            log_probability_change=float(after[token] - before[token]),
        )
        for token in tokens
    )
