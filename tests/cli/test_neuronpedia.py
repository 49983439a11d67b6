"""`sae-graphs neuronpedia`, and graphs that are drawn whatever the service does."""

from __future__ import annotations

import html
import json
import queue
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sae_graphs.cli.outputs import write_run
from sae_graphs.features.neuronpedia.client import Service
from sae_graphs.graph.addresses import Address, address_of
from sae_graphs.graph.graph import CausalGraph
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT
from tests.support.graphs import example
from tests.support.models import save_model_folder, save_sae_folder
from tests.support.neuronpedia_server import HTML, Asked, Neuronpedia, Reply, reply
from tests.support.slow import crossed, first

KEY = "sk-np-very-secret"


def hurry(patch: pytest.MonkeyPatch, **how: float) -> None:
    """Commands pause nowhere."""

    def quick() -> Service:
        return replace(MADE(), sleep=lambda _: None, **how)  # type: ignore[arg-type]

    patch.setattr(Service, "from_environment", quick)


MADE = Service.from_environment


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    hurry(monkeypatch)
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options for a tiny model whose SAEs say that they are on Neuronpedia."""
    root = tmp_path_factory.mktemp("public")
    model, saes = save_model_folder(root / "model"), save_sae_folder(root / "saes")
    for number, folder in enumerate(sorted(saes.iterdir())):
        file = folder / "cfg.json"
        settings = json.loads(file.read_text())
        settings["metadata"]["neuronpedia_id"] = f"tiny/{number}-res"
        file.write_text(json.dumps(settings))
    return "--model", str(model), "--saes", str(saes), "--min-path-edges", "1"


def saved(folder: Path, formats: tuple[str, ...] = ("svg", "html", "dot")) -> Path:
    write_run(folder, example(), formats=formats, seconds=1.0)
    return folder


def knows_all(service: Neuronpedia, graph: CausalGraph) -> None:
    service.knows(*(str(at) for node in graph.nodes if (at := address_of(node)) is not None))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# -- sae-graphs graph ------------------------------------------------------------------------------


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
        2,
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


# -- sae-graphs neuronpedia ------------------------------------------------------------------------


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
