"""`sae-graphs neuronpedia`: a saved graph is annotated, or one line says why not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sae_graphs.cli.outputs import write_run
from sae_graphs.graph.addresses import Address
from sae_graphs.graph.graph import CausalGraph
from tests.support.commands import Commands
from tests.support.graphs import example
from tests.support.neuronpedia_commands import (
    contents,
    hurry,
    knows_all,
    public_options,
    saved,
)
from tests.support.neuronpedia_server import Asked, Neuronpedia, Reply, reply
from tests.support.slow import crossed

KEY = "sk-np-very-secret"


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    hurry(monkeypatch)
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return public_options(tmp_path_factory.mktemp("public"))


# -- sae-graphs neuronpedia ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_saved_graph_is_annotated_in_place(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "here")
    (folder / "notes.txt").write_text("mine")
    (folder / "validation").mkdir()
    (folder / "validation" / "validation.json").write_text("{}")
    before = contents(folder)
    knows_all(neuronpedia, example())
    answer = run("neuronpedia", "here")
    assert answer.code == 0, answer.err
    after = contents(folder)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    pictures = {name for name in before if name.endswith((".svg", ".html", ".dot"))}
    assert changed == {*pictures, "graph.json", "run.json"}
    assert "graph-1.svg" in changed  # each component's, too
    graph = CausalGraph.load(folder)
    assert graph["2.10600"].explanation == "means tiny/2-res/10600"
    assert b"means tiny/2-res/10600" in after["graph.html"]
    old, new = json.loads(before["run.json"]), json.loads(after["run.json"])
    assert new == {**old, "neuronpedia": {"found": 7, "missing": 0, "unavailable": 0}}


def test_what_is_printed(run: Commands, neuronpedia: Neuronpedia, tmp_path: Path) -> None:
    saved(tmp_path / "here", ("dot",))
    knows_all(neuronpedia, example())
    del neuronpedia.features[Address("tiny/0-res", 9)]
    answer = run("neuronpedia", "here")
    rows = {line.split("│")[1].strip(): line for line in answer.out.splitlines() if "│" in line}
    for part in ("means tiny/2-res/10600", "0.12%", " tiny/2-res/10600"):
        assert part in rows["2.10600"]
    assert "no such feature" in rows["0.9"]
    (link,) = re.findall(r"https://www\.neuronpedia\.org/quick-list/\S+", answer.out)
    assert link.count("modelId") == 6  # the list would fail with one that is not there
    assert "wrote here/" in answer.out


def test_a_second_time_asks_nothing_and_changes_nothing(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "here", ("dot",))
    knows_all(neuronpedia, example())
    run("neuronpedia", "here")
    before = contents(folder)
    assert run("neuronpedia", "here").code == 0
    assert contents(folder) == before
    assert len(neuronpedia.asked) == 1
    assert run("neuronpedia", "here", "--refresh").code == 0
    assert len(neuronpedia.asked) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("gone", "place"), crossed([False, True], ["here", "mine.json"]))
def test_a_newer_run_stays(
    run: Commands,
    neuronpedia: Neuronpedia,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    gone: bool,
) -> None:
    """While the service is asked, another run replaces the folder: its graph is the one to keep."""
    folder = saved(tmp_path / "here", ("dot",))
    example().save(tmp_path / "mine.json")
    knows_all(neuronpedia, example())
    newer = replace(example(), run=replace(example().run, prompt="a newer run"))
    answered = neuronpedia.answer

    def meanwhile(asked: Asked) -> Reply:
        if place == "here":
            write_run(folder, newer, formats=("dot", "svg"), seconds=1.0)
        newer.save(tmp_path / place)
        if gone:
            file = tmp_path / place
            (file / "graph.json" if file.is_dir() else file).unlink()
        return answered(asked)

    monkeypatch.setattr(neuronpedia, "answer", meanwhile)
    answer = run("neuronpedia", place)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"{place} has changed while Neuronpedia was asked" in answer.err
    if gone:
        assert not (tmp_path / "mine.json").exists() or place == "here"
        return
    assert CausalGraph.load(tmp_path / place) == newer
    monkeypatch.setattr(neuronpedia, "answer", answered)
    requests = len(neuronpedia.asked)
    assert run("neuronpedia", place).code == 0  # and asking again is free
    assert len(neuronpedia.asked) == requests
    assert CausalGraph.load(tmp_path / place).run.prompt == "a newer run"


def test_a_service_that_fails_is_one_line(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    saved(tmp_path / "here", ("dot",))
    neuronpedia.always = reply({}, 503)
    answer = run("neuronpedia", "here")
    assert answer.code == 0, answer.err
    (line,) = answer.err.splitlines()
    assert line.startswith("warning: Neuronpedia was unavailable for 7 of 7 features: HTTP 503")
    assert answer.out.count("unavailable") == 1  # a line, not one of each feature
    (link,) = re.findall(r"https://www\.neuronpedia\.org/quick-list/\S+", answer.out)
    assert link.count("modelId") == 7  # their addresses are known
    neuronpedia.always = None
    knows_all(neuronpedia, example())
    assert "unavailable" not in run("neuronpedia", "here").out


def test_many_features_are_listed_on_numbered_pages(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae_graphs.graph.addresses.LISTED", 4)
    saved(tmp_path / "here", ("dot",))
    knows_all(neuronpedia, example())
    lines = [line for line in run("neuronpedia", "here").out.splitlines() if "quick-list" in line]
    assert [line.partition(": ")[0] for line in lines] == [
        "all of them, 1 of 2",
        "all of them, 2 of 2",
    ]
    assert [line.count("modelId") for line in lines] == [4, 3]


def test_whoever_asks_waits_for_a_rate_limit(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    saved(tmp_path / "here", ("dot",))
    knows_all(neuronpedia, example())
    neuronpedia.first.append(Reply(429, b"{}", {"retry-after": "60"}))
    assert "unavailable" not in run("neuronpedia", "here").out
    assert len(neuronpedia.asked) == 2


def test_a_graph_in_a_file(run: Commands, neuronpedia: Neuronpedia, tmp_path: Path) -> None:
    example().save(tmp_path / "mine.json")
    knows_all(neuronpedia, example())
    assert run("neuronpedia", "mine.json").code == 0
    assert CausalGraph.load(tmp_path / "mine.json")["0.1"].explanation == "means tiny/0-res/1"
    assert [path.name for path in tmp_path.glob("*.*")] == ["mine.json"]


def test_edges_are_found_by_address(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    saved(tmp_path / "here", ("dot",))
    for source in ("tiny/2-res/10600", "https://www.neuronpedia.org/tiny/2-res/10600?embed=true"):
        answer = run("edges", "here", "--source", source, "--format", "json")
        assert [row["target"] for row in json.loads(answer.out)] == ["3.5"]
    answer = run("edges", "here", "--source", "other/2-res/10600")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "no SAE layer is other/2-res on Neuronpedia" in answer.err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder.joinpath("graph.json").unlink(), "cannot read"),
        (lambda folder: folder.joinpath("graph.json").write_text("{"), "is not JSON"),
        (
            lambda folder: replace(
                example(), nodes=tuple(replace(n, neuronpedia=None) for n in example().nodes)
            ).save(folder),
            "no feature of this graph has a page on Neuronpedia",
        ),
    ],
)
def test_mistakes_are_one_line(
    run: Commands,
    neuronpedia: Neuronpedia,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    spoil(saved(tmp_path / "here", ("dot",)))
    answer = run("neuronpedia", "here")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert message in answer.err
    assert neuronpedia.asked == []


def test_the_key_is_written_nowhere(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONPEDIA_API_KEY", KEY)
    saved(tmp_path / "here", ("svg",))
    knows_all(neuronpedia, example())
    good = run("neuronpedia", "here")
    neuronpedia.always = reply({}, 401)
    bad = run("neuronpedia", "here", "--refresh")
    monkeypatch.setenv("NEURONPEDIA_API_KEY", KEY + "\nx: y")
    broken = run("neuronpedia", "here", "--refresh")
    assert {asked.headers.get("x-api-key") for asked in neuronpedia.asked} == {KEY}
    assert (good.code, bad.code, broken.code) == (0, 0, 2)
    assert not any(KEY in answer.out + answer.err for answer in (good, bad, broken))
    everything = contents(tmp_path)
    assert any(name.startswith("cache") for name in everything)
    assert not any(KEY.encode() in data for data in everything.values())


def test_help_has_an_example(run: Commands) -> None:
    shown = run("neuronpedia", "--help").out
    assert "sae-graphs neuronpedia outputs/" in shown
    assert "NEURONPEDIA_API_KEY" in shown
    assert "--no-neuronpedia" in run("graph", "--help").out
