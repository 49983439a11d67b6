"""An atlas beside the runs: its features' pages, and the way there from an explorer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.gallery.artist import drawn
from sae_graphs.gallery.atlases import atlases_in
from sae_graphs.gallery.library import Library
from sae_graphs.gallery.site import answered
from tests.atlas.test_asking import GRAPHS
from tests.support.atlases import FACTS, atlas_by_hand
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import write_run

OWN = {**FACTS, "model": "demo", "saes": "demo-saes"}  # of the graphs in `rich_graphs`


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("beside") / "runs"
    write_run(made / "plain", two_edges())
    atlas_by_hand(made / "alien", GRAPHS)
    hostile = {'<script>alert("x")</script> \u202e x': ("a", [("0.1@0", "1.2@0", -1.0)])}
    atlas_by_hand(made / "held & kept", {**GRAPHS, **hostile}, facts=OWN)
    return made


@pytest.fixture
def library(folder: Path) -> Iterator[Library]:
    made = Library(folder)
    yield made
    made.close()


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_an_explorer_leads_to_the_atlas_of_its_model(folder: Path, tmp_path: Path) -> None:
    html = drawn(folder, "explorer", ["plain"]).html
    assert data_of(html)["atlas"] == "/atlas/held%20%26%20kept/"
    assert "data.atlas + name" in html  # the panel's link
    write_run(tmp_path / "lone", two_edges())
    assert data_of(drawn(tmp_path, "explorer", ["lone"]).html)["atlas"] is None


def test_a_features_page(library: Library) -> None:
    answer = answered(library, "/atlas/held%20%26%20kept/1.2")
    assert answer.status == 200 and isinstance(answer.body, bytes)
    html = answer.body.decode()
    assert "Feature 1.2" in html and "13 prompts" in html and "← all runs" in html
    assert "script-src" not in answer.policy and "default-src 'none'" in answer.policy
    assert "<script>alert" not in html and "\u202e" not in html
    assert "Comes from" in html and "Leads to" not in html
    none = answered(library, "/atlas/held%20%26%20kept/2.5")
    assert none.status == 200 and "No prompt" in str(none.body)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/atlas/nowhere/1.2", 404),
        ("/atlas/plain/1.2", 404),
        ("/atlas/held%20%26%20kept", 404),
        ("/atlas/held%20%26%20kept/one", 422),
        ("/atlas/held%20%26%20kept/9.1", 422),
        ("/atlas/..%2Fruns/1.2", 404),
    ],
)
def test_what_is_not_there(library: Library, address: str, status: int) -> None:
    assert answered(library, address).status == status


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "atlas").symlink_to(folder / "alien")
    inside = atlas_by_hand(tmp_path / "inside", GRAPHS)
    assert list(atlases_in(tmp_path)) == ["inside"]
    (inside / "parts" / "other").symlink_to(next((folder / "alien" / "parts").iterdir()))
    assert not atlases_in(tmp_path)
    assert not atlases_in(tmp_path / "gone")
