"""`sae-graphs validate --all`: many runs, one after another, and a table of what was found."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.cli import validating
from sae_graphs.errors import SaeGraphsError
from sae_graphs.validation import saved
from sae_graphs.validation.settings import ValidationSettings
from tests.support import evidence
from tests.support.commands import Commands
from tests.support.saved_runs import over, write_run

QUICK = ("--controls", "5", "--paths", "1", "--quick")
SETTINGS = ValidationSettings(controls=5, paths=1, quick=True).to_json()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs: an answer graph, one of effects with its verdict, a damaged one."""
    from sae_graphs.cli.outputs import write_run as write
    from tests.support.answers import tiny_answer_graph

    root = tmp_path_factory.mktemp("tiny")
    answer, saes = tiny_answer_graph(root)
    for name in ("answer", "second"):
        write(root / "runs" / name, answer, formats=("dot",), seconds=1.0, saes=saes)
    write_run(root / "runs" / "effects", over(), report=evidence.report(settings=SETTINGS))
    (root / "runs" / "broken").mkdir()
    (root / "runs" / "broken" / "graph.json").write_text("{")
    return root / "runs"


@pytest.fixture
def runs(made: Path, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Path:
    from sae_graphs.validation.answer import report as answer_report
    from sae_graphs.validation.answer import subject
    from tests.support.answers import references

    monkeypatch.setattr(subject, "references_of", references)
    monkeypatch.setattr(answer_report, "marked_pictures", lambda *_, **__: ({}, "<svg/>"))
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def counted(monkeypatch: pytest.MonkeyPatch, fails: str = "") -> list[str]:
    """The runs that are validated from now on; that which `fails` does so without an excuse."""
    plain, seen = validating.tested, list[str]()

    def watched(found: Any, *rest: Any) -> Any:
        seen.append(found.folder.parent.name)
        if seen[-1] == fails:
            raise RuntimeError("out of\nmemory")
        return plain(found, *rest)

    monkeypatch.setattr(validating, "tested", watched)
    return seen


def test_all_runs_are_validated_once(
    commands: Commands, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(runs / "second")
    seen = counted(monkeypatch)
    answer = commands("validate", "--all", "runs", *QUICK)
    assert answer.code == 1 and seen == ["answer"]  # one is broken, one has its verdict
    assert "1 run validated before" in answer.err
    assert "failed: broken: broken/graph.json is not JSON" in " ".join(answer.out.split())
    assert "in 2 runs" in answer.out
    assert saved.load(runs / "answer" / "validation").settings["controls"] == 5
    data = json.loads((runs / "verdicts.json").read_text())
    assert list(data["failed"]) == ["broken"] and data["settings"]["controls"] == 5
    rows = list(csv.DictReader((runs / "verdicts.csv").open(newline="")))
    assert [row["unit"] for row in rows] == [row["unit"] for row in data["rows"]]
    assert {row["graph"] for row in rows} == {"answer", "effect"}
    shutil.rmtree(runs / "broken")
    again = commands("validate", "--all", "runs", *QUICK)
    assert again.code == 0 and len(seen) == 1 and "2 runs validated before" in again.err
    assert json.loads((runs / "verdicts.json").read_text())["rows"] == data["rows"]


@pytest.mark.slow
def test_a_run_that_fails_does_not_end_the_rest(
    commands: Commands, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(runs / "broken")
    seen = counted(monkeypatch, fails="answer")
    answer = commands("validate", "--all", "runs", *QUICK)
    assert answer.code == 1 and seen == ["answer", "second"]
    assert (runs / "second" / "validation").is_dir()
    assert "failed: answer: RuntimeError: out of memory" in answer.out
    assert not (runs / "answer" / "validation").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(
    commands: Commands, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = validating.tested

    def stopping(found: Any, *rest: Any) -> Any:
        if found.folder.parent.name == "second":
            raise KeyboardInterrupt
        return plain(found, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(validating, "tested", stopping)
        answer = commands("validate", "--all", "runs", *QUICK)
    assert answer.code == 130 and "2 of 4 runs are validated" in answer.err
    seen = counted(monkeypatch)
    assert commands("validate", "--all", "runs", *QUICK).code == 1
    assert seen == ["second"]


def test_a_report_of_other_settings_is_kept(commands: Commands, runs: Path) -> None:
    """Whatever the command says, hours of work are not thrown away: the table tells of it."""
    for name in ("broken", "answer", "second"):
        shutil.rmtree(runs / name)
    before = (runs / "effects" / "validation" / "validation.json").read_bytes()
    answer = commands("validate", "--all", "runs", "--controls", "9", "--seed", "3")
    assert answer.code == 0 and "1 run validated before" in answer.err
    assert (runs / "effects" / "validation" / "validation.json").read_bytes() == before
    rows = json.loads((runs / "verdicts.json").read_text())["rows"]
    assert {row["controls"] for row in rows} == {5}


MISTAKES = {
    "no folder": (["--all", "nowhere"], "nowhere is no folder"),
    "no runs": (["--all", "empty"], "empty holds no runs"),
    "and a run": (["empty", "--all", "empty"], "a run is for one alone"),
    "a prompt": (["--all", "empty", "--prompt", "x"], "--prompt is for one alone"),
    "a model": (["--all", "empty", "--model", "demo"], "--model is for one alone"),
    "a folder": (["--all", "empty", "--out", "there"], "--out is for one alone"),
    "no controls": (["--all", "empty", "--controls", "0"], "controls is 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(commands: Commands, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    words, expected = MISTAKES[name]
    answer = commands("validate", *words)
    assert answer.code == 2 and answer.out == ""
    assert expected in answer.err and answer.err.strip().count("\n") == 0


def test_a_table_of_hostile_reports_fits(tmp_path: Path, commands: Commands) -> None:
    from rich.console import Console

    from sae_graphs.cli.validate_all import Found
    from sae_graphs.cli.verdicts_table import print_verdicts

    write_run(tmp_path / "runs" / "hostile", over(), report=evidence.hostile())
    report = saved.load(tmp_path / "runs" / "hostile" / "validation")
    with (tmp_path / "shown").open("w", encoding="utf-8") as file:
        print_verdicts(
            Console(width=80, file=file),
            [Found("hostile", report), Found("x\x1b[31m", failed="why\u202e")],
        )
    text = (tmp_path / "shown").read_text(encoding="utf-8")
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[31m: why" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_no_report_is_refused() -> None:
    from sae_graphs.validation.report.tables import verdict_rows

    with pytest.raises(SaeGraphsError, match="is no report; give what validate gave"):
        verdict_rows(["x"])  # type: ignore[list-item]
