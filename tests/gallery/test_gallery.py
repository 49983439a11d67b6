"""What the gallery says of runs, of damaged ones too."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery import library, runs
from sae_graphs.gallery.artist import Artist, Kind
from sae_graphs.gallery.cards import gallery
from sae_graphs.gallery.library import Library
from sae_graphs.gallery.runs import Card, Run, graph_of, plain_file, runs_in
from sae_graphs.gallery.site import answered
from sae_graphs.gallery.skeleton import Page, prompt_html
from sae_graphs.graph.annotations import Annotations, save
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.validation.answer.record_json import to_bytes
from tests.support import evidence
from tests.support.answer_graphs import answer_graph
from tests.support.answers import answer_report, graph_unit, path_unit
from tests.support.rich_graphs import record, two_components, two_edges
from tests.support.saved_runs import HOSTILE_NAME, Site, over, served, write_run
from tests.support.slow import first


def cards(site: Site) -> dict[str, Card]:
    return {card.run.name: card for card in Library(site.folder).cards()}


def article(page: str, name: str) -> str:
    """One card of a page."""
    found = [
        part
        for part in page.split("<article ")[1:]
        if f"<h2>{name}" in part or f">{name}</a>" in part
    ]
    assert len(found) == 1, name
    return found[0].partition("</article>")[0]


# -- finding runs ----------------------------------------------------------------------------------


def test_runs_are_folders_with_a_graph_one_level_deep(site: Site) -> None:
    found = runs_in(site.folder)
    assert set(found) == {
        *("plain", "validated", "other", HOSTILE_NAME, "resolved", "nothing", "stale"),
        *("broken json", "other schema", "nested", "a list", "binary", "a link", "a pipe"),
        "bad beside",
    }
    assert not runs_in(site.folder / "no run")


def test_a_folder_that_is_a_run_and_holds_one_of_its_name(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "same", two_edges())
    write_run(folder / "same", two_components())
    found = runs_in(folder)
    assert {name: len(graph_of(run).edges) for name, run in found.items()} == {
        "same (the folder itself)": 2,
        "same": 4,
    }


def test_a_folder_reached_by_a_link_is_the_users_choice(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one", two_edges())
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert set(runs_in(tmp_path / "link")) == {"one"}


def test_plain_files_alone(site: Site) -> None:
    run = runs_in(site.folder)["plain"]
    assert plain_file(run, ["graph.json"]) == run.folder / "graph.json"
    refused: Sequence[Sequence[str]] = (
        [],
        [""],
        ["."],
        [".."],
        ["..", "plain", "graph.json"],
        ["graph.json", ""],
        ["/etc/passwd"],
        ["link.json"],
        ["linked", "secret.json"],
        ["graph.json\0"],
        ["a:b.json"],
        ["..\\plain\\graph.json"],
        ["graph.json\n"],
        ["\ngraph.json"],
        ["folder.json"],
        ["notes.py"],
    )
    for names in refused:
        assert plain_file(run, names) is None, names


# -- reading them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken json", "is not JSON"),
        ("other schema", "schema is 'another'"),
        ("nested", "nested too deeply"),
        ("a list", "not a saved graph"),
        ("binary", "is not JSON"),
        ("a link", "not a plain file, and links are not followed"),
        ("a pipe", "not a plain file"),
    ],
)
def test_a_damaged_run_is_a_card_that_says_why(site: Site, name: str, words: str) -> None:
    card = cards(site)[name]
    assert card.record is None
    assert words in (card.problem or "")
    page = site.ask("/")
    assert page.status == 200
    shown = article(page.text, name)
    assert "This run cannot be opened." in shown
    assert str(site.folder) not in page.text  # nothing of this machine's folders
    reply = site.ask(f"/run/{quote(name)}/")
    assert reply.status == 422
    assert "This cannot be shown" in reply.text
    assert f"{name}/graph.json" in reply.text and str(site.folder) not in reply.text
    reply = site.ask(f"/compare?a=plain&b={quote(name)}")
    assert reply.status == 422


def test_damage_that_nobody_foresaw_breaks_one_card(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(run: Run) -> bool:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(library, "has_report", fails)
    assert "unforeseen" in (cards(site)["plain"].problem or "")


def test_a_file_that_is_too_large_is_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LARGEST", 10)
    with pytest.raises(SaeGraphsError, match=r"graph\.json is larger than 0 MiB"):
        graph_of(runs_in(site.folder)["plain"])


def test_what_stands_beside_a_graph_may_be_damaged(site: Site) -> None:
    card = cards(site)["bad beside"]
    assert card.record is not None and card.verdicts is None
    assert "validation.json is not JSON" in (card.unread or "")
    page = site.ask("/run/bad%20beside/").text
    assert "annotations.json is left out: bad beside/annotations.json is not JSON" in page
    assert "the validation is left out: bad beside/validation/validation.json is not JSON" in page
    assert str(site.folder) not in page


def test_a_validation_of_another_graph_is_left_out(site: Site) -> None:
    card = cards(site)["stale"]
    assert card.verdicts is None
    assert "it is of another graph" in (card.unread or "")
    assert "it is of another graph" in site.ask("/run/stale/").text


def test_cards_are_read_again_only_when_files_change(tmp_path: Path) -> None:
    write_run(tmp_path / "one", two_edges())
    shelf = Library(tmp_path)
    (first,) = shelf.cards()
    assert shelf.cards()[0] is first
    two_components().save(tmp_path / "one")
    (second,) = shelf.cards()
    assert (first.edges, second.edges) == (2, 4)


def drawing(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What is drawn, as it is drawn."""
    asked: list[tuple[str, ...]] = []

    def draw(self: Artist, folder: Path, kind: Kind, names: Sequence[str], **options: bool) -> Page:
        asked.append((kind, *names))
        return Page("x" * 100, "")

    monkeypatch.setattr(Artist, "draw", draw)
    return asked


