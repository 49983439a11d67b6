"""Interrupted runs: what was measured is kept whole, found again, and never taken for another's."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_graphs import checkpoint
from sae_graphs.effects import experiment as measuring
from sae_graphs.effects import partial as resume
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.replot import replot
from sae_graphs.effects.tensors import about_file, read_layer, write_tensors
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import scale
from sae_graphs.runs import EFFECTS
from tests.conftest import BridgeOf
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_graph
from tests.support.effects import effects_of
from tests.support.models import OTHER_PROMPT, PROMPT, STACKS, random_stack
from tests.support.slow import first, only

CASES: dict[str, dict[str, Any]] = {
    "all": {},
    "each": {"ablate": "each"},
    "outputs": {"outputs": 3},
    "source": {"per": "source", "top_k": 3},
    "gradient": {"method": "gradient", "min_path_edges": 1},
}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are written as soon as they are done."""
    monkeypatch.setattr(checkpoint, "PATIENCE", -1.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The depths of the layers that are measured, not read."""
    depths: list[int] = []
    plain = measuring.layer_effects

    def counted(experiment: Any, depth: int, **options: Any) -> Iterator[Effects]:
        depths.append(depth)
        return plain(experiment, depth, **options)

    monkeypatch.setattr(measuring, "layer_effects", counted)
    return depths


def stop_in_layer(depth: int, measured: list[int]) -> Callable[[int, int], None]:
    """Ctrl-C while the layer at this depth is measured."""

    def progress(done: int, total: int) -> None:
        if depth in measured:
            raise KeyboardInterrupt

    return progress


def interrupted(
    model: InstrumentedModel, folder: Path, measured: list[int], *, depth: int = 2, **options: Any
) -> None:
    with pytest.raises(KeyboardInterrupt):
        effect_graph(
            model, PROMPT, resume=folder, progress=stop_in_layer(depth, measured), **options
        )
    measured.clear()


# -- going on --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", only(CASES, "outputs"))
def test_a_stopped_run_measures_only_what_is_left(
    tiny: InstrumentedModel, tmp_path: Path, measured: list[int], name: str
) -> None:
    options = CASES[name]
    whole = effect_graph(tiny, PROMPT, **options)
    layers = list(measured)
    measured.clear()
    folder = tmp_path / "partial"
    interrupted(tiny, folder, measured, **options)
    assert sorted(path.name for path in folder.iterdir()) == [
        "layer-0.safetensors",
        "layer-1.safetensors",
    ]
    told: list[tuple[int, ...]] = []
    partial = Partial(folder, told=lambda *found: told.append(found))
    done: list[tuple[int, int]] = []
    again = effect_graph(
        tiny, PROMPT, resume=partial, progress=lambda *at: done.append(at), **options
    )
    assert again == whole
    assert measured == layers[2:]
    assert told == [(2, len(layers))]
    assert done == sorted(done) and done[-1][0] == done[-1][1]
    partial.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("eager")
def test_stopped_again_and_again(
    tiny: InstrumentedModel, tiny_graph: CausalGraph, tmp_path: Path, measured: list[int]
) -> None:
    for depth in (0, 1, 1, 2):
        interrupted(tiny, tmp_path, measured, depth=depth)
    assert effect_graph(tiny, PROMPT, resume=tmp_path) == tiny_graph
    assert measured == [2]


@pytest.mark.usefixtures("eager")
def test_a_done_run_needs_no_measuring(
    tiny: InstrumentedModel, tmp_path: Path, measured: list[int]
) -> None:
    first = effect_graph(tiny, PROMPT, resume=tmp_path)
    measured.clear()
    assert effect_graph(tiny, PROMPT, resume=tmp_path) == first
    assert measured == []


def test_effects_are_saved_from_a_stopped_run(
    tiny: InstrumentedModel, tiny_graph: CausalGraph, tmp_path: Path, measured: list[int]
) -> None:
    """Where effects are saved, layers are written however short the run."""
    file = tmp_path / "run" / EFFECTS
    interrupted(tiny, tmp_path / "partial", measured, effects=file)
    assert not file.exists()
    graph = effect_graph(tiny, PROMPT, resume=tmp_path / "partial", effects=file)
    assert measured == [2]
    graph.save(tmp_path / "run")
    assert replot(tmp_path / "run") == graph == tiny_graph


def test_a_short_run_writes_nothing(
    tiny: InstrumentedModel,
    tiny_graph: CausalGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "partial"
    assert effect_graph(tiny, PROMPT, resume=folder) == tiny_graph
    assert not folder.exists()


def test_what_waited_is_written_once_the_run_takes_long(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "partial")
    partial.begin(lambda: "key", range(3))
    for depth in range(3):
        if depth == 2:
            partial._started -= 2 * checkpoint.PATIENCE
        layer = effects_of(depth, [1], [[0.5, -1.0]])
        assert len(list(partial.layer(depth, functools.partial(iter, [layer])))) == 1
        assert partial.n_kept == (3 if depth == 2 else 0)
    assert [len(block) for block in partial.blocks()] == [2, 2, 2]


# -- belonging together ----------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("options", "reused"),
    first(
        2,
        [
            ({"top_k": 3}, True),
            ({"ablate": "read"}, False),
            ({"heads": True}, True),
            ({"outputs": 2}, False),
            ({"per": "source"}, True),
            ({"min_path_edges": 1}, True),
            ({"seed": 5}, True),
            ({"ablate_first": True}, False),
            ({"read": -2}, False),
            ({"layers": ("0", "2")}, False),
            ({"method": "gradient"}, False),
            ({"intervention": scale(0.5)}, False),
            ({"prompt": OTHER_PROMPT}, False),
        ],
    ),
    ids=lambda value: str(value)[:30],
)
def test_only_what_changes_no_number_is_taken_over(
    tiny: InstrumentedModel,
    tmp_path: Path,
    measured: list[int],
    options: dict[str, Any],
    reused: bool,
) -> None:
    interrupted(tiny, tmp_path, measured)
    told: list[int] = []
    partial = Partial(tmp_path, told=lambda done, layers: told.append(done))
    arguments = {"prompt": PROMPT, **options}
    graph = effect_graph(tiny, **arguments, resume=partial)
    assert graph == effect_graph(tiny, **arguments)
    assert told == ([2] if reused else [])


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("changed", first(1, ["model", "decoder", "encoder", "name"]))
def test_other_weights_are_another_run(
    bridge_of: BridgeOf, tmp_path: Path, measured: list[int], changed: str
) -> None:
    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["pre"], ["standard"])
    interrupted(InstrumentedModel(bridge, saes, name="tiny"), tmp_path, measured)
    weights = {
        "model": next(bridge.blocks[1].parameters()),
        "decoder": saes[1].W_dec,
        "encoder": saes[2].W_enc,
    }.get(changed)
    name = "other" if changed == "name" else "tiny"
    told: list[int] = []
    partial = Partial(tmp_path, told=lambda done, layers: told.append(done))
    before = None if weights is None else weights.detach().clone()
    with torch.no_grad():
        try:
            if weights is not None:
                weights.view(-1)[3] += 1e-3
            effect_graph(InstrumentedModel(bridge, saes, name=name), PROMPT, resume=partial)
        finally:
            if weights is not None:
                weights.copy_(before)
    assert told == []


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("damage", ["cut", "foreign", "empty", "text"])
def test_a_damaged_layer_is_measured_again(
    tiny: InstrumentedModel,
    tiny_graph: CausalGraph,
    tmp_path: Path,
    measured: list[int],
    damage: str,
) -> None:
    interrupted(tiny, tmp_path, measured)
    file = tmp_path / "layer-1.safetensors"
    data = file.read_bytes()
    foreign = tmp_path / "foreign"
    write_tensors(foreign, {}, {"schema": "other"})
    broken = {"cut": data[:-8], "empty": b"", "text": b"hello", "foreign": foreign.read_bytes()}
    file.write_bytes(broken[damage])
    assert effect_graph(tiny, PROMPT, resume=tmp_path) == tiny_graph
    assert measured == [1, 2]


@pytest.mark.usefixtures("eager")
def test_a_layer_that_goes_away_is_measured_again(
    tiny: InstrumentedModel, tiny_graph: CausalGraph, tmp_path: Path, measured: list[int]
) -> None:
    """Another run of the same kind may be done, and remove the folder."""
    interrupted(tiny, tmp_path, measured)
    partial = Partial(tmp_path, told=lambda *_: (tmp_path / "layer-1.safetensors").unlink())
    assert effect_graph(tiny, PROMPT, resume=partial) == tiny_graph
    assert measured == [1, 2]


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_a_run_goes_on_where_nothing_can_be_written(
    tiny: InstrumentedModel,
    tiny_graph: CausalGraph,
    tmp_path: Path,
    logged: StringIO,
) -> None:
    (tmp_path / "file").write_text("mine")
    graph = effect_graph(tiny, PROMPT, resume=tmp_path / "file" / "partial")
    assert graph == tiny_graph
    assert "could not be resumed" in logged.getvalue()
    with pytest.raises(SaeGraphsError, match="cannot write"):
        effect_graph(tiny, PROMPT, effects=tmp_path / "file" / EFFECTS)


@pytest.mark.usefixtures("eager")
def test_what_is_not_ours_stays(tiny: InstrumentedModel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    partial = Partial(tmp_path)
    effect_graph(tiny, PROMPT, resume=partial)
    partial.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


WRITE_FOREVER = """
import sys
from pathlib import Path
from sae_graphs.effects.tensors import layer_tensors, write_tensors
from sae_graphs.effects.partial import SCHEMA
from tests.support.effects import effects_of

layer = effects_of(0, list(range(2000)), [[1.0] * 100] * 2000)
tensors = layer_tensors(0, [layer, layer])
print("ready", flush=True)
while True:
    write_tensors(Path(sys.argv[1]) / "layer-0.safetensors", tensors, {"schema": SCHEMA})
"""


@pytest.mark.parametrize("delay", only([0.0, 0.013, 0.029, 0.05, 0.11], 0.013))
def test_a_kill_leaves_a_whole_layer_or_none(tmp_path: Path, delay: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
    file = tmp_path / "layer-0.safetensors"
    if file.exists():
        assert about_file(file) == {"schema": resume.SCHEMA}
        assert [len(block) for block in read_layer(file, 0)] == [200_000, 200_000]
    Partial(tmp_path).remove()  # with the draft that the kill left
    assert not tmp_path.exists()


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("effects", [(), ("--save-effects",)], ids=["plain", "with effects"])
def test_the_command_says_how_to_go_on_and_goes_on(
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    effects: tuple[str, ...],
) -> None:
    words = ("graph", "Copyright (C", *EFFECT, "--formats", "dot", *effects)
    assert commands(*words, "--out", "whole").code == 0
    plain = measuring.layer_effects

    def stopping(experiment: Any, depth: int, **options: Any) -> Any:
        if depth == 3:
            raise KeyboardInterrupt
        return plain(experiment, depth, **options)

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "layer_effects", stopping)
        answer = commands(*words)
    assert answer.code == 130
    assert answer.err.splitlines() == [
        "3 of 6 layers are measured; run the same command again to go on from there",
        "stopped; no half-written file is left",
    ]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [".copyright-c.partial"]
    answer = commands(*words)
    assert answer.code == 0
    assert answer.err.strip() == "resumed: 3 of 6 layers were measured before"
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["copyright-c"]
    assert CausalGraph.load("outputs/copyright-c") == CausalGraph.load("whole")
    assert (tmp_path / "outputs" / "copyright-c" / EFFECTS).exists() == bool(effects)
