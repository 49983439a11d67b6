"""How far estimates of effects on the answer are from exact ones, by layer and over all."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from sae_graphs.cli.comparison_table import print_comparison
from sae_graphs.effects.agreement import MethodComparison
from sae_graphs.effects.answer.comparison import compare_on_answer
from sae_graphs.effects.answer.table import estimates
from sae_graphs.effects.comparison import ESTIMATES
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.graph.feature_id import ANSWER
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.significance import rank_correlation
from tests.support.commands import Commands
from tests.support.measured_answers import measured_of, references
from tests.support.models import PROMPT


def compared(model: InstrumentedModel, **options: object) -> MethodComparison:
    settings = GraphSettings(**options)  # type: ignore[arg-type]
    return compare_on_answer(model, PROMPT, settings, None, ESTIMATES, references=references(model))


def test_the_figures_are_those_of_the_effects(tiny: InstrumentedModel) -> None:
    """Over all, the strongest are those of all layers: the nodes that a graph would keep."""
    found, measured = compared(tiny, nodes=10), measured_of(tiny)
    table = measured.table
    guessed = estimates(measured.asked, table.ablations, None, None)
    rare = [
        (abs(float(exact)), abs(float(guess)), float(exact), float(guess), depth, row)
        for depth, (one, two) in enumerate(zip(table.effects, guessed, strict=True))
        for row, (exact, guess) in enumerate(zip(one, two, strict=True))
        if not table.dense[depth][row]
    ]
    figures = found.overall["gradient"]
    exact_top = {item[4:] for item in sorted(rare, reverse=True)[:10]}
    guessed_top = {item[4:] for item in sorted(rare, key=lambda item: -item[1])[:10]}
    assert figures.overlap == pytest.approx(len(exact_top & guessed_top) / 10)
    assert exact_top == {(spot.depth, table.row(spot)) for spot in table.strongest(10)}
    assert figures.n_exact == sum(item[2] != 0 for item in rare)
    worst = max(rare, key=lambda item: abs(item[2] - item[3]))
    assert (figures.worst[0].exact, figures.worst[0].estimate) == pytest.approx(worst[2:4])
    assert figures.worst[0].target == ANSWER and figures.worst[0].source.position is not None
    values = np.array([item[2:4] for item in rare])
    assert figures.rank_correlation == pytest.approx(
        rank_correlation(values[:, 0], values[:, 1], fewest=2), abs=0.01
    )
    assert [(pair.source, pair.target) for pair in found.pairs] == [
        (label, "answer") for label in "0123"
    ]
    assert found.settings["nodes"] == 10 and found.settings["intervention"].startswith("mean")


def test_one_step_is_the_gradient_and_dense_ones_count_on_request(tiny: InstrumentedModel) -> None:
    found, dense = compared(tiny, steps=1), compared(tiny, steps=1, dense=True)
    gradient, integrated = found.overall.values()
    assert gradient.overlap == integrated.overlap and gradient.worst == integrated.worst
    assert dense.overall["gradient"].n_exact > gradient.n_exact


def test_the_table_says_what_it_is_of(tiny: InstrumentedModel) -> None:
    found = compared(tiny, steps=2)
    console = Console(width=80, file=io.StringIO(), record=True)
    print_comparison(console, found, "table")
    text = " ".join(console.export_text().split())
    for words in (
        "exact effects on the answer",
        "0 -> answer grad.",
        "same 16",
        "16 strongest features at tokens",
    ):
        assert words in text, words
    assert json.loads(json.dumps(found.to_json()))["settings"]["select"] == "answer"


@pytest.mark.slow
def test_the_command(commands: Commands) -> None:
    answer = commands("compare", "Copyright (C", "--steps", "2", "--layers", "4:6", "--nodes", "5")
    assert answer.code == 0, answer.err
    for words in ("4 -> answer", "same 5 ", "all", "integrated-gradients: "):
        assert words in " ".join(answer.out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--top-k", "5"), "--select effect"),
        (("--nodes", "5", "--select", "effect"), "--select answer"),
        (("--ablate", "read"), "--select effect"),
    ],
)
def test_what_does_not_go_together(commands: Commands, words: tuple[str, ...], said: str) -> None:
    answer = commands("compare", "Copyright (C", *words)
    assert answer.code == 2 and len(answer.err.strip().splitlines()) == 1
    assert words[0] in answer.err and said in answer.err
