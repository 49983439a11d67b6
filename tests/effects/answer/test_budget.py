"""Above a budget gradients say what is measured, and a sample of the rest what that may miss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sae_graphs.effects.answer import table as measuring
from sae_graphs.effects.answer.table import affordable, estimates, measured_table, shortlist
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.commands import Commands
from tests.support.measured_answers import graph_of, measured_of


def test_the_shortlist_is_the_largest_and_a_sample_of_the_rest() -> None:
    guessed = [torch.tensor([0.1, -9.0, 3.0, 0.0]), torch.tensor([-4.0, 0.2, 0.3])]
    likely, sample = shortlist(guessed, 4)
    assert [mask.tolist() for mask in likely] == [
        [False, True, True, False],
        [True, False, False],
    ]
    assert sum(int(mask.sum()) for mask in sample) == 1  # of the others: one in four measured
    assert not any(bool((a & b).any()) for a, b in zip(likely, sample, strict=True))
    for one, two in zip(shortlist(guessed, 4), (likely, sample), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_of_a_large_one_64_are_the_sample() -> None:
    sizes = torch.arange(1000.0)
    likely, sample = shortlist([sizes[:400], sizes[400:]], 300)
    assert torch.equal(torch.cat(likely), sizes >= 1000 - (300 - 64))
    assert int(torch.cat(sample).sum()) == 64


@pytest.mark.slow
def test_a_budget_for_all_changes_nothing(tiny: InstrumentedModel) -> None:
    whole = measured_of(tiny)
    total = sum(map(len, whole.table.ablations))
    for budget in (total, 10 * total):
        found = measured_of(tiny, budget=budget)
        assert found.shortlist == whole.shortlist == (total, total, None)
        for one, two in zip(found.table.effects, whole.table.effects, strict=True):
            assert torch.equal(one, two)


def test_a_small_budget_is_kept_and_what_it_misses_is_said(tiny: InstrumentedModel) -> None:
    whole, budget = measured_of(tiny), 90
    found = measured_of(tiny, budget=budget)
    exact, total, missed = found.shortlist
    assert (exact, total) == (budget, sum(map(len, whole.table.ablations)))
    guessed = estimates(found.asked, found.table.ablations, None, None)
    likely, sample = shortlist(guessed, budget)
    largest = 0.0
    for here, wide, likely_ones, drawn in zip(
        found.table.effects, whole.table.effects, likely, sample, strict=True
    ):
        chosen = likely_ones | drawn
        assert here[chosen].tolist() == pytest.approx(wide[chosen].tolist(), rel=1e-9, abs=1e-12)
        assert not here[~chosen].any()
        largest = max([largest, *wide[drawn].abs().tolist()])
    assert missed == pytest.approx(largest) and missed
    graph = graph_of(tiny, budget=budget)
    (said,) = [words for words in graph.run.warnings if "--budget" in words]
    assert said.startswith(f"{budget} of {total} features at tokens were measured")
    assert f"{missed:.3g} nats" in said
    answer = graph.run.answer
    assert answer is not None
    assert (answer.exact, answer.measured, answer.missed) == (budget, total, missed)
    assert graph == graph_of(tiny, budget=budget)


def test_few_are_all_measured_and_of_many_what_time_allows(
    tiny: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured_of(tiny)
    total = sum(map(len, found.table.ablations))
    assert affordable(found.asked, found.table.ablations) == total
    monkeypatch.setattr(measuring, "ALWAYS", 70)
    assert affordable(found.asked, found.table.ablations) == total  # in five minutes
    monkeypatch.setattr(measuring, "MINUTES", 1e-9)
    assert affordable(found.asked, found.table.ablations) == 70
    _, short = measured_table(found.asked, found.experiment, found.table.dense)
    assert (short.exact, short.total) == (70, total) and short.missed is not None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "integrated-gradients"])
def test_estimates_rank_the_nodes_and_edges_stay_exact(
    tiny: InstrumentedModel, method: str
) -> None:
    exact, graph = graph_of(tiny, nodes=64), graph_of(tiny, method=method)
    found = measured_of(tiny, method=method)
    steps = None if method == "gradient" else 10
    guessed = estimates(found.asked, found.table.ablations, steps, None)
    for one, two in zip(found.table.effects, guessed, strict=True):
        assert torch.equal(one, two)
    kept = [node for node in graph.nodes if node.relay is False]
    names = {str(node.feature) for node in kept}
    labels = found.experiment.labels
    assert names == {
        f"{labels[spot.depth]}.{spot.feature}@{spot.position}" for spot in found.table.strongest(16)
    }
    shared = 0
    for edge in graph.edges:
        known = {(e.source, e.target): e for e in exact.edges}.get((edge.source, edge.target))
        if known is not None and edge.source.is_feature and edge.target.is_feature:
            assert edge.effect == pytest.approx(known.effect, rel=1e-9)
            assert edge.flow == pytest.approx(known.flow, rel=1e-6, abs=1e-9)
            shared += 1
    assert shared > 3
    assert graph.run.settings["method"] == method
    assert graph.run.answer is not None and graph.run.answer.exact == 0
    (said,) = [words for words in graph.run.warnings if "estimates" in words]
    assert method.replace("-", " ") in said and "edges and coverage are measured" in said


@pytest.mark.parametrize("budget", [0, -1, 2.5, True])
def test_a_wrong_budget_is_one_line(tiny: InstrumentedModel, budget: object) -> None:
    with pytest.raises(SaeGraphsError, match="budget is") as caught:
        graph_of(tiny, budget=budget)
    assert "\n" not in str(caught.value)


def test_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    commands = Commands(monkeypatch, capsys, tmp_path)
    answer = commands("graph", "x", "--budget", "9", "--select", "effect")
    assert answer.code == 2 and "--budget" in answer.err and "--select answer" in answer.err
    answer = commands("graph", "x", "--budget", "0")
    assert answer.code == 2 and "budget is 0" in answer.err
