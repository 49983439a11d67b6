"""`sae-graphs validate` on an answer graph, as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.validation import saved
from sae_graphs.validation.answer import run
from sae_graphs.validation.answer.records import AnswerReport
from tests.support.commands import Commands
from tests.support.models import OTHER_PROMPT, PROMPT

QUICK = ("--controls", "5", "--paths", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `graph` writes it, of a tiny model, made by zero-ablation."""
    from sae_graphs.cli.outputs import write_run
    from tests.support.answers import tiny_answer_graph

    root = tmp_path_factory.mktemp("tiny")
    graph, saes = tiny_answer_graph(root)
    write_run(root / "run", graph, formats=("dot", "html"), seconds=1.0, saes=saes)
    return root / "run"


@pytest.fixture(autouse=True)
def _no_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_graphs.validation.answer import subject
    from tests.support.answers import references

    monkeypatch.setattr(subject, "references_of", references)


@pytest.fixture
def here(made: Path, tmp_path: Path, commands: Commands) -> Path:
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.slow
def test_from_start_to_end(commands: Commands, here: Path) -> None:
    answer = commands("validate", "here", *QUICK)
    assert answer.code == 0, answer.err
    folder = here / "validation"
    report = saved.load(folder)
    assert isinstance(report, AnswerReport) and report.prompt == PROMPT
    assert report.settings["quick"] is True and not report.units[0].singles
    assert "log-odds of" in answer.out and "Graph: " in answer.out
    assert "wrote here/validation/" in answer.out
    record = json.loads((folder / "run.json").read_text())
    assert set(record["files"]) == {path.name for path in folder.iterdir()}
    assert "validation" in json.loads((here / "run.json").read_text())["files"]
    told = " ".join(answer.out.split())  # lines are folded
    assert "could not be called necessary" in told  # with 5 controls
    assert not list(here.glob(".*"))
    assert "Tested by ablation" in (here / "graph.html").read_text()


@pytest.mark.slow
def test_in_full_with_options(commands: Commands, here: Path, tmp_path: Path) -> None:
    words = ("--full", "--target", " cat", "--contrast", " dog", "--seed", "5", "--out", "there")
    answer = commands("validate", "here/graph.json", *QUICK, *words, "--intervention", "scale:0.5")
    assert answer.code == 0, answer.err
    assert "the full report takes about" in answer.err
    report = saved.load(tmp_path / "there")
    assert isinstance(report, AnswerReport)
    assert (report.target, report.contrast, report.intervention) == (" cat", " dog", "scale 0.5")
    assert report.settings["seed"] == 5 and report.units[0].singles
    assert "was made with the intervention 'zero'" in answer.out


@pytest.mark.slow
def test_in_other_prompts(commands: Commands, here: Path, tmp_path: Path) -> None:
    """Each with its own answer, and how its tokens are aligned."""
    near = PROMPT.replace("cat", "dog")
    answer = commands("validate", "here", *QUICK, "--prompt", near, "--prompt", OTHER_PROMPT)
    assert answer.code == 0, answer.err
    told = " ".join(answer.out.split())
    assert "in other prompts" in told and "in this prompt alone" not in told
    words = "by position: the prompts differ in 1 of 10 tokens, ␣cat and ␣dog at 2"
    assert words in told and "summed over tokens: the prompts differ in" in told
    report = saved.load(here / "validation")
    assert isinstance(report, AnswerReport)
    assert [test.prompt for test in report.tests] == [near, OTHER_PROMPT]
    text = (here / "validation" / "validation.md").read_text()
    assert "In other prompts" in text and words in text
    assert words in (here / "validation" / "validation.html").read_text()


@pytest.mark.slow
def test_ctrl_c_leaves_what_is_done_to_go_on_from(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    plain = run._tested

    def stopping(unit: Any, bench: Any) -> Any:
        if unit.kind == "path":
            raise KeyboardInterrupt
        return plain(unit, bench)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_tested", stopping)
        answer = commands("validate", "here", *QUICK)
    assert answer.code == 130 and "1 of 2" in answer.err and "run the same command" in answer.err
    assert [file.name for file in (here / ".validation.partial").iterdir()] == ["unit-0.json"]
    answer = commands("validate", "here", *QUICK)
    assert answer.code == 0 and answer.err.strip().startswith("resumed: 1 of 2"), answer.err
    assert not list(here.glob(".*"))


MISTAKES = {
    "an empty prompt": (["--prompt", ""], "no prompt, or an empty one"),
    "a curve": (["--curve", "0.1 > 1.2"], "no use for a curve"),
    "other text": (["--text", "text.txt"], "no use for a text"),
    "no such kind": (["--intervention", "half"], "expected zero, mean"),
    "no such path": (["--path", "0.999@3 > 1.1@3"], "0.999@3"),
    "no controls": (["--controls", "0"], "controls is 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.usefixtures("here")
def test_mistakes(commands: Commands, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 40)
    words, expected = MISTAKES[name]
    answer = commands("validate", "here", *words)
    assert answer.code == 2 and answer.out == ""
    assert expected in answer.err and answer.err.strip().count("\n") == 0
    assert not (tmp_path / "here" / "validation").exists()


def test_another_model(commands: Commands, here: Path) -> None:
    answer = commands("validate", "here", "--model", "demo")
    assert answer.code == 2 and "load those, or make the graph again" in answer.err
