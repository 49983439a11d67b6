"""The benchmark of a GPU runs, here on the CPU, and says what it is given wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from benchmarks import cuda


@pytest.mark.slow
def test_every_kind_of_step(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    cuda.main(device="cpu", out=file, tiny=True)
    found = json.loads(file.read_text())
    assert not found["left_out"] and found["machine"]["device"] == "CPU"
    assert found["steps"]["oracle gpt2 float32"]["largest"] < 1e-5
    assert 1e-5 < found["steps"]["oracle gpt2 bfloat16"]["largest"] < 0.2
    for name in ("tiny, effect", "tiny, answer"):
        assert found["steps"][name]["seconds"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        cuda.main(device="cuda", out=Path("nowhere.json"), tiny=True)
    assert caught.value.exit_code == 2
    assert "give --device cpu" in capsys.readouterr().err


def test_a_step_that_fails_is_told_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> dict[str, Any]:
        raise RuntimeError("no kernel")

    steps = [("first", fails), ("second", lambda: {"seconds": 1.0})]
    monkeypatch.setattr(cuda, "steps_of", lambda device, *, tiny: steps)
    with pytest.raises(typer.Exit) as caught:
        cuda.main(device="cpu", out=tmp_path / "found.json", tiny=True)
    found = json.loads((tmp_path / "found.json").read_text())["steps"]
    assert caught.value.exit_code == 1
    assert found == {"first": {"failed": "RuntimeError: no kernel"}, "second": {"seconds": 1.0}}
