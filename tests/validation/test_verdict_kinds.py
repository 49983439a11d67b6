"""Verdicts over several prompts: p-values of each, too few that have controls or are active."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sae_graphs.validation.evidence import Match, Null, UnitReport
from sae_graphs.validation.judging import control_sizes, judged, pooled
from sae_graphs.validation.verdicts import verdict
from tests.support import evidence


def over(*nulls: Null | None, active: Sequence[int] | None = None) -> UnitReport:
    """A path in test prompts that have these matched controls, judged by them."""
    refused = evidence.null(refused="layer 2 has too few", changes=(), kls=(), p=None, match=None)
    results = tuple(
        evidence.result(role="test", active=n, nulls=(refused if null is None else null,))
        for null, n in zip(nulls, active or [4] * len(nulls), strict=True)
    )
    (found,) = judged([evidence.unit(results=results, tested=None, mediation=None)], seed=0)
    return found


def strong(p: float = 1 / 200) -> Null:
    """Controls of five points each, of which as many as it takes are larger."""
    return evidence.null(changes=(0.05,) * 199, kls=(0.1,) * 199, p=p)


# -- pooled ----------------------------------------------------------------------------------------


def test_a_null_over_prompts_has_a_p_value_of_each() -> None:
    """2/8 and 3/8: together twice the mean, 5/8."""
    changes = (0.4, -0.2, 0.0, 0.1, 0.1, 0.1, 0.1), (-0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.0)
    results = [
        evidence.result(
            role="test", change=change, nulls=(evidence.null(changes=each, match=match, p=None),)
        )
        for change, each, match in zip(
            (-0.375, 0.1875),
            changes,
            (Match(0.5, 0.6, 0.7), Match(0.7, 0.8, 0.9)),
            strict=True,
        )
    ]
    found = pooled(evidence.unit(results=tuple(results), tested=None), "matched")
    assert found is not None and (found.n_prompts, found.n) == (2, 7)
    assert found.p == 5 / 8
    assert found.match == pytest.approx(0.7)
    one_refused = (results[0], evidence.result(role="test", nulls=()))
    alone = pooled(evidence.unit(results=one_refused, tested=None), "matched")
    assert alone is not None and alone.match == pytest.approx(0.6)
    assert alone.n_prompts == 1 and alone.p == 2 / 8  # of one prompt: not doubled
    both_refused = (evidence.result(role="test", nulls=()),) * 2
    assert pooled(evidence.unit(results=both_refused, tested=None), "matched") is None


def test_controls_are_as_many_as_every_prompt_has() -> None:
    nulls = evidence.null(), evidence.null(changes=(0.1,) * 12)
    results = tuple(evidence.result(role="test", nulls=(null,)) for null in nulls)
    unit = evidence.unit(results=results, tested=None)
    found = pooled(unit, "matched")
    assert found is not None and (found.n, found.p) == (12, 0.1)
    sizes = control_sizes(unit, "matched")
    assert len(sizes) == 19 + 12 and sizes[:2] == (0.005, 0.01)  # without signs
    assert control_sizes(unit, "scaled") == ()


@pytest.mark.parametrize(
    ("narrowest", "told"),
    [
        ((9,), 9),  # no p below 1/10 from that layer alone, and it is 1/20
        ((19,), None),  # 1/20
        ((8, 1330), 8),  # 1/9, and two prompts' p is 2/20
        ((9, 1330), None),  # 1/10
        ((None,), None),
    ],
)
def test_layers_of_few_sets_are_told(narrowest: tuple[int | None, ...], told: int | None) -> None:
    unit = over(*(evidence.null(narrowest=each) for each in narrowest))
    found = pooled(unit, "matched")
    assert found is not None and found.narrowest == told
    words = verdict(unit, evidence.report(units=(unit,))).more
    assert ("One layer allows only" in words) == (told is not None)
    if told == 9:
        expected = "One layer allows only 9 sets: if it alone does it, p is not below 0.100."
        assert expected in words


# -- several prompts -------------------------------------------------------------------------------


def test_words_of_several_prompts() -> None:
    unit = over(strong(), strong(3 / 200))
    assert unit.tested is not None and unit.tested.p == 4 / 200
    found = verdict(unit, evidence.report(units=(unit,)))
    assert found.kind == "supported"
    assert (
        "beside 199 matched controls in each of 2 prompts p is 0.005 to 0.015, together 0.020 "
        "(twice the mean), q = 0.020."
    ) in found.words
    assert "median change is 5.0 points, 14 times smaller, removing 0.94 of" in found.more
    alike = over(strong(), strong())
    words = verdict(alike, evidence.report(units=(alike,))).words
    assert "p is 0.005, together 0.010 (twice the mean)" in words


@pytest.mark.parametrize(
    ("controlled", "kind"),
    [((1, 0), "supported"), ((1, 0, 0), "no controls"), ((1, 1, 0), "supported")],
)
def test_half_of_the_prompts_must_have_controls(controlled: tuple[int, ...], kind: str) -> None:
    unit = over(*(strong() if has else None for has in controlled))
    assert unit.tested is not None and unit.tested.n_controlled == sum(controlled)
    found = verdict(unit, evidence.report(units=(unit,)))
    assert found.kind == kind
    if sum(controlled) == 1:
        assert (
            "none of 199 matched controls in the one prompt that has them does as much (p = 0.005"
        ) in found.words or kind == "no controls"
    else:
        assert "in each of 2 prompts" in found.words
    none = over(None, None)
    words = verdict(none, evidence.report(units=(none,))).words
    assert "but there are no matched controls: layer 2 has too few." in words


@pytest.mark.parametrize(
    ("active", "words"),
    [
        ((0, 0, 0, 4), "3 of the 4 that decide"),
        ((0, 0, 0), "the 3 that decide"),
        ((0, 4), None),
        ((0, 0, 4, 1), None),
    ],
)
def test_half_of_the_prompts_must_be_active(active: tuple[int, ...], words: str | None) -> None:
    unit = over(*[strong()] * len(active), active=active)
    found = verdict(unit, evidence.report(units=(unit,)))
    assert (found.kind == "inactive") == (words is not None)
    if words is not None:
        assert found.words == (
            f"? Inactive: none of its 4 features is active at the ablated positions of {words}."
        )
