"""`sae-graphs validate`, as a user types it: what it writes, and what it says to a mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.validation import validate as validation
from sae_graphs.validation.evidence_json import load
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_graph
from tests.support.models import OTHER_PROMPT, PROMPT, save_model_folder, save_sae_folder
from tests.support.slow import first

SMALL = ("--controls", "19", "--paths", "1", "--snippets", "2")
QUICK = ("--controls", "3", "--paths", "1", "--quick")


@pytest.fixture(scope="module")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("tiny")
    return str(save_model_folder(root / "model")), str(save_sae_folder(root / "saes"))


@pytest.fixture(scope="module")
def made(tiny_folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `graph` writes it, of a tiny model."""
    from sae_graphs.cli.outputs import write_run
    from sae_graphs.pretrained.loading import load as load_model

    model, saes = tiny_folders
    graph = effect_graph(load_model(model, saes=saes), PROMPT)
    folder = tmp_path_factory.mktemp("made") / "run"
    write_run(folder, graph, formats=("dot",), seconds=1.0, saes=saes)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, commands: Commands) -> CausalGraph:
    """A copy of the run in `here`, and its graph."""
    shutil.copytree(made, tmp_path / "here")
    return CausalGraph.load(made)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- what it does ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bundled_model(commands: Commands, tmp_path: Path) -> None:
    assert commands("graph", "Copyright (C", *EFFECT, "--formats", "dot").code == 0
    answer = commands("validate", "outputs/copyright-c", "--prompt", "All rights (C", *SMALL)
    assert answer.code == 0, answer.err
    run = tmp_path / "outputs" / "copyright-c"
    folder = run / "validation"
    record = json.loads((folder / "run.json").read_text())
    assert set(record["files"]) == {path.name for path in folder.iterdir()}
    report = load(folder)
    assert report.test == ("All rights (C",) and report.corpus == "the bundled corpus"
    assert report.settings["controls"] == 19 and record["tested"] == len(report.units)
    assert "validation" in json.loads((run / "run.json").read_text())["files"]
    assert "Graph 1" in answer.out and "wrote outputs/copyright-c/validation/" in answer.out
    assert not list(run.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("given", first(1, ["here", "here/graph.json"]))
@pytest.mark.usefixtures("here")
def test_a_run_is_its_folder_or_its_graph(commands: Commands, tmp_path: Path, given: str) -> None:
    answer = commands("validate", given, *QUICK)
    assert answer.code == 0, answer.err
    report = load(tmp_path / "here" / "validation")
    assert report.prompt == PROMPT and report.test == ()


@pytest.mark.slow
def test_options_reach_the_report(commands: Commands, here: CausalGraph, tmp_path: Path) -> None:
    edge = here.edges[0]
    (tmp_path / "prompts.txt").write_text(f"{OTHER_PROMPT}\n\nthe red cat\n")
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog ran\n" * 40)
    words = ["--prompt", "the old dog", "--prompts", "prompts.txt", "--text", "text.txt"]
    words += ["--target", " cat", "--contrast", " dog", "--seed", "5"]
    words += ["--path", f"{edge.source} -> {edge.target}"]
    words += ["--curve", f"{edge.source} > {edge.target}", "--out", "there"]
    answer = commands("validate", "here", *SMALL, *words)
    assert answer.code == 0, answer.err
    report = load(tmp_path / "there")
    assert report.test == ("the old dog", OTHER_PROMPT, "the red cat")
    assert (report.target, report.contrast, report.corpus) == (" cat", " dog", "text.txt")
    (unit,) = report.units
    assert unit.features == (edge.source, edge.target)
    assert [curve.effect for curve in report.curves] == [str(edge.target)] * 2
    assert report.settings["seed"] == 5
    assert not (tmp_path / "here" / "validation").exists()


@pytest.mark.slow
def test_discovery(commands: Commands, tiny_folders: tuple[str, str], tmp_path: Path) -> None:
    model, saes = tiny_folders
    prompts = [PROMPT, PROMPT + " on", OTHER_PROMPT, "the cat sat on the red mat"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    words = ("--prompts", "prompts.txt", "--discover", "0.5", "--model", model, "--saes", saes)
    answer = commands("validate", *words, "--out", "found", *QUICK)
    assert answer.code == 0, answer.err
    assert "found on 2 prompts, to be tested on 2" in answer.err
    graph = CausalGraph.load(tmp_path / "found")
    report = load(tmp_path / "found" / "validation")
    assert graph.run.settings["common_to"] == 2
    assert sorted(report.discovery + report.test) == sorted(prompts)
    again = commands("validate", "found", *QUICK)  # a graph in common is a graph
    assert again.code == 0, again.err


@pytest.mark.usefixtures("here")
def test_hostile_tokens(commands: Commands, tmp_path: Path) -> None:
    prompt = "<script>x'|`\x1b[31m\u202e (s"
    answer = commands("validate", "here", "--prompt", prompt, "--target", "<", *QUICK)
    assert answer.code == 0, answer.err
    assert "\x1b[31m" not in answer.out and "\u202e" not in answer.out
    folder = tmp_path / "here" / "validation"
    assert load(folder).test == (prompt,)
    for page in folder.glob("*.html"):
        assert "<script>x" not in page.read_text()


@pytest.mark.slow
def test_a_new_graph_takes_an_old_validation_away(
    commands: Commands, tiny_folders: tuple[str, str], tmp_path: Path
) -> None:
    model, saes = tiny_folders
    draw = ("graph", "--model", model, "--saes", saes, "--formats", "dot", "--out", "here")
    assert commands(*draw, PROMPT).code == 0
    assert commands("validate", "here", *QUICK).code == 0
    (tmp_path / "here" / "notes.txt").write_text("mine")
    assert commands("validate", "here", *QUICK).code == 0  # and one replaces the other
    assert commands(*draw, OTHER_PROMPT).code == 0
    assert not (tmp_path / "here" / "validation").exists()
    assert (tmp_path / "here" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_same_command_gives_the_same_report(commands: Commands, tmp_path: Path) -> None:
    reports = []
    for folder in ("one", "two"):
        assert commands("validate", "here", *QUICK, "--out", folder).code == 0
        data = json.loads((tmp_path / folder / "validation.json").read_text())
        data.pop("seconds")
        reports.append(data)
    assert reports[0] == reports[1]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_ctrl_c_leaves_what_is_done_to_go_on_from(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert commands("validate", "here", *QUICK, "--out", "whole").code == 0
    before = files_in(tmp_path / "here")
    plain = validation._tested

    def stopping(unit: Any, *arguments: Any) -> Any:
        if unit.name == "Graph 1, path 1":
            raise KeyboardInterrupt
        return plain(unit, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "_tested", stopping)
        answer = commands("validate", "here", *QUICK)
    assert answer.code == 130
    done, stopped = answer.err.strip().splitlines()
    assert done.startswith("1 of ") and "run the same command again" in done
    assert stopped == "stopped; no half-written file is left"
    left = files_in(tmp_path / "here")
    assert left.keys() - before.keys() == {".validation.partial/path-0.json"}
    answer = commands("validate", "here", *QUICK)
    assert answer.code == 0 and answer.err.strip().startswith("resumed: 1 of "), answer.err
    assert not list((tmp_path / "here").glob(".*"))
    whole, again = (load(tmp_path / name) for name in ("whole", "here/validation"))
    assert whole.units == again.units


# -- mistakes --------------------------------------------------------------------------------------

MISTAKES = {
    "nothing to validate": ([], "nothing to validate"),
    "no such run": (["nowhere"], "nowhere"),
    "run is a text": (["text.txt"], "text.txt"),
    "graph corrupt": (["broken.json"], "broken.json"),
    "graph without edges": (["bare"], "no edges"),
    "K of 0": (["here", "--controls", "0"], "controls is 0"),
    "K negative": (["here", "--controls", "-5"], "controls is -5"),
    "K a word": (["here", "--controls", "many"], "many"),
    "paths negative": (["here", "--paths", "-1"], "paths is -1"),
    "snippets negative": (["here", "--snippets", "-1"], "snippets is -1"),
    "seed negative": (["here", "--seed", "-1"], "seed is -1"),
    "unknown option": (["here", "--colour", "red"], "--colour"),
    "unknown feature": (["here", "--path", "0.999 > 1.1"], "0.999"),
    "unknown layer": (["here", "--path", "9.1"], "'9'"),
    "not a feature": (["here", "--path", "five"], "five"),
    "path empty": (["here", "--path", ""], "path"),
    "path not in the graph": (["here", "--path", "END > START"], "is no edge of this graph"),
    "curve of one": (["here", "--curve", "START"], "cause and an effect"),
    "curve of no layer": (["here", "--curve", "9.1 > 10.1"], "'9'"),
    "curve downwards": (["here", "--curve", "END > START"], "not above"),
    "curve out of range": (["here", "--curve", "START > 1.99999"], "99999"),
    "prompt empty": (["here", "--prompt", ""], "no prompt, or an empty one"),
    "prompt too long": (["here", "--prompt", "(" * 40], "at most"),
    "prompts missing": (["here", "--prompts", "nowhere.txt"], "nowhere.txt"),
    "prompts empty": (["here", "--prompts", "empty.txt"], "holds no prompts"),
    "prompts blank": (["here", "--prompts", "blank.txt"], "holds no prompts"),
    "prompts a folder": (["here", "--prompts", "empty"], "cannot read prompts"),
    "prompts not text": (["here", "--prompts", "binary"], "cannot read prompts"),
    "target of two tokens": (["here", "--target", "the cat"], "2 tokens"),
    "target empty": (["here", "--target", ""], "0 tokens"),
    "contrast of many": (["here", "--contrast", "zebra"], "tokens"),
    "contrast is the target": (["here", "--target", "s", "--contrast", "s"], "give two tokens"),
    "text empty": (["here", "--text", "empty.txt"], "holds no text"),
    "text too short": (["here", "--text", "text.txt", *SMALL], "give one of at least"),
    "another model": (["here", "--model", "demo"], "the model has"),
    "no model": (["here", "--model", "no/such", "--saes", "SAES"], "no/such"),
    "model moved away": (["moved"], "gone"),
    "no CUDA": (["here", "--device", "cuda"], "cuda"),
    "no dtype": (["here", "--dtype", "int8"], "int8"),
    "run and discover": (["here", "--discover", "0.5"], "give one of them"),
    "discover nothing": (["--discover", "0.5"], "no prompts to discover"),
    "discover on one": (["--discover", "0.5", "--prompt", "x"], "at least 2"),
    "discover on all": (["--discover", "1", "--prompt", "x", "--prompt", "y"], "between 0 and 1"),
    "discover on none": (["--discover", "0", "--prompt", "x", "--prompt", "y"], "between 0 and 1"),
    "discover a word": (["--discover", "half", "--prompt", "x"], "half"),
    "out is a file": (["here", "--out", "text.txt"], "text.txt"),
    "out holds others": (["here", "--out", "full"], "full"),
    "out is the run": (["here", "--out", "here"], "holds a graph"),
    "out is another run": (["here", "--out", "moved"], "holds a graph"),
    "out is this folder": (["here", "--out", "."], "folder you are in"),
}


@pytest.mark.parametrize("arguments, named", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_get_one_line_and_exit_2(
    commands: Commands,
    here: CausalGraph,
    tiny_folders: tuple[str, str],
    tmp_path: Path,
    arguments: list[str],
    named: str,
) -> None:
    for folder in ("empty", "full", "moved", "bare"):
        (tmp_path / folder).mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "text.txt").write_text("mine")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.json").write_text('{"nodes": [')
    text = (tmp_path / "here" / "graph.json").read_text()
    moved = text.replace(json.dumps(tiny_folders[0]), json.dumps(str(tmp_path / "gone")))
    (tmp_path / "moved" / "graph.json").write_text(moved)
    CausalGraph(here.run, (), ()).save(tmp_path / "bare")
    before = files_in(tmp_path)
    start, end = here.edges[0].source, here.edges[0].target
    places = {"SAES": tiny_folders[1], "START": str(start), "END": str(end)}
    words = []
    for word in arguments:
        for name, value in places.items():
            word = word.replace(name, value)
        words.append(word)
    answer = commands("validate", *words)
    assert answer.code == 2, answer
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), answer.err
    assert named in lines[0], lines[0]
    assert answer.out == "" and "Traceback" not in answer.err
    assert files_in(tmp_path) == before
