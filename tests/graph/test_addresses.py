"""Features and their addresses on Neuronpedia: there, back, and as a list."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError
from sae_graphs.graph.addresses import (
    LISTED,
    Address,
    address_of,
    feature_at,
    feature_url,
    layers_of,
    parse_address,
    quick_list_urls,
)
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from tests.support.graphs import example, node, resolved

HERE = Address("gpt2-small/5-res-jb", 10600)


@pytest.mark.parametrize(
    "text",
    [
        "https://www.neuronpedia.org/gpt2-small/5-res-jb/10600",
        "http://neuronpedia.org/gpt2-small/5-res-jb/10600/",
        "HTTPS://WWW.Neuronpedia.org/gpt2-small/5-res-jb/10600?embed=true&a=/b/c#plots",
        "www.neuronpedia.org/gpt2-small/5-res-jb/10600",
        "neuronpedia.org/gpt2-small/5-res-jb/10600?embed=true",
        "https://www.neuronpedia.org/api/feature/gpt2-small/5-res-jb/10600",
        "  gpt2-small/5-res-jb/10600 ",
        "gpt2-small/5-res-jb/10600/",
        "gpt2-small/5-res-jb/010600",
    ],
)
def test_addresses_of_all_kinds(text: str) -> None:
    assert parse_address(text) == HERE
    assert (HERE.model, HERE.source, str(HERE)) == (
        "gpt2-small",
        "5-res-jb",
        "gpt2-small/5-res-jb/10600",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "5.10600",
        "gpt2-small/5-res-jb",
        "gpt2-small/5-res-jb/x",
        "gpt2-small/5-res-jb/-1",
        "gpt2-small/5-res-jb/1.5",
        "gpt2-small/5-res-jb/1/2",
        "gpt2-small/../1",
        "../5-res-jb/1",
        "gpt2 small/5-res-jb/1",
        "gpt2-small/5-res-jb/٣",
        "gpt2-small/5-res-jb/" + "1" * 16,
        "https://example.org/gpt2-small/5-res-jb/10600",
        "https://neuronpedia.org.example.org/gpt2-small/5-res-jb/10600",
        "ftp://www.neuronpedia.org/gpt2-small/5-res-jb/10600",
        "https://[/gpt2-small/5-res-jb/10600",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SaeGraphsError, match=r"expected https://www\.neuronpedia\.org/gpt2-small"):
        parse_address(text)


@pytest.mark.parametrize("neuronpedia_id", ["gpt2-small/5-res-jb", "pythia-70m-deduped/e-res-sm"])
def test_there_and_back(neuronpedia_id: str) -> None:
    url = feature_url(neuronpedia_id, 10600)
    assert url is not None
    assert parse_address(url) == Address(neuronpedia_id, 10600)
    layers = {"4": None, "x": neuronpedia_id}
    assert feature_at(url, layers) == FeatureId("x", 10600)
    assert feature_url(None, 3) is None


@pytest.mark.parametrize(
    ("neuronpedia_id", "index"),
    [("../x", 1), ("x/..", 1), ("/x", 1), ("x", 1), ("x/y/z", 1), ("x/y", -1), ("x/y", "1")],
)
def test_what_names_no_file_is_no_address(neuronpedia_id: str, index: Any) -> None:
    with pytest.raises(SaeGraphsError, match="not a feature on Neuronpedia"):
        Address(neuronpedia_id, index)


def test_unknown_saes_are_named() -> None:
    with pytest.raises(UnknownFeatureError, match="5-res-jb on Neuronpedia; expected one of m/1-r"):
        feature_at(HERE, {"1": "m/1-res", "2": None})
    with pytest.raises(UnknownFeatureError, match="have no pages there"):
        feature_at(HERE, {"2": None})


# -- queries ---------------------------------------------------------------------------------------


def test_graphs_are_asked_by_address() -> None:
    graph = example()
    assert layers_of(graph.nodes)["2"] == "tiny/2-res"
    assert graph["tiny/2-res/10600"] == graph["2.10600"]
    assert "https://www.neuronpedia.org/tiny/2-res/10600" in graph
    assert "tiny/2-res/7" not in graph
    assert "tiny/9-res/10600" not in graph
    assert "a/b" not in graph
    found = graph.find_edges(source="neuronpedia.org/tiny/2-res/10600")
    assert [str(edge) for edge in found] == ["2.10600 -> 3.5 (-1.5)"]
    with pytest.raises(UnknownFeatureError, match=r"2\.7"):
        graph.find_edges(target="tiny/2-res/7")


def test_an_address_stands_for_all_tokens() -> None:
    graph = resolved()
    assert [str(name) for name in graph.at_positions("tiny/1-res/2")] == ["1.2@1", "1.2@2", "1.2@3"]


def test_other_addresses_name_nothing() -> None:
    nodes = tuple(replace(each, neuronpedia=f"https://x.org/{each.feature}") for each in NODES)
    graph = CausalGraph(example().run, nodes, example().edges)
    assert layers_of(nodes) == {}
    with pytest.raises(UnknownFeatureError, match="no pages there"):
        graph.find_edges(source="tiny/2-res/10600")


NODES = example().nodes


def test_address_of_a_node() -> None:
    feature = FeatureId("2", 10600)
    assert address_of(node(feature)) == Address("tiny/2-res", 10600)
    assert address_of(node(feature, neuronpedia=None)) is None
    assert address_of(node(feature, neuronpedia="javascript:alert(1)//a/b")) is None


# -- quick lists -----------------------------------------------------------------------------------


def test_a_quick_list_is_what_the_site_reads() -> None:
    (url,) = quick_list_urls([HERE, Address("m/6-res", 7), HERE], name='"C" & (\ud83d')
    parts = urlsplit(url)
    assert (parts.netloc, parts.path) == ("www.neuronpedia.org", "/quick-list/")
    query = parse_qs(parts.query, strict_parsing=True)
    assert query["name"] == ['"C" & (?']
    assert json.loads(query["features"][0]) == [
        {"modelId": "gpt2-small", "layer": "5-res-jb", "index": "10600"},  # once
        {"modelId": "m", "layer": "6-res", "index": "7"},
    ]


def test_long_lists_are_several() -> None:
    many = [Address("gpt2-small/5-res-jb", number) for number in range(2 * LISTED + 1)]
    urls = quick_list_urls(many, name="many")
    listed = [json.loads(parse_qs(urlsplit(url).query)["features"][0]) for url in urls]
    assert [len(items) for items in listed] == [LISTED, LISTED, 1]
    assert [int(item["index"]) for items in listed for item in items] == list(range(len(many)))
    assert max(map(len, urls)) < 8000
    assert quick_list_urls([], name="none") == ()
