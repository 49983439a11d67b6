"""The README's commands and code, run as a reader would run them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from sae_graphs import cli
from sae_graphs.graph.annotations import Annotations, save
from sae_graphs.graph.records import FeatureId
from tests.support.hub_cache import build, cache_in_use
from tests.support.models import save_model_folder, save_sae_folder

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for _, block in BLOCKS
    for line in block.splitlines()
    if line.startswith("sae-graphs ") and not line.startswith("sae-graphs view ")  # it goes on
]
HUB_STACKS = ("gpt2-small", "gemma-2-2b")  # generated, under the names that the commands ask for
PYTHON = [block for language, block in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the commands run one after the other, with a text and a model of its own."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "corpus.txt").write_text("the cat sat on the mat and the dog ran\n" * 30)
    (folder / "prompts.txt").write_text("Copyright (C\nThe Bosworth manual. Copyright (C\n")
    save(Annotations(pins=(FeatureId("3", 988),)), folder / "annotations.json")
    save_model_folder(folder / "model")
    save_sae_folder(folder / "saes")
    for stack in HUB_STACKS:
        build(folder / "hub", stack)
    return folder


def test_the_readme_has_commands_and_code() -> None:
    assert len(COMMANDS) >= 5
    assert len(PYTHON) >= 2


def test_commands_and_code_do_what_they_say(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    for command in COMMANDS:
        text = command.replace("--model DIR", "--model model").replace("--saes DIR", "--saes saes")
        monkeypatch.setattr(sys, "argv", shlex.split(text))
        with pytest.raises(SystemExit) as ended, cache_in_use(workplace / "hub", *HUB_STACKS):
            cli.main()
        printed = capsys.readouterr()
        assert ended.value.code == 0, f"{command}: {printed.err}"
        assert printed.out.strip(), command
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), {})
    assert (workplace / "outputs" / "copyright-c" / "graph.png").stat().st_size > 10_000
    assert (workplace / "graph.json").is_file()


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not re.findall(r"\b(?:TODO|TBD|FIXME|XXX|FULL|MEMORY|DEV|REPRO)\b", README)


def test_pictures_that_the_readme_shows_are_there() -> None:
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert shown
    for path in shown:
        assert (Path(__file__).resolve().parent.parent / path).is_file(), path
