"""`sae-graphs contexts`: from files and datasets, interrupted, and what it says to mistakes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from sae_graphs.features import batches as row_batches
from sae_graphs.features import store as context_store
from sae_graphs.features.contexts import FILE_NAME
from sae_graphs.pretrained import corpora
from sae_graphs.pretrained.corpora import Corpus
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT
from tests.support.hub_cache import build, cache_in_use
from tests.support.models import save_model_folder, save_sae_folder

LINES = [f"the cat sat on the old mat number {n} (and the dog ran)" for n in range(40)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a tiny model and its SAEs."""
    root = tmp_path_factory.mktemp("tiny")
    return save_model_folder(root / "model"), save_sae_folder(root / "saes")


@pytest.fixture
def folders(made: tuple[Path, Path], tmp_path: Path) -> list[str]:
    """Options that name the model, and SAEs whose folder may be written to."""
    saes = shutil.copytree(made[1], tmp_path / "saes")
    return ["--model", str(made[0]), "--saes", str(saes)]


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    (tmp_path / "text.txt").write_text("".join(line + "\n" for line in LINES))
    (tmp_path / "data").mkdir()
    rows = [json.dumps({"n": n, "story": line + "\n"}) for n, line in enumerate(LINES)]
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(rows))
    return Commands(monkeypatch, capsys, tmp_path)


def stores(folder: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in folder.rglob(FILE_NAME)}


def test_a_dataset_gives_what_the_same_text_gives(
    commands: Commands, folders: list[str], tmp_path: Path
) -> None:
    answer = commands("contexts", "--text", "text.txt", *folders)
    assert answer.code == 0, answer.err
    of_text = stores(tmp_path)
    assert len(of_text) == 4
    assert answer.out.split() == sorted(str(file) for file in tmp_path.rglob(FILE_NAME))
    for options in (["data"], ["data", "--column", "story"], ["data/rows.jsonl"]):
        for file in tmp_path.rglob(FILE_NAME):
            file.unlink()
        answer = commands("contexts", "--dataset", *options, *folders)
        assert answer.code == 0, answer.err
        assert stores(tmp_path) == of_text


@pytest.mark.slow
def test_the_same_command_goes_on(
    commands: Commands, folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_batches, "ROWS_TOGETHER", 2)
    monkeypatch.setattr(row_batches, "MOST_ROWS", 2)
    given = ["contexts", "--dataset", "data", "--tokens", "600", *folders]
    assert commands(*given).code == 0
    expected = stores(tmp_path)
    texts = Corpus.texts

    def stopped(self: Corpus) -> Iterator[str]:
        for n, text in enumerate(texts(self)):
            if n == 20:
                raise KeyboardInterrupt
            yield text

    monkeypatch.setattr(context_store, "SAVED_EVERY", 0.0)
    monkeypatch.setattr(corpora, "check_corpus", lambda corpus: None)  # it would be stopped there
    monkeypatch.setattr(Corpus, "texts", stopped)
    answer = commands(*given)
    assert answer.code == 130
    assert "tokens are done; run the same command again to go on from there" in answer.err
    monkeypatch.setattr(Corpus, "texts", texts)
    other = commands("contexts", "--dataset", "data", "--tokens", "500", *folders)
    assert other.code == 0 and "the settings are others; reading begins anew" in other.err
    monkeypatch.setattr(Corpus, "texts", stopped)
    assert commands(*given).code == 130
    monkeypatch.setattr(Corpus, "texts", texts)
    answer = commands(*given)
    assert answer.code == 0 and "resumed: " in answer.err
    assert stores(tmp_path) == expected
    assert not list(tmp_path.rglob("*partial*"))


def test_so_many_tokens_of_a_file(commands: Commands, folders: list[str], tmp_path: Path) -> None:
    commands("contexts", "--text", "text.txt", *folders)
    all_of_it = stores(tmp_path)
    assert commands("contexts", "--text", "text.txt", "--tokens", "64", *folders).code == 0
    assert stores(tmp_path) != all_of_it
    assert commands("contexts", "--text", "text.txt", "--tokens", "9999999", *folders).code == 0
    assert stores(tmp_path) == all_of_it


