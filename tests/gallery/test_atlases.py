"""An atlas beside the runs: its features' pages, and the way there from an explorer."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.pages import feature_page
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import failure_of
from sae_graphs.atlas.store import Manifest, writing
from sae_graphs.gallery.artist import drawn
from sae_graphs.gallery.atlases import atlases_in
from sae_graphs.gallery.library import Library
from sae_graphs.gallery.site import answered
from tests.atlas.test_asking import GRAPHS
from tests.support.atlases import FACTS, atlas_by_hand, rows_by_hand
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import write_run

RECTANGLE = "{http://www.w3.org/2000/svg}rect"
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


def test_a_card_says_what_the_atlas_holds(folder: Path, library: Library) -> None:
    html = answered(library, "/").body.decode()  # type: ignore[union-attr]
    (card,) = re.findall(r"<article(?:(?!</article>).)*run/held%20.*?</article>", html)
    said = unescape(re.sub("<[^>]+>", " ", card))
    assert "13 prompts · 31 edges · kind: a, left, right" in said and "model demo" in said
    assert ">atlas</span>" in card and "checkbox" not in card
    small = drawn(folder, "thumbnail", ["held & kept"]).html
    widths = [float(bar.get("width", "")) for bar in ET.fromstring(small).iter(RECTANGLE)]
    assert widths == pytest.approx([344 * share for share in (13 / 13, 6 / 13, 6 / 13)], abs=0.1)


def test_the_page_of_an_atlas_leads_to_its_features(folder: Path, library: Library) -> None:
    (folder / "held & kept" / "map.svg").write_text("<svg/>")
    page = drawn(folder, "explorer", ["held & kept"])
    html = page.html
    assert '<a href="/atlas/held%20%26%20kept/0.1"><code>0.1</code></a>' in html
    assert "Edges that recur" in html and "Features in most prompts" in html
    assert "0.3 to 1.4" in html, "the circuit is drawn"
    words = said(html)
    assert " 0.3 1.4 6 46% −2.00 left 6 0.00262 " in words
    assert " 0.1 1.2 13 100% −1.00 1.00 " in words, "chance alone: no category is named"
    assert '<a href="map.svg">map.svg</a>' in html and "circuit.svg" not in html
    assert "script-src" not in page.policy and "<script" not in html
    assert answered(library, "/run/held%20%26%20kept/map.svg").status == 200
    assert answered(library, "/atlas/held%20%26%20kept/0.1").status == 200
    feature = answered(library, "/atlas/held%20%26%20kept/1.2").body.decode()  # type: ignore[union-attr]
    assert '<a href="0.1"><code>0.1</code></a>' in feature, "a neighbour's page lies beside it"


def test_names_of_layers_stay_text(tmp_path: Path) -> None:
    """A folder may hold whatever its maker wrote."""
    layer = 'javascript:alert("0")<script>'
    graphs: Any = {"one x": ("a", [("0.1@0", "1.2@0", -1.0)])}
    made = atlas_by_hand(tmp_path / "made", graphs, facts=OWN, compact=False)
    (file,) = made.glob("parts/*/edges.parquet")
    held = pq.read_table(file, partitioning=None)
    place = held.schema.get_field_index("source_layer")
    pq.write_table(held.set_column(place, "source_layer", pa.array([layer])), file)
    for html in (drawn(tmp_path, "explorer", ["made"]).html, feature_page(Atlas(made), "1.2")):
        assert "<script" not in html and 'href="javascript:' not in html
        assert f'{quote(layer, safe="")}.1">' in html


def test_an_atlas_without_edges_is_shown(tmp_path: Path) -> None:
    """Of prompts that have neither, one without a kind and an answer; and of failures alone."""
    asked = Asked("one x", None, {"kind": "a"}), Asked("two x")
    none = rows_by_hand(asked[1], [("token@0", "1.2@0", -1.0)], target=None)  # type: ignore[arg-type]
    held = {"bare": [rows_by_hand(asked[0], []), none], "failed": [failure_of(asked[0], "why")]}
    for name, rows in held.items():
        with writing(tmp_path / name, Manifest(OWN, ("kind",))) as store:
            store.add(rows)
        small = ET.fromstring(drawn(tmp_path, "thumbnail", [name]).html)
        assert not list(small.iter(RECTANGLE))
        drawn(tmp_path, "explorer", [name])
    assert said(drawn(tmp_path, "explorer", ["bare"]).html).endswith("prompts a 1 none 1")
    feature = said(feature_page(Atlas(tmp_path / "bare"), "1.2"))
    assert "two x" in feature and "nan" not in feature.split()


def said(html: str) -> str:
    """What a page's body says, its words with one space between them."""
    body = html.partition("<body")[2]
    return " ".join(unescape(re.sub("<[^>]+>", " ", body)).split())


def test_an_atlas_alone_is_shown(tmp_path: Path) -> None:
    made = atlas_by_hand(tmp_path / "alone", GRAPHS)
    library = Library(made)
    try:
        assert answered(library, "/atlas/alone/1.2").status == 200
        assert [card.problem for card in library.cards()] == [None]
    finally:
        library.close()


def test_what_cannot_be_read_is_told_on_its_card(tmp_path: Path) -> None:
    shutil.rmtree(atlas_by_hand(tmp_path / "bare", GRAPHS) / "parts")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "atlas.json").write_text("{}")
    linked = atlas_by_hand(tmp_path / "linked", GRAPHS)
    (linked / "parts" / "other").symlink_to(tmp_path)
    library = Library(tmp_path)
    try:
        problems = {card.run.name: card.problem or "" for card in library.cards()}
    finally:
        library.close()
    assert "holds a link" in problems["linked"] and "schema" in problems["broken"]
    assert "bare holds no prompts yet" in problems["bare"]
    assert str(tmp_path) not in "".join(problems.values())


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "atlas").symlink_to(folder / "alien")
    inside = atlas_by_hand(tmp_path / "inside", GRAPHS)
    assert list(atlases_in(tmp_path)) == ["inside"]
    (inside / "parts" / "other").symlink_to(next((folder / "alien" / "parts").iterdir()))
    assert not atlases_in(tmp_path)
    assert not atlases_in(tmp_path / "gone")
