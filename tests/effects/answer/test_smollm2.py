"""An answer graph of SmolLM2 and its validation, where its wheel is installed: full passes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

import sae_graphs as sg
from sae_graphs.features.reference import references_of
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.pretrained import smollm2
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.settings import ValidationSettings
from tests.support.answer_oracle import AnswerOracle, Place
from tests.support.oracle import Change, Oracle, zero
from tests.support.real_model import real_folder

PROMPT, RELATIVE = "The capital of France is", 1e-5


class Real(NamedTuple):
    """The model in double precision, its graph, full passes of it, and where the nodes stand."""

    model: InstrumentedModel
    graph: CausalGraph
    slow: AnswerOracle
    places: dict[FeatureId, Place]


@pytest.fixture(scope="module")
def real() -> Real:
    real_folder()
    if smollm2.shipped_saes("smollm2") is None:
        pytest.skip("the SAEs of SmolLM2 come with a clone, and this is none")
    model = sg.load("smollm2", dtype="float64")
    graph = sg.causal_graph(model, PROMPT)
    clean = model.clean_run(PROMPT)
    saes = [layer.sae for layer in model.stack.layers]
    token, read = graph.run.outputs[0].token_id, graph.run.read_position
    slow = AnswerOracle(Oracle(model.model, saes, clean.token_ids), token, read, zero)
    means = [found.mean.double() for found in references_of(model)]

    def to_the_mean(layer: int) -> Change:
        return lambda acts, feature: torch.where(acts != 0, means[layer][feature], acts)

    slow.change_of = to_the_mean
    labels = [layer.label for layer in model.stack.layers]
    found = {node.feature: node for node in graph.nodes if node.feature.is_feature}
    places = {it: (labels.index(it.layer), it.index, it.position or 0) for it in found}
    return Real(model, graph, slow, places)


@pytest.mark.slow
def test_each_feature_does_what_full_passes_say(real: Real) -> None:
    assert real.graph.run.outputs[0].token == " Paris" and len(real.places) >= 8
    for feature, place in real.places.items():
        effect = real.slow.without([place]) - real.slow.clean
        ours = real.graph[feature].effect_on_answer
        assert ours == pytest.approx(effect, rel=RELATIVE, abs=1e-9), feature


@pytest.mark.slow
def test_the_whole_graph_does_what_a_full_pass_says(real: Real) -> None:
    settings = ValidationSettings(quick=True, controls=20, paths=0)
    report = sg.validate(real.model, real.graph, settings=settings)
    assert isinstance(report, AnswerReport)
    (unit,) = report.units
    kept = [real.places[feature] for feature in unit.features]
    assert report.clean.nats == pytest.approx(real.slow.clean, rel=RELATIVE)
    assert unit.ablated.nats == pytest.approx(real.slow.without(kept), rel=RELATIVE)
    assert unit.ablated.nats < report.clean.nats
