"""Prompts and other text from files."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.pretrained.corpora import PIECE, SAMPLE, Corpus, check_corpus, prompts_of, texts_of
from tests.support.stacks import one_line


def write(folder: Path, data: bytes) -> Path:
    file = folder / "text.txt"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\ntwo\n", ("one", "two")),
        (b"one\r\ntwo", ("one", "two")),
        (b"\n  \n\tone \n\n", ("\tone ",)),  # a prompt's own spaces are kept
        (b"one\none\n", ("one", "one")),
        (
            "\ufeffone\nné \u202e😀".encode(),
            ("one", "né \u202e😀"),
        ),  # a byte order mark is none of it
    ],
)
def test_prompts(tmp_path: Path, data: bytes, expected: tuple[str, ...]) -> None:
    assert prompts_of(write(tmp_path, data)) == expected


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  \n\t\n"])
def test_no_prompts(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(SaeGraphsError, match="holds no prompts") as caught:
        prompts_of(write(tmp_path, data))
    one_line(caught)


def test_prompts_that_cannot_be_read(tmp_path: Path) -> None:
    for file in (tmp_path / "nowhere.txt", tmp_path, write(tmp_path, b"\xff\xfe\x00")):
        with pytest.raises(SaeGraphsError, match="cannot read prompts from") as caught:
            prompts_of(file)
        one_line(caught)


def test_lines_of_a_file(tmp_path: Path) -> None:
    found = texts_of(str(write(tmp_path, b"one\n\xfftwo\n")))
    assert "".join(found) == "one\n\ufffdtwo\n"
    assert list(texts_of(str(write(tmp_path, b"")))) == []


def test_a_byte_order_mark_is_no_part_of_the_first_text(tmp_path: Path) -> None:
    found = texts_of(str(write(tmp_path, "\ufeffone\n\ufefftwo".encode())))
    assert list(found) == ["one\n", "\ufefftwo"]


GOOD = {
    "one word": b"one",
    "some of it is damaged": b"the cat sat on the mat \xff" * 9,
    "after empty lines": b"\n" * 2**16 + b"one",
    "other scripts": "δοκιμή ﷺ 猫 😀\n".encode(),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_texts_that_are_good(tmp_path: Path, data: bytes) -> None:
    check_corpus(Corpus(str(write(tmp_path, data)), is_dataset=False))


def test_the_rows_of_a_dataset_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = itertools.count()

    def endless(self: Corpus) -> Iterator[str]:
        while True:
            next(read)
            yield ""

    pytest.importorskip("datasets")
    (tmp_path / "rows.jsonl").write_text('{"text": "\\u0000\\u0000a"}\n' * 3)
    with pytest.raises(SaeGraphsError, match="67% of its first characters are NUL") as caught:
        check_corpus(Corpus(str(tmp_path)))
    one_line(caught)
    monkeypatch.setattr(Corpus, "texts", endless)
    with pytest.raises(SaeGraphsError, match="no visible character"):
        check_corpus(Corpus("some/stories"))
    assert next(read) < 2**19


def test_a_dataset_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[Any, ...]] = []

    def load(path: str, **options: Any) -> Iterator[dict[str, Any]]:
        asked.append((path, options))
        return iter([{"n": 2, "story": "one", "text": None}, {"text": "two"}, {"n": 4}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = texts_of("some/stories")
    assert [next(found), next(found)] == ["", "two"]
    assert asked == [("some/stories", {"split": "train", "streaming": True})]
    with pytest.raises(SaeGraphsError, match="no column 'text'; choose from 'n'"):
        next(found)
    named = Corpus("some/stories", config="c", split="test", column="story")
    assert next(named.texts()) == "one"
    assert asked[1] == ("some/stories", {"name": "c", "split": "test", "streaming": True})


ROWS = [{"n": 1, "story": "one\nline"}, {"n": 2, "story": "tw\x1b[31mo\u202e"}]
ROWS += [{"n": 3, "story": None}, {"n": 4, "story": "<|endoftext|>\x00"}]


@pytest.fixture(params=["jsonl", "parquet", "csv"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that holds the rows as one file of that format."""
    pandas = pytest.importorskip("pandas")
    folder, frame = tmp_path / "data", pandas.DataFrame(ROWS)
    folder.mkdir()
    file = folder / f"rows.{request.param}"
    if request.param == "jsonl":
        file.write_text("\n".join(json.dumps(row) for row in ROWS))
    else:
        getattr(frame, f"to_{request.param}")(file, index=False)
    return folder


