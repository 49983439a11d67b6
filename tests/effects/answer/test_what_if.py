"""What the next token would be without features: against full passes with plain hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sae_graphs.effects.answer.build import graph_of
from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.experiment import kept_of
from sae_graphs.effects.replot import replot
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.node_link import to_bytes
from sae_graphs.graph.what_if import Outcome, WhatIf
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.runs import EFFECTS
from tests.conftest import BridgeOf
from tests.support import measured_answers
from tests.support.against_oracle import Record, case_of, kinds_for
from tests.support.answer_oracle import AnswerOracle
from tests.support.models import ARCHITECTURES
from tests.support.oracle import Change, zero
from tests.support.slow import only

EXACT = 1e-5


def _to(mean: torch.Tensor) -> Change:
    return lambda acts, feature: torch.where(acts != 0, mean[feature].to(acts.dtype), acts)


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "gpt2"))
def test_distributions_are_those_of_full_passes(
    bridge_of: BridgeOf, record_property: Record, architecture: str
) -> None:
    case = case_of(bridge_of(architecture, "float64"), "pre", kinds_for(architecture), "float64")
    found = measured_answers.measured_of(case.model, nodes=5)
    graph = graph_of(found, kept_of(found))
    answer, labels = found.asked.answer, found.experiment.labels
    slow = AnswerOracle(case.oracle, answer.token_id, found.asked.read, zero, answer.contrast)
    slow.change_of = lambda layer: _to(found.references[layer].mean)
    known = what_if(graph)
    drawn = [str(node.feature) for node in graph.nodes if node.feature.is_feature]
    assert sorted(it.features[0] for it in known.outcomes if len(it.features) == 1) == sorted(drawn)
    assert [it for it in known.outcomes if len(it.features) > 1]
    worst = 0.0
    for outcome in known.outcomes:
        ids = [FeatureId.parse(name) for name in outcome.features]
        spots = [Spot(labels.index(it.layer), it.index, it.position or 0) for it in ids]
        logits = slow.logits_without(spots)[found.asked.read]
        wanted = logits.softmax(-1)[list(known.token_ids)]
        ours = torch.tensor(outcome.probabilities, dtype=torch.float64)
        worst = max(worst, float((ours - wanted).abs().max()))
        assert outcome.score == pytest.approx(slow.without(spots), rel=EXACT, abs=1e-9)
    record_property("deviation float64 what if", worst)
    assert worst < EXACT


@pytest.fixture(scope="module")
def graph(tiny_stack: InstrumentedModel) -> CausalGraph:
    return measured_answers.graph_of(tiny_stack, nodes=6)


@pytest.fixture(scope="module")
def tiny_stack(bridge_of: BridgeOf) -> InstrumentedModel:
    return case_of(bridge_of("gpt2", "float32"), "pre", kinds_for("gpt2"), "float32").model


def what_if(graph: CausalGraph) -> WhatIf:
    answer = graph.run.answer
    assert answer is not None and answer.what_if is not None
    return answer.what_if


def test_a_score_is_the_clean_one_and_the_effect(graph: CausalGraph) -> None:
    assert graph.run.answer is not None
    for outcome in what_if(graph).outcomes:
        if len(outcome.features) == 1:
            effect = graph[outcome.features[0]].effect_on_answer
            assert effect is not None
            assert outcome.score == pytest.approx(graph.run.answer.score + effect, abs=EXACT)


def test_the_kept_ones_together_lose_what_coverage_says(graph: CausalGraph) -> None:
    kept = {str(node.feature) for node in graph.nodes if node.relay is False}
    (whole,) = [it for it in what_if(graph).outcomes if set(it.features) == kept]
    answer = graph.run.answer
    assert answer is not None and answer.coverage is not None
    assert whole.score == pytest.approx(answer.coverage.without_kept, abs=EXACT)


def test_the_answer_and_the_likeliest_tokens_are_listed(graph: CausalGraph) -> None:
    known = what_if(graph)
    output = graph.run.outputs[0]
    assert known.token_ids[0] == output.token_id
    assert known.clean[0] == pytest.approx(output.probability, abs=EXACT)
    assert {token for token, _ in graph.run.next_tokens[:5]} <= set(known.tokens)


def test_it_comes_back_from_a_file_and_may_be_missing(graph: CausalGraph, tmp_path: Any) -> None:
    again = CausalGraph.load(graph.save(tmp_path / "graph.json"))
    assert what_if(again) == what_if(graph)
    older = graph.save(tmp_path / "older.json")
    text = older.read_text(encoding="utf-8").replace('"what_if"', '"something_else"')
    older.write_text(text, encoding="utf-8")
    found = CausalGraph.load(older)
    assert found.run.answer is not None and found.run.answer.what_if is None
    assert to_bytes(found.parts) == to_bytes(CausalGraph.load(older).parts)


def test_a_part_of_a_graph_keeps_what_is_of_it_alone(graph: CausalGraph) -> None:
    wanted = [str(node.feature) for node in graph.nodes if node.feature.is_feature][:2]
    part = graph.subgraph([*wanted, "answer"])
    assert sorted(it.features for it in what_if(part).outcomes) == sorted((it,) for it in wanted)
    summed = graph.summed().run.answer
    assert summed is not None and summed.what_if is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clean": (0.5,)}, "clean: 1 numbers of 2 tokens"),
        ({"clean": (0.5, 1.5)}, "not between 0 and 1"),
        ({"outcomes": (Outcome(("0.1@1",), 0.0, (0.5,)),)}, "outcome of 0.1@1: 1 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], expected: str) -> None:
    usual: dict[str, Any] = {
        "tokens": ("a", "b"),
        "token_ids": (1, 2),
        "clean": (0.5, 0.5),
        "outcomes": (),
    }
    with pytest.raises(SaeGraphsError, match=expected):
        WhatIf(**{**usual, **changes})


@pytest.mark.parametrize("features", [(), ("0.1@1", "0.1@1"), ("nonsense",)])
def test_an_outcome_is_of_features(features: tuple[str, ...]) -> None:
    with pytest.raises(SaeGraphsError):
        Outcome(features, 0.0, ())


def test_an_outcome_has_a_score() -> None:
    with pytest.raises(SaeGraphsError, match="not finite"):
        Outcome(("0.1@1",), float("nan"), ())


@pytest.mark.slow
def test_a_graph_drawn_again_keeps_what_was_measured_of_its_features(
    tiny_stack: InstrumentedModel, tmp_path: Path
) -> None:
    graph = measured_answers.graph_of(tiny_stack, nodes=6, effects=tmp_path / EFFECTS)
    graph.save(tmp_path / "graph.json")
    fewer = replot(tmp_path, nodes=3)
    drawn = {str(node.feature) for node in fewer.nodes if node.feature.is_feature}
    assert what_if(fewer) == what_if(graph).of(drawn)
    assert {(name,) for name in drawn} >= {it.features for it in what_if(fewer).outcomes} != set()
    assert what_if(replot(tmp_path, nodes=6)) == what_if(graph)
