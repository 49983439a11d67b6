"""Joint edits worked out by hand on the linear model: every expected number is a literal.

The streams of `^ab` (rows: ^, a, b), as in `test_analytic.py`:

    layer 0         layer 1             layer 2, at b alone: the logits
    (9, 9, 9)       (9, 27, -18)
    (1, 2, 0)       (1, 4, 6)
    (2, 1, 3)       (2, 5, -1)          (5, 3, 3)

Of the two blocks: y1 = x1 + 2 x0, y2 = x2 - 3 x0 + (x1 before); z0 = y0 + 1/2 (y2 before),
z1 = y1 - y0, z2 = y2 + (y1 before). Features are ablated at a and b, and read at b.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sae_graphs.model import joint
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.joint import Edit, Selected
from tests.support.linear_model import linear_model

Names = list[list[int]]  # features of one layer, copy by copy


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    return linear_model()


@pytest.fixture(scope="module")
def clean(model: InstrumentedModel) -> CleanRun:
    return model.clean_run("ab")


def chosen(names: Names) -> Selected:
    """Features `names[copy]` at a and b."""
    mask = torch.zeros(len(names), 3, 3, dtype=torch.bool)
    for copy, features in enumerate(names):
        mask[copy, 1:, features] = True
    return Selected(torch.arange(3), mask)


def ablated(
    model: InstrumentedModel, clean: CleanRun, sets: dict[int, Names], n: int
) -> tuple[list[list[float]], Tensor]:
    selections = {depth: chosen(names) for depth, names in sets.items()}
    logits, moved = joint.run_sets(model, clean, selections, n, 2)
    return logits.tolist(), moved


def run(
    model: InstrumentedModel, clean: CleanRun, edits: dict[int, Edit], n: int
) -> list[list[float]]:
    ran = joint.run_edits(model, clean, edits, n, 2)
    found: list[list[float]] = joint.logits_of(model, clean, ran, 2).tolist()
    return found


def test_joint_ablation_encodes_the_stream_as_it_is_then(
    model: InstrumentedModel, clean: CleanRun
) -> None:
    sets = {0: [[0], [0], [], [], [0, 1]], 1: [[1], [2], [1], [], [0]]}
    logits, moved = ablated(model, clean, sets, 5)
    # 0.0 off: y is (0, 2, 9) at a and (0, 1, 5) at b. 1.1 off is then a change of 2 and 1, not of
    # the clean 4 and 5: (0, 0, 9) and (0, 0, 5), so z is (0+4.5, 0-0, 5+0).
    assert logits[0] == [4.5, 0, 5]
    assert moved[0].tolist() == [[0, 1, 2], [0, 2, 1], [0, 0, 0]]
    # 1.2 is silent at b, but 0.0 off wakes it there, to 5; off again: (0, 2, 0) and (0, 1, 0).
    assert logits[1] == [0, 1, 2]
    assert moved[1].tolist() == [[0, 1, 2], [0, 9, 5], [0, 0, 0]]
    assert logits[2] == [5, -2, -1]  # alone: (1, 0, 6) and (2, 0, -1)
    assert logits[3] == [5, 3, 3]
    # 0.0 and 0.1 off: y is (0, 0, 9) and (0, 0, 3+0); 1.0 is silent then. z is (4.5, 0, 3).
    assert logits[4] == [4.5, 0, 3]


def test_path_patching(model: InstrumentedModel, clean: CleanRun) -> None:
    """0.0 off; with all held but one feature of layer 1, what flows through that feature alone."""
    n = 5
    free = chosen([[], [0], [1], [2], [0, 1, 2]])
    edits = {
        0: joint.changing(model, clean, 0, chosen([[0]] * n), lambda f, acts: 0 * acts),
        1: joint.holding_others(model, clean, 1, free),
    }
    assert run(model, clean, edits, n) == [
        [5, 3, 3],  # all held
        [3, 5, 3],  # 1.0 becomes 0 and 0: (0, 4, 6) and (0, 5, -1)
        [5, -1, 1],  # 1.1 becomes 2 and 1: (1, 2, 6) and (2, 1, -1)
        [6.5, 3, 8],  # 1.2 becomes 9 and 5: (1, 4, 9) and (2, 5, -1+5), the error stays -1
        [4.5, 1, 6],  # all of them: (0, 2, 9) and (0, 1, 4); without the change of the error, 7
    ]
    edits[1] = joint.holding_others(
        model, clean, 1, chosen([[1]] * n), torch.tensor([False, True, False])
    )
    assert run(model, clean, edits, n) == [[5, -2, -1]] * n  # (1, 0, 6) and (2, 0, -1)


def test_keeping_only_some(model: InstrumentedModel, clean: CleanRun) -> None:
    some = chosen([[1], [], [0, 1, 2]])
    everywhere_but_first = torch.tensor([False, True, True])
    left = joint.keeping_only(model, clean, 1, some, everywhere_but_first, errors=True)
    # Only 1.1 left: (0, 4, 0) and (0, 5, -1); nothing: 0 and (0, 0, -1).
    assert run(model, clean, {1: left}, 3) == [[0, 5, 3], [0, 0, -1], [5, 3, 3]]
    bare = joint.keeping_only(model, clean, 1, some, everywhere_but_first, errors=False)
    assert run(model, clean, {1: bare}, 3) == [[0, 5, 4], [0, 0, 0], [5, 3, 4]]


def test_adding(model: InstrumentedModel, clean: CleanRun) -> None:
    deltas = torch.zeros(2, 3, 3, dtype=torch.float64)
    deltas[1, 1, 2] = 2.0  # to the third coordinate at a: z0 at b gets half of it
    ran = joint.run_edits(model, clean, {1: joint.adding(deltas)}, 2, 2)
    assert joint.logits_of(model, clean, ran, 2).tolist() == [[5, 3, 3], [6, 3, 3]]
    assert ran.changed.tolist() == [False, True]
    assert ran.moved[1].tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 0]]


def test_a_coefficient_a_copy_and_its_derivative(model: InstrumentedModel, clean: CleanRun) -> None:
    """1.1 times c: (1, 4c, 6) and (2, 5c, -1), so z is (5, 5c-2, 4c-1)."""
    with torch.enable_grad():
        coefficients = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
        edit = joint.changing(model, clean, 1, chosen([[1]] * 4), joint.scaled_by(coefficients))
        ran = joint.run_edits(model, clean, {1: edit}, 4, 2)
        logits = joint.logits_of(model, clean, ran, 2)
        slopes = [
            torch.autograd.grad(logits[:, token].sum(), coefficients, retain_graph=True)[0].tolist()
            for token in (1, 2)
        ]
    assert logits.tolist() == [[5, -2, -1], [5, 0.5, 1], [5, 3, 3], [5, 8, 7]]
    assert slopes == [[5, 5, 5, 5], [4, 4, 4, 4]]


def test_stopping_on_the_way(model: InstrumentedModel, clean: CleanRun) -> None:
    """Edits at the stop and above are left out."""
    edits = {
        depth: joint.changing(model, clean, depth, chosen([[0], [1]]), lambda f, acts: 0 * acts)
        for depth in range(3)
    }
    ran = joint.run_edits(model, clean, edits, 2, 2, clean.points[1])
    assert ran.streams.tolist() == [[0, 1, 5], [2, 4, -3]]
    assert not ran.moved[:, 1:].any()
    below = joint.run_edits(model, clean, edits, 2, 2, clean.points[0])
    assert below.streams.tolist() == [[2, 1, 3]] * 2
