"""What the numbers allow us to say: each kind of verdict, its edges, and its words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.validation.evidence import Match, UnitReport
from sae_graphs.validation.judging import LEAST_NATS, LEAST_POINTS, MEANINGS, deciding
from sae_graphs.validation.verdicts import short_words, verdict
from tests.support import evidence

MEDIATES, NOT_SHOWN = "✓ Path mediates", "✗ Path does not mediate"
ALONG = "of what its first feature does to the target flows along its edges"
ASKED = "; 50 % to 150 % would show a path."


def kind_of(unit: UnitReport, **changes: Any) -> str:
    return verdict(unit, evidence.report(units=(unit,), **changes)).kind


def weak(*, scaled: float | None = None, directions: float | None = None) -> UnitReport:
    """A path whose matched controls remove 0.31 of its norm, beside controls of its norm."""
    nulls = [evidence.null(match=Match(0.1, 0.31, 0.5))]
    nulls += [evidence.null("scaled", p=scaled)] if scaled is not None else []
    nulls += [evidence.null("directions", p=directions)] if directions is not None else []
    return evidence.unit(results=(evidence.result(nulls=tuple(nulls)),))


def with_change(change: float, **changes: Any) -> UnitReport:
    result = evidence.result(change=change)
    numbers = evidence.tested(change=abs(change), signed=change, **changes)
    return evidence.unit(results=(result,), tested=numbers)


def test_a_change_that_controls_do_not_reach_is_supported() -> None:
    unit = evidence.unit()
    found = verdict(unit, evidence.report())
    assert found.supported and found.kind == "supported"
    assert found.sentences == (
        '✓ Necessary: ablating its 4 features together lowers ")" by 71.9 points (75.0 % to 3.1 %; '
        "−96 %; rank 1 to 9); none of 19 matched controls does as much (p = 0.050, q = 0.050).",
        "✓ Path mediates: 81 % of what its first feature does to the target flows along its edges.",
    )
    assert found.more == (
        "The matched controls' median change is 5.0 points, 14 times smaller, removing 0.94 of its "
        "norm. None of 19 controls scaled to its norm (1.00 of it) does as much (p = 0.050), none "
        "of 19 random directions of its norm does as much (p = 0.050). In the graph's own prompt "
        "1.1 (69 %) and 3.5 (94 %) are each needed for half of the change or more. Other nodes of "
        "the graph in its place do as much (p = 0.350). In it, zero ablation changes the logit "
        "difference by −3.18 nats, mean ablation by −2.90 and resample ablation by −2.75."
    )
    assert (found.necessary, found.mediates) == (True, True)
    assert short_words(unit, found) == "supported: its features matter, p = 0.050"


def test_a_change_that_raises_is_supported_too() -> None:
    found = verdict(with_change(0.2), evidence.report())
    assert found.supported and found.words.startswith(
        "✗ Not necessary, but holds it back: ablating"
    )
    assert 'raises ")" by 20.0 points (75.0 % to 95.0 %;' in found.words
    assert found.necessary is False


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"q": 0.05}, "supported"),
        ({"q": 0.051}, "not distinguishable"),
        ({"q": None, "p": 0.01}, "supported"),
        ({"q": None, "p": 0.06}, "not distinguishable"),
        ({"ratio": 2.0}, "supported"),
        ({"ratio": 1.99}, "not distinguishable"),
        ({"ratio": None, "control_median": 0.0}, "no controls"),
        ({"p": None, "q": None}, "no controls"),
    ],
)
def test_the_edges_of_support(changes: dict[str, Any], kind: str) -> None:
    assert kind_of(evidence.unit(tested=evidence.tested(**changes))) == kind


def test_too_small_a_change_is_no_effect() -> None:
    assert kind_of(with_change(-LEAST_POINTS)) == "supported"
    assert kind_of(with_change(-LEAST_POINTS * 0.99)) == "no effect"
    assert kind_of(with_change(-LEAST_NATS), contrast="]") == "supported"
    assert kind_of(with_change(-LEAST_NATS * 0.99), contrast="]") == "no effect"


def test_weak_controls_are_told_and_their_size_is_checked() -> None:
    assert kind_of(weak()) == "supported"
    assert kind_of(weak(scaled=0.05, directions=0.05)) == "supported"
    assert kind_of(weak(scaled=0.06, directions=0.05)) == "norm only"
    assert kind_of(weak(directions=0.2)) == "norm only"
    found = verdict(weak(scaled=0.01, directions=0.2), evidence.report())
    assert "removing only 0.31 of its norm." in found.more
    assert "random directions of its norm do as much (p = 0.200)." in found.more
    assert found.words.startswith("✗ Not necessary: ablating")
    assert "), but 3 of 19 random directions of its norm do as much (p = 0.200)." in found.words
    assert "scaled" not in found.words and "ontrols scaled" in found.more
    bare = verdict(weak(), evidence.report()).more
    assert "No nulls of its norm were run." in bare


@pytest.mark.parametrize("kind", ["scaled", "directions"])
def test_other_changes_of_its_norm_decide_however_well_matched_the_controls_are(kind: Any) -> None:
    for p, found in ((0.05, "supported"), (0.051, "norm only")):
        nulls = evidence.null(match=Match(0.9, 1.0, 1.1)), evidence.null(kind, p=p)
        unit = evidence.unit(results=(evidence.result(nulls=nulls),))
        assert kind_of(unit) == found
    assert short_words(unit, verdict(unit, evidence.report())) == (
        "beats its matched controls (p = 0.050), but not other changes of its norm (p = 0.051)"
    )


def test_refused_controls_support_nothing() -> None:
    found = verdict(evidence.refused(), evidence.report())
    assert found.kind == "no controls"
    assert found.words.startswith("? Necessary or not cannot be said: ablating")
    assert "but there are no matched controls: only 4 features are active in its " in found.words
    assert found.necessary is None
    assert short_words(evidence.refused(), found) == "no fair controls"


def test_a_path_that_is_not_active_is_not_tested() -> None:
    unit = evidence.unit(results=(evidence.result(active=0),))
    found = verdict(unit, evidence.report())
    assert found.kind == "inactive"
    assert found.words.startswith("? Inactive: none of its 4 features is active")


def test_nothing_but_an_ablation_is_enough_for_words() -> None:
    found = verdict(evidence.bare_unit(), evidence.report())
    assert found.kind == "no controls"
    first, second = found.sentences
    assert first.endswith("rank 1 to 9), but there are no matched controls.")
    assert second == "? Whether its features act on each other was not measured."


def test_test_prompts_decide_where_there_are_any() -> None:
    unit = evidence.over_prompts()
    assert [result.role for result in deciding(unit)] == ["test", "test"]
    words = verdict(unit, evidence.report(units=(unit,), test=("© (C", "(C"))).words
    assert words.startswith(
        '✓ Necessary in 2 test prompts: ablating its 4 features together lowers ")" by 28.1 points '
        "on average (37.5 % to 9.4 %; −75 %; −18.8 to −37.5 points in single prompts; 95 % "
        "interval of |change| 18.8 to 37.5 points); beside 19 matched controls"
    )


@given(
    change=st.floats(-1, 1),
    p=st.none() | st.floats(0.001, 1),
    ratio=st.none() | st.floats(0, 1e6),
    active=st.integers(0, 4),
    role=st.sampled_from(["discovery", "test"]),
    contrast=st.none() | st.just("]"),
)
def test_every_unit_has_one_verdict(
    change: float, p: float | None, ratio: float | None, active: int, role: Any, contrast: Any
) -> None:
    result = evidence.result(change=change, active=active, role=role)
    numbers = evidence.tested(role=role, change=abs(change), signed=change, p=p, q=p, ratio=ratio)
    unit = evidence.unit(results=(result,), tested=numbers)
    found = verdict(unit, evidence.report(units=(unit,), contrast=contrast))
    assert found.kind in MEANINGS and "\n" not in found.words and "nan" not in found.words
    assert found.supported <= (active > 0 and p is not None and p <= 0.05 and change != 0)


def test_a_rare_change_that_is_not_large_says_so() -> None:
    unit = evidence.unit(tested=evidence.tested(ratio=1.6))
    found = verdict(unit, evidence.report())
    assert ", which is less than 2 times what matched controls do; none of 19" in found.words
    assert "1.6 times smaller" in found.more
    assert short_words(unit, found) == (
        "not distinguishable from controls, p = 0.050, 1.6 × their median"
    )


def test_the_share_of_next_to_nothing_is_not_told() -> None:
    small = replace(evidence.mediation(), total=-0.009, mediated=-0.009)
    words = verdict(evidence.unit(mediation=small), evidence.report()).words
    assert "flows" not in words
    assert words.endswith(
        "? Whether the path mediates cannot be said: its first feature alone does next to nothing."
    )
    component = evidence.unit("Graph 1", mediation=small)
    assert (
        "? Whether its features act on each other cannot be said: its sources alone do next to"
    ) in verdict(component, evidence.report()).words


@pytest.mark.parametrize(
    ("mediated", "words"),
    [
        (-2.5, f"{MEDIATES}: 100 % {ALONG}."),
        (-1.25, f"{MEDIATES}: 50 % {ALONG}."),
        (-3.75, f"{MEDIATES}: 150 % {ALONG}."),
        (-1.2, f"{NOT_SHOWN}: 48 % {ALONG}{ASKED}"),
        (0.0, f"{NOT_SHOWN}: 0 % {ALONG}{ASKED}"),
        (-5.0, f"200 % {ALONG}, and the rest works against it{ASKED}"),
        (2.5, f"{NOT_SHOWN}: what flows along its edges goes the other way (−100 % of what its "),
    ],
)
def test_flow_is_told_with_its_sign(mediated: float, words: str) -> None:
    unit = evidence.unit(mediation=replace(evidence.mediation(), total=-2.5, mediated=mediated))
    assert words in verdict(unit, evidence.report()).words


def test_components_are_carried_through_their_features() -> None:
    words = verdict(evidence.unit("Graph 1"), evidence.report()).words
    told = "✓ Mediates: 81 % of what its sources do to the target flows through its features."
    assert told in words
    assert "Other nodes of the graph" not in words


def test_a_feature_that_does_it_alone_is_named() -> None:
    a, b, c, d = evidence.features()
    joint = -3.178
    for without, told in (
        ({a: 0.0, b: joint, c: joint, d: joint}, " 0.1 alone accounts for 100 % of the change."),
        (dict.fromkeys((a, b, c, d), joint / 2), " each of 4 features is needed for half of"),
    ):
        found = replace(evidence.mediation(), joint=joint, without=without)
        assert told in verdict(evidence.unit(mediation=found), evidence.report()).more
    found = replace(evidence.mediation(), without=dict.fromkeys((a, b, c, d), joint))
    words = verdict(evidence.unit(mediation=found), evidence.report()).full
    assert "alone accounts" not in words and "needed for half" not in words


def test_shuffles_tell_whether_other_nodes_do_as_much() -> None:
    for p, told in ((0.05, "do less (p = 0.050)"), (0.051, "do as much (p = 0.051)")):
        nulls = evidence.null(), evidence.null("shuffles", p=p)
        unit = evidence.unit(results=(evidence.result(nulls=nulls),))
        words = verdict(unit, evidence.report()).more
        assert f"Other nodes of the graph in its place {told}." in words


def test_what_has_no_effect_is_not_called_a_path() -> None:
    for unit in (with_change(-0.001), evidence.unit(results=(evidence.result(active=0),))):
        assert "graph's own prompt" not in verdict(unit, evidence.report()).full
        assert len(verdict(unit, evidence.report()).sentences) == 1


def test_ranks_and_kinds_are_told_where_they_mean_something() -> None:
    report = evidence.with_contrast()
    words = verdict(report.units[0], report).full
    assert "rank" not in words
    assert "zero ablation" in words
    assert "zero ablation" not in verdict(with_change(-0.5, q=0.2), evidence.report()).full


def test_what_hardly_moves_is_said_to() -> None:
    result = evidence.result(target=evidence.token_change(before=0.99991, after=0.9999))
    unit = evidence.unit(results=(result,))
    words = verdict(unit, evidence.report()).words
    assert 'hardly moves ")" (>99.9 %, −0.001 points; rank 1 to 9)' in words
    assert "−0.0 %" not in words
