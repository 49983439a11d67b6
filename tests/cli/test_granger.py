"""`sae-graphs granger`: files, words, wrong input in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.editing.granger import granger, pairs
from sae_graphs.editing.granger.records import GrangerReport
from tests.support.commands import Commands
from tests.support.graphs import example
from tests.support.models import CORPUS, save_model_folder, save_sae_folder

LITTLE = ("--permutations", "19", "--lag", "1", "--least-on", "5")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("granger")
    model, saes = save_model_folder(folder / "model"), save_sae_folder(folder / "saes")
    words = CORPUS.split()
    lines = [" ".join(random.Random(n).choices(words, k=9)) for n in range(20)]
    (folder / "texts.txt").write_text("\n".join(lines))
    texts = str(folder / "texts.txt")
    return ("--model", str(model), "--saes", str(saes), "--texts", texts)


def test_tests_leave_their_files(
    commands: Commands, stack: tuple[str, ...], tmp_path: Path
) -> None:
    asked = ("granger", *stack, *LITTLE, "--features", "2", "--formats", "svg,html,md")
    answer = commands(*asked)
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / "model-most-often-on-granger"
    names = {"granger.json", "granger.svg", "granger.html", "granger.md", "run.json"}
    assert {path.name for path in folder.iterdir()} == names
    record = json.loads((folder / "run.json").read_text())
    assert record["kind"] == "granger" and set(record["files"]) == names
    report = GrangerReport.load(folder)
    assert report.texts == "texts.txt" and len(report.pairs) == 12
    assert "Only an ablation tells" in " ".join(answer.out.split())
    for text in (answer.out, (folder / "granger.html").read_text()):
        assert "caus" not in text.lower()
    named = (*stack, *LITTLE, "--source", "norm:1", "--source", "norm:0", "--target", "norm:2")
    answer = commands("granger", *named, "--formats", "json", "--out", "here")
    assert answer.code == 0, answer.err
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"granger.json", "run.json"}
    pairs = GrangerReport.load(tmp_path / "here").pairs
    assert {(it.source, it.target) for it in pairs} == {("norm:0", "norm:2"), ("norm:1", "norm:2")}


def test_the_rest_after_a_stop(
    commands: Commands, stack: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae_graphs.checkpoint.PATIENCE", 0.0)
    monkeypatch.setattr(pairs, "TOGETHER", 5)
    monkeypatch.setattr(granger, "TOGETHER", 5)
    both, seen = pairs.Tester.both, list[str]()

    def stopped(self: pairs.Tester, source: str, target: str, given: Any) -> Any:
        if len(seen) == 8:
            raise KeyboardInterrupt
        seen.append(source)
        return both(self, source, target, given)

    monkeypatch.setattr(pairs.Tester, "both", stopped)
    asked = ("granger", *stack, *LITTLE, "--features", "2", "--formats", "json", "--out", "here")
    asked = (*asked, "--least-on", "1")
    answer = commands(*asked)
    assert answer.code == 130 and "1 of 3 stretches" in answer.err
    assert not (tmp_path / "here").exists()
    seen += ["and on"]
    answer = commands(*asked)
    assert answer.code == 0, answer.err
    assert "resumed: 1 of 3 stretches" in answer.err and len(seen) <= 9 + 7
    monkeypatch.setattr(pairs.Tester, "both", both)
    assert commands(*asked[:-4], "--out", "whole", *asked[-2:]).code == 0
    one, other = (GrangerReport.load(tmp_path / name) for name in ("here", "whole"))
    assert one.pairs == other.pairs
    assert not list(tmp_path.glob(".*"))


def test_a_graph_names_its_model(
    commands: Commands, stack: tuple[str, ...], tmp_path: Path
) -> None:
    how = ("--select", "effect", "--min-path-edges", "1", "--formats", "html", "--out", "drawn")
    prompt = " ".join(CORPUS.split()[:6])
    assert commands("graph", prompt, *stack[:4], *how).code == 0
    answer = commands("granger", "--graph", "drawn", *stack[4:], *LITTLE, "--out", "tested")
    assert answer.code == 0, answer.err
    assert GrangerReport.load(tmp_path / "tested").model == stack[1]


WRONG = {
    "source alone": (("--source", "2.1"), "--source alone"),
    "target alone": (("--target", "2.1"), "--target alone"),
    "name": (("--source", "2", "--target", "3.1"), "not a feature"),
    "kind": (("--source", "energy:2.1", "--target", "3.1"), "not a series"),
    "given": (("--given", "2.1@3"), "without a position"),
    "no texts": (("--texts", "none.txt"), "cannot read texts from none.txt"),
    "no graph": (("--graph", "nowhere"), "cannot read nowhere"),
    "both": (("--graph", "x", "--source", "2.1", "--target", "3.1"), "names its own pairs"),
    "swaps": (("--permutations", "3"), "permutations is 3; expected"),
    "level": (("--level", "2"), "level is 2"),
    "format": (("--formats", "gif"), "expected some of png"),
    "detrend": (("--detrend", "none"), "'none' is not one of"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_before_anything_is_loaded(
    commands: Commands, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unloaded(_: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("sae_graphs.cli.options.Source.load", unloaded)
    arguments, told = WRONG[name]
    answer = commands("granger", *arguments)
    assert answer.code == 2 and answer.out == ""
    assert told in answer.err and answer.err.count("\n") == 1, answer.err


def test_a_graphs_folder_is_kept(commands: Commands, tmp_path: Path) -> None:
    example().save(tmp_path / "graph")
    (tmp_path / "graph" / "run.json").write_text('{"files": ["graph.json"]}')
    answer = commands("granger", "--out", "graph")
    assert answer.code == 2 and "holds a graph, which this run would replace" in answer.err