def test_pages_are_drawn_again_only_when_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "one", two_edges())
    write_run(tmp_path / "two", two_edges())
    shelf, asked = Library(tmp_path), drawing(monkeypatch)
    shelf.cards()
    assert asked == []  # a card shows its picture only where the page is looked at
    for _ in range(2):
        for target in ("/run/one/", "/thumbnail/one.svg", "/compare?a=one&b=two"):
            assert answered(shelf, target).status == 200
    both = [("explorer", "one"), ("thumbnail", "one"), ("comparison", "one", "two")]
    assert asked == both
    answered(shelf, "/compare?a=one&b=two&sum=1")
    assert asked[3:] == [("comparison", "one", "two")]
    two_components().save(tmp_path / "one")
    for target in ("/run/one/", "/thumbnail/one.svg", "/compare?a=one&b=two"):
        answered(shelf, target)
    assert asked[4:] == both
    write_run(tmp_path / "three", two_edges())  # the explorer lists the other runs
    answered(shelf, "/thumbnail/one.svg")
    answered(shelf, "/run/one/")
    assert asked[7:] == [("explorer", "one")]


def test_what_is_kept_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "KEPT", 250)
    for name in "abc":
        write_run(tmp_path / name, two_edges())
    shelf, asked = Library(tmp_path), drawing(monkeypatch)
    for name in "abacb":  # of 100 characters each: b goes when c comes
        shelf.drawn("thumbnail", [name])
    assert [names for _, *names in asked] == [["a"], ["b"], ["c"], ["b"]]


# -- what cards say --------------------------------------------------------------------------------


def test_a_card(site: Site) -> None:
    card = cards(site)["plain"]
    assert (card.features, card.edges, card.verdicts) == (3, 2, None)
    assert datetime.fromtimestamp(card.created, tz=UTC).isoformat() == "2024-01-02T03:04:05+00:00"
    shown = article(site.ask("/").text, "plain")
    for words in (
        'href="/run/plain/"',
        'src="/thumbnail/plain.svg"',
        '<mark title="read here">C</mark>',
        "3 features · 2 arrows · 25% of the effect",
        "<code>)</code>",
        "90%",
        "not validated",
        "model demo · SAEs demo-saes",
        "2024-01-02 03:04 UTC",
        'name="run" value="plain"',
    ):
        assert words in shown, words
    assert "validation report" not in shown


def test_verdicts_are_counted_in_words(site: Site) -> None:
    card = cards(site)["validated"]
    assert card.verdicts == {"supported": 2, "not distinguishable": 1}
    shown = article(site.ask("/").text, "validated")
    assert "✓ 2 of 3 supported" in shown and "1 not distinguishable" in shown
    assert "validation/validation.html" in shown
    explorer = site.ask("/run/validated/").text
    assert "validation/validation.html" in explorer
    assert "Graph 1, path 1" in explorer  # the findings


@pytest.mark.usefixtures("drawn_here")
def test_what_was_found_of_an_answer_graph_is_counted_and_shown(tmp_path: Path) -> None:
    """One unit is supported; another is of features that are not necessary."""
    features = (FeatureId("0", 1, 1), FeatureId("1", 2, 1))
    units = (
        graph_unit(features=features),
        path_unit(features=features, p=(0.4, 0.4, 0.4)),
    )
    run = write_run(tmp_path / "runs" / "answer", answer_graph())
    (run / "validation").mkdir()
    (run / "validation" / "validation.json").write_bytes(to_bytes(answer_report(*units)))
    (card,) = Library(tmp_path / "runs").cards()
    assert card.unread is None
    assert card.verdicts == {"supported": 1, "not necessary, mediates": 1}
    with served(tmp_path / "runs") as site:
        shown = article(site.ask("/").text, "answer")
        assert "✓ 1 of 2 supported" in shown and "1 not necessary, mediates" in shown
        assert "Path 1" in site.ask("/run/answer/").text  # the findings


