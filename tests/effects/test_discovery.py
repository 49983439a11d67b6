"""A graph that several prompts have in common, and prompts that are left to test it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.effects.build import causal_graph, discover
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.combine import common
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import OutputToken
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.validate import validate
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.graphs import edge, graph_of, rich_graph, run_record
from tests.support.models import OTHER_PROMPT, PROMPT
from tests.support.slow import only
from tests.support.stacks import one_line

PROMPTS = (PROMPT, OTHER_PROMPT, "the cat sat on the red mat", "the old dog ran on the mat")
SETTINGS = {"top_k": 8, "pin": [], "layers": None, "min_path_edges": 1}


def drawn(effects: dict[tuple[str, str], float], **settings: Any) -> CausalGraph:
    return graph_of(effects, run_record(settings={**SETTINGS, **settings}))


def effects_of(graph: CausalGraph) -> dict[tuple[str, str], float]:
    return {(str(edge.source), str(edge.target)): edge.effect for edge in graph.edges}


# -- what graphs have in common --------------------------------------------------------------------


def test_edges_that_half_of_the_graphs_draw() -> None:
    graphs = [
        drawn({("0.1", "1.1"): -4.0, ("1.1", "2.1"): 1.0, ("0.5", "1.5"): 9.0}),
        drawn({("0.1", "1.1"): -2.0, ("1.1", "2.2"): 3.0}),
        drawn({("1.1", "2.2"): 5.0, ("0.1", "1.1"): -3.0}),
    ]
    found = common(graphs)  # of three, two are needed
    assert effects_of(found) == {("0.1", "1.1"): -3.0, ("1.1", "2.2"): 4.0}
    assert effects_of(common(graphs, share=1.0)) == {("0.1", "1.1"): -3.0}
    assert len(common(graphs, share=0.1).edges) == 4
    assert found.run.settings["common_to"] == 3
    assert found.run.prompt == graphs[0].run.prompt


def test_short_paths_go() -> None:
    long = {("0.1", "1.1"): -4.0, ("1.1", "2.1"): 1.0}
    graphs = [drawn({**long, ("0.5", "1.5"): 9.0}, min_path_edges=2) for _ in range(2)]
    assert effects_of(common(graphs)) == long
    # where none is as long as that, the longest are kept
    parts = [drawn({("0.1", "1.1"): 2.0}, min_path_edges=3)] * 2
    assert effects_of(common(parts)) == {("0.1", "1.1"): 2.0}


def test_nodes_of_other_graphs() -> None:
    shared = {("0.1", "1.1"): 2.0}
    graphs = [drawn({("2.8", "3.9"): 1.0}), drawn(shared), drawn(shared)]
    changed = replace(graphs[2], nodes=tuple(replace(n, activation=2.5) for n in graphs[2].nodes))
    found = common([*graphs[:2], changed])
    assert [node.activation for node in found.nodes] == [2.0, 2.0]  # of 1.5 and 2.5
    assert [node.activations for node in found.nodes] == [(), ()]
    own = common([graphs[1], changed])
    assert [node.activation for node in own.nodes] == [1.5, 1.5] and own.nodes[0].activations


def test_nothing_in_common() -> None:
    graphs = [drawn({(f"0.{n}", "1.1"): 1.0}) for n in range(3)]
    with pytest.raises(SaeGraphsError, match="no edge in common that 2 of them draw") as caught:
        common(graphs)
    one_line(caught)
    with pytest.raises(SaeGraphsError, match="no edge in common"):
        common([drawn({}), drawn({})])


# -- discovery -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_prompts_are_split(tiny: InstrumentedModel) -> None:
    told: list[tuple[int, int]] = []
    found = discover(tiny, (*PROMPTS, PROMPT), progress=lambda *at: told.append(at))
    assert sorted([*found.discovery, *found.test]) == sorted(PROMPTS)  # each once
    assert len(found.discovery) == 2 and told == [(1, 2), (2, 2)]
    graphs = [effect_graph(tiny, prompt) for prompt in found.discovery]
    assert found.graph == common(graphs)
    again = discover(tiny, PROMPTS)
    assert again == found
    splits = {discover(tiny, PROMPTS, seed=seed).discovery for seed in range(3)}
    assert len(splits) > 1


@pytest.mark.parametrize(
    ("part", "count"), only([(0.01, 1), (0.25, 1), (0.75, 3), (0.99, 3)], (0.01, 1), (0.99, 3))
)
def test_both_parts_hold_something(tiny: InstrumentedModel, part: float, count: int) -> None:
    found = discover(tiny, PROMPTS, part=part)
    assert (len(found.discovery), len(found.test)) == (count, 4 - count)


@pytest.mark.slow
def test_what_is_found_can_be_validated(tiny: InstrumentedModel) -> None:
    found = discover(tiny, PROMPTS)
    report = validate(
        tiny, found.graph, found.test, discovery=found.discovery, controls=5, quick=True
    )
    assert isinstance(report, ValidationReport)
    assert report.discovery == found.discovery and report.test == found.test
    for unit in report.units:
        assert [result.role for result in unit.results] == ["discovery", "test", "test"]
        assert unit.tested is not None and unit.tested.role == "test"
        assert unit.tested.n_prompts == 2


def test_outputs_of_other_graphs() -> None:
    """The first prompt's next token is another than that of the two others."""
    own, other = (OutputToken(number, text, 1.0, 0.5) for number, text in ((7, "a"), (3, "b")))
    link = edge("0.1", "1.1", -2.0)

    def leading_to(output: OutputToken) -> CausalGraph:
        run = run_record(settings=SETTINGS, outputs=(output,))
        return rich_graph([link, edge("1.1", f"out.{output.token_id}", 4.0)], run)

    found = common([leading_to(own), leading_to(other), leading_to(other)])
    assert effects_of(found) == {("0.1", "1.1"): -2.0, ("1.1", "out.3"): 4.0}
    assert found.run.outputs == (own, other)
    assert found["out.3"].token == "b"
    assert common([leading_to(own)] * 2).run.outputs == (own,)


