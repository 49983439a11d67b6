"""Graphs that ask Neuronpedia, and are drawn whatever it does."""

from __future__ import annotations

import html
import json
import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sae_graphs.graph.addresses import address_of
from sae_graphs.graph.graph import CausalGraph
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT
from tests.support.graphs import example
from tests.support.neuronpedia_commands import (
    contents,
    hurry,
    knows_all,
    public_options,
    saved,
)
from tests.support.neuronpedia_server import HTML, Asked, Neuronpedia, Reply, reply
from tests.support.slow import first


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    hurry(monkeypatch)
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return public_options(tmp_path_factory.mktemp("public"))


# -- sae-graphs graph ------------------------------------------------------------------------------


@pytest.mark.slow
def test_graph_asks_and_draws(
    run: Commands, public: tuple[str, ...], neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    command = ("graph", "the cat", *EFFECT, *public, "--formats", "dot", "--out")
    plain = run(*command, "plain", "--no-neuronpedia")
    assert plain.code == 0, plain.err
    assert neuronpedia.asked == []
    before = CausalGraph.load(tmp_path / "plain")
    assert {node.page for node in before.nodes} == {None}
    knows_all(neuronpedia, before)

    answer = run(*command, "asked", "--formats", "svg,dot")
    assert answer.code == 0, answer.err
    graph = CausalGraph.load(tmp_path / "asked")
    assert graph.edges == before.edges
    assert all(node.explanation == f"means {address_of(node)}" for node in graph.nodes)
    assert all(node.contexts[0].tokens[-1] == " t24" for node in graph.nodes)  # the service's
    drawn = html.unescape((tmp_path / "asked" / "graph.svg").read_text()).replace("\xa0", " ")
    assert all(f"means {address_of(node)}" in drawn for node in graph.nodes)
    assert "means tiny/" in answer.out
    record = json.loads((tmp_path / "asked" / "run.json").read_text())
    assert record["neuronpedia"] == {"found": len(graph.nodes), "missing": 0, "unavailable": 0}
    assert json.loads((tmp_path / "plain" / "run.json").read_text())["neuronpedia"] is None

    requests = len(neuronpedia.asked)
    assert run(*command, "again").code == 0
    assert len(neuronpedia.asked) == requests  # a second run makes no request
    assert CausalGraph.load(tmp_path / "again").nodes == graph.nodes


@pytest.mark.parametrize(
    ("bad", "reason"),
    first(
        1,
        [
            (HTML, "its answer is not JSON"),
            (reply({}, 500), "HTTP 500"),
            (reply({}, 429), "HTTP 429"),
            (reply([], cut=1), "its answer broke off"),
            (reply([], wait=30.0), "it does not answer in time"),
            (reply({"a": 1}), "its answer is not a list"),
            (None, "HF_HUB_OFFLINE"),
        ],
    ),
)
def test_the_graph_is_drawn_anyway(
    run: Commands,
    public: tuple[str, ...],
    neuronpedia: Neuronpedia,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: Reply | None,
    reason: str,
) -> None:
    neuronpedia.always = bad
    if bad is not None and bad.wait:
        hurry(monkeypatch, timeout=0.4, attempts=2)
    if bad is None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = run("graph", "the cat", *EFFECT, *public, "--formats", "dot", "--out", "here")
    assert answer.code == 0, answer.err
    (line,) = answer.err.splitlines()
    assert line.startswith("warning: Neuronpedia was unavailable for ")
    assert reason in line
    graph = CausalGraph.load(tmp_path / "here")
    assert graph.edges
    assert {node.page.status for node in graph.nodes if node.page} == {"unavailable"}
    assert "unavailable" in (tmp_path / "here" / "graph.dot").read_text()


def test_a_wrong_address_of_the_service_is_one_line(
    run: Commands,
    public: tuple[str, ...],
    neuronpedia: Neuronpedia,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEURONPEDIA_URL", "nowhere")
    answer = run("graph", "the cat", *EFFECT, *public, "--formats", "dot", "--out", "here")
    assert answer.code == 0
    assert answer.err.count("warning: 'nowhere' is no address of a service") == 1


def test_the_bundled_model_asks_nothing(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    answer = run("graph", "Copyright (C", *EFFECT, "--formats", "dot", "--out", "here")
    assert answer.code == 0, answer.err
    assert neuronpedia.asked == []
    assert "Neuronpedia" not in answer.out + answer.err


@pytest.mark.slow
def test_what_was_said_survives_drawing_again(
    run: Commands, public: tuple[str, ...], neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    command = (
        "graph",
        "the cat",
        *EFFECT,
        *public,
        "--formats",
        "dot",
        "--out",
        "here",
        "--save-effects",
    )
    assert run(*command, "--no-neuronpedia").code == 0
    knows_all(neuronpedia, CausalGraph.load(tmp_path / "here"))
    assert run("neuronpedia", "here").code == 0
    again = run("graph", "--from", "here", "--top-k", "4", "--formats", "dot", "--out", "fewer")
    assert again.code == 0, again.err
    fewer = CausalGraph.load(tmp_path / "fewer")
    assert fewer.edges
    assert all(node.explanation for node in fewer.nodes)


def interrupted_after(
    patch: pytest.MonkeyPatch, service: Neuronpedia, answers: int, *, batch: int
) -> None:
    """Ctrl-C while the command waits, once so many answers have come; no others do."""
    hurry(patch, batch=batch)
    answered = service.answer

    def hold(asked: Asked) -> Reply:
        if len(service.asked) >= answers:
            service.wait(10.0)
        return answered(asked)

    class Interrupted(queue.Queue[Any]):
        taken = 0

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if self.taken == answers:
                raise KeyboardInterrupt
            self.taken += 1
            return super().get(block, timeout)

    patch.setattr(service, "answer", hold)
    only_there = SimpleNamespace(SimpleQueue=Interrupted, Empty=queue.Empty)
    patch.setattr("sae_graphs.features.neuronpedia.client.queue", only_there)


@pytest.mark.slow
def test_ctrl_c_while_asking_draws_what_was_measured(
    run: Commands,
    public: tuple[str, ...],
    neuronpedia: Neuronpedia,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ("graph", "the cat", *EFFECT, *public, "--formats", "dot", "--out")
    assert run(*command, "plain", "--no-neuronpedia").code == 0
    plain = CausalGraph.load(tmp_path / "plain")
    knows_all(neuronpedia, plain)
    interrupted_after(monkeypatch, neuronpedia, 1, batch=4)
    answer = run(*command, "here")
    assert answer.code == 0, answer.err
    (line,) = answer.err.splitlines()
    rest = len(plain.nodes) - 4
    assert line == (
        f"warning: stopped asking Neuronpedia; drawn without what {rest} features mean; "
        "`sae-graphs neuronpedia here` asks for it"
    )
    graph = CausalGraph.load(tmp_path / "here")
    assert graph.edges == plain.edges
    assert sum(node.explanation is not None for node in graph.nodes) == 4
    assert sum(node.page is None for node in graph.nodes) == rest
    assert not list(tmp_path.glob(".*partial"))


def test_ctrl_c_keeps_what_was_answered(
    run: Commands, neuronpedia: Neuronpedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(saved(tmp_path / "here", ("dot",)))
    knows_all(neuronpedia, example())
    interrupted_after(monkeypatch, neuronpedia, 2, batch=2)
    answer = run("neuronpedia", "here")
    assert (answer.code, answer.err.count("\n")) == (130, 1)
    assert contents(tmp_path / "here") == before
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 4


@pytest.mark.slow
def test_features_are_pinned_by_address(
    run: Commands, public: tuple[str, ...], neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    command = ("graph", "the cat", *EFFECT, *public, "--formats", "dot", "--no-neuronpedia")
    assert run(*command, "--out", "all", "--save-effects").code == 0
    source = CausalGraph.load(tmp_path / "all").edges[0].source
    address = f"tiny/{source.layer}-res/{source.index}"
    given = (str(source), address, f"https://www.neuronpedia.org/{address}")
    for pin in given:
        answer = run(*command, "--pin", pin, "--out", "one")
        assert answer.code == 0, answer.err
        graph = CausalGraph.load(tmp_path / "one")
        assert {edge.source for edge in graph.edges} == {source}
        assert graph.run.settings["pin"] == [str(source)]
        again = run("graph", "--from", "all", "--pin", pin, "--formats", "dot", "--out", "again")
        assert again.code == 0, again.err
        assert {edge.source for edge in CausalGraph.load(tmp_path / "again").edges} == {source}
    for pin, message in (
        ("other/0-res/1", "no SAE layer is other/0-res on Neuronpedia; expected one of tiny/0-res"),
        ("tiny/0-res", "not a feature on Neuronpedia: 'tiny/0-res'; expected"),
    ):
        for start in (command, ("graph", "--from", "all")):
            answer = run(*start, "--pin", pin, "--out", "none")
            assert (answer.code, answer.err.count("\n")) == (2, 1)
            assert message in answer.err


@pytest.mark.slow
def test_drawing_again_asks_nothing(
    run: Commands, public: tuple[str, ...], neuronpedia: Neuronpedia, tmp_path: Path
) -> None:
    command = (
        "graph",
        "the cat",
        *EFFECT,
        *public,
        "--formats",
        "dot",
        "--out",
        "here",
        "--save-effects",
    )
    assert run(*command, "--no-neuronpedia").code == 0
    graph = CausalGraph.load(tmp_path / "here")
    again = ("graph", "--from", "here", "--formats", "dot", "--out")
    assert run(*again, "none").err == ""  # it was not to be asked
    assert neuronpedia.asked == []
    knows_all(neuronpedia, graph)
    assert run(*command).code == 0
    requests = len(neuronpedia.asked)
    answer = run(*again, "all")
    assert (answer.code, answer.err) == (0, "")  # from the cache, and so nothing is missing
    assert all(node.explanation for node in CausalGraph.load(tmp_path / "all").nodes)
    more = run(*again, "more", "--top-k", "30")
    missing = len(CausalGraph.load(tmp_path / "more").nodes) - len(graph.nodes)
    assert missing > 0
    assert f"drawn without what {missing} features mean" in more.err
    assert len(neuronpedia.asked) == requests
