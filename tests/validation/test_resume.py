"""Interrupted validations: paths that were tested are found again, never taken for another's."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation import validate as validation
from sae_graphs.validation.evidence import UnitReport
from sae_graphs.validation.partial import ValidationPartial
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_graph
from tests.support.models import OTHER_PROMPT, PROMPT, STACKS, random_stack
from tests.support.slow import first, only
from tests.support.subjects import small_validation as run

THIRD = "the old dog ran on the mat"
Told = list[tuple[int, int]]


@pytest.fixture(scope="module")
def graph(tiny_graph: CausalGraph) -> CausalGraph:
    return tiny_graph


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The units that are tested, not read."""
    found: list[str] = []
    plain = validation._tested

    def counted(unit: Any, *arguments: Any) -> UnitReport:
        found.append(unit.name)
        return plain(unit, *arguments)

    monkeypatch.setattr(validation, "_tested", counted)
    return found


def stop_in(name: str, tested: list[str]) -> Callable[[int, int], None]:
    """Ctrl-C while this unit is tested."""

    def progress(done: int, total: int) -> None:
        if tested[-1:] == [name]:
            raise KeyboardInterrupt

    return progress


def interrupted(
    model: InstrumentedModel, graph: CausalGraph, folder: Path, tested: list[str], **options: Any
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(
            model,
            graph,
            OTHER_PROMPT,
            resume=folder,
            progress=stop_in("Graph 1, path 1", tested),
            **{"quick": True, **options},
        )
    assert tested == ["Graph 1", "Graph 1, path 1"]
    tested.clear()


@pytest.mark.parametrize("quick", only([True, False], True))
def test_a_stopped_run_tests_only_what_is_left(
    tiny: InstrumentedModel, graph: CausalGraph, tmp_path: Path, tested: list[str], quick: bool
) -> None:
    whole = run(tiny, graph, OTHER_PROMPT, quick=quick)
    tested.clear()
    folder = tmp_path / "partial"
    interrupted(tiny, graph, folder, tested, quick=quick)
    assert [file.name for file in folder.iterdir()] == ["path-0.json"]
    heard: Told = []
    done: Told = []
    partial = ValidationPartial(folder, told=lambda *at: heard.append(at))
    again = run(
        tiny,
        graph,
        OTHER_PROMPT,
        resume=partial,
        progress=lambda *at: done.append(at),
        quick=quick,
    )
    assert again == whole
    assert tested == ["Graph 1, path 1"] and heard == [(1, 2)]
    assert done == sorted(done) and done[-1][0] == done[-1][1]
    assert (partial.n_kept, partial.n_parts) == (2, 2)
    tested.clear()
    assert run(tiny, graph, OTHER_PROMPT, resume=folder, quick=quick) == whole and tested == []
    partial.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    first(
        1,
        [
            {"controls": 21},
            {"target": " cat"},
            {"other_controls": 20},
            {"seed": 1},
            {"quick": False},
        ],
    ),
    ids=str,
)
def test_other_settings_are_another_run(
    tiny: InstrumentedModel,
    graph: CausalGraph,
    tmp_path: Path,
    tested: list[str],
    changed: dict[str, Any],
) -> None:
    interrupted(tiny, graph, tmp_path, tested)
    options = {"quick": True, **changed}
    report = run(tiny, graph, OTHER_PROMPT, resume=tmp_path, **options)
    assert tested == ["Graph 1", "Graph 1, path 1"]
    assert report == run(tiny, graph, OTHER_PROMPT, **options)


@pytest.mark.slow
def test_other_prompts_and_graphs_are_another_run(
    tiny: InstrumentedModel, graph: CausalGraph, tmp_path: Path, tested: list[str]
) -> None:
    interrupted(tiny, graph, tmp_path, tested)
    for prompts in ([THIRD], [OTHER_PROMPT, THIRD], []):
        run(tiny, graph, *prompts, resume=tmp_path, quick=True)
        assert "Graph 1" in tested
        tested.clear()
    run(tiny, graph, OTHER_PROMPT, resume=tmp_path, quick=True)
    tested.clear()
    wider = effect_graph(tiny, PROMPT, top_k=9)
    run(tiny, wider, OTHER_PROMPT, resume=tmp_path, quick=True)
    assert "Graph 1" in tested


@pytest.mark.slow
@pytest.mark.parametrize("changed", first(1, ["model", "decoder", "encoder"]))
def test_other_weights_are_another_run(
    bridge_of: BridgeOf, graph: CausalGraph, tmp_path: Path, tested: list[str], changed: str
) -> None:
    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["pre"], ["standard"])
    model = InstrumentedModel(bridge, saes, name="tiny")
    interrupted(model, graph, tmp_path, tested, quick=True)
    weights = {
        "model": next(bridge.blocks[1].parameters()),
        "decoder": saes[1].W_dec,
        "encoder": saes[2].W_enc,
    }[changed]
    before = weights.detach().clone()
    with torch.no_grad():
        try:
            weights.view(-1)[3] += 1e-6
            twin = InstrumentedModel(bridge, saes, name="tiny")
            run(twin, graph, OTHER_PROMPT, resume=tmp_path, quick=True)
        finally:
            weights.copy_(before)
    assert tested == ["Graph 1", "Graph 1, path 1"]


@pytest.mark.parametrize("damage", first(1, ["cut", "no units", "empty", "text", "another unit"]))
@pytest.mark.slow
def test_a_damaged_report_is_made_again(
    tiny: InstrumentedModel, graph: CausalGraph, tmp_path: Path, tested: list[str], damage: str
) -> None:
    interrupted(tiny, graph, tmp_path, tested)
    file = tmp_path / "path-0.json"
    data = file.read_bytes()
    start, end = data.index(b'"units": [') + len(b'"units": ['), data.index(b'],\n "noise"')
    broken = {
        "cut": data[:-9],
        "empty": b"",
        "text": b"hello",
        "no units": data[:start] + data[end:],
        "another unit": data.replace(b'"Graph 1"', b'"Graph 2"'),
    }
    file.write_bytes(broken[damage])
    again = run(tiny, graph, OTHER_PROMPT, resume=tmp_path, quick=True)
    assert again == run(tiny, graph, OTHER_PROMPT, quick=True)
    assert tested[:2] == ["Graph 1", "Graph 1, path 1"]


def test_a_run_goes_on_where_nothing_can_be_written(
    tiny: InstrumentedModel, graph: CausalGraph, tmp_path: Path, logged: StringIO
) -> None:
    (tmp_path / "file").write_text("mine")
    report = run(tiny, graph, quick=True, resume=tmp_path / "file" / "partial")
    assert report == run(tiny, graph, quick=True)
    assert logged.getvalue().count("could not be resumed") == 1


def test_what_is_not_ours_stays(
    tiny: InstrumentedModel, graph: CausalGraph, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    partial = ValidationPartial(tmp_path)
    run(tiny, graph, quick=True, resume=partial)
    partial.remove()
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
