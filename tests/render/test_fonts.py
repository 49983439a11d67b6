"""The fonts that come along: a machine without any draws the same picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sae_graphs.render import pictures as render
from sae_graphs.render.picture.engine import FOLDER, bundled_fonts
from tests.support.rich_graphs import two_edges

_WITHOUT_SYSTEM_FONTS = """
from sae_graphs.render.picture import engine
assert "/usr/share/fonts" in engine._MACHINE
engine._MACHINE = ("/nowhere",)
from sae_graphs.render import pictures
from tests.support.rich_graphs import two_edges
print(pictures.svg(two_edges()))
"""


@pytest.mark.slow
def test_a_machine_without_fonts_draws_the_same_picture() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_SYSTEM_FONTS],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout.decode().strip() == render.svg(two_edges()).strip()


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FONTCONFIG_FILE", raising=False)
    with pytest.raises(RuntimeError), bundled_fonts():
        assert f"<dir>{FOLDER}</dir>" in Path(os.environ["FONTCONFIG_FILE"]).read_text()
        raise RuntimeError
    assert "FONTCONFIG_FILE" not in os.environ


def test_a_configuration_of_the_users_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONTCONFIG_FILE", "/mine.conf")
    with bundled_fonts():
        assert os.environ["FONTCONFIG_FILE"] == "/mine.conf"
    assert os.environ["FONTCONFIG_FILE"] == "/mine.conf"


def test_the_fonts_come_with_their_licence() -> None:
    names = {file.name for file in FOLDER.iterdir()}
    assert {"DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "LICENSE.txt"} <= names
    assert "Permission is hereby granted" in (FOLDER / "LICENSE.txt").read_text()


def test_only_fontconfig_is_kept_off_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with bundled_fonts():
        os.write(2, b"Fontconfig warning: never mind\nsomething real\n")
    assert capfd.readouterr().err == "something real\n"
