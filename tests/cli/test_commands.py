"""The commands, as a user types them: what they print, write, and say to a mistake."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

import sae_graphs as sg
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.runs import writing
from tests.support.atlases import atlas_by_hand
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_graph
from tests.support.models import save_model_folder, save_sae_folder
from tests.support.slow import slow

# Each command with what it must not load, in one process: what loads least comes first.
WITHOUT_TORCH = """
import sys
from sae_graphs import cli
helps = [[*name.split(), "--help"] for name in ("", "graph", "edges", "contexts")]
drawn = {"torch", "pandas", "matplotlib", "pyarrow"}
for command, slow in (
    *((command, drawn) for command in helps),
    (["export", "x", "--formats", "png"], drawn),  # a mistake, which is told at once
    (["edges", "here"], {"torch"}),
    (["export", "here"], {"torch"}),
    (["atlas", "build", "--prompts", "none.csv"], {"torch"}),  # a mistake
    (["atlas", "query", "atlas"], {"torch"}),
):
    sys.argv = ["sae-graphs", *command]
    try:
        cli.main()
    except SystemExit as ended:
        print("ended:", ended.code)
    assert not slow & sys.modules.keys(), f"{command} loads {slow & sys.modules.keys()}"
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.pictures import svg
assert svg(CausalGraph.load("here")) and "torch" not in sys.modules
"""


Folders = tuple[str, str]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    """Run a command in an empty folder: `run("graph", "text", "--top-k", "3")`."""
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders of a tiny model and its SAEs."""
    root = tmp_path_factory.mktemp("tiny")
    return str(save_model_folder(root / "model")), str(save_sae_folder(root / "saes"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the bundled model, without pictures."""
    from sae_graphs.cli.outputs import write_run

    folder = tmp_path_factory.mktemp("made") / "here"
    graph = effect_graph(sg.load("demo"), "Copyright (C")
    write_run(folder, graph, formats=("dot",), seconds=1.0)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "here"))


@pytest.mark.slow
def test_graph_writes_a_complete_folder(run: Commands, tmp_path: Path) -> None:
    answer = run("graph", "Copyright (C", *EFFECT)
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / "copyright-c"
    record = json.loads((folder / "run.json").read_text())
    assert set(record["files"]) == {path.name for path in folder.iterdir()}
    assert {"graph.json", "graph.svg", "graph.png", "graph.dot", "graph.html"} <= set(
        record["files"]
    )
    assert "next token" in answer.out and "strongest path" in answer.out
    assert "wrote outputs/copyright-c/" in answer.out


def test_graph_json_opens_without_this_package(made: Path) -> None:
    with (made / "graph.json").open() as file:
        graph = nx.node_link_graph(json.load(file), edges="edges")
    assert graph.graph["prompt"] == "Copyright (C"
    assert graph.graph["tokens"][graph.graph["read_position"]].strip() == "C"
    for name, node in graph.nodes(data=True):
        assert name == f"{node['layer']}.{node['index']}"
        assert node["component"] >= 1
    ours = CausalGraph.load(made)
    assert {(str(e.source), str(e.target), e.effect) for e in ours.edges} == set(
        graph.edges(data="effect")
    )


@pytest.mark.slow
def test_second_run_replaces_the_first_and_keeps_notes(run: Commands, tmp_path: Path) -> None:
    run("graph", "Copyright (C", *EFFECT, "--formats", "svg,dot", "--out", "here")
    (tmp_path / "here" / "notes.txt").write_text("mine")
    run("graph", "Copyright (C", *EFFECT, "--formats", "dot", "--out", "here")
    assert not list((tmp_path / "here").glob("*.svg"))
    assert (tmp_path / "here" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_prompts_with_one_slug_get_two_folders(run: Commands, tmp_path: Path) -> None:
    run("graph", "Copyright (C", *EFFECT, "--formats", "dot")
    run("graph", "Copyright [C", *EFFECT, "--formats", "dot")
    assert len(list((tmp_path / "outputs").iterdir())) == 2


@pytest.mark.slow
def test_blank_text_is_a_prompt(run: Commands, tmp_path: Path) -> None:
    """As it is in Python: a model can be asked what follows two spaces."""
    answer = run("graph", "  ", "--formats", "dot", "--nodes", "2")
    assert answer.code == 0, answer.err
    assert CausalGraph.load(tmp_path / "outputs" / "prompt").run.prompt == "  "


@pytest.mark.slow
def test_another_prompt_in_its_folder_is_told(run: Commands, tmp_path: Path) -> None:
    options = ("--select", "effect", "--out", "mine", "--formats", "dot")
    assert "another prompt" not in run("graph", "one two", *options).err
    assert "another prompt" not in run("graph", "one two", *options).err
    told = run("graph", "two three", *options).err
    assert "mine holds the run of another prompt, 'one two': it is replaced" in told


def test_two_runs_into_one_folder(run: Commands, tmp_path: Path) -> None:
    """The second is told at once, and the first is not disturbed."""
    with writing(tmp_path / "mine"):
        answer = run("graph", "one two", "--out", "mine")
    assert answer.code == 2 and "another run is writing into" in answer.err
    assert len(answer.err.strip().splitlines()) == 1 or "loading" not in answer.err
    assert not list(tmp_path.glob(".mine*"))


def test_a_local_model_with_local_saes(run: Commands, folders: Folders, tmp_path: Path) -> None:
    model, saes = folders
    options = ("--min-path-edges", "1", "--formats", "dot")
    answer = run("graph", "the cat", *EFFECT, "--model", model, "--saes", saes, *options)
    assert answer.code == 0, answer.err
    (folder,) = (tmp_path / "outputs").iterdir()
    graph = CausalGraph.load(folder)
    assert graph.edges and graph.run.model == model and graph.run.saes == saes


def test_edges_filters_and_formats(run: Commands, here: Path) -> None:
    graph = CausalGraph.load(here)
    first = graph.edges[0]
    rows = json.loads(run("edges", "here", "--format", "json").out)
    assert [row["effect"] for row in rows] == [edge.effect for edge in graph.edges]
    text = run("edges", "here", "--source", str(first.source), "--format", "csv").out
    assert {row["source"] for row in csv.DictReader(io.StringIO(text))} == {str(first.source)}
    lowered = json.loads(run("edges", "here", "--sign", "promotes", "--format", "json").out)
    assert lowered and all(row["effect"] < 0 for row in lowered)
    assert str(first.target) in run("edges", "here", "--limit", "1").out


def test_contexts_are_found_in_a_text_file(run: Commands, folders: Folders, tmp_path: Path) -> None:
    model, saes = folders
    copy = shutil.copytree(saes, tmp_path / "saes")
    (tmp_path / "text.txt").write_text("Copyright (C) 1998 hello world\n" * 40)
    answer = run("contexts", "--text", "text.txt", "--model", model, "--saes", str(copy))
    assert answer.code == 0, answer.err
    assert len(list(copy.glob("*/contexts.safetensors"))) == len(list(copy.iterdir()))


MISTAKES = {
    "empty prompt": (["graph", ""], "prompt"),
    "no prompt": (["graph"], "prompt"),
    "unknown command": (["grahp", "x"], "grahp"),
    "unknown model": (["graph", "x", "--model", "no/such", "--saes", "SAES"], "no/such"),
    "model folder without config": (["graph", "x", "--model", ".", "--saes", "SAES"], "config"),
    "unknown SAEs": (["graph", "x", "--saes", "no-such-release"], "no-such-release"),
    "no SAEs known": (["graph", "x", "--model", "MODEL"], "--saes"),
    "SAEs are a file": (["graph", "x", "--saes", "file.txt"], "file"),
    "SAE folder empty": (["graph", "x", "--saes", "empty"], "no SAEs"),
    "SAEs of another width": (["graph", "x", "--saes", "SAES"], "dimensions"),
    "top-k 0": (["graph", "x", "--top-k", "0"], "top_k"),
    "top-k negative": (["graph", "x", "--top-k", "-3"], "top_k"),
    "top-k a word": (["graph", "x", "--top-k", "many"], "many"),
    "paths too long": (["graph", "x", *EFFECT, "--min-path-edges", "99"], "99"),
    "paths of none": (["graph", "x", *EFFECT, "--min-path-edges", "0"], "min_path_edges"),
    "per what": (["graph", "x", "--per", "token"], "token"),
    "ablate where": (["graph", "x", "--ablate", "none"], "none"),
    "layers without colon": (["graph", "x", "--layers", "3"], "3"),
    "layers reversed": (["graph", "x", "--layers", "4:1"], "4:1"),
    "layers outside": (["graph", "x", "--layers", "2:40"], "40"),
    "read outside": (["graph", "x", "--read", "50"], "50"),
    "read far back": (["graph", "x", "--read", "-50"], "-50"),
    "pin malformed": (["graph", "x", "--pin", "five"], "five"),
    "pin in no layer": (["graph", "x", "--pin", "99.1"], "99"),
    "pin out of range": (["graph", "x", "--pin", "1.999999"], "999999"),
    "pin in the last layer": (["graph", "x", *EFFECT, "--pin", "6.1"], "last layer"),
    "no CUDA": (["graph", "x", "--device", "cuda"], "cuda"),
    "no such device": (["graph", "x", "--device", "toaster"], "toaster"),
    "no such dtype": (["graph", "x", "--dtype", "int8"], "int8"),
    "formats": (["graph", "x", "--formats", "svg,gif"], "gif"),
    "output is a file": (["graph", "x", "--out", "file.txt"], "file.txt"),
    "output under a file": (["graph", "x", "--out", "file.txt/run"], "file.txt"),
    "output holds other files": (["graph", "x", "--out", "full"], "full"),
    "output is this folder": (["graph", "x", "--out", "."], "folder you are in"),
    "steps of the exact method": (["graph", "x", "--steps", "5"], "--method integrated-gradients"),
    "steps of one gradient": (
        ["graph", "x", "--method", "gradient", "--steps", "10"],
        "--steps is for --method integrated-gradients",
    ),
    "read everywhere": (["graph", "x", *EFFECT, "--read", "all"], "--ablate each"),
    "pin at a position": (["graph", "x", *EFFECT, "--pin", "3.309@1"], "--ablate each"),
    "nodes of an effect graph": (["graph", "x", *EFFECT, "--nodes", "4"], "--nodes"),
    "dense in an effect graph": (["graph", "x", *EFFECT, "--dense"], "--select answer"),
    "per in an answer graph": (["graph", "x", "--per", "source"], "--select effect"),
    "paths of an answer graph": (["graph", "x", "--min-path-edges", "2"], "--min-path-edges"),
    "where an answer graph ablates": (["graph", "x", "--ablate", "all"], "--ablate"),
    "outputs of an answer graph": (["graph", "x", "--outputs", "2"], "--outputs"),
    "two answers": (["graph", "x", "--target", "a", "--target", "b"], "one answer"),
    "an answer after the first token": (["graph", "x", "--read", "0"], "--select effect"),
    "no nodes": (["graph", "x", "--nodes", "0"], "nodes"),
    "no such kind of graph": (["graph", "x", "--select", "all"], "all"),
    "seed too large": (["graph", "x", "--seed", str(10**30)], "seed"),
    "SAEs of no name": (["graph", "x", "--saes", ""], "no SAEs given"),
    "folder of other things": (["graph", "x", "--saes", "others"], "holds no SAEs"),
    "contexts of the bundled SAEs": (["contexts", "--text", "file.txt"], "--saes"),
    "no graph there": (["edges", "nowhere"], "nowhere"),
    "graph corrupt": (["edges", "broken.json"], "broken.json"),
    "graph of another schema": (["edges", "old.json"], "old"),
    "no text": (["contexts", "--text", "nowhere.txt"], "nowhere.txt"),
    "text empty": (
        ["contexts", "--text", "empty.txt", "--model", "MODEL", "--saes", "SAES"],
        "empty",
    ),
}


@pytest.mark.parametrize("arguments, named", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_get_one_line_and_exit_2(
    run: Commands, folders: Folders, tmp_path: Path, arguments: list[str], named: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "others" / "thing").mkdir(parents=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "broken.json").write_text('{"nodes": [')
    old = {"directed": True, "multigraph": False, "graph": {"schema": "old"}, "nodes": []}
    (tmp_path / "old.json").write_text(json.dumps({**old, "edges": []}))
    before = sorted(tmp_path.rglob("*"))
    places = {"MODEL": folders[0], "SAES": folders[1]}
    answer = run(*(places.get(word, word) for word in arguments))
    assert answer.code == 2
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), answer.err
    assert named in lines[0]
    assert answer.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_no_command_shows_the_help(run: Commands) -> None:
    answer = run()
    assert answer.code == 0 and "graph" in answer.out and not answer.err


@pytest.mark.slow
def test_a_terminal_that_knows_only_ascii(
    run: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run("graph", "Copyright (C", *EFFECT, "--formats", "dot").code == 0
    assert (tmp_path / "outputs" / "copyright-c" / "graph.json").is_file()
    terminal.flush()
    shown = written.getvalue()
    assert b"next token" in shown and b"?" in shown


def test_ctrl_c_writes_nothing_and_says_so(
    run: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sae_graphs.effects.build

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sae_graphs.effects.build, "causal_graph", interrupted)
    answer = run("graph", "Copyright (C", *EFFECT)
    assert answer.code == 130
    assert answer.err.strip() == "stopped; no half-written file is left"
    assert list(tmp_path.iterdir()) == []


BEGUN, NOT_BEGUN = "stopped; no half-written file is left\n", "stopped; nothing was begun\n"


@pytest.mark.parametrize(
    ("module", "raised", "told"),
    [
        slow(("typer", "KeyboardInterrupt", NOT_BEGUN)),
        ("networkx", "KeyboardInterrupt", NOT_BEGUN),
        ("torch", "KeyboardInterrupt", BEGUN),
        slow(("torch", "ModuleNotFoundError('lost') from KeyboardInterrupt()", BEGUN)),
    ],
)
def test_ctrl_c_while_modules_are_still_imported(
    module: str, raised: str, told: str, tmp_path: Path
) -> None:
    """As it is in the first instants, before anything of ours could answer it."""
    code = f"""
import sys

class Interrupts:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            raise {raised}

sys.meta_path.insert(0, Interrupts())
sys.argv = ["sae-graphs", "graph", "Copyright (C"]
from sae_graphs.__main__ import main
main()
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert (found.returncode, found.stderr) == (130, told)
    assert not list(tmp_path.iterdir())


def test_prompt_longer_than_the_context(run: Commands) -> None:
    answer = run("graph", "word " * 400)
    assert answer.code == 2 and "at most" in answer.err


def test_pin_that_is_inactive(run: Commands, made: Path) -> None:
    active = {n.feature.index for n in CausalGraph.load(made).nodes if n.feature.layer == "1"}
    for index in range(len(active) + 200):
        answer = run("graph", "Copyright (C", *EFFECT, "--pin", f"1.{index}", "--formats", "dot")
        if answer.code:
            assert answer.code == 2 and "inactive" in answer.err
            return
    pytest.fail("every feature was active")


@pytest.mark.usefixtures("here")
def test_edges_of_a_feature_that_is_not_there(run: Commands) -> None:
    answer = run("edges", "here", "--source", "1.999999")
    assert answer.code == 2 and "1.999999" in answer.err
    assert run("edges", "here", "--component", "99").code == 2


def test_no_path_left_is_not_an_error(run: Commands, tmp_path: Path) -> None:
    answer = run(
        "graph", "Copyright (C", *EFFECT, "--top-k", "1", "--min-path-edges", "6", "--out", "here"
    )
    assert answer.code == 0
    if not CausalGraph.load(tmp_path / "here").edges:
        assert "min_path_edges" in answer.out
        assert (tmp_path / "here" / "graph.svg").stat().st_size > 0


@pytest.mark.slow
def test_hostile_prompt_draws_and_prints(run: Commands, tmp_path: Path) -> None:
    prompt = "<script>alert('&\"')</script>\x1b[31m\u202e\nCopyright (C"
    answer = run("graph", prompt, *EFFECT, "--out", "here")
    assert answer.code == 0, answer.err
    assert "\x1b[31m" not in answer.out and "\u202e" not in answer.out
    page = (tmp_path / "here" / "graph.html").read_text()
    assert "<script>alert" not in page
    assert CausalGraph.load(tmp_path / "here").run.prompt == prompt


@pytest.mark.usefixtures("here")
def test_help_mistakes_edges_exports_and_questions_do_not_load_torch(tmp_path: Path) -> None:
    atlas_by_hand(tmp_path / "atlas", {"a x": ("left", [])})
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *helps, mistake, edges, exported, built, asked, last = re.split(r"ended: (?=\d)", done.stdout)
    assert len(helps) == 4 and all("Example" in text for text in helps[1:])
    assert all(text.startswith("0\n") for text in helps[1:])
    assert mistake == "0\n" and edges.startswith("2\n")
    assert str(CausalGraph.load(tmp_path / "here").edges[0].source) in edges
    assert exported.startswith("0\n") and "wrote here/exports/" in exported
    assert built == "0\n" and asked == "2\nnothing fits\n" and last == "0\n"
    assert "cannot read prompts from none.csv" in done.stderr
