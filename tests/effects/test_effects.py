"""`keep_top`: the strongest effects of each set, with literals."""

from __future__ import annotations

import pytest

from sae_graphs.effects.arrays import MeasuredEdge, keep_top
from sae_graphs.errors import SaeGraphsError
from tests.support.effects import effects_of

BLOCKS = [
    effects_of(0, [3, 7], [[1.0, -2.0, 0.0], [2.0, 0.5, -2.0]]),
    effects_of(1, [0, 1], [[-3.0, 0.0], [0.25, 3.0]]),
]


def test_keep_top_per_layer() -> None:
    kept, totals = keep_top(BLOCKS, 2, "layer")
    assert kept == [
        MeasuredEdge(1, 0, None, 0, None, -3.0),
        MeasuredEdge(1, 1, None, 1, None, 3.0),
        MeasuredEdge(0, 3, None, 1, None, -2.0),
        MeasuredEdge(0, 7, None, 0, None, 2.0),
    ]
    assert totals == {0: 7.5, 1: 6.25}


def test_keep_top_per_source() -> None:
    kept, _ = keep_top(BLOCKS, 1, "source")
    assert [(e.depth, e.source, e.target) for e in kept] == [
        (1, 0, 0),
        (1, 1, 1),
        (0, 3, 1),
        (0, 7, 0),
    ]


def test_keep_top_per_graph() -> None:
    kept, _ = keep_top(BLOCKS, 3, "graph")
    assert [(e.depth, e.source, e.target) for e in kept] == [(1, 0, 0), (1, 1, 1), (0, 3, 1)]


def test_an_effect_of_zero_is_no_edge() -> None:
    kept, _ = keep_top(BLOCKS, 100, "layer")
    assert len(kept) == 8
    assert all(edge.effect != 0 for edge in kept)


def test_keep_top_of_nothing() -> None:
    assert keep_top([], 3, "layer") == ([], {})
    silent = effects_of(0, [3], [[0.0, 0.0]])
    assert keep_top([silent], 3, "graph") == ([], {0: 0.0})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_effects_that_overflow_are_not_dropped_in_silence(bad: float) -> None:
    with pytest.raises(SaeGraphsError, match="not finite"):
        keep_top([effects_of(0, [3], [[1.0, bad]])], 2, "layer")
