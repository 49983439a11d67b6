"""`sae-graphs trace`: files, words, wrong input in one line, many prompts, an interrupted run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_graphs.tracing import many, record_json, subject
from tests.support.commands import Commands
from tests.support.graphs import example
from tests.support.models import save_model_folder
from tests.support.traces import graph_beside

PROMPT = "the cat sat on the old mat"
LITTLE = ("--noise", "0.5", "--noise-runs", "2", "--sweeps", "state")
LOUD = ("--noise", "20s", *LITTLE[2:])  # the answer hangs on any subject
NAME = "model-the-cat-sat-on-the-old-mat-trace"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model_folder(tmp_path_factory.mktemp("trace") / "model"))


def test_a_trace_leaves_its_files(commands: Commands, model: str, tmp_path: Path) -> None:
    asked = ("trace", PROMPT, "--subject", "cat sat", "--model", model, *LITTLE)
    answer = commands(*asked, "--formats", "svg,html", "--measure", "share")
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / NAME
    names = {"trace.json", "trace.svg", "trace-lines.svg", "trace.html", "run.json"}
    assert {path.name for path in folder.iterdir()} == names
    record = json.loads((folder / "run.json").read_text())
    assert record["kind"] == "trace" and set(record["files"]) == names
    trace = record_json.load(folder)
    assert [trace.tokens[at] for at in trace.subject] == [" cat", " sat"]
    assert trace.settings.strength == "0.5" and len(trace.corrupted) == 2
    assert f"wrote outputs/{NAME}/" in answer.out
    assert "No site is claimed" in answer.out and "cat*" in answer.out.replace("\xa0", " ")
    assert not list((tmp_path / "outputs").glob(".*"))
    again = commands(*asked, "--formats", "json")
    assert again.code == 0 and {it.name for it in folder.iterdir()} == {"trace.json", "run.json"}


@pytest.mark.slow
def test_an_answer_graph_is_laid_over_a_trace(
    commands: Commands, model: str, tmp_path: Path
) -> None:
    asked = ("--subject", "cat", "--model", model, *LITTLE, "--formats", "svg,md")
    assert commands("trace", PROMPT, *asked, "--out", "alone").code == 0
    trace = record_json.load(tmp_path / "alone")
    shares = np.abs(trace.sweeps[0].kl.mean(axis=0))
    graph_beside(shares, of=trace, prompt=PROMPT).save(tmp_path / "graph")
    graph_beside(shares, of=trace, prompt=PROMPT, model="other").save(tmp_path / "other")
    answer = commands("trace", "--graph", "graph", *asked, "--out", "both")
    assert answer.code == 0, answer.err
    assert "beside the answer graph, the graph's " in answer.out
    assert (tmp_path / "both" / "trace-graph.svg").is_file()
    assert "## Beside the answer graph" in (tmp_path / "both" / "trace.md").read_text()
    told = json.loads((tmp_path / "both" / "run.json").read_text())["beside_graph"]
    assert told["measured"] is None and told["cells"] > 6
    both = record_json.load(tmp_path / "both")
    np.testing.assert_array_equal(both.sweeps[0].log_odds, trace.sweeps[0].log_odds)
    another = next(piece for piece in (" cat", " sat") if piece not in trace.targets)
    for wrong, line in (
        (("the dog sat", "--graph", "graph"), "leave out the prompt"),
        (("--graph", "graph", "--sweeps", "mlp"), "is laid over the state"),
        (("--graph", "graph", "--target", another), "name the same target"),
        (("--graph", "other"), 'of the model "other"'),
        (("--graph", "nowhere"), "cannot read nowhere"),
    ):
        answer = commands("trace", *asked, *wrong)
        assert answer.code == 2 and line in answer.err and answer.err.count("\n") == 1, answer.err


@pytest.mark.slow
def test_several_strengths_stand_side_by_side(
    commands: Commands, model: str, tmp_path: Path
) -> None:
    answer = commands(
        *("trace", PROMPT, "--subject", "cat", "--model", model, "--out", "here"),
        *("--noise", "0.5,2s", "--noise-runs", "2", "--sweeps", "mlp", "--formats", "svg"),
    )
    assert answer.code == 0, answer.err
    assert (tmp_path / "here" / "trace-levels.svg").is_file()
    assert record_json.load(tmp_path / "here" / "trace-2s.json").settings.strength == "2s"
    assert answer.out.count("clean ") == 2


WRONG = {
    "no prompt": ((), "no prompt"),
    "no subject": ((PROMPT,), "no subject; give the part of the prompt"),
    "not there": ((PROMPT, "--subject", "dog"), 'the subject "dog" is not in the prompt'),
    "no noise": ((PROMPT, "--subject", "cat", "--noise", "0"), "noise of 0 changes nothing"),
    "no blend": (
        (PROMPT, "--subject", "cat", "--corruption", "blend", "--noise", "0"),
        "blend of 0 changes nothing",
    ),
    "same norm": (
        (PROMPT, "--subject", "cat", "--corruption", "norm", "--noise", "1"),
        "norm of 1 changes nothing",
    ),
    "size": ((PROMPT, "--subject", "cat", "--noise", "much"), "expected auto, a number"),
    "no size": ((PROMPT, "--subject", "cat", "--noise", ","), "expected auto, 3s or 0.5"),
    "sweep": ((PROMPT, "--subject", "cat", "--sweeps", "all"), "sweep 'all'"),
    "format": ((PROMPT, "--subject", "cat", "--formats", "gif"), "expected some of png"),
    "runs": ((PROMPT, "--subject", "cat", "--noise-runs", "0"), "expected 1 or more"),
    "other": ((PROMPT, "--subject", "cat", "--other", "x"), "takes another prompt"),
    "cases": ((PROMPT, "--cases", "demo"), "a prompt is for one prompt"),
    "graph": (("--cases", "demo", "--graph", "x"), "--graph is for one prompt"),
    "no cases": (("--cases", "none.csv"), "cannot read none.csv"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_before_anything_is_loaded(
    commands: Commands, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unloaded(_: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("sae_graphs.cli.options.Source.load_model", unloaded)
    arguments, told = WRONG[name]
    answer = commands("trace", *arguments)
    assert answer.code == 2 and answer.out == ""
    assert told in answer.err and answer.err.count("\n") == 1


def test_what_the_model_alone_can_refuse(commands: Commands, model: str, tmp_path: Path) -> None:
    other = ("--corruption", "interchange", "--other")
    for wrong, told in (
        ((PROMPT, "--subject", "mat"), "the subject is the last token"),
        ((PROMPT, "--subject", "Cat"), "did you mean 'cat'"),
        (("mat", "--subject", "mat", "--no-prepend-bos"), "the prompt is one token"),
        ((PROMPT, *other, "the cat"), "the other prompt has"),
        ((PROMPT, *other, PROMPT), "the other prompt is the prompt itself"),
        ((PROMPT, "--subject", "cat", "--target", "no such token"), "token"),
    ):
        answer = commands("trace", *wrong, "--model", model, "--sweeps", "state")
        assert answer.code == 2 and told in answer.err and answer.err.count("\n") == 1, answer.err
    assert not (tmp_path / "outputs").exists()
    example().save(tmp_path / "graph")
    (tmp_path / "graph" / "run.json").write_text('{"files": ["graph.json"]}')
    answer = commands("trace", PROMPT, "--subject", "cat", "--model", model, "--out", "graph")
    assert answer.code == 2 and "graph, which this run would replace with a trace" in answer.err


CASES = """prompt,subject,category
the cat sat on the old mat,sat,a
the cat sat on the old dog,old,a
the dog sat on the old mat,mat,b
the dog sat on the cat sat,nowhere the dog,b
"""


@pytest.mark.slow
def test_many_prompts_and_the_rest_after_a_stop(
    commands: Commands, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cases.csv").write_text(CASES.rpartition("the dog sat on the cat")[0])
    monkeypatch.setattr("sae_graphs.checkpoint.PATIENCE", 0.0)
    asked = ("trace", "--cases", "cases.csv", "--model", model, *LOUD, "--formats", "md")
    look = subject.looked_at
    seen: list[str] = []

    def stopped(model: Any, case: Any, run: Any) -> Any:
        if seen == ["sat"]:
            raise KeyboardInterrupt
        seen.append(case.subject)
        return look(model, case, run)

    monkeypatch.setattr(subject, "looked_at", stopped)
    answer = commands(*asked)
    assert answer.code == 130 and "1 of 3 prompts are done" in answer.err
    seen.append("and on")
    answer = commands(*asked)
    assert answer.code == 0, answer.err
    assert "resumed: 1 of 3 prompts" in answer.err and seen == ["sat", "and on", "old", "mat"]
    folder = tmp_path / "outputs" / "model-cases-traces"
    found = many.load(folder)
    assert found.categories == ("a", "b") and len(found.of("a")) == 2
    assert all(it.last_token is not None for it in found.traced)
    assert found.reasons("b") == {"the last token": 1}
    assert "# Causal traces" in (folder / "traces.md").read_text()
    assert not list((tmp_path / "outputs").glob(".*"))
    (tmp_path / "cases.csv").write_text(CASES)
    answer = commands(*asked)
    assert answer.code == 2 and "line 5: the subject" in answer.err