@pytest.mark.slow
def test_discovery_with_outputs(tiny: InstrumentedModel, tmp_path: Path) -> None:
    """What is drawn of other prompts' next tokens can be saved, and tested."""
    found = discover(tiny, PROMPTS, part=0.75, settings=effect_settings(outputs=1, top_k=20))
    assert CausalGraph.load(found.graph.save(tmp_path)) == found.graph
    validate(tiny, found.graph, found.test, controls=2, quick=True)


@pytest.mark.slow
def test_answer_graphs_are_discovered(tiny: InstrumentedModel, tmp_path: Path) -> None:
    """By name or by settings; what is found can be saved and tested, and says how it is aligned."""
    found = discover(tiny, PROMPTS, select="answer", nodes=6)
    graphs = [causal_graph(tiny, prompt, nodes=6) for prompt in found.discovery]
    assert found.graph == common(graphs)
    assert discover(tiny, PROMPTS, settings=GraphSettings(nodes=6)) == found
    assert "tokens" in found.graph.run.settings["aligned"]
    assert CausalGraph.load(found.graph.save(tmp_path)) == found.graph
    report = validate(tiny, found.graph, found.test, discovery=found.discovery, controls=2)
    assert isinstance(report, AnswerReport)
    assert report.discovery == found.discovery
    assert tuple(test.prompt for test in report.tests) == found.test


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ((PROMPT,), {}, "1 different prompts"),
        ((PROMPT, PROMPT), {}, "1 different prompts"),
        ((), {}, "0 different prompts"),
        (PROMPT, {}, "expected several prompts"),
        (PROMPTS, {"part": 0.0}, "the part to discover on is 0.0"),
        (PROMPTS, {"part": 1.0}, "the part to discover on is 1.0"),
        (PROMPTS, {"part": -0.5}, "the part to discover on is -0.5"),
        (PROMPTS, {"part": float("nan")}, "the part to discover on is nan"),
        (PROMPTS, {"settings": effect_settings(ablate="each")}, "positions mean nothing"),
        ((PROMPT, ""), {}, "give some text"),
    ],
)
def test_wrong_discoveries(
    tiny: InstrumentedModel, prompts: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        discover(tiny, prompts, **{"part": 0.9, **options})
    assert message in one_line(caught)
