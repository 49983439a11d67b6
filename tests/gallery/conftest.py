"""One server for all tests that only read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.saved_runs import Site, make_runs, served


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = make_runs(tmp_path_factory.mktemp("gallery") / "runs")
    with served(folder) as running:
        yield running
