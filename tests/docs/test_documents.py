"""What README.md and docs/ say holds: commands and flags, names, links, pictures."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import sae_graphs
from sae_graphs.cli import app
from tests.support import documents
from tests.support.documents import DOCS, EVERY, PAGES, README, ROOT, Page, Use, page
from tests.support.structure import FLOOR, MAY_IMPORT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def flags_of(command: Any) -> frozenset[str]:
    """Those of a command; of a group, those of all its commands."""
    inner = frozenset().union(*map(flags_of, getattr(command, "commands", {}).values()))
    own = (flag for has in command.params for flag in (*has.opts, *has.secondary_opts))
    return inner | frozenset(own) | {"--help"}


COMMANDS = {
    name: flags_of(command)
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}
every_page = pytest.mark.parametrize("document", EVERY, ids=str)


def unknown(use: Use) -> str | None:
    """What is wrong with a use of the command line; None where nothing is."""
    if use.command is None:
        wrong = use.flags - frozenset().union(*COMMANDS.values())
        return f"no command has {sorted(wrong)}" if wrong else None
    if use.command not in COMMANDS:
        return f"no command {use.command}"
    wrong = use.flags - COMMANDS[use.command]
    return f"{use.command} has no {sorted(wrong)}" if wrong else None


def broken(document: Page, link: str) -> str | None:
    """Why a link of a page leads nowhere; None where it does not."""
    name, _, anchor = link.partition("#")
    path = (document.path.parent / name).resolve() if name else document.path
    if not path.exists():
        return f"{link}: no such file"
    if document != README and DOCS not in (path, *path.parents):
        return f"{link}: the site holds nothing outside docs/"
    if anchor and anchor not in page(path).anchors:
        return f"{link}: no such heading"
    return None


def test_the_readme_is_one_page_with_commands_and_code() -> None:
    assert len(README.text.splitlines()) <= 120
    assert len(README.commands) >= 8
    assert len(README.python) == 1
    assert len(README.pictures) == 3
    first_screen = README.text.splitlines()[:16]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("make test") for line in first_screen)


def test_the_pages_are_read_as_they_say() -> None:
    assert doctest.testmod(documents) == (0, 2)


def test_every_page_is_in_the_menu() -> None:
    assert {document.path for document in PAGES} == set(DOCS.glob("*.md"))


@every_page
def test_commands_and_flags_are_real(document: Page) -> None:
    uses = list(document.uses(frozenset(COMMANDS)))
    assert [wrong for wrong in map(unknown, uses) if wrong] == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`sae-graphs draw X`", "no command draw"),
        ("`edges --top-k`", "edges has no ['--top-k']"),
        ("`--no-such-flag 3`", "no command has ['--no-such-flag']"),
        ("```\nsae-graphs view outputs --prot 1\n```", "view has no ['--prot']"),
        ("`graph --top-k 3`, `--outputs 3`, `python -m benchmarks --only validation`", None),
    ],
)
def test_what_is_not_real_is_found(text: str, wrong: str | None) -> None:
    uses = Page(README.path, text).uses(frozenset(COMMANDS))
    assert [found for found in map(unknown, uses) if found] == ([wrong] if wrong else [])


def test_every_command_has_its_row_and_every_option_its_place() -> None:
    text = page(DOCS / "command-line.md").text
    assert re.findall(r"^\| `([a-z][a-z-]*)` \|", text, flags=re.MULTILINE) == sorted(
        COMMANDS, key=lambda name: text.index(f"| `{name}` |")
    )
    for command in ("graph", "trace", "edit", "validate"):
        flags = {flag for flag in COMMANDS[command] if flag.startswith("--")} - {"--help"}
        missing = {flag for flag in flags if f"`{flag}" not in text}
        assert not missing, f"{command}: {sorted(missing)}"


@every_page
def test_modules_and_targets_that_are_named_are_there(document: Page) -> None:
    lines = (*document.code, *(line for _, block in document.blocks for line in block.splitlines()))
    for line in lines:
        if found := re.match(r"python -m ([\w.]+)(?: ([a-z]+))?", line):
            module, command = found.groups()
            place = ROOT / module.replace(".", "/")
            file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            assert file.is_file(), line
            assert not command or f"def {command}(" in file.read_text(encoding="utf-8"), line
        if found := re.match(r"make ([a-z-]+)", line):
            assert re.search(rf"^{found[1]}:", MAKEFILE, flags=re.MULTILINE), line
        if found := re.match(r"(?:autoencoders|benchmarks|examples|training)/[\w./-]*$", line):
            assert (ROOT / found[0]).exists(), line


@every_page
def test_files_and_functions_that_are_named_are_there(document: Page) -> None:
    for name, function in re.findall(r"`([\w./]+\.py)`(?:: `(\w+)`)?", document.prose):
        places = [place / name for place in (ROOT, ROOT / "sae_graphs") if (place / name).is_file()]
        assert places, name
        text = places[0].read_text(encoding="utf-8")
        assert not function or f"\ndef {function}(" in text, f"{name}: {function}"


def test_the_table_of_packages_is_the_one_that_is_tested() -> None:
    text = page(DOCS / "architecture.md").text
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.*)\|$", text, flags=re.MULTILINE)
    shown = {name: set(re.findall(r"`(\w+)`", may)) for name, may in rows}
    assert "all" in dict(rows)["cli"]
    shown["cli"] = shown.keys() - {"cli"}
    assert shown == {name: may for name, may in MAY_IMPORT.items() if name != FLOOR}
    modules = {path.stem for path in (ROOT / "sae_graphs").glob("*.py")}
    modules -= {"__init__", "__main__", "_version"}
    floor = text.partition("| module |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", floor)) == modules


@every_page
def test_names_of_the_package_are_public(document: Page) -> None:
    for name in re.findall(r"\bsg\.(\w+)", document.text):
        assert name in sae_graphs.__all__, name


@every_page
def test_links_lead_somewhere(document: Page) -> None:
    assert [wrong for link in document.links if (wrong := broken(document, link))] == []


def test_links_that_lead_nowhere_are_found() -> None:
    assert broken(README, "docs/no-such-page.md") == "docs/no-such-page.md: no such file"
    assert broken(README, "docs/method.md#nothing") == "docs/method.md#nothing: no such heading"
    assert "outside docs/" in str(broken(PAGES[0], "../README.md"))
    assert broken(README, "docs/method.md#exact") is None


@every_page
def test_pictures_are_there_and_say_what_they_show(document: Page) -> None:
    for words, place in document.pictures:
        assert (document.path.parent / place).is_file(), place
        assert len(words) >= 10, f"{place} has no words for who cannot see it"


def test_every_picture_is_shown() -> None:
    shown = {(d.path.parent / place).resolve() for d in EVERY for _, place in d.pictures}
    assert shown == set((DOCS / "pictures").iterdir())


@every_page
def test_nothing_is_left_to_be_filled_in(document: Page) -> None:
    assert not re.findall(r"\b(?:TODO|TBD|FIXME|XXX|FULL|MEMORY|DEV|REPRO)\b", document.text)


@every_page
def test_a_page_has_one_title_and_no_foreign_path(document: Page) -> None:
    assert len(re.findall(r"^# ", document.prose, flags=re.MULTILINE)) == 1
    assert str(Path.home()) not in document.text
