"""The notebook in `examples/` runs from start to end, and shows what it is there to show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).resolve().parent.parent / "examples" / "copyright.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    notebook = nbformat.read(FILE, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    place = {"metadata": {"path": str(tmp_path_factory.mktemp("elsewhere"))}}
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


def test_what_is_saved_was_run_and_holds_no_machine() -> None:
    notebook = nbformat.read(FILE, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    # the page of the explorer is left out: it is large, and no host of notebooks shows it
    assert [cell.source for cell in cells if not cell.outputs] == ["graph.explore(height=640)"]
    text = FILE.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:home|root|Users)/|site-packages|\"stderr\"", text)
