"""`sae-graphs view` as a user types it."""

from __future__ import annotations

import re
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.cli import view as cli_view
from sae_graphs.cli.console import warn
from sae_graphs.gallery import server
from tests.support.commands import Commands
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import served, write_run


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Commands]:
    yield Commands(monkeypatch, capsys, tmp_path)


def _interrupted(seen: list[str], until: threading.Event | None = None) -> object:
    """A `serve_forever` that answers one request in a thread, and is then stopped by Ctrl-C."""

    def serve(self: server._Server, poll_interval: float = 0.5) -> None:
        thread = threading.Thread(target=self.handle_request)
        thread.start()
        with urllib.request.urlopen(server.address(self), timeout=10) as answer:
            seen.append(answer.read().decode())
        thread.join()
        assert until is None or until.wait(10)
        raise KeyboardInterrupt

    return serve


def test_it_says_where_and_ends_well(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(Path("outputs/mine"), two_edges())
    seen: list[str] = []
    monkeypatch.setattr(server._Server, "serve_forever", _interrupted(seen))
    answer = commands("view", "outputs", "--port", "0")
    assert answer.code == 0, answer.err
    assert re.search(r"runs in outputs: http://127\.0\.0\.1:\d+/\n", answer.out)
    assert "Ctrl-C ends it" in answer.out
    assert answer.out.endswith("ended; nothing was changed\n")
    assert answer.err == ""
    assert "/run/mine/" in seen[0]


def test_links_are_told(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(Path("outputs/mine"), two_edges())
    Path("outputs/again").symlink_to(Path("outputs/mine").absolute())
    Path("outputs/nowhere").symlink_to(Path("gone").absolute())
    monkeypatch.setattr(server._Server, "serve_forever", _interrupted([]))
    answer = commands("view", "outputs", "--port", "0")
    assert "1 link was not followed; copy the runs to show them" in answer.err


def test_it_opens_a_browser_only_when_asked(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(Path("mine"), two_edges())
    opened: list[str] = []
    told = threading.Event()

    def fails(at: str) -> bool:
        opened.append(at)
        return False

    def warned(words: str) -> None:
        warn(words)
        told.set()

    monkeypatch.setattr(webbrowser, "open", fails)
    monkeypatch.setattr(cli_view, "warn", warned)
    monkeypatch.setattr(server._Server, "serve_forever", _interrupted([]))
    assert commands("view", "mine", "--port", "0").code == 0
    assert opened == []
    monkeypatch.setattr(server._Server, "serve_forever", _interrupted([], told))
    answer = commands("view", "mine", "--port", "0", "--open")
    assert (answer.code, len(opened)) == (0, 1)
    assert opened[0] in answer.out
    assert "no browser could be opened" in answer.err


def test_a_browser_in_the_terminal_is_answered(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a browser is back only when it has the page, as `BROWSER='curl -s %s'` is."""
    write_run(Path("mine"), two_edges())
    seen: list[str] = []
    done = threading.Event()

    def reads(at: str) -> bool:
        with urllib.request.urlopen(at, timeout=10) as answer:
            seen.append(answer.read().decode())
        done.set()
        return True

    def serve(self: server._Server, poll_interval: float = 0.5) -> None:
        self.handle_request()
        assert done.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", reads)
    monkeypatch.setattr(server._Server, "serve_forever", serve)
    answer = commands("view", "mine", "--port", "0", "--open")
    assert (answer.code, answer.err) == (0, "")
    assert "/run/mine/" in seen[0]


@pytest.mark.parametrize("line", [1, 2])
def test_ctrl_c_before_it_serves_ends_it_as_well(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    write_run(Path("mine"), two_edges())
    lines: list[object] = []
    say = cli_view.out.print

    def interrupted(*words: object, **options: Any) -> None:
        say(*words, **options)
        lines.append(words)
        if len(lines) == line:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli_view.out, "print", interrupted)
    answer = commands("view", "mine", "--port", "0")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("ended; nothing was changed\n")


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("missing", "error: missing is not there; give a folder that holds runs"),
        ("file", "error: file is a file; give a folder that holds runs"),
        (
            "empty",
            "error: empty holds no runs (folders with one of graph.json, trace.json",
        ),
    ],
)
def test_nothing_to_show_is_one_line(commands: Commands, folder: str, words: str) -> None:
    Path("empty").mkdir()
    Path("file").write_text("x")
    answer = commands("view", folder)
    assert answer.code == 2
    assert answer.err.startswith(words)
    assert answer.err.count("\n") == 1


def test_a_busy_port_is_one_line(commands: Commands, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one", two_edges())
    with served(tmp_path / "runs") as other:
        answer = commands("view", "runs", "--port", str(other.port))
    assert answer.code == 2
    assert answer.err.startswith(f"error: port {other.port} is in use; give another with --port")
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("port", ["70000", "-1", "x"])
def test_a_port_that_is_none(commands: Commands, port: str) -> None:
    assert commands("view", ".", "--port", port).code == 2