def test_the_newest_comes_first(site: Site) -> None:
    dated = [card.run.name for card in Library(site.folder).cards()]
    places = [dated.index(name) for name in ("validated", "plain", "other")]
    assert places == sorted(places)


def test_a_title_that_a_reader_gave(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", two_edges())
    save(Annotations(title="<b>Mine</b>"), run)
    (card,) = Library(tmp_path).cards()
    assert card.title == "<b>Mine</b>"
    page = gallery([card], folder="runs").html
    assert "&lt;b&gt;Mine&lt;/b&gt;" in page and "<b>Mine" not in page


def test_hostile_texts_and_names_are_shown_and_escaped(site: Site) -> None:
    page = site.ask("/").text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &quot;quotes&quot;" in page
    sent_back = f'value="{html.escape(HOSTILE_NAME)}"'  # as it is: the form returns it
    assert sent_back in page
    assert "\\u202e" in page and "\u202e" not in page.replace(sent_back, "")
    for target in (f"/run/{quote(HOSTILE_NAME, safe='')}/", compared()):
        text = site.ask(target).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text


def compared() -> str:
    name = quote(HOSTILE_NAME, safe="")
    return f"/compare?a={name}&b={name}"


@pytest.mark.usefixtures("drawn_anywhere")
def test_a_folder_whose_name_is_no_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        write_run(tmp_path / name, two_edges())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    shelf = Library(tmp_path)
    page = gallery(shelf.cards(), folder="runs")
    page.html.encode("utf-8")
    assert 'href="/run/caf%E9/"' in page.html
    assert 'value="caf' not in page.html  # a form could not send it
    for target in ("/run/caf%E9/", "/run/caf%E9/graph.json", "/compare?a=caf%E9&b=caf%E9"):
        assert answered(shelf, target).status == 200
    assert answered(shelf, "/thumbnail/caf%E9.svg").status == 200
    assert answered(shelf, "/run/caf%E9").location == "/run/caf%E9/"
    shelf.close()


@pytest.mark.usefixtures("drawn_anywhere")
@pytest.mark.parametrize(
    "name", first(2, ["tab\t%2f", "up\\..\\outside", "back\\slash", "new\nline", "a:b"])
)
def test_folders_may_be_called_anything(tmp_path: Path, name: str) -> None:
    try:
        write_run(tmp_path / name, two_edges())
    except OSError:
        pytest.skip("this file system takes no such names")
    shelf = Library(tmp_path)
    at = quote(name, safe="")
    page = gallery(shelf.cards(), folder="runs").html
    assert f'href="/run/{at}/"' in page and f'src="/thumbnail/{at}.svg"' in page
    targets = (f"/run/{at}/", f"/run/{at}/graph.json", f"/thumbnail/{at}.svg")
    for target in (*targets, f"/compare?a={at}&b={at}"):
        assert answered(shelf, target).status == 200, target
    assert answered(shelf, f"/run/{at}").location == f"/run/{at}/"
    shelf.close()


def test_long_prompts_are_cut_around_the_token_that_is_read() -> None:
    tokens = tuple(f" t{number}" for number in range(1000))
    shown = prompt_html(record(tokens, read_position=500))
    assert '<mark title="read here">␣t500</mark>' in shown
    assert "␣t499" in shown and "␣t501" in shown
    assert "␣t400<" not in shown and "␣t600" not in shown
    assert shown.count("…") == 2
    assert "…" not in prompt_html(record())
    assert "…" in prompt_html(record(("x" * 5000,), read_position=0))
    assert len(prompt_html(record(("x" * 5000,), read_position=0))) < 200


def test_no_runs_no_card() -> None:
    assert "No runs are here any more" in gallery([], folder="x").html
    lonely = Card(Run("gone", Path("gone")), 1e30, problem="a problem")
    assert "a problem" in gallery([lonely], folder="x").html


def test_a_report_of_this_graph_is_not_stale(tmp_path: Path) -> None:
    write_run(tmp_path / "one", over(), report=evidence.report())
    (card,) = Library(tmp_path).cards()
    assert card.unread is None
    other = replace(over().run, prompt="another")
    write_run(tmp_path / "one", replace(over(), run=other))
    assert Library(tmp_path).cards()[0].record is not None
