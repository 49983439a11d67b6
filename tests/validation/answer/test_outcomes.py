"""What hand-made numbers allow us to say, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.validation.answer.outcomes import names_of, sentences
from sae_graphs.validation.answer.records import AnswerUnit, Flow, KeepOnly, Null, Score
from sae_graphs.validation.judging import SIGNS
from tests.support.answers import answer_report, graph_unit, null, path_unit

NECESSARY: dict[str, tuple[dict[str, Any], bool | None, str]] = {
    "beats all": ({}, True, "of 200 matched controls does as much (q = 0.005), and none of 200"),
    "rises": ({"after": 7.0}, False, "does not fall"),
    "stays": ({"after": 6.0}, False, "does not fall"),
    "matched as good": (
        {"p": (0.06, 0.01, 0.01)},
        False,
        "11 of 200 matched controls do",
    ),
    "scaled as good": (
        {"p": (0.01, 0.051, 0.01)},
        False,
        "controls scaled to its norm do as",
    ),
    "directions as good": (
        {"p": (0.01, 0.05, 0.2)},
        False,
        "random directions of its norm do as",
    ),
    "just": ({"p": (0.05, 0.05, 0.05)}, True, "p = 0.050"),
    "no matched": (
        {"p": (None, None, 0.01)},
        None,
        "no matched controls: layer 3 has 1 other",
    ),
    "no scaled": ({"p": (0.01, None, 0.01)}, None, "there are no controls scaled to its norm: "),
    "refused, but it rises": ({"after": 7.0, "p": (None, None, 0.01)}, False, "does not fall"),
}


@pytest.mark.parametrize("case", NECESSARY)
def test_necessary(case: str) -> None:
    options, expected, words = NECESSARY[case]
    (unit,) = answer_report(graph_unit(**options)).units
    assert unit.necessary is expected and unit.supported is bool(expected)
    assert words in unit.reason
    assert unit.sufficient is True and unit.mediates is None
    first, second = sentences(unit, answer_report(graph_unit(**options)))
    assert unit.words == f"{first} {second}" and first.startswith(SIGNS[expected])
    assert all(words.endswith(".") and ". " not in words for words in (first, second))


@pytest.mark.parametrize(("p", "expected"), [(0.05, True), (0.06, False), (None, None)])
def test_sufficient(p: float | None, expected: bool | None) -> None:
    report = answer_report(graph_unit(kept=p))
    assert report.units[0].sufficient is expected
    assert report.units[0].supported  # it is another question
    assert report.left(report.units[0]) == pytest.approx(0.5)  # 1 between -4 and 6
    assert report.lost(report.units[0]) == pytest.approx(0.9)  # 9 of 10


MEDIATES = [
    (-2.0, -2.0, True),
    (-1.0, -2.0, True),
    (-0.98, -2.0, False),
    (-3.0, -2.0, True),
    (-3.1, -2.0, False),
    (1.0, -2.0, False),
    (0.0, 0.0, None),
]


@pytest.mark.parametrize(("along", "total", "expected"), MEDIATES)
def test_mediates(along: float, total: float, expected: bool | None) -> None:
    (unit,) = answer_report(path_unit(along, total)).units
    assert unit.mediates is expected and unit.necessary
    assert unit.supported is bool(expected) and unit.sufficient is None
    if not expected:
        assert unit.features[0] in unit.features and str(unit.features[0]) in unit.reason


def test_a_path_that_mediates_and_is_not_necessary_is_not_supported() -> None:
    (unit,) = answer_report(path_unit(p=(0.5, 0.01, 0.01))).units
    assert (unit.necessary, unit.mediates, unit.supported) == (False, True, False)
    assert names_of(unit) == "not necessary, mediates"


def test_q_is_over_all_units() -> None:
    """Three of p = 0.03, and one of 0.9: q is 0.04; alone with the last it would be 0.06."""
    good, bad = (0.03, 0.01, 0.01), (0.9, 0.01, 0.01)
    three = [path_unit(p=good, name=f"Path {n}") for n in range(3)]
    report = answer_report(*three, graph_unit(p=bad))
    assert [unit.outcome.q for unit in report.units] == pytest.approx([0.04] * 3 + [0.9])
    assert [unit.necessary for unit in report.units] == [True] * 3 + [False]
    pair = answer_report(three[0], graph_unit(p=bad))
    assert pair.units[0].outcome.q == pytest.approx(0.06) and not pair.units[0].necessary
    refused = answer_report(three[0], graph_unit(p=(None, None, 0.01)))
    assert refused.units[0].outcome.q == 0.03  # what was refused is no test


def test_words() -> None:
    graph, path = answer_report().units
    assert graph.words == (
        '✓ Necessary: ablating its 2 features together lowers the log-odds of "]" by 9.00 nats '
        "(6.00 to −3.00; probability 99.7 % to 5.0 %); none of 200 matched controls does as much "
        "(q = 0.005), and none of 200 controls scaled to its norm (p = 0.005). "
        "✓ Sufficient beyond controls: kept alone, with all other rarely-on features ablated, it "
        "leaves 1.00 nats, 50 % of the way from none kept (−4.00) to all (6.00); none of 200 "
        "matched controls does as well in its place (p = 0.005)."
    )
    assert path.words.endswith(
        "✓ Path mediates: 75 % of what its first feature, 0.1@2, does to the answer flows along it."
    )
    contrast = answer_report(graph_unit(after=7.0), contrast=")")
    told = contrast.units[0].words
    assert 'does not lower the logit difference of "]" over ")" (6.00 to 7.00; ' in told
    assert told.startswith("✗ Not necessary: ")
    unknown = answer_report(graph_unit(p=(None, None, 0.01), kept=None)).units[0]
    assert unknown.words.startswith("? Necessary or not cannot be said: ")
    assert "? Sufficient or not cannot be said" in unknown.words
    assert names_of(unknown) == "necessary: ?, sufficient: ?"
    (other,) = answer_report(path_unit(0.0, 0.0)).units
    assert "? Whether the path mediates cannot be said: its first feature, 0.1@2," in other.words


def test_little_that_is_left_is_not_called_enough() -> None:
    kept = KeepOnly(Score(-3.0, 0.05), null("matched", 0.005))
    (unit,) = answer_report(graph_unit(keep_only=kept)).units
    assert unit.sufficient
    told = "it leaves only −3.00 nats, 10 % of the way from none kept (−4.00) to all (6.00), too "
    assert told + "little for the answer, but none of 200 matched controls does as well" in (
        unit.words
    )
    fails = answer_report(graph_unit(kept=0.5)).units[0].words
    assert "✗ Not sufficient: kept alone" in fails and ", and 99 of 200 matched controls" in fails


def test_records_check_themselves() -> None:
    with pytest.raises(SaeGraphsError, match="no features"):
        graph_unit(features=())
    with pytest.raises(SaeGraphsError, match="kept alone"):
        graph_unit(flow=Flow(-1.0, -1.0))
    with pytest.raises(SaeGraphsError, match="refused"):
        Null("matched", scores=(1.0,))
    with pytest.raises(SaeGraphsError, match="refused"):
        Null("matched")
    for numbers in ((float("nan"), 0.5), (0.0, 1.5)):
        with pytest.raises(SaeGraphsError, match="score"):
            Score(*numbers)
    unit: AnswerUnit = path_unit()
    assert unit.null("matched") is not None and unit.null("shuffles") is None
