"""The source's paths ablated in other text: do the published tokens move there as in the figures?

What moves is signed: points in the direction in which the figure's tokens moved, averaged over
them. A divergence would not do: it is never below 0.
"""

from __future__ import annotations

from collections.abc import Collection
from statistics import fmean
from typing import Any

from torch import Tensor

from benchmarks.published import Figure
from benchmarks.reproduction_case import Case, Found, percent, token_of
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.joint import run_sets
from sae_graphs.significance import Spread, spread
from sae_graphs.validation.background import SNIPPET, Texts
from sae_graphs.validation.controls import Member, active_members, matched, selected
from sae_graphs.validation.subjects import ablated_elsewhere, generator_for

TOKENS_OF_TEXTS = 20_000


def corpus(case: Case) -> list[Found]:
    """Of each path, the signed mean change of its figure's tokens in snippets, beside a control's.

    Where a path has no active feature, neither it nor a control changes anything. `excess` is the
    path's change less its control's, in the snippets that have one.
    """
    settings, model = case.settings, case.model
    known = [(one, case.known(case.published.ablated_in(one))) for one in case.published.figures]
    paths = [(figure, features, _signs(case, figure)) for figure, features in known]
    paths = [path for path in paths if path[1] and path[2]]
    if not paths:
        return []
    bos = case.variant.settings.prepend_bos
    source = Texts(model, case.texts(), n_tokens=TOKENS_OF_TEXTS, prepend_bos=bos)
    pieces = source.pieces(settings.snippets, SNIPPET, generator_for(settings.seed, "snippets"))
    runs = [model.run_tokens(ids) for ids in pieces]
    depths = model.stack.depths
    found = []
    for figure, features, signs in paths:
        members = sorted({Member(depths[feature.layer], feature.index) for feature in features})
        measured = [
            _in_snippet(case, run, members, signs, (figure.name, number))
            for number, run in enumerate(runs)
        ]
        excess = [own - other for own, other, _ in measured if other is not None]
        seed = settings.seed
        found.append(
            {
                "figure": figure.name,
                "snippets": len(measured),
                "active_in": sum(active for _, _, active in measured),
                "signed": _plain(spread([own for own, _, _ in measured], seed)),
                "controls": _plain(
                    spread([other for _, other, _ in measured if other is not None], seed)
                ),
                "excess": _plain(spread(excess, seed)),
            }
        )
    return found


def _plain(found: Spread) -> Found:
    return {name: getattr(found, name) for name in ("n", "mean", "low", "high")}


def _signs(case: Case, figure: Figure) -> dict[int, int]:
    """The tokens of a figure, by id, and in which direction they moved there."""
    pairs = ((token_of(case.model, text), value) for text, value in figure.up + figure.down)
    return {token: 1 if value > 0 else -1 for token, value in pairs if token is not None and value}


def _in_snippet(
    case: Case,
    clean: CleanRun,
    members: Collection[Member],
    signs: dict[int, int],
    names: tuple[Any, ...],
) -> tuple[float, float | None, bool]:
    """The signed mean change, a matched control's, and whether any feature is active there."""
    model, read = case.model, len(clean) - 1
    ablated = ablated_elsewhere(clean, case.variant.settings)
    if not active_members(clean, ablated, members):
        return 0.0, 0.0, False

    def signed(logits: Tensor) -> float:
        change = percent(logits[0]) - percent(clean.logits[read])
        return fmean(sign * float(change[token]) for token, sign in signs.items())

    logits, moved = run_sets(model, clean, selected(model, ablated, [members]), 1, read)
    generator = generator_for(case.settings.seed, "corpus", *names)
    drawn = matched(model, clean, ablated, read, members, moved[0], 1, generator)
    if drawn.refused is not None:
        return signed(logits), None, True
    return signed(logits), signed(run_sets(model, clean, drawn.sets, 1, read)[0]), True
