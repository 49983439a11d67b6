"""One server for all tests that only read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sae_graphs.gallery import artist
from tests.support.saved_runs import Site, make_runs, served
from tests.support.slow import slow


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = make_runs(tmp_path_factory.mktemp("gallery") / "runs")
    with served(folder) as running:
        yield running


@pytest.fixture
def drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process draws, and no artist's process is started, which takes half a second.

    Questions and answers are turned into lines and back as on the way there. `site` has an artist.
    """

    def asked(_: artist.Artist, question: Mapping[str, Any]) -> Any:
        line = json.dumps(question).encode()
        return json.loads(json.dumps(artist._answer(json.loads(line))).encode())

    monkeypatch.setattr(artist.Artist, "_asked", asked)


@pytest.fixture(params=["here", slow("apart")])
def drawn_anywhere(request: pytest.FixtureRequest) -> None:
    """This process draws; in the full run, a process of its own as well."""
    if request.param == "here":
        request.getfixturevalue("drawn_here")