def test_a_folder_of_data_files(data: Path) -> None:
    expected = [row["story"] or "" for row in ROWS]
    (file,) = data.iterdir()
    for source in (data, file):
        assert list(Corpus(str(source)).texts()) == expected
        assert list(Corpus(str(source), column="story").texts()) == expected
    assert list(texts_of(str(data))) == expected
    (data / "more.txt").write_text("not a row")
    assert Corpus(str(data)).facts() != Corpus(str(file)).facts()


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert list(texts_of(str(tmp_path))) == ["one", "", "two"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"column": "nowhere"}, "no column 'nowhere'; choose from 'n', 'story'"),
        ({"column": "n"}, "column 'n'"),
        ({"split": "test"}, "no split 'test'"),
        ({"config": "french"}, "'french' not found"),
    ],
)
def test_parts_of_a_dataset_that_are_not_there(
    data: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        next(Corpus(str(data), **options).texts())
    text = one_line(caught)
    assert named in text and "--" in text


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match="doesn't contain any data files") as caught:
        next(Corpus(str(tmp_path)).texts())
    one_line(caught)


HUB = {
    "offline": (ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)"), "HUB"),
    "no network": (ConnectionError("Couldn't reach 'a/b'\non the Hub"), "connect to the network"),
    "gated": (FileNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "HF_TOKEN"),
    "config": (ValueError("Config name is missing. Pick among: ['en', 'de']"), "--config"),
    "no such name": (FileNotFoundError("Dataset 'a/b' doesn't exist"), "doesn't exist"),
    "hostile": (RuntimeError("\n".join(["no"] * 9999)), "no no no"),
    "silent": (RuntimeError(), "RuntimeError"),
}


@pytest.mark.parametrize(("problem", "named"), HUB.values(), ids=HUB.keys())
def test_what_the_hub_refuses(
    monkeypatch: pytest.MonkeyPatch, problem: Exception, named: str
) -> None:
    datasets = pytest.importorskip("datasets")

    def load(name: str, **options: Any) -> None:
        raise problem

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(SaeGraphsError) as caught:
        next(Corpus("a/b").texts())
    text = one_line(caught)
    assert named in text and "'a/b'" in text


@pytest.mark.slow
def test_offline_for_real() -> None:
    code = (
        "from sae_graphs.pretrained.corpora import texts_of\n"
        "from sae_graphs.errors import SaeGraphsError\n"
        "try: next(texts_of('no/such'))\n"
        "except SaeGraphsError as mistake: print(mistake)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.stdout.count("\n") == 1
    assert "'no/such' is no text file" in done.stdout and "HF_HUB_OFFLINE" in done.stdout


def test_corpora_are_told_apart(tmp_path: Path) -> None:
    file = write(tmp_path, b"one" * SAMPLE)
    here = Corpus(str(file), is_dataset=False)
    before = here.facts()
    assert here.facts() == before
    assert here.size == 3 * SAMPLE
    for changed in (b"two" + b"one" * (SAMPLE - 1), b"one" * (SAMPLE - 1) + b"two", b"one"):
        file.write_bytes(changed)
        assert here.facts() != before
    assert Corpus("a/b").facts() != Corpus("a/b", config="c").facts()


def test_a_file_of_one_long_line(tmp_path: Path) -> None:
    text = "né" * PIECE + "\nend"
    pieces = list(texts_of(str(write(tmp_path, text.encode()))))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) == PIECE


def test_neither_file_nor_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load(name: str, **options: Any) -> None:
        raise ConnectionError("no network\nfor you")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(SaeGraphsError) as caught:
        list(texts_of("nowhere.txt"))
    assert "'nowhere.txt' is no text file" in one_line(caught) and "no network" in str(caught.value)


def test_without_the_library_of_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SaeGraphsError, match="is no text file") as caught:
        list(texts_of("nowhere.txt"))
    one_line(caught)
