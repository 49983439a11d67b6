"""`graph.html` of a run tells what validation found there, and what its reader wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.cli.outputs import rewrite_graph, write_run, write_validation
from sae_graphs.graph.annotations import Annotations, Group
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.validation.evidence import ValidationReport
from tests.render.test_explorer_page import told
from tests.support import evidence
from tests.support.rich_graphs import two_edges

FORMATS = ("html", "dot")


def report_on(graph: CausalGraph) -> ValidationReport:
    """A report whose one unit is the whole graph."""
    features = tuple(node.feature for node in graph.nodes)
    unit = replace(
        evidence.bare_unit(), name="Graph 1", kind="component", features=features, edges=()
    )
    return evidence.report(units=(unit,), prompt=graph.run.prompt)


def written(folder: Path, **options: Any) -> CausalGraph:
    graph = two_edges()
    write_run(folder, graph, formats=FORMATS, seconds=1.0, **options)
    return graph


def page(folder: Path) -> dict[str, Any]:
    return told((folder / "graph.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_validated_run_has_its_findings_in_the_page(tmp_path: Path) -> None:
    run = tmp_path / "run"
    graph = written(run)
    assert page(run)["findings"] == [] and page(run)["report"] is None
    write_validation(run / "validation", report_on(graph), graph, seconds=1.0)
    found = page(run)
    assert [each["name"] for each in found["findings"]] == ["Graph 1"]
    assert found["findings"][0]["nodes"] == [0, 1, 2]
    assert (run / found["report"]).is_file()
    anchor = found["findings"][0]["anchor"]
    assert f'id="{anchor}"' in (run / found["report"]).read_text(encoding="utf-8")


@pytest.mark.slow
def test_drawing_a_run_again_keeps_findings_and_annotations(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = two_edges().nodes[0].feature
    said = Annotations(title="Mine", pins=(first,), groups=(Group("g", (first,)),))
    graph = written(run, annotations=said)
    write_validation(run / "validation", report_on(graph), graph, seconds=1.0)
    rewrite_graph(run, graph, loaded=graph)
    found = page(run)
    assert found["annotations"]["title"] == "Mine"
    assert found["annotations"]["groups"][0]["name"] == "g"
    assert [each["name"] for each in found["findings"]] == ["Graph 1"]


@pytest.mark.slow
def test_a_new_run_in_its_place_has_none(tmp_path: Path) -> None:
    run = tmp_path / "run"
    graph = written(run)
    write_validation(run / "validation", report_on(graph), graph, seconds=1.0)
    written(run)
    assert page(run)["findings"] == []
    assert not (run / "validation").exists()


@pytest.mark.parametrize("damage", ["{", "other"])
def test_findings_of_another_graph_are_left_out_with_a_warning(
    tmp_path: Path, damage: str, logged: StringIO
) -> None:
    run = tmp_path / "run"
    graph = written(run)
    write_validation(run / "validation", report_on(graph), graph, seconds=1.0)
    file = run / "validation" / "validation.json"
    if damage == "other":
        data = json.loads(file.read_text())
        data["units"][0]["features"] = ["0.999"]
        damage = json.dumps(data)
    file.write_text(damage)
    rewrite_graph(run, graph, loaded=graph)
    assert page(run)["findings"] == []
    assert "left out of graph.html" in logged.getvalue()


@pytest.mark.slow
def test_a_run_without_a_page_gets_none(tmp_path: Path) -> None:
    run = tmp_path / "run"
    graph = two_edges()
    write_run(run, graph, formats=("dot",), seconds=1.0)
    write_validation(run / "validation", report_on(graph), graph, seconds=1.0)
    assert not (run / "graph.html").exists()
