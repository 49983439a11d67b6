"""Prompts and other text from files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.corpora import prompts_of, texts_of
from sae_graphs.errors import SaeGraphsError
from tests.stacks import one_line


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


def test_a_dataset_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[Any, ...]] = []

    def load(name: str, **options: Any) -> Iterator[dict[str, Any]]:
        asked.append((name, options))
        return iter([{"text": "one"}, {"n": 3, "story": "two"}, {"n": 4}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = texts_of("some/stories")
    assert [next(found), next(found)] == ["one", "two"]
    assert asked == [("some/stories", {"split": "train", "streaming": True})]
    with pytest.raises(SaeGraphsError, match="no column of texts"):
        next(found)


def test_neither_file_nor_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load(name: str, **options: Any) -> None:
        raise ConnectionError("no network\nfor you")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(SaeGraphsError) as caught:
        list(texts_of("nowhere.txt"))
    assert "'nowhere.txt' is no text file" in one_line(caught) and "no network" in str(caught.value)


def test_without_the_library_of_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SaeGraphsError, match="is no text file") as caught:
        list(texts_of("nowhere.txt"))
    one_line(caught)
