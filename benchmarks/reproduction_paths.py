"""The source's prompts and its ablated paths: next tokens, controls, other features, other text.

Letters: `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.published import Figure
from benchmarks.reproduction_case import Case, Found, beside, percent, token_of
from benchmarks.reproduction_features import effect_of_ablation
from sae_graphs.background import SNIPPET, Texts, backgrounds
from sae_graphs.controls import active_members, selected
from sae_graphs.evidence import PromptResult
from sae_graphs.graph import FeatureId
from sae_graphs.joint import run_sets
from sae_graphs.mediation import keep_only
from sae_graphs.path_ablation import ablate_path
from sae_graphs.subjects import Subject, ablated_elsewhere, generator_for

TOKENS_OF_TEXTS = 20_000


def clean(case: Case) -> list[Found]:
    """The next tokens of each prompt."""
    graph = case.published.graph
    asked = {graph["prompt"]: [tuple(pair) for pair in graph["top"]]}
    asked |= {figure.prompt: list(figure.top) for figure in case.published.figures}
    found = []
    for prompt, top in asked.items():
        here = case.subject(prompt)
        rows = beside(case.model, tuple(top), percent(here.question.logits))
        found.append({"prompt": prompt, "tokens": list(here.clean.tokens), "rows": rows})
    return found


def ablations(case: Case) -> list[Found]:
    """Every figure's."""
    return [ablation(case, figure) for figure in case.published.figures]


def ablation(case: Case, figure: Figure) -> Found:
    """A figure's features ablated together, beside feature 0 and matched controls."""
    model, here = case.model, case.subject(figure.prompt)
    wanted = case.published.ablated_in(figure)
    features, zeroth = case.known(wanted), case.known(figure.zeroth)
    found: Found = {
        "figure": figure.name,
        "exact": figure.nodes is not None,
        "wanted": len(wanted),
        "features": [str(feature) for feature in features],
    }
    if not features:
        return {**found, "refused": "the SAEs have none of its features"}
    members, zeros = here.members(features), here.members(zeroth)
    sets = selected(model, here.ablated, [members, zeros])
    logits, _ = run_sets(model, here.clean, sets, 2, here.read)
    change = percent(logits) - percent(here.question.logits)  # [2, V]
    everyone = case.known(case.published.nodes)
    result = ablate_path(here, features, everyone, case.settings, lambda n: None)
    return {
        **found,
        "active": len(active_members(here.clean, here.ablated, members)),
        "rows": beside(model, figure.up + figure.down, change[0]),
        **_words(result),
        "zero": {
            "n": len(zeroth),
            "active": len(active_members(here.clean, here.ablated, zeros)),
            "largest": float(change[1].abs().max()),
            "rows": _control_rows(case, figure, here, change[1]),
        },
        "keep_only": _kept(here, features),
    }


def _control_rows(case: Case, figure: Figure, here: Subject, change: Tensor) -> list[list[Any]]:
    """Where spaces were lost, a token that falls is the one, of two, that has more to lose."""
    up, down = (
        beside(case.model, points, change) for points in (figure.control_up, figure.control_down)
    )
    if figure.spaces_lost:
        before = percent(here.question.logits)
        for row in down:
            ids = [token_of(case.model, text) for text in (row[0], f" {row[0]}")]
            held = {float(before[token]): token for token in ids if token is not None}
            if held:
                row[2] = float(change[held[max(held)]])
    return [*up, *down]


def _words(result: PromptResult) -> Found:
    """What is kept of a path's result."""
    return {
        "target": result.target.token,
        "before": 100.0 * result.target.before,
        "after": 100.0 * result.target.after,
        "kl": result.kl,
        "lowered": [[one.token, one.points] for one in result.lowered],
        "raised": [[one.token, one.points] for one in result.raised],
        "nulls": [
            {
                "kind": null.kind,
                "n": len(null.changes),
                "median": None if null.median_change is None else 100.0 * null.median_change,
                "p": null.p,
                "norm": None if null.match is None else null.match.middle,
                "refused": null.refused,
            }
            for null in result.nulls
        ],
    }


def _kept(here: Subject, features: Sequence[FeatureId]) -> Found:
    """The target's probability where only the path's features stay in the layers it spans."""
    kept = keep_only(here, features, lambda n: None)
    parts = ("clean", "kept", "none", "kept_bare")
    return {name: 100.0 * getattr(kept, name).probability for name in parts}


def weighted(case: Case) -> list[Found]:
    """What the ablations of two figures do to features that the text names."""
    said, found = case.published.weighted, []
    for name, sign in ((said["up_in"], 1), (said["down_in"], -1)):
        figure = case.published.figure(name)
        causes = case.known(case.published.ablated_in(figure))
        effects = case.known(map(FeatureId.parse, said["features"]))
        here = case.subject(figure.prompt)
        for effect in effects:
            change = effect_of_ablation(here, causes, effect) if causes else None
            found.append(
                {"figure": name, "feature": str(effect), "published": sign, "effect": change}
            )
    return found


def corpus(case: Case) -> list[Found]:
    """The divergence that each path's ablation causes in snippets, beside a control's there."""
    settings, model = case.settings, case.model
    figures = [(one, case.known(case.published.ablated_in(one))) for one in case.published.figures]
    figures = [(figure, features) for figure, features in figures if features]
    if not figures:
        return []
    source = Texts(
        model, case.texts(), n_tokens=TOKENS_OF_TEXTS, prepend_bos=case.variant.settings.prepend_bos
    )
    pieces = source.pieces(settings.snippets, SNIPPET, generator_for(settings.seed, "snippets"))
    runs = [model.run_tokens(ids) for ids in pieces]
    here = case.subject(case.published.graph["prompt"])
    paths = [here.members(features) for _, features in figures]

    def ablated_in(run: Any) -> Tensor:
        return ablated_elsewhere(run, case.variant.settings)

    found, _ = backgrounds(model, runs, paths, settings.seed, ablated_in, lambda n: None)
    return [
        {
            "figure": figure.name,
            "snippets": background.everywhere.n,
            "active_in": background.active.n,
            "mean": background.everywhere.mean,
            "low": background.everywhere.low,
            "high": background.everywhere.high,
            "controls": background.controls_everywhere.mean,
        }
        for (figure, _), background in zip(figures, found, strict=True)
    ]
