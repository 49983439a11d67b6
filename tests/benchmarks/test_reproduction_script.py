"""The reproduction script's command line: mistakes are one line, before anything is loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import reproduce_gpt2_small as script


def answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    """The exit status, what was printed, and the errors."""
    monkeypatch.setattr(sys, "argv", ["reproduce", *words])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stopped:
        script.run()
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--controls", "abc"], "(given: 'abc')"),
        (["--controls", "0"], "controls is 0"),
        (["--nonsense"], "No such option: --nonsense"),
        (["--json", "/nonexistent/x.json"], "there is no folder /nonexistent"),
        (["--markdown", "/nonexistent/a/x.md"], "there is no folder /nonexistent/a"),
        (["--json", "/tmp"], "/tmp is a folder"),
        (["--json", "x.out", "--markdown", "./x.out"], "give two files"),
        (["--data", "nowhere.json"], "cannot read nowhere.json"),
    ],
)
def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(script, "write_text", lambda *given: pytest.fail("written"))
    code, out, err = answer(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not Path("/nonexistent").exists()


@pytest.mark.skipif(os.name == "nt", reason="rights are others on Windows")
def test_a_folder_without_the_right_to_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda file, mode: not mode & os.W_OK)  # as root may
    code, _, err = answer(monkeypatch, capsys, "--json", str(tmp_path / "x.json"))
    assert code == 2 and err.count("\n") == 1 and "may not be written to" in err


def test_help_says_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(monkeypatch, capsys, "--help")
    text = " ".join(out.split())
    assert (code, err) == (0, "")
    assert "Example: python -m benchmarks.reproduce_gpt2_small --json" in text
    assert "2.5 GB" in text and "network" in text and "minutes" in text


def test_stopped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(file: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "read_published", stop)
    code, _, err = answer(monkeypatch, capsys)
    assert code == 130 and err.strip() == "stopped; nothing is written"
