"""`validation.json`: what is written comes back, and what is damaged says so in one line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.evidence_json import SCHEMA, from_json, load, save, to_bytes, to_json
from tests.support import evidence

REPORTS = {
    "full": evidence.report(),
    "bare": evidence.report(
        units=(evidence.bare_unit(),), noise=(), curves=(), agreement=None, corpus=None
    ),
    "refused": evidence.report(units=(evidence.refused(),)),
    "prompts": evidence.report(units=(evidence.over_prompts(),), test=("© (C", "(C")),
    "contrast": evidence.with_contrast(),
    "hostile": evidence.hostile(),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_report_comes_back(report: ValidationReport, tmp_path: Path) -> None:
    file = save(report, tmp_path)
    assert file == tmp_path / "validation.json"
    assert load(tmp_path) == load(file) == report
    assert list(tmp_path.iterdir()) == [file]


@given(
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)
def test_any_text_and_number_comes_back(text: str, value: float, settings: dict[str, Any]) -> None:
    unit = evidence.unit(results=(evidence.result(prompt=text, kl=value),))
    report = evidence.report(units=(unit,), prompt=text, seconds=value, settings=settings)
    assert from_json(json.loads(to_bytes(report))) == report


def test_the_file_is_plain_json() -> None:
    data = json.loads(to_bytes(evidence.report()).decode("ascii"))
    unit = data["units"][1]
    assert data["schema"] == SCHEMA == "sae_graphs/validation/1"
    assert unit["features"] == ["0.1", "1.1", "2.10600", "3.5"]
    assert unit["edges"][0] == ["0.1", "1.1"]
    assert unit["mediation"]["without"]["2.10600"] == -3.5
    assert unit["results"][0]["nulls"][0]["match"] == {"low": 0.81, "middle": 0.94, "high": 1.07}


def test_what_is_not_finite_becomes_null() -> None:
    odd = evidence.tested(ratio=math.inf, change=math.nan)
    report = evidence.report(units=(evidence.unit(tested=odd),))
    data = to_json(report)
    assert data["units"][0]["tested"]["ratio"] is None
    found = from_json(data).units[0].tested
    assert found is not None and found.ratio is None and math.isnan(found.change)


def test_what_has_a_default_may_be_missing() -> None:
    data = to_json(evidence.report())
    del data["warnings"], data["units"][0]["curves"]
    found = from_json(data)
    assert found.warnings == () and found.units[0].curves == ()


def changed(place: str, value: Any) -> dict[str, Any]:
    """A report's data with something else at a place such as `units/0/name`."""
    data: Any = to_json(evidence.report())
    whole = data
    *way, last = place.split("/")
    for step in way:
        data = data[int(step) if step.isdigit() else step]
    data[last] = value
    return whole


DAMAGE = {
    "schema": ("schema", "sae_graphs/1"),
    "text": ("model", 7),
    "number": ("seconds", "long"),
    "truth": ("seconds", True),
    "whole": ("units/0/component", 1.5),
    "list": ("units", {}),
    "mapping": ("settings", []),
    "record": ("units/0/tested", 3),
    "kind": ("units/0/kind", "thought"),
    "feature": ("units/0/features", ["nothing"]),
    "no features": ("units/0/features", []),
    "edge": ("units/0/edges", [["0.1"]]),
    "key": ("units/1/mediation/without", {"zero": 1.0}),
    "unknown": ("colour", "red"),
}


@pytest.mark.parametrize(("place", "value"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_in_one_line(place: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "validation.json"
    file.write_text(json.dumps(changed(place, value)), encoding="utf-8")
    with pytest.raises(
        GraphFileError, match=r"validation\.json is not a saved validation"
    ) as error:
        load(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("place", ["model", "units"])
def test_what_is_missing_is_named(place: str) -> None:
    data = to_json(evidence.report())
    del data[place]
    with pytest.raises(GraphFileError, match=f"{place} of the report is missing"):
        from_json(data)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": NaN}', "[1e999]", "[" * 9999])
def test_foreign_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "validation.json").write_text(text, encoding="utf-8")
    with pytest.raises(GraphFileError, match="again"):
        load(tmp_path)


def test_a_file_that_is_nested_too_deeply_is_json_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "validation.json").write_text("[" * 9999 + "]" * 9999, encoding="utf-8")
    with pytest.raises(GraphFileError, match=r"validation\.json is nested too deeply; validate"):
        load(tmp_path)


def test_a_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match="give a folder that `sae-graphs validate` wrote"):
        load(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaeGraphsError, match="cannot write"):
        save(replace(evidence.report(), units=()), tmp_path / "file" / "validation.json")
