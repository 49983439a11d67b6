"""A report on an answer graph as JSON, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae_graphs.errors import GraphFileError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.validation import evidence_json, saved
from sae_graphs.validation.answer.record_json import SCHEMA, from_json, to_bytes, to_json
from sae_graphs.validation.answer.records import AnswerReport, Single
from tests.support import evidence
from tests.support.answers import answer_report, graph_unit, null, path_unit

SINGLES = (Single(FeatureId("0", 1, 2), -1.0, -2.0),)
REPORTS = {
    "plain": answer_report(),
    "refused": answer_report(graph_unit(p=(None, None, 0.01), kept=None)),
    "full": answer_report(graph_unit(singles=SINGLES), path_unit(), contrast=")"),
    "shuffles": answer_report(path_unit(nulls=(null("shuffles", 0.5),))),
    "other prompts": answer_report(
        tests=(
            answer_report(prompt="A [b", aligned="summed over tokens"),
            answer_report(graph_unit(inactive=2), path_unit(flow=None), prompt="B"),
        ),
        discovery=("A", "B"),
    ),
    "hostile": answer_report(
        prompt=evidence.HOSTILE, tokens=(evidence.HOSTILE,), target=evidence.HOSTILE
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_comes_back(name: str, tmp_path: Path) -> None:
    report = REPORTS[name]
    data = to_bytes(report)
    assert data.isascii() and from_json(json.loads(data)) == report
    (tmp_path / "validation.json").write_bytes(data)
    assert saved.load(tmp_path) == saved.load(tmp_path / "validation.json") == report


def test_outcomes_stand_in_it() -> None:
    written = to_json(answer_report())
    assert written["schema"] == SCHEMA
    graph, path = written["units"]
    assert (graph["supported"], graph["outcome"]["necessary"]) == (True, True)
    assert (path["outcome"]["mediates"], path["outcome"]["sufficient"]) == (True, None)
    assert path["features"] == ["0.1@2", "1.4@3"] and path["outcome"]["words"]


def test_reports_from_before_there_were_other_prompts() -> None:
    written = to_json(answer_report())
    for name in ("tests", "aligned", "discovery"):
        del written[name]
    for unit in written["units"]:
        del unit["inactive"]
    assert from_json(written) == answer_report()


def test_outcomes_of_other_prompts_stand_in_it() -> None:
    (test,) = to_json(answer_report(tests=(answer_report(),)))["tests"]
    assert [unit["supported"] for unit in test["units"]] == [True, True]


def test_of_either_kind(tmp_path: Path) -> None:
    evidence_json.save(evidence.report(), tmp_path)
    assert saved.load(tmp_path) == evidence.report()


DAMAGED = {
    "another schema": (lambda data: data | {"schema": "x"}, "schema is 'x'"),
    "no units": (lambda data: {k: v for k, v in data.items() if k != "units"}, "units"),
    "units a text": (lambda data: data | {"units": "x"}, "units is 'x'"),
    "tests a text": (lambda data: data | {"tests": "x"}, "tests is 'x'"),
    "a test a text": (lambda data: data | {"tests": ["x"]}, "tests is 'x'"),
    "a number a text": (lambda data: data | {"seconds": "long"}, "seconds is 'long'"),
    "unknown": (lambda data: data | {"colour": 1}, "'colour', which nobody knows"),
    "a list": (lambda data: [data], "schema is None"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged(case: str, tmp_path: Path) -> None:
    spoil, words = DAMAGED[case]
    file = tmp_path / "validation.json"
    file.write_text(json.dumps(spoil(to_json(answer_report()))))
    with pytest.raises(GraphFileError, match=words) as raised:
        saved.load(file)
    assert "\n" not in str(raised.value) and "validate the graph again" in str(raised.value)


def test_repr() -> None:
    report: AnswerReport = answer_report()
    assert repr(report) == "AnswerReport('The letter [room 32': 2 of 2 supported)"
