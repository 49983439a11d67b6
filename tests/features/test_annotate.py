"""Graphs with what Neuronpedia says: from the service, from the cache, or from neither."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.features.neuronpedia.annotate import annotate, unanswered
from sae_graphs.features.neuronpedia.answers import Answer
from sae_graphs.features.neuronpedia.cache import MISSING_SECONDS, Cache, cache_folder
from sae_graphs.features.neuronpedia.client import Service
from sae_graphs.graph.addresses import Address
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage, LogitToken
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Context, Node
from tests.support.graphs import example, node, resolved
from tests.support.neuronpedia_server import HTML, Asked, Neuronpedia, Reply, record, reply

NAMES = [f"tiny/{node.feature.layer}-res/{node.feature.index}" for node in example().nodes]
PLAIN = "tiny/0-res/1"


@pytest.fixture(autouse=True)
def _nobody_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Service.from_environment

    def quick() -> Service:
        return replace(made(), sleep=lambda _: None)

    monkeypatch.setattr(Service, "from_environment", quick)


@pytest.fixture
def full(neuronpedia: Neuronpedia) -> Neuronpedia:
    """A service that knows every feature of the example."""
    neuronpedia.knows(*NAMES)
    return neuronpedia


def statuses(graph: CausalGraph) -> set[str | None]:
    return {None if each.page is None else each.page.status for each in graph.nodes}


def without_contexts(graph: CausalGraph) -> CausalGraph:
    return replace(graph, nodes=tuple(replace(each, contexts=()) for each in graph.nodes))


def files_of_cache() -> list[Path]:
    return sorted(cache_folder().rglob("*.*"))


# -- from the service ------------------------------------------------------------------------------


def test_every_feature_gets_its_own_page(full: Neuronpedia) -> None:
    graph = example()
    found = annotate(graph)
    assert {str(each.feature): each.explanation for each in found.nodes} == {
        str(each.feature): f"means tiny/{each.feature.layer}-res/{each.feature.index}"
        for each in graph.nodes
    }
    assert (found.run, found.edges) == (graph.run, graph.edges)
    assert graph == example()  # and the graph given is as it was
    assert {at.path for at in full.asked} == {"/api/features"}


def test_a_second_run_asks_nothing(full: Neuronpedia) -> None:
    found = annotate(example())
    assert len(full.asked) == 1
    assert annotate(example()) == found  # from the cache
    for file in files_of_cache():
        file.unlink()
    assert annotate(found) == found  # from the graph itself
    assert len(full.asked) == 1


def test_a_feature_at_several_tokens_is_asked_for_once(neuronpedia: Neuronpedia) -> None:
    neuronpedia.knows("tiny/1-res/2")
    found = annotate(resolved())
    assert found["1.2@1"].page == found["1.2@3"].page
    assert found["1.2@3"].explanation == "means tiny/1-res/2"
    assert found["out.340@3"].page is None
    assert found.summed()["1.2"].explanation == "means tiny/1-res/2"
    assert len(neuronpedia.asked[0].body) == 4  # 0.1, 1.2, 1.3, 2.4


def test_graphs_without_addresses_are_left_alone(neuronpedia: Neuronpedia) -> None:
    nodes = tuple(replace(each, neuronpedia=None) for each in example().nodes)
    graph = replace(example(), nodes=nodes)
    assert annotate(graph) is graph
    assert neuronpedia.asked == []


@pytest.mark.parametrize("wrong", [42, None, "outputs/mine"])
def test_what_is_no_graph(wrong: Any) -> None:
    with pytest.raises(SaeGraphsError, match=r"not a graph: .*CausalGraph\.load"):
        annotate(wrong)


def test_stored_contexts_win(full: Neuronpedia) -> None:
    own = example()["0.1"].contexts
    found = annotate(example())["0.1"]
    assert found.contexts == own
    assert found.page is not None
    assert not found.page.gave_contexts


def test_contexts_come_from_the_page_where_there_are_none(full: Neuronpedia) -> None:
    found = annotate(without_contexts(example()))
    assert found["0.1"].contexts[0].tokens[15] == " t20"
    assert {each.page.gave_contexts for each in found.nodes if each.page} == {True}
    full.knows(*NAMES, activations=[{"tokens": ["new"], "values": [1.0]}])
    again = annotate(found, refresh=True)
    assert again["0.1"].contexts == (Context(("new",), (1.0,)),)
    full.knows(*NAMES, activations=[])
    assert annotate(again, refresh=True)["0.1"].contexts == ()  # they were the page's, and are gone


def test_refresh_asks_again(full: Neuronpedia) -> None:
    annotate(example())
    full.knows(*NAMES, explanation="another")
    assert annotate(example())["0.1"].explanation == f"means {PLAIN}"
    assert annotate(example(), refresh=True)["0.1"].explanation == "another"
    assert annotate(example())["0.1"].explanation == "another"  # and that is kept


def test_what_is_missing(neuronpedia: Neuronpedia, monkeypatch: pytest.MonkeyPatch) -> None:
    neuronpedia.knows(*NAMES[1:])
    found = annotate(example())
    assert found["0.1"].page == FeaturePage("missing")
    annotate(example())
    assert len(neuronpedia.asked) == 1  # believed for a week
    neuronpedia.knows(PLAIN)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + MISSING_SECONDS + 1)
    assert annotate(found)["0.1"].explanation == f"means {PLAIN}"
    assert len(neuronpedia.asked[1].body) == 1  # what was found is kept for good


# -- without the service ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [HTML, reply({}, 500), reply({}, 429), reply([3])])
def test_a_service_that_fails_is_said(neuronpedia: Neuronpedia, bad: Any) -> None:
    neuronpedia.always = bad
    said: list[str] = []
    found = annotate(example(), told=said.append)
    assert statuses(found) == {"unavailable"}
    (warning,) = said
    assert warning.startswith("Neuronpedia was unavailable for 7 of 7 features: ")
    assert found.run == example().run
    assert files_of_cache() == []
    assert found.edges == example().edges
    neuronpedia.always = None
    neuronpedia.knows(*NAMES)
    assert statuses(annotate(found, told=said.append)) == {"found"}
    assert len(said) == 1


def test_without_a_listener_it_is_logged(neuronpedia: Neuronpedia, logged: StringIO) -> None:
    neuronpedia.always = reply({}, 500)
    annotate(example())
    assert "unavailable for 7 of 7 features: HTTP 500" in logged.getvalue()


def test_what_was_known_stays(full: Neuronpedia) -> None:
    found = annotate(example())
    full.always = reply({}, 500)
    said: list[str] = []
    assert annotate(found, refresh=True, told=said.append) == found
    assert len(said) == 1


def test_answers_before_the_failure_are_kept(full: Neuronpedia) -> None:
    full.first.append(reply([record(name) for name in NAMES[:3]]))
    full.always = reply({}, 400)
    said: list[str] = []
    found = annotate(example(), service=Service(full.url, batch=3), told=said.append)
    known = [each.page.status for each in found.nodes if each.page]
    assert known == ["found"] * 3 + ["unavailable"] * 4
    assert len(files_of_cache()) == 3
    assert "4 of 7 features: HTTP 400" in said[0]


def test_ctrl_c_loses_no_answer(full: Neuronpedia, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = full.answer

    def slow_at_last(asked: Asked) -> Reply:
        reply = answered(asked)
        return reply._replace(wait=30.0) if len(full.asked) == 3 else reply

    def stop(done: int, total: int) -> None:
        while done == 6:
            if len(full.asked) == 3:
                raise KeyboardInterrupt
            time.sleep(0.01)

    monkeypatch.setattr(full, "answer", slow_at_last)
    with pytest.raises(KeyboardInterrupt):
        annotate(example(), service=Service(full.url, batch=3), progress=stop)
    assert len(files_of_cache()) == 6
    found = annotate(example(), ask=False)
    assert [each.page is not None for each in found.nodes] == [True] * 6 + [False]
    assert unanswered(found) == 1
    requests = len(full.asked)
    assert statuses(annotate(found)) == {"found"}
    assert len(full.asked[requests:]) == 1
    assert len(full.asked[requests].body) == 1


def test_without_asking_there_is_the_cache_alone(neuronpedia: Neuronpedia) -> None:
    said: list[str] = []
    assert annotate(example(), ask=False, told=said.append) == example()
    assert annotate(example(), ask=False, refresh=True) == example()
    assert unanswered(example()) == 7
    neuronpedia.knows(*NAMES[1:])
    full = annotate(example())
    assert annotate(example(), ask=False, refresh=True, told=said.append) == full
    assert unanswered(full) == 0  # of the one that is missing, that is the answer
    assert len(neuronpedia.asked) == 1
    assert said == []


def test_offline_there_is_the_cache_alone(
    full: Neuronpedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said: list[str] = []
    assert statuses(annotate(example(), told=said.append)) == {"unavailable"}
    assert "HF_HUB_OFFLINE is set" in said[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    online = annotate(example())
    assert statuses(online) == {"found"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    assert annotate(example()) == online
    assert annotate(example(), refresh=True) == online
    assert len(full.asked) == 1


def test_a_service_that_cannot_be(full: Neuronpedia, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONPEDIA_URL", "not an address")
    with pytest.raises(SaeGraphsError, match="NEURONPEDIA_URL"):
        annotate(example())


def test_a_cache_that_cannot_be_written(
    full: Neuronpedia, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert statuses(annotate(example())) == {"found"}


# -- the cache -------------------------------------------------------------------------------------

HERE = Address("tiny/0-res", 1)
FOUND = Answer(
    FeaturePage("found", "\u202e </b>", 0.5, 3.0, (LogitToken("a", 1.5),), (LogitToken("b", -1),)),
    (Context(("x", "\x00"), (0.5, 2.0)),),
)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    yield Cache(tmp_path / "pages")


def test_the_cache_gives_back_what_it_got(cache: Cache) -> None:
    assert cache.read(HERE) is None
    cache.write(HERE, FOUND)
    assert cache.read(HERE) == FOUND
    assert cache.file_of(HERE) == cache.folder / "tiny" / "0-res" / "1.json"
    assert cache.read(Address("tiny/0-res", 2)) is None
    assert [file.name for file in cache.file_of(HERE).parent.iterdir()] == ["1.json"]


def test_unavailable_is_never_kept(cache: Cache) -> None:
    cache.write(HERE, Answer(FeaturePage("unavailable")))
    assert not cache.folder.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"found"', '"gone"'),
        lambda text: text.replace('"found"', '"missing"'),
        lambda text: text.replace("0.5", "1e999"),
        lambda text: text.replace("sae_graphs/neuronpedia/2", "sae_graphs/neuronpedia/1"),
        lambda text: text.replace("tiny/0-res", "tiny/9-res"),
        lambda text: text.replace("www.neuronpedia.org", "mirror.example"),
        lambda text: text.replace('"contexts"', '"other"'),
        lambda text: text.replace('["x", ', '[1, '),
        lambda text: text.replace('"page": {', '"page": {"x": 1}, "y": {'),
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: "null",
        lambda text: "{}",
        lambda text: "é" + text,
    ],
)  # fmt: skip
def test_damaged_files_are_as_good_as_none(cache: Cache, spoil: Any) -> None:
    cache.write(HERE, FOUND)
    file = cache.file_of(HERE)
    spoilt = spoil(file.read_text())
    assert spoilt != file.read_text()
    file.write_text(spoilt)
    assert cache.read(HERE) is None
    cache.write(HERE, FOUND)
    assert cache.read(HERE) == FOUND


def test_services_do_not_share_answers(cache: Cache) -> None:
    cache.write(HERE, FOUND)
    assert replace(cache, service="https://mirror.example").read(HERE) is None


def test_a_clock_that_was_wrong(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    cache.write(HERE, Answer(FeaturePage("missing")))
    assert cache.read(HERE) == Answer(FeaturePage("missing"))
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert cache.read(HERE) is None


# -- in files --------------------------------------------------------------------------------------

PAGES = [
    FOUND.page,
    FeaturePage("found"),
    FeaturePage("found", gave_contexts=True),
    FeaturePage("missing"),
    FeaturePage("unavailable"),
    None,
]


def with_pages() -> CausalGraph:
    pages = [PAGES[number % len(PAGES)] for number in range(len(example().nodes))]
    nodes = zip(example().nodes, pages, strict=True)
    return replace(example(), nodes=tuple(replace(each, page=page) for each, page in nodes))


def test_pages_come_back_from_files(tmp_path: Path) -> None:
    graph = with_pages()
    assert CausalGraph.load(graph.save(tmp_path)) == graph


def test_other_programs_find_explanations(tmp_path: Path) -> None:
    file = with_pages().save(tmp_path)
    digraph = nx.node_link_graph(json.loads(file.read_text()), edges="edges")
    assert digraph.nodes["0.1"]["explanation"] == "\u202e </b>"
    assert digraph.nodes["0.9"]["explanation"] is None
    assert with_pages().to_networkx().nodes["0.1"]["page"]["density"] == 0.5
    table = with_pages().to_pandas()
    first = table[(table.source == "0.1") & (table.target == "1.1")].iloc[0]
    assert first.source_explanation == "\u202e </b>"
    assert first[["target_explanation"]].isna().all()


def test_files_from_before_have_no_pages(tmp_path: Path) -> None:
    file = example().save(tmp_path)
    data = json.loads(file.read_text())
    for each in data["nodes"]:
        del each["page"], each["explanation"]
    file.write_text(json.dumps(data))
    assert CausalGraph.load(file) == example()


@pytest.mark.parametrize(
    "page", ["found", [], {}, {"status": "found"}, {**vars(FeaturePage("found")), "density": 2}]
)
def test_damaged_pages_are_said(page: Any, tmp_path: Path) -> None:
    file = example().save(tmp_path)
    data = json.loads(file.read_text())
    data["nodes"][0]["page"] = page
    file.write_text(json.dumps(data))
    with pytest.raises(GraphFileError):
        CausalGraph.load(file)


def test_nodes_say_what_they_mean() -> None:
    plain: Node = node(FeatureId("0", 1))
    assert plain.explanation is None
    assert replace(plain, page=FOUND.page).explanation == "\u202e </b>"
