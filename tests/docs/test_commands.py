"""The commands and the code of README.md and docs/, run as a reader would run them."""

from __future__ import annotations

import json
import random
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from sae_graphs import cli
from sae_graphs.graph.annotations import Annotations, save
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.pretrained.smollm2 import NAME, in_wheel, shipped_saes
from tests.support.documents import EVERY, README, Page
from tests.support.hub_cache import build, cache_in_use
from tests.support.models import CORPUS, save_model_folder, save_sae_folder

HUB_STACKS = ("gpt2-small", "gemma-2-2b")  # generated, under the names that the commands ask for


# What trains on a corpus, on one that is trained on in seconds.
SMALLER = " --tokens 3000 --held-out 300 --context 16 --features 48 --active 8 --passes 2"


def has_smollm2() -> bool:
    """Whether the model and its SAEs are here, which commands that name it need."""
    return in_wheel() is not None and shipped_saes(NAME) is not None


def less(command: str, *, quickly: bool) -> str:
    """Options for fewer controls, runs and facts than claims need.

    `quickly`, no picture but the first, and so few controls that no verdict can be "necessary": a
    p of 1 / 11 is above 0.05.
    """
    if command.startswith("sae-graphs validate "):
        return f" --controls {10 if quickly else 20}"
    if command.startswith("sae-graphs trace "):
        return " --noise-runs 1"
    if command.startswith("sae-graphs edit --cases "):
        return " --first 1 --steps 3" if "--where" in command else " --first 1"
    drawn = command.startswith("sae-graphs graph ") and "--out " in command
    return " --formats dot" if drawn and quickly else ""


class Reader:
    """Runs what pages say in the folder that it stands in, each command once."""

    def __init__(
        self,
        workplace: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        stacks: Iterable[str] = (),
    ) -> None:
        self.workplace, self.monkeypatch, self.capsys = workplace, monkeypatch, capsys
        self.stacks = tuple(stacks)
        self.done: set[str] = set()
        monkeypatch.chdir(workplace)
        monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))

    def follow(self, document: Page, *, quickly: bool = False) -> None:
        """Run a page's commands, then its code, with `less` work."""
        for command in document.commands:
            command = f"{command}{less(command, quickly=quickly)}"
            real = f"--model {NAME}" in command
            left_out = real and (not has_smollm2() or "--cases" in command)  # minutes
            goes_on = command.startswith("sae-graphs view ")
            elsewhere = "--ray " in command  # an extra, and machines
            if command not in self.done and not (left_out or goes_on or elsewhere):
                self.run(command)
                self.done.add(command)
        for block in document.python:
            block = block.replace("controls=100", f"controls={10 if quickly else 20}")
            exec(compile(block, str(document), "exec"), {})

    def run(self, command: str) -> None:
        """Run one command: it ends well, and prints something."""
        text = command.replace("--model DIR", "--model model").replace("--saes DIR", "--saes saes")
        if command.startswith("sae-graphs train-saes "):
            text = text.replace("0,5,10", "0,1,2") + SMALLER
        self.monkeypatch.setattr(sys, "argv", shlex.split(text))
        hub = cache_in_use(self.workplace / "hub", *self.stacks)
        with pytest.raises(SystemExit) as ended, hub:
            cli.main()
        printed = self.capsys.readouterr()
        assert ended.value.code == 0, f"{command}: {printed.err}"
        assert printed.out.strip(), command


def test_a_command_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(tmp_path, monkeypatch, capsys)
    with pytest.raises(AssertionError, match="outputs/none"):
        reader.run("sae-graphs edges outputs/none")


def test_the_readme_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Reader(tmp_path, monkeypatch, capsys).follow(README, quickly=True)
    assert (tmp_path / "outputs" / "copyright-c" / "graph.png").stat().st_size > 10_000
    assert (tmp_path / "graph.json").is_file()
    for record in ("run.json", "validation/run.json"):
        file = tmp_path / "outputs" / "copyright-c" / record
        held = {each.name for each in file.parent.iterdir()}
        assert set(json.loads(file.read_text(encoding="utf-8"))["files"]) == held
    shown = CausalGraph.load(tmp_path / "outputs" / "mary")
    assert README.pictures[0][0].startswith(f'What " Mary" hangs on after "{shown.prompt}"')
    assert shown.run.outputs[0].token == " Mary" and shown.run.answer is not None
    tokens = {shown.tokens[node.feature.position] for node in shown if node.feature.position}
    assert tokens == {" Mary", " John", " to"}  # the columns of the picture


@pytest.mark.slow
def test_the_documents_do_all_that_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat and the dog ran\n" * 30)
    (tmp_path / "prompts.txt").write_text("Copyright (C\nThe Bosworth manual. Copyright (C\n")
    facts = 'prompt,subject\n"The Space Needle is famous for its",Space\n'
    (tmp_path / "facts.csv").write_text(facts)
    words = CORPUS.split()
    lines = [" ".join(random.Random(n).choices(words, k=12)) + "\n" for n in range(1000)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "text.txt").write_text("".join(lines))
    save(Annotations(pins=(FeatureId("3", 696, 3),)), tmp_path / "annotations.json")
    save_model_folder(tmp_path / "model")
    save_sae_folder(tmp_path / "saes")
    for stack in HUB_STACKS:
        build(tmp_path / "hub", stack)
    reader = Reader(tmp_path, monkeypatch, capsys, HUB_STACKS)
    for document in EVERY:  # what several of them say is done once
        reader.follow(document)
    assert (tmp_path / "outputs" / "copyright-c" / "validation" / "validation.html").is_file()
    assert len(reader.done) >= 20
    shown = CausalGraph.load(tmp_path / "outputs" / "picture")
    assert any("Twelve features" in words for page in EVERY for words, _ in page.pictures)
    assert (len(shown), len(shown.edges), shown.n_components) == (12 + 1, 13, 1)
