"""How far estimates are from exact effects: figures worked out by hand, and the command."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import sae_graphs as sg
from sae_graphs.cli.comparison_table import print_comparison
from sae_graphs.effects.agreement import Agreement, Aligned, agreement, aligned
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.comparison import compare_methods
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.significance import rank_correlation
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_settings
from tests.support.linear_model import linear_model
from tests.support.models import PROMPT

LABELS = ("0", "1", "2")


def effects(rows: Sequence[tuple[int, int, float]], depth: int = 0) -> Effects:
    """From source, target and value."""
    ends = np.array([row[:2] for row in rows], dtype=np.int32).reshape(-1, 2)
    nowhere = np.full(len(rows), -1, dtype=np.int32)
    values = np.array([row[2] for row in rows], dtype=np.float32)
    return Effects(depth, ends[:, 0], nowhere, ends[:, 1], nowhere, values)


EXACT = effects([(0, 0, -8), (0, 1, 4), (0, 2, 3), (1, 0, 2), (1, 1, -1)])
# Of the exact top 2 one is in the estimate's, which are 0 -> 0 (-9) and 1 -> 2 (5).
ESTIMATED = effects([(0, 0, -9), (0, 1, -1), (1, 0, 2.5), (1, 1, -1), (1, 2, 5)])


def figures(exact: Effects, estimated: Effects, k: int = 2) -> Agreement:
    return agreement(aligned(exact, estimated, k), k, LABELS, 0.5)


# -- by hand ---------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    found = figures(EXACT, ESTIMATED)
    assert (found.k, found.n_exact, found.n_estimated, found.seconds) == (2, 5, 5, 0.5)
    assert found.overlap == 0.5
    assert found.wide_overlap == 0.8  # 0 -> 2 is missing
    assert (found.wrong_sign, found.unseen) == (0.5, 0.0)  # 0 -> 1
    assert found.unseen_effect == pytest.approx(3 / 18)
    # Ranks of exact -8, 4, 3, 2, -1, 0 are 1, 6, 5, 4, 2, 3; of -9, -1, 0, 2.5, -1, 5 they are
    # 1, 2.5, 4, 5, 2.5, 6. About 3.5 their products sum to 5.5, the squares to 17.5 and 17.
    assert found.rank_correlation == pytest.approx(5.5 / (17.5 * 17) ** 0.5)
    # Without the last: exact 1, 5, 4, 3, 2 and 1, 2.5, 4, 5, 2.5 about 3: 4 - 1 + 1 + 0 + 0.5,
    # squares 10 and 4 + 0.25 + 1 + 4 + 0.25.
    assert found.leaders_correlation == pytest.approx(4.5 / (10 * 9.5) ** 0.5)
    assert found.verdict == "not safe"
    assert [str(miss) for miss in found.worst] == [
        "0.0 -> 1.1: +4, estimated -1",
        "0.1 -> 1.2: +0, estimated +5",
        "0.0 -> 1.2: +3, estimated +0",
        "0.0 -> 1.0: -8, estimated -9",
        "0.1 -> 1.0: +2, estimated +2.5",
    ]
    assert [str(miss) for miss in found.strongest_unseen] == ["0.0 -> 1.2: +3, estimated +0"]


def test_the_same_is_safe() -> None:
    found = figures(EXACT, EXACT)
    assert found.rank_correlation == pytest.approx(1)
    assert (found.overlap, found.wide_overlap, found.verdict) == (1.0, 1.0, "safe")
    assert (found.worst, found.strongest_unseen) == ((), ())


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [(4.0, "safe"), (-4.0, "rough"), (0.0, "rough")],
)
def test_one_wrong_leader_is_not_safe(estimate: float, verdict: str) -> None:
    exact = effects([(0, target, 20.0 - target) for target in range(10)])
    rows = [(0, target, 20.0 - target) for target in range(9)]
    assert figures(exact, effects([*rows, (0, 9, estimate)]), k=10).verdict == verdict


def test_nothing_to_compare() -> None:
    found = figures(effects([]), effects([]))
    assert (found.n_exact, found.rank_correlation, found.overlap) == (0, None, None)
    assert found.verdict == "safe"
    found = figures(effects([]), ESTIMATED)
    assert (found.overlap, found.unseen_effect, len(found.worst)) == (None, 0.0, 5)
    assert figures(EXACT, effects([])).verdict == "not safe"


def test_several_pairs_as_one() -> None:
    """Leaders are those of each pair, and every miss keeps its layers."""
    second = replace(EXACT, depth=1)
    parts = [aligned(EXACT, ESTIMATED, 2), aligned(second, second, 2)]
    found = agreement(Aligned.joined(parts), 2, LABELS, 1.0)
    assert (found.n_exact, found.overlap, found.wide_overlap) == (10, 0.75, 0.9)
    both = Aligned.joined([aligned(EXACT, EXACT, 2), aligned(second, effects([], 1), 2)])
    assert {str(miss.source) for miss in agreement(both, 2, LABELS, 1.0).worst} == {"1.0", "1.1"}


def test_positions_tell_edges_apart() -> None:
    at = np.array([3, 4, 3, 4, 5], dtype=np.int32)
    exact = replace(EXACT, source_positions=at, target_positions=at + 1)
    assert figures(exact, exact).n_exact == 5
    assert str(figures(exact, effects([])).worst[0].source) == "0.0@3"
    moved = replace(exact, source_positions=at - 1)
    assert figures(exact, moved).overlap == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(seed)
    a, b = draw.integers(-4, 4, 50).astype(float), draw.normal(size=50).round(1)
    assert rank_correlation(a, b, fewest=2) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rank_correlation(a, np.zeros(50), fewest=2) is None
    assert rank_correlation(a[:1], b[:1], fewest=2) is None
    assert rank_correlation(a[:2], a[:2], fewest=2) == pytest.approx(1.0)


# -- on models -------------------------------------------------------------------------------------


def test_the_linear_model() -> None:
    """Effects and estimates of tests/test_gradients.py, for both layer pairs."""
    found = compare_methods(linear_model(), "ab", effect_settings(top_k=3), ["gradient"])
    first, second = (pair.methods["gradient"] for pair in found.pairs)
    assert [str(miss) for miss in first.worst] == ["0.0 -> 1.2: +5, estimated +0"]
    assert first.strongest_unseen == first.worst
    assert first.unseen_effect == pytest.approx(5 / 12)
    assert (first.n_exact, first.n_estimated, first.unseen) == (4, 3, pytest.approx(1 / 3))
    assert [str(miss) for miss in second.worst] == [
        "1.1 -> 2.1: -3, estimated -5",
        "1.1 -> 2.2: -3, estimated -4",
    ]
    assert (first.verdict, second.verdict) == ("rough", "safe")
    assert found.overall["gradient"].verdict == "rough"
    assert found.with_verdict("gradient", "safe") == ["1 -> 2"]
    assert found.overall["gradient"].n_exact == 9


@pytest.mark.parametrize(
    "settings",
    [
        effect_settings(),
        effect_settings(ablate="each", read="all"),
        effect_settings(ablate="read", outputs=3),
        effect_settings(layers=("1", "3"), read=4),
    ],
)
def test_one_step_is_the_gradient(tiny: InstrumentedModel, settings: GraphSettings) -> None:
    told: list[tuple[int, int]] = []
    found = compare_methods(
        tiny, PROMPT, settings, steps=1, progress=lambda done, total: told.append((done, total))
    )
    for figures_of in (found.overall, *(pair.methods for pair in found.pairs)):
        gradient, integrated = figures_of.values()
        assert replace(gradient, seconds=0.0) == replace(integrated, seconds=0.0)
        assert gradient.n_exact > 0
    assert told[-1][0] == told[-1][1] == 3 * len(found.pairs)
    assert found.steps == 1
    assert found.exact_seconds > 0
    assert json.loads(json.dumps(found.to_json()))["steps"] == 1


@pytest.mark.parametrize("methods", [[], ["exact"], ["gradient", "guess"]])
def test_unknown_methods(tiny: InstrumentedModel, methods: list[str]) -> None:
    with pytest.raises(SaeGraphsError, match="expected some of gradient, integrated-gradients"):
        compare_methods(tiny, PROMPT, methods=methods)


def test_it_is_public() -> None:
    assert sg.compare_methods is compare_methods


# -- the command -----------------------------------------------------------------------------------


def test_compare_prints_verdicts(commands: Commands) -> None:
    answer = commands(
        *("compare", "Copyright (C", *EFFECT, "--steps", "2", "--layers", "0:2", "--top-k", "5")
    )
    assert answer.code == 0, answer.err
    for words in ("0 -> 1", "1 -> 2", "worst misses", "same 50", "unseen: wakes up", "2 steps"):
        assert words in " ".join(answer.out.split())
    assert "integrated-gradients: " in answer.out
    assert "Safe: the estimate's 5 strongest edges" in answer.out


def test_compare_in_a_narrow_terminal(tiny: InstrumentedModel) -> None:
    console = Console(width=60, file=io.StringIO(), record=True)
    print_comparison(console, compare_methods(tiny, PROMPT, steps=2, select="effect"), "table")
    text = console.export_text()
    assert "\u2026" not in text and "0 -> 1 grad." in text
    assert all(f" {word} " in text for word in ("corr.", "unseen", "verdict", "estimate"))


def test_compare_as_json(commands: Commands) -> None:
    answer = commands("compare", "Copyright (C", *EFFECT, "--steps", "2", "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert [pair["source"] for pair in found["pairs"]] == ["0", "1", "2", "3", "4", "5"]
    assert found["overall"]["gradient"]["worst"][0]["source"].count(".") == 1
    assert found["steps"] == 2
    assert found["tokens"][-1] == "C"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "no prompt, or an empty one"),
        (["a", "--steps", "0"], "steps is 0; expected a whole number of at least 1"),
        (["a", "--layers", "7"], "layers '7'; expected first:last"),
        (["a", "--format", "csv"], "csv"),
    ],
)
def test_mistakes_in_one_line(commands: Commands, arguments: list[str], said: str) -> None:
    answer = commands("compare", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.slow
def test_a_graph_of_estimates(commands: Commands) -> None:
    chosen = ("--method", "integrated-gradients", "--steps", "3", "--formats", "dot")
    answer = commands("graph", "Copyright (C", *EFFECT, *chosen, "--out", "run")
    assert answer.code == 0, answer.err
    assert "sae-graphs compare" in answer.out
    settings = sg.CausalGraph.load("run").run.settings
    assert (settings["method"], settings["steps"]) == ("integrated-gradients", 3)
