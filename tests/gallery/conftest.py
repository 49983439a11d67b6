"""One server for all tests that only read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sae_graphs.gallery import artist
from tests.support.saved_runs import Site, make_runs, served


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = make_runs(tmp_path_factory.mktemp("gallery") / "runs")
    with served(folder) as running:
        yield running


@pytest.fixture
def drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process draws, asked in lines as the other one is: that takes half a second to start.

    `site` has one of its own, as a user's gallery.
    """

    def asked(_: artist.Artist, question: Mapping[str, Any]) -> Any:
        line = json.dumps(question).encode()
        return json.loads(json.dumps(artist._answer(json.loads(line))).encode())

    monkeypatch.setattr(artist.Artist, "_asked", asked)
