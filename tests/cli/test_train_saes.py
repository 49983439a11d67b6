"""`sae-graphs train-saes`: a training from the command line, and what it says to mistakes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.models import CORPUS, save_model

SMALL = ("--tokens=3000", "--held-out=300", "--context=16", "--features=48", "--active=8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model("llama", tmp_path_factory.mktemp("llama") / "model"))


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    source, words = random.Random(0), CORPUS.split()
    lines = (" ".join(source.choices(words, k=12)) for _ in range(1000))
    (tmp_path / "text.txt").write_text("\n".join(lines))
    (tmp_path / "nothing").mkdir()
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.mark.slow
def test_it_foretells_trains_measures_and_says_how_to_go_on(
    commands: Commands, model: str, tmp_path: Path
) -> None:
    given = ["--model", model, "--layers", "0,2", "--text", "text.txt", *SMALL, "--passes=2"]
    answer = commands("train-saes", *given)
    assert answer.code == 0, answer.err
    assert answer.err.startswith("activations: 1MiB of the disk, about ")
    assert "blocks.0.hook_resid_post" in answer.out
    assert "on 2,032 tokens" not in answer.out  # rows of 16 tokens, 128 of them
    assert "on 1,920 tokens that were held out" in answer.out
    command = next(line for line in answer.out.splitlines() if "sae-graphs graph" in line)
    saes = tmp_path / "outputs" / "saes-model" / "saes"
    assert {path.name for path in saes.iterdir()} == {
        "blocks.0.hook_resid_post",
        "blocks.2.hook_resid_post",
    }
    assert command.endswith(f"--model {model} --saes outputs/saes-model/saes")
    drawn = commands("graph", "the cat sat", "--model", model, "--saes", str(saes), "--nodes", "4")
    assert drawn.code == 0, drawn.err
    again = commands("train-saes", *given)
    assert again.err.startswith("all SAEs are trained")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--layers 0,2", "no text to train on"),
        ("--text text.txt", "no layers are given; expected blocks' numbers"),
        ("--text text.txt --layers 0-2", "layers '0-2'; expected blocks' numbers"),
        ("--text text.txt --layers 1", "two or more different blocks"),
        ("--text text.txt --layers 1,1", "two or more different blocks"),
        ("--text none --layers 0,2", "no text file and no folder none"),
        ("--text nothing --layers 0,2", "the folder nothing holds no files"),
        ("--text text.txt --dataset x --layers 0,2", "are both given"),
        ("--text text.txt --split test --layers 0,2", "--split is for a --dataset"),
        ("--text text.txt --layers 0,9 --model MODEL", "no block 9; its blocks are 0 to 2"),
        ("--text text.txt --layers 0,2 --model MODEL", "2,000,000 are wanted"),
        ("--text text.txt --layers 0,2 --model MODEL --active 90", "expected fewer"),
        ("--text text.txt --layers 0,2 --model MODEL --tokens 9", "too few to train on"),
    ],
)
def test_a_mistake_is_one_line(commands: Commands, model: str, given: str, said: str) -> None:
    answer = commands("train-saes", *given.replace("MODEL", model).split())
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.startswith("error: ")
    assert len(answer.err.strip().splitlines()) == 1


def test_its_help_has_an_example(commands: Commands) -> None:
    answer = commands("train-saes", "--help")
    assert answer.code == 0
    assert "sae-graphs train-saes --model smollm2 --layers 5,15,25 --text corpus/" in answer.out
