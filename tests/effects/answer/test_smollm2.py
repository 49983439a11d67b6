"""An answer graph of SmolLM2 and its validation, where its wheel is installed: full passes."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

import sae_graphs as sg
from sae_graphs.features.reference import references_of
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.answer.records import AnswerReport
from tests.support.answer_oracle import AnswerOracle, Place
from tests.support.oracle import Change, Oracle, zero
from tests.support.real_model import PROMPT, real_folder

RELATIVE = 1e-5


class Real(NamedTuple):
    """The model in double precision, its graph, full passes of it, and where the nodes stand."""

    model: InstrumentedModel
    graph: CausalGraph
    slow: AnswerOracle
    places: list[Place]


@pytest.fixture(scope="module")
def real() -> Real:
    real_folder()
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
    features = [node.feature for node in graph.nodes]
    places = [(labels.index(it.layer), it.index, it.position or 0) for it in features]
    return Real(model, graph, slow, places)


@pytest.mark.slow
def test_each_feature_does_what_full_passes_say(real: Real) -> None:
    assert real.graph.run.outputs[0].token == " Paris" and len(real.places) >= 8
    for node, place in zip(real.graph.nodes, real.places, strict=True):
        effect = real.slow.without([place]) - real.slow.clean
        assert node.effect_on_answer == pytest.approx(effect, rel=RELATIVE, abs=1e-9), place


@pytest.mark.slow
def test_the_whole_graph_does_what_a_full_pass_says(real: Real) -> None:
    settings = sg.ValidationSettings(quick=True, controls=20, paths=0)
    report = sg.validate(real.model, real.graph, settings=settings)
    assert isinstance(report, AnswerReport)
    (unit,) = report.units
    nodes = zip(real.graph.nodes, real.places, strict=True)
    kept = [place for node, place in nodes if node.feature in unit.features]
    assert len(kept) == len(unit.features) >= 8
    assert report.clean.nats == pytest.approx(real.slow.clean, rel=RELATIVE)
    assert unit.ablated.nats == pytest.approx(real.slow.without(kept), rel=RELATIVE)
    assert unit.ablated.nats < report.clean.nats
