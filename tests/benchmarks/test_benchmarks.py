"""The benchmarks compute what they say, and run: baseline, floor, shapes, and all of it, tiny."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baselines import FullPasses
from benchmarks.floor import Floor, Pack, packs_of
from benchmarks.measure import Method, interleaved, memory_of
from benchmarks.progress import Progress
from benchmarks.shapes import TINY, Shapes, make_shapes, prepare, prompt_of
from tests.conftest import BridgeOf
from tests.models import KINDS, PROMPT, STACKS, in_dtype, random_stack, tokenizer
from tests.oracle import Oracle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return make_shapes(TINY)


@pytest.mark.parametrize("kind", KINDS)
def test_full_passes_give_the_effects_of_the_oracle(bridge_of: BridgeOf, kind: str) -> None:
    bridge = bridge_of("gpt2", "float64")
    saes = random_stack(bridge, STACKS["pre"], [kind])
    ids = [0, *tokenizer()(PROMPT, add_special_tokens=False)["input_ids"]]
    read, depth = len(ids) - 1, 1
    passes = FullPasses(bridge, saes, ids)
    expected = Oracle(bridge, in_dtype(saes, "float64"), ids).effects(
        depth, range(1, len(ids)), read
    )
    assert expected.abs().max() > 0
    for feature, effects in enumerate(expected):
        torch.testing.assert_close(passes.effects(depth, feature), effects, rtol=1e-6, atol=1e-9)
    assert passes.n_ablations == sum(int(sae.cfg.d_sae) for sae in saes[:-1])


@pytest.mark.parametrize("tokens", [2, 16, 64])
def test_as_many_features_are_active_as_were_asked_for(shapes: Shapes, tokens: int) -> None:
    workload = prepare(shapes, tokens, 12)
    for layer in workload.layers:
        assert int(layer.at_read.sum()) == 12
        assert 8 < layer.l0 < 16
        assert (layer.n_active >= 1).all()
        assert int(layer.n_active.max()) < tokens
    assert [len(rows) for rows in workload.rows("read")] == [12] * TINY.n_layers
    passes = FullPasses(shapes.bridge, shapes.saes, workload.prompt.ids)
    assert [int((clean != 0).sum()) for clean in passes.clean] == [12] * (TINY.n_layers + 1)


def test_the_first_layers_ablations_reach_the_next(shapes: Shapes) -> None:
    workload = prepare(shapes, 16, 12)
    passes = FullPasses(shapes.bridge, shapes.saes, workload.prompt.ids)
    source = int(workload.layers[0].sources[workload.layers[0].at_read][0])
    assert passes.effects(0, source).abs().max() > 0


def test_prompts_have_their_length_as_text_and_as_tokens(shapes: Shapes) -> None:
    prompt = prompt_of(40, TINY)
    found = shapes.bridge.tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    assert tuple(found) == prompt.ids
    assert len(prompt.ids) == 40


def test_packs_hold_every_ablation_once() -> None:
    rows = torch.tensor([3, 3, 3, 20, 1, 9])
    assert packs_of(rows, 9) == [Pack(3, 9), Pack(1, 20), Pack(1, 1), Pack(1, 9)]
    assert packs_of(rows, 100) == [Pack(6, 39)]
    assert packs_of(rows[:0]) == []


def test_the_floor_counts_its_multiplications(shapes: Shapes) -> None:
    width, features, tokens = TINY.d_model, TINY.n_features, 5
    rows = [torch.tensor([2, 1]), torch.tensor([3])]
    floor = Floor(TINY, tokens, rows, [sae.W_enc for sae in shapes.saes[:2]], encoded_rows=1)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        floor.run()
    assert floor.operations() == counted.get_total_flops()
    assert floor.operations() == 2 * (
        6 * (12 * width**2 + 2 * width * tokens) + 3 * width * features
    )


def test_methods_take_turns_and_stay_in_the_budget() -> None:
    order: list[str] = []
    methods = [
        Method("one", lambda: order.append("one"), lambda: None, times=2),
        Method("two", lambda: order.append("two"), lambda: None),
    ]
    timings = interleaved(methods, budget=60, rounds=3)
    assert order == ["one", "one", "two"] * 3
    assert [timing.runs for timing in timings.values()] == [6, 3]
    assert interleaved(methods, budget=0)["two"].runs == 1


def test_memory_sees_what_was_held_and_let_go() -> None:
    quiet = memory_of(lambda: None)
    busy = memory_of(lambda: torch.ones(2**26))  # 256 MiB
    assert quiet.added < 2**25
    assert 2**28 - 2**24 < busy.added < 2**29


def test_an_interrupted_run_goes_on_and_other_settings_begin_anew(tmp_path: Path) -> None:
    Progress({"threads": 1}, cache=tmp_path).keep("cell", {"seconds": 1.5})
    assert Progress({"threads": 1}, cache=tmp_path).found == {"cell": {"seconds": 1.5}}
    assert Progress({"threads": 2}, cache=tmp_path).found == {}


def test_the_whole_run_on_a_tiny_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--no-resume", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results-tiny.json").read_text())
    read, every = results["cells"]
    assert every["ablations"] >= sum(every["active"]["at_read"][:-1])
    assert read["ratios"]["all_features_seconds"] > read["ratios"]["active_features_seconds"]
    assert {"full pass", "clean run", "ours", "floor"} <= read["seconds"].keys()
    assert "| (a)/(c) |" in (tmp_path / "results-tiny.md").read_text()
