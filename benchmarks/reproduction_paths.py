"""The source's prompts and its ablated paths: next tokens, controls, other features.

Letters: `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.published import Figure, Points
from benchmarks.reproduction_case import Case, Found, beside, percent, token_of
from benchmarks.reproduction_controls import ablated_controls, kept_controls
from benchmarks.reproduction_features import ablated_and_clean
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.joint import run_sets
from sae_graphs.validation.controls import active_members, selected
from sae_graphs.validation.evidence import PromptResult
from sae_graphs.validation.mediation import keep_only
from sae_graphs.validation.path_ablation import ablate_path
from sae_graphs.validation.subjects import Subject


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
    logits, moved = run_sets(model, here.clean, sets, 2, here.read)
    before = percent(here.question.logits)
    change = percent(logits) - before  # [2, V]
    points = figure.up + figure.down
    everyone = case.known(case.published.nodes)
    result = ablate_path(here, features, everyone, case.settings, lambda n: None)
    return {
        **found,
        "active": len(active_members(here.clean, here.ablated, members)),
        "rows": beside(model, points, change[0]),
        "controls": {
            kind: {
                "refused": control.refused,
                "changes": _changes(case, points, control.logits, before),
            }
            for kind, control in ablated_controls(here, members, moved[0], case.settings).items()
        },
        **_words(result),
        "zero": {
            "n": len(zeroth),
            "active": len(active_members(here.clean, here.ablated, zeros)),
            "largest": float(change[1].abs().max()),
            "rows": _control_rows(case, figure, here, change[1]),
        },
        "keep_only": _kept(case, here, features, moved[0]),
    }


def _changes(
    case: Case, points: Points, logits: Tensor | None, before: Tensor
) -> list[list[float | None]]:
    """Of each control, the changes of the published tokens, in points."""
    if logits is None:
        return []
    ids = [token_of(case.model, text) for text, _ in points]
    return [
        [None if token is None else change[token] for token in ids]
        for change in ((percent(one) - before).tolist() for one in logits)
    ]


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


def _kept(case: Case, here: Subject, features: Sequence[FeatureId], moved: Tensor) -> Found:
    """The target where only the path's features stay in the layers it spans, beside other sets.

    Probabilities in percent; metrics (see `PromptResult`) in nats, which do not run out.
    """
    kept, members = keep_only(here, features, lambda n: None), here.members(features)
    parts = ("clean", "kept", "none", "kept_bare", "none_bare", "all_bare")
    found: Found = {name: 100.0 * getattr(kept, name).probability for name in parts}
    found["nats"] = {name: getattr(kept, name).metric for name in parts}
    for name, errors in (("others", True), ("others_bare", False)):
        others, refused = kept_controls(here, members, moved, case.settings, errors=errors)
        found[name] = {"nats": others, "refused": refused}
    return found


def weighted(case: Case) -> list[Found]:
    """What the joint ablations of two figures do, in their prompts, to features the text names.

    One reading of the text; see `weighted_edges` for another.
    """
    said, found = case.published.weighted, []
    for name, sign in ((said["up_in"], 1), (said["down_in"], -1)):
        figure = case.published.figure(name)
        causes = case.known(case.published.ablated_in(figure))
        effects = case.known(map(FeatureId.parse, said["features"]))
        here = case.subject(figure.prompt)
        for effect in effects:
            row: Found = {"figure": name, "feature": str(effect), "published": sign}
            row |= {"clean": None, "effect": None}
            if causes:
                ablated, before = ablated_and_clean(here, causes, effect)
                row |= {"clean": before, "effect": ablated - before}
            found.append(row)
    return found
