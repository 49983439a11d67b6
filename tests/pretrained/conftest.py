"""A hub on this machine that serves generated weights under real names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_cache import build
from tests.support.hub_server import FakeHub, fake_hub

MODEL = "gpt2-small"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub serves; tests that want it otherwise change a copy.

    It grows: once a test has asked for another model (below), all that follow find that one too.
    """
    home = tmp_path_factory.mktemp("served")
    build(home, MODEL)
    return home


@pytest.fixture(scope="session")
def served_gemma(served: Path) -> None:
    """Gemma 2 as well, with two SAEs a layer, from here to the end."""
    build(served, "gemma-2-2b")


@pytest.fixture(scope="session")
def served_pythia(served: Path) -> None:
    """Pythia as well, from here to the end."""
    build(served, "pythia-70m-deduped")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home"


@pytest.fixture
def hub(served: Path, home: Path) -> Iterator[FakeHub]:
    """The hub, in use."""
    with fake_hub(served) as found, found.in_use(home):
        yield found
