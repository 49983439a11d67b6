"""The benchmark of causal traces: what it counts, and that it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sae_graphs as sg
from benchmarks.shapes import TINY
from benchmarks.tracing import (
    Case,
    Ran,
    Which,
    case_of,
    floor_of,
    main,
    matrices,
    operations,
    passes_of,
    watched,
)
from sae_graphs.tracing.records import Trace


@pytest.fixture(scope="module")
def case() -> Case:
    found = case_of(Which.TINY)
    assert found is not None
    return found


def traced(case: Case) -> Trace:
    return sg.trace(
        *(case.model, case.prompt),
        subject=case.subject,
        strength="3s",
        noise_runs=2,
        sweeps="state",
    )


def test_the_floor_counts_its_multiplications(case: Case) -> None:
    width = TINY.d_model
    assert [(i, o) for i, o, _ in matrices(case.model, 0)] == [
        *[(width, width)] * 4,
        *((width, 4 * width), (4 * width, width)),
    ]
    attended = [attended for _, _, attended in matrices(case.model, 0)]
    assert attended == [False, True, True, False, False, False]
    ran = Ran(block=0, copies=3, aside=4, read=1, seen=7)
    by_hand = 3 * (5 * 2 * width**2 + 10 * width**2 + 2 * 7 * width) + 6 * width * TINY.vocabulary
    assert operations(case.model, [ran], 6) == 2 * by_hand
    floor_of(case.model, [ran], 6)()


def test_what_is_run_is_what_the_cells_need(case: Case) -> None:
    """Rows from each token on, blocks from each layer on; the corrupted runs themselves once."""
    with watched() as work:
        trace = traced(case)
    tokens, layers, first = len(trace.tokens), trace.n_layers, trace.subject[0]
    needed = 2 * (tokens - first) * layers  # two corrupted runs
    for token in range(first, tokens):
        for layer in range(layers):
            if layer or token in trace.subject:
                needed += 2 * (tokens - token) * (layers - layer)
    assert sum(ran.copies * (ran.aside + ran.read) for ran in work) == needed
    assert {ran.read for ran in work if ran.block == layers - 1} == {1}


def test_a_pass_is_a_cell(case: Case) -> None:
    trace = traced(case)
    one = passes_of(case.model, trace)
    passes = [one() for _ in range(10)]  # some of them before the subject, where nothing moves
    assert all(each.sum() == pytest.approx(1) for each in passes)
    assert any(not torch.equal(each, passes[0]) for each in passes)


@pytest.mark.slow
def test_the_whole_run_on_a_tiny_model(tmp_path: Path) -> None:
    main(which=[Which.TINY], noise_runs=1, budget=0.0, out=tmp_path, threads=1, sweeps="state,mlp")
    found = json.loads((tmp_path / "tracing.json").read_text())["cases"][0]
    assert found["sweeps"] == ["state", "mlp"]
    assert found["cells"] == 2 * 12 * 3
    assert found["faster_than_passes"] > 1
    assert found["ours_to_floor"] > 0
