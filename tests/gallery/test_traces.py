"""Causal traces in the gallery: a card, a page, a picture; compared with nothing."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sae_graphs.gallery.artist import drawn
from sae_graphs.gallery.runs import runs_in
from sae_graphs.gallery.traces import cells, rows
from sae_graphs.schema import record_bytes
from sae_graphs.tracing import record_json
from sae_graphs.tracing.records import Trace
from tests.support.commands import Commands
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import Site, served, write_run
from tests.support.traced_cases import traces as many_traces
from tests.support.traces import hostile, planted, planted_shares, trace_of

RECTANGLE = "{http://www.w3.org/2000/svg}rect"


def save(folder: Path, trace: Trace) -> None:
    folder.mkdir(parents=True)
    record_json.save(trace, folder)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("traces") / "runs"
    save(folder / "eiffel", replace(planted(3), warnings=("look out",)))
    save(folder / "wild", hostile())
    (folder / "broken").mkdir()
    (folder / "broken" / "trace.json").write_text("{")
    write_run(folder / "graph", two_edges())
    write_run(folder / "both", two_edges())
    planted().save(folder / "both")
    (folder / "many").mkdir()
    (folder / "many" / "traces.json").write_bytes(record_bytes(many_traces(n=6)))
    with served(folder) as running:
        yield running


def test_a_folder_with_a_graph_is_the_graphs(traced: Site) -> None:
    found = {name: run.file for name, run in runs_in(traced.folder).items()}
    assert found == {
        "both": "graph.json",
        "broken": "trace.json",
        "eiffel": "trace.json",
        "graph": "graph.json",
        "many": "traces.json",
        "wild": "trace.json",
    }


def test_cards_tell_what_was_found(traced: Site) -> None:
    page = traced.ask("/").text
    (card,) = [it for it in re.findall("<article.*?</article>", page) if 'run/eiffel/"' in it]
    said = html.unescape(re.sub("<[^>]+>", " ", card))
    assert "4 sites · handover in block 3" in said and "causal trace" in said
    assert "model made by hand" in said and "SAEs" not in said and "1 warning" in said
    assert "checkbox" not in card, "it is compared with nothing"
    assert "<script>alert" not in page
    assert page.count("This run cannot be opened.") == 1


@pytest.mark.slow
def test_a_card_opens_the_page(traced: Site) -> None:
    reply = traced.ask("/run/wild/")
    assert reply.status == 200 and "script-src" not in reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "← all runs" in reply.text and "<script>" not in reply.text
    assert "compare with" not in reply.text
    assert traced.ask("/run/eiffel/trace.json").status == 200
    assert traced.ask("/run/broken/").status == 422


def test_many_prompts_have_a_card_a_page_and_a_picture(traced: Site) -> None:
    page = traced.ask("/").text
    (card,) = [it for it in re.findall("<article.*?</article>", page) if 'run/many/"' in it]
    said = html.unescape(re.sub("<[^>]+>", " ", card))
    assert "causal traces" in said and "12 of 14 prompts · cached: block " in said
    assert "checkbox" not in card
    root = ET.fromstring(rows(many_traces(n=6)))
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 4
    assert "polyline" not in rows(many_traces(n=0)).partition("</style>")[2]


@pytest.mark.slow
def test_the_page_of_many_prompts(traced: Site) -> None:
    page = drawn(traced.folder, "explorer", ["many"])
    assert "← all runs" in page.html and "<script>" not in page.html
    assert drawn(traced.folder, "thumbnail", ["many"]).html.startswith("<svg")


@pytest.mark.slow
def test_a_trace_is_compared_with_nothing(traced: Site) -> None:
    reply = traced.ask("/compare?a=graph&b=eiffel")
    assert reply.status == 422 and "only graphs can be compared" in reply.text
    assert "eiffel" not in traced.ask("/run/graph/").text


def test_a_picture_has_the_cells_that_restore(traced: Site) -> None:
    root = ET.fromstring(drawn(traced.folder, "thumbnail", ["eiffel"]).html)
    assert len(root.findall(RECTANGLE)) >= 8
    shares = planted_shares(sweeps=("state",))
    shares["state"][5, 3] = -0.5
    small = cells(trace_of(shares, noise=0.0))
    assert small.count('class="feature"') == 8 and small.count('class="harms"') == 1
    assert "prefers-color-scheme: dark" in small
    assert cells(planted(clean=-9.0)).count("<rect") == 0, "nothing was lost"


def test_validating_all_passes_over_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "runs" / "one", planted())
    answer = Commands(monkeypatch, capsys, tmp_path)("validate", "--all", "runs")
    assert answer.code == 2 and "holds no runs" in answer.err