@pytest.mark.slow
def test_saes_of_a_release_keep_theirs_in_the_cache(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a graph of the same release shows them."""
    build(tmp_path / "home", "gpt2-small")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gpt2 = ["--model", "gpt2-small"]
    with cache_in_use(tmp_path / "home", "gpt2-small"):
        answer = commands("contexts", "--dataset", "data", "--tokens", "300", *gpt2)
        assert answer.code == 0, answer.err
        files = [Path(line) for line in answer.out.splitlines()]
        assert len(files) == 13 and all(tmp_path / "cache" in file.parents for file in files)
        shown = commands(
            "graph", "the cat (and", *EFFECT, *gpt2, "--out", "run", "--formats", "dot"
        )
        assert shown.code == 0, shown.err
    nodes = json.loads((tmp_path / "run" / "graph.json").read_text())["nodes"]
    assert sum(bool(node["contexts"]) for node in nodes) > len(nodes) / 2
    places = [file.parent.relative_to(tmp_path / "cache" / "sae_graphs") for file in files]
    stack = Path("contexts", "gpt2-small", "gpt2-small-res-jb")
    assert places[3] == stack / "blocks.3.hook_resid_pre"
    for file in files:  # those of other SAEs, that were called the same
        with safe_open(file, framework="pt") as store:
            about = {**store.metadata(), "sae": "0123456789abcdef"}
            tensors = {name: store.get_tensor(name).clone() for name in store.keys()}  # noqa: SIM118
        save_file(tensors, file, metadata=about)
    with cache_in_use(tmp_path / "home", "gpt2-small"):
        shown = commands(
            "graph", "the cat (and", *EFFECT, *gpt2, "--out", "run", "--formats", "dot"
        )
    assert shown.code == 0
    said = " ".join(shown.out.split())
    assert said.count("contexts are shown") == said.count("was made for other weights") == 1
    assert "warning: no contexts are shown for layers 0, 1, 2, 3, 4, 5, ... (13 in all): " in said


MISTAKES = {
    "neither": ([], "expected a text file, such as --text corpus.txt, or a dataset's name or"),
    "both": (["--text", "text.txt", "--dataset", "data"], "--dataset data are both given"),
    "a folder as text": (["--text", "data"], "no text file data"),
    "column of a file": (["--text", "text.txt", "--column", "x"], "--column is for a --dataset"),
    "split of a file": (["--text", "text.txt", "--split", "x"], "--split is for a --dataset"),
    "no tokens": (["--text", "text.txt", "--tokens", "0"], "--tokens"),
    "tokens a word": (["--text", "text.txt", "--tokens", "many"], "many"),
    "no such column": (["--dataset", "data", "--column", "x"], "choose from 'n', 'story'"),
    "not text": (["--dataset", "data", "--column", "n"], "holds int, not text"),
    "no such split": (["--dataset", "data", "--split", "x"], "no split 'x'"),
    "empty dataset": (["--dataset", "empty"], "data files"),
    "dataset without texts": (["--dataset", "blank"], "blank is empty"),
    "hostile name": (["--dataset", "no\nsuch/\x1b[31m"], "is no text file"),
}


NO_TEXTS = {
    "empty": (b"", "is empty"),
    "white": (b" \n\n\t\r\n" * 999, "shows no visible character"),
    "invisible": ("\ufeff\u200b\u00a0\x07\n".encode(), "shows no visible character"),
    "UTF-16": ("the cat sat\n".encode("utf-16"), "is no text in UTF-8"),
    "Latin-1": ("прочитал она была\n".encode("cp1251"), "is no text in UTF-8"),
    "zeros": (bytes(3 * 2**20), "is no text in UTF-8: 100%"),
    "a program": (Path(sys.executable).read_bytes()[: 2**20], "is no text in UTF-8"),
}


@pytest.mark.parametrize(("data", "named"), NO_TEXTS.values(), ids=NO_TEXTS.keys())
def test_what_is_no_text_leaves_an_old_store(
    commands: Commands, folders: list[str], tmp_path: Path, data: bytes, named: str
) -> None:
    assert commands("contexts", "--text", "text.txt", "--tokens", "64", *folders).code == 0
    before = stores(tmp_path)
    (tmp_path / "other.txt").write_bytes(data)
    answer = commands("contexts", "--text", "other.txt", *folders)
    assert answer.code == 2
    assert answer.err.count("\n") == 1 and named in answer.err
    assert stores(tmp_path) == before


def test_the_help_names_a_model(commands: Commands) -> None:
    answer = commands("contexts", "--help")
    assert answer.code == 0
    assert "sae-graphs contexts --text corpus.txt --model gpt2-small" in answer.out


@pytest.mark.parametrize(("given", "named"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(
    commands: Commands, folders: list[str], tmp_path: Path, given: list[str], named: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "rows.csv").write_text("text\n")
    answer = commands("contexts", *given, *folders)
    assert answer.code == 2
    assert answer.err.count("\n") == 1 and "\x1b" not in answer.err
    assert named in answer.err
    assert not stores(tmp_path)


def test_no_network(
    commands: Commands, folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")

    def load(path: str, **options: object) -> None:
        raise ConnectionError(f"Couldn't reach '{path}' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", load)
    answer = commands("contexts", "--dataset", "some/texts", *folders)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "'some/texts'" in answer.err and "HF_HUB_OFFLINE" in answer.err


def test_the_bundled_stores_are_not_replaced(commands: Commands) -> None:
    answer = commands("contexts", "--dataset", "data")
    assert answer.code == 2 and "copy autoencoders/demo/saes" in answer.err
