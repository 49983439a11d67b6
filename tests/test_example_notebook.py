"""The notebooks in `examples/` run from start to end, and show what they are there to show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "examples"
# Cells that show nothing: the page of the explorer is large, and no host of notebooks shows it.
SILENT = {"copyright.ipynb": ["graph.explore(height=640)"], "tracing.ipynb": []}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run("copyright.ipynb", tmp_path_factory.mktemp("elsewhere"))


def run(name: str, folder: Path) -> Any:
    """The notebook, executed in another folder."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return notebook


def shown(notebook: Any, source: str) -> Any:
    """What the cell that holds this source shows last."""
    cell = next(c for c in notebook.cells if c.cell_type == "code" and source in c.source)
    return [output for output in cell.outputs if output.get("name") != "stderr"][-1]


@pytest.mark.slow
def test_every_part_shows_itself(executed: Any) -> None:
    assert shown(executed, "sg.load")["data"]["image/svg+xml"].startswith("<svg")
    assert "without them" in "".join(
        output["text"]
        for cell in executed.cells
        if "coverage =" in cell.source
        for output in cell.outputs
        if output.get("name") == "stdout"
    )
    assert "Necessary" in shown(executed, "sg.validate(model, answer")["data"]["text/html"]
    assert shown(executed, 'select="effect", top_k=6')["data"]["image/svg+xml"].startswith("<svg")
    assert "<table" in shown(executed, "columns =")["data"]["text/html"]
    assert "ablating lowers" in shown(executed, "graph[strongest")["data"]["text/html"]
    assert "<iframe srcdoc=" in shown(executed, "explore(")["data"]["text/html"]
    assert "shared" in shown(executed, "sg.difference")["data"]["text/html"]
    assert "Verdict" in shown(executed, "sg.validate(model, graph")["data"]["text/html"]
    assert shown(executed, "response_curve")["data"]["image/svg+xml"].startswith("<svg")
    assert "graph.attribution.json" in shown(executed, ".export(")["text"]


@pytest.mark.slow
def test_a_trace_shows_itself(tmp_path: Path) -> None:
    notebook = run("tracing.ipynb", tmp_path)
    card = shown(notebook, "sg.trace")["data"]["text/html"]
    assert "Handover: " in card and "<svg" in card and "<table" in card
    assert "Handover(" in shown(notebook, "means(trace")["data"]["text/plain"]
    told = next(cell for cell in notebook.cells if "overlay_of" in cell.source).outputs
    assert any("rank correlation" in output.get("text", "") for output in told)
    assert told[-1]["data"]["image/svg+xml"].startswith("<svg")


@pytest.mark.parametrize("name", SILENT)
def test_what_is_saved_was_run_and_holds_no_machine(name: str) -> None:
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [cell.source for cell in cells if not cell.outputs] == SILENT[name]
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.findall(r"/(?:home|root|Users)/|site-packages|\"stderr\"", text)
