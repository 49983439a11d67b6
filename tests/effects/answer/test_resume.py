"""Interrupted answer graphs go on where they were, and never with another run's effects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_graphs import checkpoint
from sae_graphs.effects.ablations import Ablations
from sae_graphs.effects.answer import table as measuring
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.replot import replot
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import scale
from sae_graphs.runs import EFFECTS
from tests.support.commands import Commands
from tests.support.measured_answers import graph_of, references
from tests.support.models import OTHER_PROMPT, PROMPT
from tests.support.slow import first, only

LAYERS = [0, 1, 2, 3]
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "budget": {"budget": 100},
    "contrast": {"target": (" cat",), "contrast": " dog"},
    "half": {"intervention": scale(0.5)},
    "layers": {"layers": ("1", "3")},
}


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are written as soon as they are done."""
    monkeypatch.setattr(checkpoint, "PATIENCE", -1.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The depths of the layers that are measured, not read."""
    depths: list[int] = []
    plain = measuring.effects_on_answer

    def counted(asked: Any, ablations: Ablations, **options: Any) -> Any:
        depths.append(ablations.depth)
        return plain(asked, ablations, **options)

    monkeypatch.setattr(measuring, "effects_on_answer", counted)
    return depths


def stop_in_layer(depth: int, measured: list[int]) -> Callable[[int, int], None]:
    """Ctrl-C while the layer at this depth is measured."""

    def progress(done: int, total: int) -> None:
        if depth in measured:
            raise KeyboardInterrupt

    return progress


def interrupted(
    model: InstrumentedModel, folder: Path, measured: list[int], depth: int = 2, **options: Any
) -> None:
    with pytest.raises(KeyboardInterrupt):
        graph_of(model, partial=Partial(folder), progress=stop_in_layer(depth, measured), **options)
    measured.clear()


@pytest.mark.parametrize("name", only(CASES, "budget"))
def test_a_stopped_run_measures_only_what_is_left(
    tiny: InstrumentedModel, tmp_path: Path, measured: list[int], name: str
) -> None:
    options = CASES[name]
    whole = graph_of(tiny, **options)
    layers = list(measured)
    measured.clear()
    folder = tmp_path / "partial"
    interrupted(tiny, folder, measured, **options)
    assert sorted(path.name for path in folder.iterdir()) == [
        "layer-0.safetensors",
        "layer-1.safetensors",
    ]
    told: list[tuple[int, ...]] = []
    done: list[tuple[int, int]] = []
    partial = Partial(folder, told=lambda *found: told.append(found))
    again = graph_of(tiny, partial=partial, progress=lambda *at: done.append(at), **options)
    assert again == whole
    assert measured == layers[2:] and told == [(2, len(layers))]
    assert done == sorted(done) and done[-1][0] == done[-1][1]
    partial.remove()
    assert list(tmp_path.iterdir()) == []


def test_nodes_and_edges_are_chosen_anew(
    tiny: InstrumentedModel, tmp_path: Path, measured: list[int]
) -> None:
    """What chooses among effects changes none of them: layers that are done are read."""
    interrupted(tiny, tmp_path, measured, depth=3)
    chosen: dict[str, Any] = {"nodes": 5, "dense": True, "top_k": 2, "seed": 3, "heads": True}
    again = graph_of(tiny, partial=Partial(tmp_path), **chosen)
    assert measured == [3]
    assert again == graph_of(tiny, **chosen)


OTHERS: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": OTHER_PROMPT},
    "target": {"target": (" dog",)},
    "contrast": {"contrast": " dog"},
    "budget": {"budget": 100},
    "read": {"read": 7},
    "intervention": {"intervention": scale(0.5)},
    "layers": {"layers": ("0", "2")},
    "means": {"references": 1},
}


@pytest.mark.parametrize("options", first(4, OTHERS.values()), ids=OTHERS.keys())
def test_another_run_measures_all(
    tiny: InstrumentedModel, tmp_path: Path, measured: list[int], options: dict[str, Any]
) -> None:
    if "references" in options:
        options = {"references": references(tiny, seed=options["references"])}
    interrupted(tiny, tmp_path, measured, depth=3)
    with pytest.raises(KeyboardInterrupt):
        progress = stop_in_layer(0, measured)
        graph_of(tiny, partial=Partial(tmp_path), progress=progress, **options)
    assert measured == [0]


@pytest.mark.slow
def test_what_a_run_could_afford_is_measured_again_where_it_is_less(
    tiny: InstrumentedModel, tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many are measured is foretold from a timed sample: the next run may foretell more."""
    monkeypatch.setattr(measuring, "affordable", lambda *_: 40)
    interrupted(tiny, tmp_path, measured, depth=3)
    monkeypatch.setattr(measuring, "affordable", lambda *_: 150)
    again = graph_of(tiny, partial=Partial(tmp_path))
    assert again.run.answer is not None and again.run.answer.exact == 150
    assert again == graph_of(tiny)


@pytest.mark.slow
def test_effects_are_saved_from_a_stopped_run(
    tiny: InstrumentedModel, tmp_path: Path, measured: list[int]
) -> None:
    interrupted(tiny, tmp_path / "partial", measured)
    graph = graph_of(tiny, partial=Partial(tmp_path / "partial"), effects=tmp_path / EFFECTS)
    assert measured == LAYERS[2:]
    graph.save(tmp_path)
    assert replot(tmp_path) == graph == graph_of(tiny, PROMPT)


@pytest.mark.slow
@pytest.mark.parametrize("effects", [(), ("--save-effects",)], ids=["plain", "with effects"])
def test_the_command_says_how_to_go_on_and_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    effects: tuple[str, ...],
) -> None:
    commands = Commands(monkeypatch, capsys, tmp_path)
    words = ("graph", "Copyright (C", "--formats", "dot", *effects)
    assert commands(*words, "--out", "whole").code == 0
    plain = measuring.effects_on_answer

    def stopping(asked: Any, ablations: Ablations, **options: Any) -> Any:
        if ablations.depth == 3:
            raise KeyboardInterrupt
        return plain(asked, ablations, **options)

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "effects_on_answer", stopping)
        answer = commands(*words)
    assert answer.code == 130
    assert answer.err.splitlines() == [
        "3 of 7 layers are measured; run the same command again to go on from there",
        "stopped; no half-written file is left",
    ]
    answer = commands(*words)
    assert answer.code == 0
    assert answer.err.strip() == "resumed: 3 of 7 layers were measured before"
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["copyright-c"]
    assert CausalGraph.load("outputs/copyright-c") == CausalGraph.load("whole")
    assert (tmp_path / "outputs" / "copyright-c" / EFFECTS).exists() == bool(effects)
