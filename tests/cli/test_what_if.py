"""The process beside `sae-graphs view`: the same numbers as in the graph, and as `sg.ablate`'s."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_graphs as sg
from sae_graphs.cli.what_if import Models, Ready, answer, measured, prepared
from sae_graphs.effects.ablate import ablate
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import reference
from sae_graphs.gallery.asking import Asker
from sae_graphs.gallery.runs import Run
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.what_if import WhatIf
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.measured_answers import graph_of, references
from tests.support.models import PROMPT
from tests.support.rich_graphs import two_edges
from tests.support.saved_runs import write_run
from tests.support.slow import only

EXACT = 1e-5


@pytest.fixture(scope="module", params=only(["mean", "zero", "scale:0.5"], "mean"))
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def ready(tiny: InstrumentedModel, kind: str, monkeypatch: pytest.MonkeyPatch) -> Ready:
    own = references(tiny)
    monkeypatch.setattr(reference, "references_of", lambda model, **_: own)
    graph = graph_of(tiny, nodes=5, intervention=kind, references=own)
    return prepared(graph, tiny)


def known(graph: CausalGraph) -> WhatIf:
    assert graph.run.answer is not None and graph.run.answer.what_if is not None
    return graph.run.answer.what_if


def test_every_outcome_of_the_graph_comes_again(ready: Ready) -> None:
    what_if = known(ready.graph)
    assert len(what_if.outcomes) > 5
    for outcome in what_if.outcomes:
        found = measured(ready, dict.fromkeys(outcome.features, "off"))
        assert found.after == pytest.approx(outcome.score, abs=EXACT)
        assert ready.graph.run.answer is not None
        assert found.before == pytest.approx(ready.graph.run.answer.score, abs=EXACT)
        told = {chance.token: chance for chance in found.chances}
        wanted = zip(what_if.tokens, what_if.clean, outcome.probabilities, strict=True)
        both = [(told[name], (*values,)) for name, *values in wanted if name in told]
        assert len(both) >= 3
        for chance, values in both:
            assert (chance.before, chance.after) == pytest.approx(values, abs=EXACT)


def test_multiples_are_those_of_ablate(ready: Ready, tiny: InstrumentedModel) -> None:
    names = [str(node.feature) for node in ready.graph.nodes if node.feature.is_feature][:3]
    values = dict(zip(names, ("x2", "x0.5", "x-1"), strict=True))
    found = measured(ready, values)
    wanted = ablate(tiny, PROMPT, values)
    assert found.after == pytest.approx(wanted.score_after, abs=EXACT)
    told = {chance.token: chance.after for chance in found.chances}
    for token in wanted.next_tokens:
        assert told[token.token] == pytest.approx(token.after, abs=EXACT)


def test_an_answer_that_is_not_finite_is_refused(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sae_graphs.effects.ablate.changed_logits",
        lambda model, clean, *rest: torch.full_like(clean.logits[-1], torch.nan),
    )
    name = str(next(node.feature for node in ready.graph.nodes if node.feature.is_feature))
    with pytest.raises(SaeGraphsError, match="answers NaN"):
        measured(ready, {name: "x100"})


def test_what_is_no_feature_of_the_graph_is_refused(ready: Ready) -> None:
    for name in ("9.1@2", "token@2", "answer", "nonsense"):
        with pytest.raises(SaeGraphsError, match="no feature of this graph"):
            measured(ready, {name: "off"})


def test_other_means_and_other_runs_are_refused(
    tiny: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(tiny, nodes=3)
    other = [replace(each, tokens=2000) for each in references(tiny)]
    monkeypatch.setattr(reference, "references_of", lambda model, **_: other)
    with pytest.raises(SaeGraphsError, match="make the graph again"):
        prepared(graph, tiny)
    with pytest.raises(SaeGraphsError, match="only an answer graph"):
        prepared(two_edges(), tiny)
    settings = {**graph.run.settings, "intervention": "resample (abc)"}
    strange = CausalGraph(replace(graph.run, settings=settings), graph.nodes, graph.edges)
    with pytest.raises(SaeGraphsError, match="not in the record"):
        prepared(strange, tiny)


@pytest.mark.parametrize(
    "model", only(["nobody/such-a-model", "./nowhere", "\x00", ""], "nobody/such-a-model")
)
def test_a_model_that_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: InstrumentedModel, model: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    graph = graph_of(tiny, nodes=3)
    run = replace(graph.run, model=model)
    folder = write_run(tmp_path / "one", CausalGraph(run, graph.nodes, graph.edges))
    asked = {"name": "one", "folder": str(folder), "changes": {"0.1@1": "off"}}
    told = answer(Models(), asked)
    assert list(told) == ["problem"]
    assert "cannot be loaded" in told["problem"] and "\n" not in told["problem"]


def test_a_run_that_is_gone_or_damaged_is_one_line(tmp_path: Path) -> None:
    asked = {"name": "one", "folder": str(tmp_path), "changes": {"0.1@1": "off"}}
    assert "problem" in answer(Models(), asked)
    (tmp_path / "graph.json").write_text("{")
    assert "\n" not in answer(Models(), asked)["problem"]


@pytest.mark.slow
def test_the_bundled_model_answers_as_its_graph_says(tmp_path: Path) -> None:
    """All of it: the process, the model, a set that the graph does not hold."""
    model = sg.load("demo")
    graph = sg.causal_graph(model, "Copyright (C", nodes=6)
    write_run(tmp_path / "one", graph)
    record: dict[str, Any] = {"saes_given": None, "sae_pattern_given": None, "files": []}
    (tmp_path / "one" / "run.json").write_text(json.dumps(record))
    asker, run = Asker("sae_graphs.cli.what_if"), Run("one", tmp_path / "one")
    names = [str(node.feature) for node in graph.nodes if node.feature.is_feature]

    def told(changes: dict[str, str]) -> dict[str, Any]:
        while True:
            found = asker.answer(run, changes)
            if "waiting" not in found:
                return found

    try:
        one = told({names[0]: "off"})
        two = told({names[0]: "off", names[1]: "x2"})
    finally:
        asker.close()
    outcome = next(it for it in known(graph).outcomes if it.features == (names[0],))
    at = known(graph).tokens.index(graph.run.outputs[0].token)
    assert one["rows"][0][2] == pytest.approx(outcome.probabilities[at], rel=1e-3)
    wanted = ablate(model, "Copyright (C", {names[0]: "mean", names[1]: "x2"})
    after = {token.token: token.after for token in wanted.next_tokens}
    assert two["rows"][0][2] == pytest.approx(after[graph.run.outputs[0].token], rel=1e-3)
