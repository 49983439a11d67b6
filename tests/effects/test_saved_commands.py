"""`sae-graphs graph --from`: without torch, beside what was there, mistakes in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sae_graphs.effects.replot import replot
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.runs import EFFECTS, folder_for
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_graph
from tests.support.models import PROMPT
from tests.support.saved_effects import Saved, measured, saved_run

# -- the commands ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_draws_without_torch_and_beside(commands: Commands, tmp_path: Path) -> None:
    answer = commands("graph", "Copyright (C", *EFFECT, "--save-effects", "--formats", "dot")
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / "copyright-c"
    record = json.loads((folder / "run.json").read_text())
    assert EFFECTS in record["files"]
    assert set(record["files"]) == {path.name for path in folder.iterdir()}
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["copyright-c"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code = (
        "import sys\nfrom sae_graphs import cli\n"
        "sys.argv = 'sae-graphs graph --from outputs/copyright-c --top-k 12'.split()\n"
        "try:\n    cli.main()\nfinally:\n    assert 'torch' not in sys.modules, 'slow'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    again = tmp_path / "outputs" / "copyright-c-top-k-12"
    assert CausalGraph.load(again).run.settings["top_k"] == 12
    record = json.loads((again / "run.json").read_text())
    assert set(record["files"]) == {path.name for path in again.iterdir()}
    assert record["replotted_from"] == str(folder)
    assert "wrote outputs/copyright-c-top-k-12/" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_saved_effects_outlive_plain_runs(commands: Commands, tmp_path: Path) -> None:
    """Runs that save none go elsewhere; told to go there, they refuse before loading anything."""
    plain = ("graph", "Copyright (C", *EFFECT, "--formats", "dot")
    assert commands(*plain, "--save-effects").code == 0
    kept = (tmp_path / "outputs" / "copyright-c" / EFFECTS).read_bytes()
    for _ in range(2):
        assert commands(*plain).code == 0
    folders = sorted((tmp_path / "outputs").iterdir())
    assert [folder.name[:12] for folder in folders] == ["copyright-c", "copyright-c-"]
    assert not (folders[1] / EFFECTS).exists()
    answer = commands(*plain, "--out", "outputs/copyright-c", "--model", "no/such")
    assert answer.code == 2 and len(answer.err.strip().splitlines()) == 1
    for words in (EFFECTS, "would delete", "--save-effects", "--out"):
        assert words in answer.err
    assert (folders[0] / EFFECTS).read_bytes() == kept
    assert commands(*plain, "--save-effects", "--read", "2").code == 0  # asked for: these are new
    assert (folders[0] / EFFECTS).read_bytes() != kept
    assert sorted((tmp_path / "outputs").iterdir()) == folders


def test_folders_with_effects_are_passed_over(tmp_path: Path) -> None:
    asked = (tmp_path, "a b", "demo", None)
    names = []
    for _ in range(3):
        folder = folder_for(*asked)
        names.append(folder.name)
        folder.mkdir()
        (folder / EFFECTS).touch()
    assert names[0] == "a-b" and names[2] == f"{names[1]}-2"
    assert folder_for(*asked, save_effects=True).name == "a-b"


@pytest.mark.parametrize("name", [EFFECTS, "graph.json"])
def test_from_a_file_of_the_run(commands: Commands, saved: Saved, name: str) -> None:
    saved[0].save(saved[1])
    answer = commands("graph", "--from", str(saved[1] / name), "--top-k", "5", "--formats", "dot")
    assert answer.code == 0, answer.err
    assert "drawn again in" in answer.out and "by the earlier run" in answer.out
    again = saved[1].with_name("run-top-k-5")
    assert measured(CausalGraph.load(again)) == measured(replot(saved[1] / name, top_k=5))
    assert json.loads((again / "run.json").read_text())["replotted_from"] == str(saved[1])


def test_output_tokens_that_are_not_drawn(tiny: InstrumentedModel, tmp_path: Path) -> None:
    graph = saved_run(tiny, PROMPT, tmp_path, outputs=5, top_k=3, min_path_edges=1)
    drawn = {node.feature for node in graph.nodes if node.feature.is_output}
    missing = 5 - len(drawn)
    assert 2 <= missing <= 4
    said = f"{missing} of 5 output tokens have no edge on a kept path; raise top_k"
    assert said in graph.run.warnings
    assert said in replot(tmp_path).run.warnings
    full = replot(tmp_path, top_k=10**6)
    assert not any("output tokens" in warning for warning in full.run.warnings)
    pinned = effect_graph(tiny, PROMPT, outputs=2, pin=(str(graph.edges[-1].source),))
    if graph.edges[-1].source.layer != "3":
        (warning,) = [text for text in pinned.run.warnings if "output tokens" in text]
        assert warning.endswith("no ablation in layer 3 changed their logits")


@pytest.mark.slow
def test_from_what_was_drawn_from(commands: Commands, tmp_path: Path) -> None:
    """A re-plot carries the effects on, and may take its own place."""
    commands("graph", "Copyright (C", *EFFECT, "--save-effects", "--formats", "dot", "--out", "a")
    first = CausalGraph.load("a")
    for source, target in (("a", "b"), ("b", "b"), ("b", "c")):
        answer = commands(
            *("graph", "--from", source, "--out", target, "--top-k", "3", "--formats", "dot")
        )
        assert answer.code == 0, answer.err
    assert CausalGraph.load("b").edges == CausalGraph.load("c").edges != first.edges
    commands("graph", "--from", "c", "--top-k", "8", "--out", "d", "--formats", "dot")
    assert measured(CausalGraph.load("d")) == measured(first)
    assert [n.contexts for n in CausalGraph.load("d").nodes] == [n.contexts for n in first.nodes]


@pytest.mark.slow
def test_from_with_layers_or_pins_keeps_the_effects_where_they_are(
    commands: Commands, tmp_path: Path
) -> None:
    commands("graph", "Copyright (C", *EFFECT, "--save-effects", "--formats", "dot", "--out", "a")
    pin = str(CausalGraph.load("a").edges[0].source)
    answer = commands("graph", "--from", "a", "--pin", pin, "--formats", "dot")
    assert answer.code == 0, answer.err
    assert (tmp_path / f"a-pin-{pin}" / "graph.json").is_file()
    assert not (tmp_path / f"a-pin-{pin}" / EFFECTS).exists()
    answer = commands("graph", "--from", "a", "--layers", "2:5", "--formats", "dot")
    assert (tmp_path / "a-layers-2-5" / "graph.json").is_file(), answer.err
    answer = commands("graph", "--from", "a", "--pin", pin, "--out", "a")
    assert answer.code == 2 and "--out" in answer.err
    assert (tmp_path / "a" / EFFECTS).is_file()


WITH_FROM = {
    "prompt": (["text"], "the prompt"),
    "model": (["--model", "demo"], "--model"),
    "ablate": (["--ablate", "read", "--read", "3"], "--ablate, --read"),
    "effects": (["--save-effects"], "--save-effects"),
    "bos": (["--no-prepend-bos"], "prepend-bos"),
    "top-k": (["--top-k", "0"], "top_k is 0"),
    "formats": (["--formats", "gif"], "gif"),
    "pin": (["--pin", "1.999999"], "1.999999"),
}


@pytest.mark.parametrize("arguments, named", WITH_FROM.values(), ids=WITH_FROM.keys())
def test_mistakes_with_from(
    commands: Commands, saved: Saved, arguments: list[str], named: str
) -> None:
    answer = commands("graph", "--from", str(saved[1]), *arguments)
    assert answer.code == 2 and named in answer.err and answer.out == ""
    assert len(answer.err.strip().splitlines()) == 1
    assert {path.name for path in saved[1].parent.iterdir()} == {"run"}


def test_from_a_folder_without_effects(commands: Commands, saved: Saved, tmp_path: Path) -> None:
    saved[0].save(tmp_path / "here")
    for folder, named in (("here", "--save-effects"), ("nowhere", "nowhere")):
        answer = commands("graph", "--from", folder, "--top-k", "3")
        assert answer.code == 2 and named in answer.err
