"""The benchmarks compute what they say, and run: baseline, floor, shapes, and all of it, tiny."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import progress
from benchmarks.baselines import FullPasses
from benchmarks.floor import Floor
from benchmarks.growth import growth_of
from benchmarks.measure import Method, interleaved, memory_of
from benchmarks.methods import METHODS, case_of, dense_floor_of, floor_of, ours, work_of
from benchmarks.precision import bundled_precision
from benchmarks.progress import Progress
from benchmarks.shapes import TINY, Shapes, make_shapes, prepare, prompt_of, take_turn
from benchmarks.targets import longest_to_shortest, targets
from benchmarks.work import Encoded, Ran, Work, every_feature, reads_in, reads_near
from sae_graphs.effects import exact as ablation
from sae_graphs.effects.settings import Ablate
from sae_graphs.model.preactivations import SHARE
from tests.conftest import BridgeOf
from tests.support.models import KINDS, PROMPT, STACKS, in_dtype, random_stack, tokenizer
from tests.support.oracle import Oracle
from tests.support.slow import covering, first

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return make_shapes(TINY)


@pytest.mark.parametrize("kind", first(1, KINDS))
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


def test_a_workload_takes_its_turn_after_another(shapes: Shapes) -> None:
    short, long = prepare(shapes, 4, 12), prepare(shapes, 16, 12)
    for workload in (short, long, short):
        take_turn(workload)
        passes = FullPasses(shapes.bridge, shapes.saes, workload.prompt.ids)
        assert [int((clean != 0).sum()) for clean in passes.clean] == [12] * (TINY.n_layers + 1)


def test_the_floor_counts_its_multiplications(shapes: Shapes) -> None:
    width, features, tokens = TINY.d_model, TINY.n_features, 5
    work: list[Work] = [[Ran(2, 3), Encoded(2, features), Encoded(1, 7)], [Ran(0, 1)]]
    floor = Floor(TINY, tokens, work, [sae.W_enc for sae in shapes.saes[:2]])
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        floor.run()
    assert floor.operations() == counted.get_total_flops()
    through = (5 * 3 + 3 * 9) * width**2 + 3 * 2 * width * (tokens + 5)
    alone = 12 * width**2 + 2 * width * (tokens + 1)
    assert floor.operations() == 2 * (through + alone + 2 * width * features + width * 7)


@pytest.mark.parametrize(
    ("mode", "tokens", "active"),
    covering([("read", 16, 12), ("all", 40, 5), ("read", 40, 5), ("all", 16, 12)]),
)
def test_the_floor_is_what_the_engine_multiplies(
    shapes: Shapes, mode: Ablate, tokens: int, active: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for decoding what is changed, and for finding the features near their thresholds."""
    monkeypatch.setattr(ablation, "LEAST_FOR_NEARBY", 1)
    case = case_of(prepare(shapes, tokens, active), mode, [0, 2])
    work = work_of(case)
    with FlopCounterMode(display=False) as counted:
        ours(case)()
    finding = 2 * TINY.d_model * (TINY.n_features + TINY.n_features // SHARE)
    besides = finding * len(case.pairs)
    for pair in case.pairs:
        stop = case.clean.points[pair + 1]
        packs = ablation.packs(case.model, case.clean, case.ablations(pair), case.places, stop)
        for _, pack in packs:
            besides += 2 * 2 * len(pack.copies) * len(pack) * TINY.d_model
    multiplied = floor_of(case, work).operations()
    assert multiplied == counted.get_total_flops() - besides
    near = sum(reads_near(some, TINY.n_features) for some in work)
    assert (near > 0) == (tokens == 40)
    assert dense_floor_of(case, work).operations() >= multiplied
    assert sum(reads_in(some) for some in work) == sum(len(case.ablations(p)) for p in case.pairs)


def test_every_feature_encoded_keeps_the_rows_that_are_read() -> None:
    work: Work = [Ran(1, 200), Encoded(150, 4), Encoded(50, 9), Ran(0, 3), Encoded(3, 4)]
    dense: Work = [Ran(1, 200), Encoded(128, 9), Encoded(72, 9), Ran(0, 3), Encoded(3, 9)]
    assert every_feature(work, 9) == dense
    assert reads_in(work) == reads_in(dense) == 203
    assert (reads_near(work, 9), reads_near(dense, 9)) == (153, 0)


def test_targets_are_met_or_not() -> None:
    ratios = {
        "faster_than_all_features": 25_000.0,
        "faster_than_active_features": 90.0,
        "ours_to_floor": 1.4,
        "ours_to_integrated_gradients": 1.1,
    }
    cell = {"tokens": 16, "mode": "all", "active": {"wanted": 40}, "ratios": ratios}
    found = targets([cell, {**cell, "tokens": 4}], longest_to_shortest(_seconds([2.0, 3.0])))
    assert [target.met for target in found] == [True, False, True, False, True]
    assert found[-1].found == 1.5


def test_growth_varies_one_size_at_a_time() -> None:
    def cell(tokens: int, active: int, seconds: float, **sizes: int) -> dict[str, Any]:
        every = {"n_layers": 4, "d_model": 8, "n_features": 32, **sizes}
        return {
            "tokens": tokens,
            "mode": "all",
            "active": {"wanted": active},
            "ablations": active * tokens,
            "seconds": {"ours": {"median": seconds}},
            "sizes": every,
        }

    cells = [cell(16, 40, 3.0), cell(4, 40, 1.0), cell(16, 10, 0.5)]
    turns = {"ours": _seconds([1.0, 2.0])}
    shaped = [cell(16, 40, 1.0), cell(16, 40, 5.0, n_layers=8), cell(16, 40, 6.0, d_model=16)]
    found = {growth.what: growth for growth in growth_of(cells, turns, shaped)}
    assert found["tokens, read"].seconds == [1.0, 2.0]
    assert found["tokens, all"].sizes == [4, 16]
    assert found["active features, all, 16 tokens"].ablations == [160, 640]
    assert found["layers (small model)"].seconds == [1.0, 5.0]
    assert found["width (small model)"].sizes == [8, 16]
    assert len(found) == 5


@pytest.mark.slow
def test_precisions_are_compared_with_float64() -> None:
    (exact,) = bundled_precision(["Copyright (C"], ["float64"])
    assert exact["same_edges"] == 1 and exact["pairs"] == 6
    assert exact["deviation"]["worst"] < 1e-5  # attention's softmax alone is rounded
    rough = bundled_precision(["Copyright (C"], ["float32", "bfloat16"])
    worst = [found["deviation"]["worst"] for found in (exact, *rough)]
    assert worst[0] < worst[2] and worst[1] < worst[2]


@pytest.mark.slow
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


def test_other_code_in_a_folder_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "HERE", tmp_path / "benchmarks")
    deep = tmp_path / "sae_graphs" / "effects" / "exact.py"
    deep.parent.mkdir(parents=True)
    deep.write_text("one = 1")
    Progress({}, cache=tmp_path).keep("cell", 1)
    assert Progress({}, cache=tmp_path).found == {"cell": 1}
    deep.write_text("one = 2")
    assert Progress({}, cache=tmp_path).found == {}


@pytest.mark.slow
def test_the_whole_run_on_a_tiny_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--no-resume", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results-tiny.json").read_text())
    read, every = results["cells"]
    assert every["ablations"] >= sum(every["active"]["at_read"][:-1])
    assert read["ratios"]["all_features_seconds"] > read["ratios"]["active_features_seconds"]
    assert {*METHODS, "floor", "dense floor"} == read["seconds"].keys()
    dtypes = [found["dtype"] for found in results["precision"]]
    assert dtypes == 2 * ["float32", "bfloat16", "float16"]
    assert results["read_mode_in_turns"]["ours"].keys() == {"4", "16"}
    assert "longest prompt to shortest" in results["targets"][-1]["what"]
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "…" not in done.stdout
    assert "| (a)/(c) |" in (tmp_path / "results-tiny.md").read_text()


def _seconds(medians: list[float]) -> dict[str, dict[str, float]]:
    return {str(4 * 4**number): {"median": median} for number, median in enumerate(medians)}
