"""Verdicts as data: of each unit, as a table, and in `validation.json`."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sae_graphs as sg
from sae_graphs.validation import evidence_json
from sae_graphs.validation.answer import record_json
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.report.marks import judged
from tests.support import evidence
from tests.support.answers import answer_report, graph_unit, path_unit
from tests.validation.test_evidence_json import REPORTS

ANSWERS = {
    "supported": answer_report(),
    "not": answer_report(graph_unit(p=(0.9, 0.9, 0.9))),
    "unknown": answer_report(graph_unit(p=(None, None, 0.01), kept=None)),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_unit_says_what_its_report_says(report: ValidationReport) -> None:
    for unit, verdict, _ in judged(report):
        assert (unit.verdict, unit.supported) == (verdict.kind, verdict.supported)
        assert unit.reason and "\n" not in unit.reason
    table = report.to_pandas()
    assert len(table) == len(report.units)
    assert list(table["verdict"]) == [unit.verdict for unit in report.units]
    written: Any = json.loads(evidence_json.to_bytes(report))["units"]
    assert [one["verdict"] for one in written] == [unit.verdict for unit in report.units]
    assert [one["reason"] for one in written] == [unit.reason for unit in report.units]
    assert evidence_json.from_json(evidence_json.to_json(report)) == report


def test_numbers_of_a_row() -> None:
    report = evidence.report(units=(evidence.unit(),))
    row = report.to_pandas().iloc[0]
    (unit,) = report.units
    assert unit.tested is not None
    assert (row["unit"], row["q"], row["ratio"]) == (unit.name, unit.tested.q, unit.tested.ratio)
    result = unit.results[0]
    assert (row["before"], row["effect"]) == (result.score, result.change)
    assert row["features"] == " ".join(map(str, unit.features))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("supported", "supported"), ("not", "not supported"), ("unknown", "cannot be said")],
)
def test_verdicts_of_answers(name: str, verdict: str) -> None:
    report: AnswerReport = ANSWERS[name]
    assert report.units[0].verdict == verdict
    table = report.to_pandas()
    assert table.loc[0, "verdict"] == verdict and table.loc[0, "reason"] == report.units[0].reason
    assert table.loc[0, "effect"] == report.units[0].ablated.nats - report.clean.nats
    written: Any = json.loads(record_json.to_bytes(report))["units"][0]
    assert (written["verdict"], written["reason"]) == (verdict, report.units[0].reason)
    assert record_json.from_json(record_json.to_json(report)) == report


def test_a_path_that_does_not_mediate_is_not_supported() -> None:
    unit = path_unit()
    assert unit.verdict in ("supported", "not supported", "cannot be said")


@pytest.mark.slow
def test_a_curve_is_plotted() -> None:
    curve = evidence.curve()
    assert str(curve.plot()) == curve.plot()._repr_svg_()
    assert str(curve.plot()).lstrip().startswith(("<svg", "<?xml"))


def test_files_without_verdicts_open() -> None:
    """Those of earlier versions."""
    data = evidence_json.to_json(evidence.report())
    for unit in data["units"]:
        for name in evidence_json.DERIVED:
            del unit[name]
    assert evidence_json.from_json(data) == evidence.report()


def test_one_table_of_both_kinds_of_reports() -> None:
    effects = evidence.report(units=(evidence.unit(), evidence.refused()))
    answers = answer_report(tests=(answer_report(prompt="The memo [room 32"),))
    table = sg.verdicts([effects, answers])
    assert list(table["graph"]) == ["effect"] * 2 + ["answer"] * 4
    assert list(table["kind"]) == ["path", "path", *["graph", "path"] * 2]
    assert list(table["prompt"][2:]) == ["The letter [room 32"] * 2 + ["The memo [room 32"] * 2
    assert set(table["found_on"][2:]) == {"The letter [room 32"}
    path, refused, graph, along = (table.iloc[place] for place in range(4))
    assert (path["necessary"], path["mediates"], path["supported"]) == (True, True, True)
    assert refused["necessary"] is None and not refused["supported"]
    assert (graph["effect"], graph["effect_unit"]) == (-9.0, "nats")  # ablated minus clean
    assert (graph["sufficient"], graph["mediates"]) == (True, None)
    assert (along["sufficient"], along["mediates"]) == (None, True)
    assert graph["q"] == answers.units[0].outcome.q and graph["p_equal_norm"] == 0.005
    assert list(sg.verdicts(effects)["unit"]) == [unit.name for unit in effects.units]
    assert sg.verdicts([]).empty
    for name in table.columns:
        assert f"`{name}`" in str(sg.verdicts.__doc__), name
