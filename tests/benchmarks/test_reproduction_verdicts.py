"""Verdicts of the reproduction: numbers that must agree, and wrecks that must not."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import reproduction_verdicts as verdicts
from benchmarks.published import Figure, read_published


def row(published: float, ours: float | None) -> list[Any]:
    return ["x", published, ours]


def alike(values: list[float], n: int = 39) -> dict[str, Any]:
    """Controls of both kinds that all change the tokens by these points."""
    control = {"refused": None, "changes": [values] * n}
    return {"matched": control, "directions": control}


def ablated(rows: list[list[Any]], controls: dict[str, Any]) -> dict[str, Any]:
    return {"active": 3, "exact": False, "rows": rows, "controls": controls}


# -- the clean distribution ------------------------------------------------------------------------


def test_missing_tokens_are_not_agreement() -> None:
    few = [{"rows": [row(1.0, 1.0), row(2.0, None), row(3.0, None)]}]
    assert verdicts.of_clean(few).answer == "not comparable"
    most = [{"rows": [row(1.0, 1.0), row(2.0, 2.05), row(3.0, None)]}]
    assert verdicts.of_clean(most) == ("agrees", "within 0.1 points; 2 of 3 tokens compared")


def test_elsewhere_nothing_is_comparable() -> None:
    verdict = verdicts.elsewhere(verdicts.Verdict("agrees", "within 1 points"))
    assert verdict == ("not comparable (other weights)", "on these weights, within 1 points")


# -- ablations -------------------------------------------------------------------------------------


def test_where_the_features_are_not_known_signs_are_compared_with_controls() -> None:
    rows = [row(9.0, 4.0), row(1.0, 0.5), row(-2.0, -40.0)]
    other = alike([-1.0, 0.0, -9.0])
    verdict = verdicts.of_ablation(ablated(rows, other))
    assert verdict.answer == "agrees in sign"
    assert "3 of 3 changes have the published sign" in verdict.why
    assert "in matched controls at p 0.025" in verdict.why
    same = verdicts.of_ablation(ablated(rows, alike([3.0, 1.0, -9.0])))
    assert same.answer == "not comparable" and "any ablation of this size would do" in same.why
    few = verdicts.of_ablation(ablated(rows, alike([-1.0, 0.0, -9.0], n=9)))
    assert few.answer == "not comparable"  # 9 controls cannot tell
    for kind in ("matched", "directions"):
        without = {**other, kind: {"refused": "too few", "changes": []}}
        assert verdicts.of_ablation(ablated(rows, without)).answer == "not comparable"
    wrong = verdicts.of_ablation(ablated([row(9.0, -4.0), row(1.0, 0.5), row(-2.0, 4.0)], other))
    assert wrong.answer == "differs" and "1 of 3 changes" in wrong.why
    case = ablated([row(9.0, 0.1), row(-2.0, None), row(1.0, None)], other)
    assert verdicts.of_ablation(case).why.endswith("only 1 of 3 changes are known")
    assert verdicts.of_ablation({**case, "active": 0}).answer == "not comparable"
    assert verdicts.of_ablation({"refused": "none"}) == ("not comparable", "none")


def test_right_signs_must_be_of_some_size_and_order() -> None:
    other = alike([-1.0] * 4)
    faint = [row(9.0, 0.06), row(3.0, 0.06), row(-2.0, -2.0), row(-9.0, -9.0)]
    verdict = verdicts.of_ablation(ablated(faint, other))
    assert verdict.answer == "differs" and "of 1.0% of their size" in verdict.why
    mixed = [row(1.0, 30.0), row(2.0, 20.0), row(3.0, 1.0), row(4.0, 0.9), row(-0.4, -0.2)]
    verdict = verdicts.of_ablation(ablated(mixed, alike([-1.0] * 5)))
    assert verdict.answer == "differs" and "ranks alike to 0.00" in verdict.why


def wrecked(figure: Figure) -> list[float]:
    """Clean top tokens lose 90 %, all others gain 0.06 points."""
    top = dict(figure.top)
    return [-0.9 * top.get(token, -0.06 / 0.9) for token, _ in figure.up + figure.down]


@pytest.mark.parametrize("number", range(4))
def test_a_wreck_agrees_with_no_figure(number: int) -> None:
    figure = read_published().figures[number]
    changes = wrecked(figure)
    rows = [[*pair, ours] for pair, ours in zip(figure.up + figure.down, changes, strict=True)]
    for controls in (alike(changes), alike([0.0] * len(changes))):
        verdict = verdicts.of_ablation(ablated(rows, controls))
        assert verdict.answer in ("differs", "not comparable")
    if number in (1, 3):
        assert verdicts.sign_score(rows) > 0.8  # though most signs are right


def test_an_inactive_control_cannot_differ() -> None:
    zero = {"n": 5, "active": 0, "largest": 0.0, "rows": [row(-14.8, 0.0)]}
    verdict = verdicts.of_zero({"zero": zero})
    assert verdict.answer == "differs" and "none of the 5 features is active" in verdict.why
    assert verdicts.of_zero({"zero": {**zero, "rows": [row(-0.04, 0.0)]}}).answer == "agrees"
    acting = {**zero, "active": 2, "rows": [row(-14.8, -14.0)]}
    assert verdicts.of_zero({"zero": acting}).answer == "agrees"


# -- a path alone, other text ----------------------------------------------------------------------


def kept_alone(**changed: Any) -> dict[str, Any]:
    """A path that is lost by itself, and still keeps more than nothing, or other sets."""
    nats = {"clean": 4.0, "kept": -2.0, "none": -9.0, "all_bare": 3.0}
    kept: dict[str, Any] = {
        "clean": 40.0,
        "kept": 1.0,
        "kept_bare": 0.5,
        "none": 1e-3,
        "all_bare": 35.0,
        "nats": {**nats, "kept_bare": -3.0, "none_bare": -9.0},
        "others": {"nats": [-8.0] * 39, "refused": None},
        "others_bare": {"nats": [-8.0] * 39, "refused": None},
    }
    nats = {**kept["nats"], **changed.pop("nats", {})}
    return {"active": 3, "keep_only": {**kept, **changed, "nats": nats}}


def test_a_path_alone_counts_only_beside_other_sets() -> None:
    good = kept_alone()
    for bare in (False, True):
        assert verdicts.of_keep_only([good, {"refused": ""}], bare=bare).answer == "agrees"
        assert verdicts.of_keep_only([{"refused": ""}], bare=bare).answer == "not comparable"
        idle = verdicts.of_keep_only([{**good, "active": 0}], bare=bare)
        assert idle == ("not comparable", "no feature of any path is active in its prompt")
        end = "_bare" if bare else ""
        held = kept_alone(**{f"kept{end}": 39.0})
        assert verdicts.of_keep_only([good, held], bare=bare).answer == "differs"
        wrecks = [
            kept_alone(nats={f"none{end}": -2.0}),  # nothing is as good
            kept_alone(**{f"others{end}": {"nats": [-1.0] * 39, "refused": None}}),
            kept_alone(**{f"others{end}": {"nats": [-8.0] * 9, "refused": None}}),
            kept_alone(**{f"others{end}": {"nats": [], "refused": "too few"}}),
        ]
        for wreck in wrecks:
            verdict = verdicts.of_keep_only([wreck], bare=bare)
            assert verdict.answer == "not comparable" and "any wreck" in verdict.why
    blind = kept_alone(all_bare=1.0)  # the errors carry it all
    assert verdicts.of_keep_only([blind], bare=True).answer == "not comparable"
    assert verdicts.of_keep_only([blind], bare=False).answer == "agrees"


def in_text(signed: tuple[float, float], excess: tuple[float, float]) -> dict[str, Any]:
    def spread(low: float, high: float) -> dict[str, Any]:
        return {"n": 9, "mean": (low + high) / 2, "low": low, "high": high}

    return {"active_in": 5, "signed": spread(*signed), "excess": spread(*excess)}


def test_other_text_is_judged_by_signed_changes() -> None:
    noise = in_text((0.1, 0.3), (-0.1, 0.2))
    assert verdicts.of_corpus([noise]).answer == "agrees"
    nothing = in_text((-0.1, 0.3), (-0.1, 0.2))
    verdict = verdicts.of_corpus([nothing, nothing, noise])
    assert verdict.answer == "not comparable" and "cannot be told from nothing" in verdict.why
    assert verdicts.of_corpus([noise, in_text((0.1, 0.3), (0.1, 0.2))]).answer == "differs"
    for unknown in ({**noise, "active_in": 0}, {**noise, "excess": {"low": None}}):
        assert verdicts.of_corpus([unknown]).answer == "not comparable"
    chance = [noise, noise, noise, in_text((0.1, 0.3), (0.1, 0.2))]
    assert verdicts.of_corpus(chance).answer == "agrees"
    assert verdicts.of_corpus([]).answer == "not comparable"


# -- features, edges, activations, curves ----------------------------------------------------------


def named(published: int, clean: float, effect: float | None) -> dict[str, Any]:
    return {"published": published, "clean": clean, "effect": effect}


def test_named_features_move_by_a_real_size() -> None:
    right = [named(1, 20.0, 2.0), named(1, 0.0, 0.2), named(-1, 10.0, -10.0)]
    verdict = verdicts.of_weighted(right)
    assert verdict.answer == "agrees in sign" and "ambiguous" in verdict.why
    assert verdicts.of_weighted([*right[:2], named(-1, 10.0, 10.0)]).answer == "differs"
    faint = [named(1, 20.0, 1e-3), named(1, 0.0, 0.05), named(-1, 10.0, -1e-5)]
    assert verdicts.of_weighted(faint).answer == "differs"
    asleep = [named(1, 0.0, 0.0), named(-1, 0.0, 0.0), right[0]]
    assert verdicts.of_weighted(asleep).answer == "not comparable"
    assert verdicts.of_weighted([named(1, 0.0, None)]).answer == "not comparable"
    assert verdicts.of_weighted([]).answer == "not comparable"


def edge(colour: str, effect: float | None) -> dict[str, Any]:
    return {"colour": colour, "effect": effect, **({} if effect is not None else {"refused": "?"})}


def test_colours_are_opposite_signs_of_real_effects() -> None:
    edges = [edge("red", -1.0), edge("red", -0.1), edge("blue", 2.0)]
    assert verdicts.of_edges(edges).answer == "agrees in sign"
    assert verdicts.of_edges([*edges[:1], edge("red", 0.1), edges[2]]).answer == "differs"
    assert verdicts.of_edges(edges[:2]).answer == "not comparable"
    idle = verdicts.of_edges([*edges[:2], edge("blue", 0.0)])
    assert idle.answer == "differs" and "1 of these have no effect" in idle.why
    few = verdicts.of_edges([edges[0], edges[2], *[edge("blue", None)] * 5])
    assert few == ("not comparable", "2 of 7 edges can be measured in this prompt: ?")


def activation(published: list[float], formula: list[float]) -> dict[str, Any]:
    rows = [{"published": published, "formula": formula, "formula_late": None}]
    return {"tokens": ["a"] * len(published), "rows": rows}


def test_activations_are_compared_at_each_token() -> None:
    published = [380.0, 0.043, 3.8]
    assert verdicts.of_activations(activation(published, [381.0, 0.05, 3.82])).answer == "agrees"
    blind = verdicts.of_activations(activation(published, [380.0, 0.043, 1.66]))
    assert blind.answer == "differs" and "off by 56.32% at most" in blind.why
    assert verdicts.of_activations(activation(published, [380.0, 0.06, 3.8])).answer == "differs"
    assert verdicts.of_activations(activation([1.0], [1.0, 2.0])).answer == "not comparable"


@pytest.mark.parametrize(
    ("responses", "jumps"),
    [
        ([0.0, 1.0, 2.0, 3.0, 4.0], 0),
        ([0.0, 1.0, 2.0, 12.0, 13.0, 14.0], 1),
        ([0.0, 1.0, 11.0, 21.0, 22.0, 23.0, 24.0], 1),  # two steps, one place
        ([0.0, 10.0, 11.0, 12.0, 22.0, 23.0, 24.0], 2),
        ([1.0, 1.0, 1.0], 0),
    ],
)
def test_jumps(responses: list[float], jumps: int) -> None:
    assert verdicts.n_jumps(responses) == jumps


def test_verdicts_of_curves_and_tokens() -> None:
    smooth = {"responses": [0.0, 1.0, 2.0, 12.0, 13.0, 14.0], "r_squared": 0.95}
    assert verdicts.of_sweep({"curves": [smooth]}).answer == "agrees"
    assert verdicts.of_sweep({"curves": [{**smooth, "r_squared": 0.5}]}).answer == "differs"
    assert verdicts.of_sweep({"refused": "inactive"}).answer == "not comparable"
    promoted = [{"ours": [" a", "b"], "published": ["a", "b", "c"]}]
    assert verdicts.of_promotes(promoted).answer == "agrees"
    assert verdicts.of_promotes([{"ours": ["x"], "published": ["a"]}]).answer == "differs"
