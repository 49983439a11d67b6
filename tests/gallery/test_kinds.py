"""Edits and Granger tests in the gallery: a card, a page and a picture each."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sae_graphs.editing.granger.records import GrangerReport
from sae_graphs.editing.many import Edits
from sae_graphs.editing.record import Answer, Edit
from sae_graphs.editing.scores import Asked, Heard, Kept, Scored
from sae_graphs.editing.settings import EditSettings
from sae_graphs.gallery import edits, granger
from sae_graphs.gallery.artist import drawn
from sae_graphs.gallery.kinds import KINDS
from sae_graphs.gallery.runs import FILES, runs_in
from sae_graphs.runs import GRAPH
from sae_graphs.schema import record_bytes
from tests.editing.granger.test_records import report
from tests.editing.test_places import LAYERS, places_of
from tests.support.saved_runs import Site, served

RECTANGLE = "{http://www.w3.org/2000/svg}rect"
HOSTILE = "<script>alert(1)</script>"


def edit(*, before: float = 0.25, after: float = 1.0) -> Edit:
    """A fact written into a model of three dimensions, with a subject that is no fact."""
    return Edit(
        subject=HOSTILE,
        prompt="{} is in",
        target=" Rome",
        target_id=3,
        model="made by hand",
        layer=1,
        weights="0" * 16,
        right=np.ones(3),
        left=np.ones(4),
        settings=EditSettings(),
        before=Answer(before, ((" Paris", 0.7), (" Rome", before))),
        after=Answer(after, ((" Rome", after), (" Paris", 0.0))),
        surprisal=(2.0, 0.01),
        warnings=("look out",),
    )


_BEFORE = Heard((Asked(0.1, 0.7),), (), (Asked(0.2, 0.6),), (Kept(0.9, True),), 2.0, 1.0)
_AFTER = Heard((Asked(0.8, 0.1),), (), (Asked(0.2, 0.6),), (Kept(0.9, True),), 2.0, 1.0)
_FACT = Scored(0, "the cat sat on", " mat", " red", _BEFORE, _AFTER, 0.5)
FACTS = Edits("made by hand", HOSTILE, "rome", 1, (_FACT,))
_RISING = np.linspace(0.0, 1.0, 4 * LAYERS).reshape(1, 4, LAYERS)
EVERYWHERE = places_of(np.repeat(_RISING, 3, axis=0), np.repeat(_RISING, 3, axis=0))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("kinds") / "runs"
    for name in ("fact", "series", "broken", "facts", "everywhere"):
        (folder / name).mkdir(parents=True)
    (folder / "facts" / "edits.json").write_bytes(record_bytes(FACTS))
    (folder / "everywhere" / "places.json").write_bytes(record_bytes(EVERYWHERE))
    edit().save(folder / "fact")
    report().save(folder / "series")
    (folder / "broken" / "granger.json").write_text("{}")
    with served(folder) as running:
        yield running


def card(site: Site, name: str) -> str:
    (found,) = re.findall(
        f'<article(?:(?!</article>).)*run/{name}/".*?</article>', site.ask("/").text
    )
    return found


def said(found: str) -> str:
    return html.unescape(re.sub("<[^>]+>", " ", found))


def test_every_file_that_makes_a_run_has_its_kind() -> None:
    assert {*KINDS, GRAPH} == {*FILES}


def test_cards_tell_what_was_written_and_what_predicts(site: Site) -> None:
    fact, series = card(site, "fact"), card(site, "series")
    assert "25.0 % before, 100.0 % after, in block 1" in said(fact) and "1 warning" in said(fact)
    assert "Granger tests" in said(series) and "pairs" in said(series)
    for found in (fact, series):
        assert "<script>" not in found and "checkbox" not in found
    assert site.ask("/").text.count("This run cannot be opened.") == 1


def test_pages_run_nothing(site: Site) -> None:
    for name in ("fact", "series", "facts", "everywhere"):
        page = drawn(site.folder, "explorer", [name])
        assert "← all runs" in page.html and "<script>" not in page.html
        assert "default-src 'none'" in page.policy and "script-src" not in page.policy


def test_the_picture_of_an_edit_is_what_it_did() -> None:
    widths = [
        float(it.get("width", "")) for it in ET.fromstring(edits.bars(edit())).iter(RECTANGLE)
    ]
    assert widths == [86.0, 344.0]
    assert edits.bars(edit(before=0.0)).count("<rect") == 2


def test_the_picture_of_granger_tests_is_of_both_ways() -> None:
    made: GrangerReport = report()
    bars = list(ET.fromstring(granger.bars(made)).iter(RECTANGLE))
    assert len(bars) == 2 * len(made.pairs)
    shares = [0.0 if it is None else it.share for p in made.pairs for it in (p.forward, p.backward)]
    longest = max(range(len(shares)), key=shares.__getitem__)
    assert bars[longest].get("width") == "344.0"
    none = granger.bars(replace(made, pairs=()))
    assert "<rect" not in none


def test_runs_are_told_apart_by_their_files(site: Site) -> None:
    found = {name: run.file for name, run in runs_in(Path(site.folder)).items()}
    assert found == {
        **{"broken": "granger.json", "fact": "edit.safetensors", "series": "granger.json"},
        **{"facts": "edits.json", "everywhere": "places.json"},
    }


def test_many_facts_and_edits_everywhere_tell_what_was_found(site: Site) -> None:
    facts, everywhere = card(site, "facts"), card(site, "everywhere")
    assert "1 fact of <script>" in said(facts) and "ES 1.000" in said(facts)
    assert "PS" not in said(facts), "there was no paraphrase"
    assert "3 facts of mine.jsonl" in said(everywhere) and "S is largest at" in said(everywhere)
    small = drawn(site.folder, "thumbnail", ["facts"]).html
    assert [it.get("width") for it in ET.fromstring(small).iter(RECTANGLE)] == ["344.0"] * 3
    cells = list(
        ET.fromstring(drawn(site.folder, "thumbnail", ["everywhere"]).html).iter(RECTANGLE)
    )
    assert len(cells) == 4 * LAYERS - 1 and cells[-1].get("opacity") == "1.00"
