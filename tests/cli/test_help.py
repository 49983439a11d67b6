"""What `--help` shows: panels, examples, lines that fit a narrow terminal."""

from __future__ import annotations

import re

import pytest
import typer

from sae_graphs import cli
from tests.support.commands import Commands

GROUPS = {
    name: tuple(getattr(command, "commands", ()))
    for name, command in typer.main.get_command(cli.app).commands.items()  # type: ignore[attr-defined]
}
COMMANDS = (*GROUPS, *(f"{name} {inner}" for name, held in GROUPS.items() for inner in held))
PANELS = {
    "graph": ("Basics", "What is measured", "What is kept", "Output", "Compute"),
    "validate": (
        *("Basics", "What is measured", "Controls and other text"),
        *("Output", "Compute"),
    ),
    "compare": ("Basics", "What is measured", "Output", "Compute"),
    "trace": ("Basics", "What is measured", "Output", "Compute"),
    "edit": ("Basics", "What is measured", "Output", "Compute"),
    "granger": ("Basics", "What is measured", "Output", "Compute"),
    "contexts": ("Basics", "Compute"),
    "atlas build": ("Basics", "What is measured", "What is kept", "Output", "Compute"),
    "atlas query": ("Basics", "Output"),
    "atlas draw": ("Basics", "Output"),
}
TALLEST = 6  # lines that an option takes, its default aside
_shown: dict[str, list[str]] = {}


@pytest.fixture
def lines(commands: Commands, monkeypatch: pytest.MonkeyPatch, command: str) -> list[str]:
    """The help of the command that a test is given, in 80 columns."""
    if command not in _shown:
        monkeypatch.setenv("COLUMNS", "80")
        _shown[command] = commands(*command.split(), "--help").out.splitlines()
    return _shown[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str, lines: list[str]) -> None:
    assert re.search(rf"Example: sae-graphs {command} \S", "\n".join(lines))


@pytest.mark.parametrize("command", PANELS)
def test_options_stand_in_panels(command: str, lines: list[str]) -> None:
    titles = [found[1] for line in lines if (found := re.match("╭─ (.+?) ─", line))]
    assert tuple(title for title in titles if title != "Arguments") == PANELS[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_reads_well_in_80_columns(command: str, lines: list[str]) -> None:
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line], "cut short"
    for option in re.split(r"(?m)^│ --", "\n".join(lines))[1:]:
        said = [line for line in option.splitlines() if "[default" not in line and "─" not in line]
        assert len(said) <= TALLEST, option
