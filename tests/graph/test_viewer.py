"""A folder for circuit-tracer's viewer: its list of graphs, and what features fire on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.export.attribution_rules import broken_rules
from sae_graphs.graph.export.viewer import METADATA, listed_in, viewer_folder
from sae_graphs.graph.graph import CausalGraph
from tests.support.answer_graphs import answer_graph, hostile_answers
from tests.support.commands import Commands
from tests.support.graphs import example
from tests.support.rich_graphs import hostile, resolved


def read(files: dict[str, bytes]) -> dict[str, Any]:
    return {name: json.loads(data) for name, data in files.items()}


@pytest.mark.parametrize("make", [answer_graph, hostile_answers, example, hostile, resolved])
def test_every_feature_has_its_file_where_the_viewer_looks(make: Any) -> None:
    graph: CausalGraph = make()
    files = read(viewer_folder(graph).files)
    (listed,) = files[METADATA]["graphs"]
    data = files[f"{listed['slug']}.json"]
    assert not broken_rules(data)
    scan = data["metadata"]["scan"]
    assert scan == listed["scan"] and scan.startswith("./data/features")
    kinds = {"cross layer transcoder": [], "embedding": [], "logit": []}  # type: ignore[var-annotated]
    for node in data["nodes"]:
        kinds[node["feature_type"]].append(node)
    for node in kinds["cross layer transcoder"]:
        place = f"{scan.removeprefix('./data/')}/{node['feature']}.json"
        (quantile,) = files[place]["examples_quantiles"]
        for shown in quantile["examples"]:
            assert len(shown["tokens"]) == len(shown["tokens_acts_list"])
    assert {n["ctx_idx"] for n in kinds["embedding"]} == set(range(graph.run.read_position + 1))
    assert kinds["logit"] and all("(p=" in node["clerp"] for node in kinds["logit"])


def test_a_graph_without_logits_gets_the_likeliest_token_without_links() -> None:
    graph = example()
    assert not any(node.feature.is_output for node in graph)
    files = read(viewer_folder(graph).files)
    data = files[f"{files[METADATA]['graphs'][0]['slug']}.json"]
    (logit,) = (node for node in data["nodes"] if node["feature_type"] == "logit")
    assert f'"{graph.run.next_tokens[0][0]}"' in logit["clerp"]
    ends = {end for link in data["links"] for end in (link["source"], link["target"])}
    assert logit["node_id"] not in ends


def test_a_folder_holds_several_graphs_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Commands(monkeypatch, capsys, tmp_path)
    answer_graph().save(tmp_path / "one")
    example().save(tmp_path / "two")
    for name in ("one", "two", "one"):
        shown = run("export", str(tmp_path / name), "--viewer", str(tmp_path / "viewer"))
        assert shown.code == 0 and "circuit-tracer start-server" in shown.out
        assert not (tmp_path / name / "exports").exists()
    slugs = [graph["slug"] for graph in listed_in(tmp_path / "viewer")]
    assert len(slugs) == len(set(slugs)) == 2
    assert all((tmp_path / "viewer" / f"{slug}.json").is_file() for slug in slugs)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SaeGraphsError, match=r"holds other files and no graph-metadata\.json"):
        listed_in(tmp_path)
    (tmp_path / METADATA).write_text("[]")
    with pytest.raises(SaeGraphsError, match="is no list of graphs"):
        listed_in(tmp_path)
    assert listed_in(tmp_path / "new") == []
    with pytest.raises(SaeGraphsError, match=r"mine\.txt is no folder"):
        listed_in(tmp_path / "mine.txt")
