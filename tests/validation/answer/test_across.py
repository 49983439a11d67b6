"""Answer graphs in other prompts: what is ablated there, against full passes with plain hooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.effects.answer.build import answer_graph
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.combine import common
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.validation.answer import run
from sae_graphs.validation.answer.partial import AnswerPartial
from sae_graphs.validation.answer.record_json import from_json, to_json
from sae_graphs.validation.answer.records import AnswerReport, AnswerUnit
from sae_graphs.validation.answer.run import validate_answer
from sae_graphs.validation.settings import ValidationSettings
from tests.conftest import BridgeOf
from tests.support import planted
from tests.support.against_oracle import RELATIVE, Case, case_of
from tests.support.answer_oracle import AnswerOracle, Place
from tests.support.answers import references
from tests.support.models import PROMPT
from tests.support.oracle import zero

NEAR = "the dog sat on the (old mat"  # one token of ten is another
FAR = "the red dog ran on the mat"
ROLES = [{"animal": "cat", "place": "mat"}, {"animal": "red dog", "place": "mat"}]


@pytest.fixture(scope="module")
def made(bridge_of: BridgeOf) -> tuple[Callable[[str], Case], CausalGraph]:
    def case(prompt: str) -> Case:
        return case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64", prompt)

    model = case(PROMPT).model
    settings = GraphSettings(nodes=8)
    return case, answer_graph(model, PROMPT, settings, "zero", references=references(model))


def checked(case: Case, graph: CausalGraph, **options: Any) -> AnswerReport:
    own = {"prompts", "roles", "discovery", "resume", "progress"}
    given = {name: options.pop(name) for name in own & options.keys()}
    settings = ValidationSettings(**{"controls": 3, "paths": 2, **options})
    return validate_answer(case.model, graph, settings, references=references(case.model), **given)


# -- what is ablated -------------------------------------------------------------------------------


def by_position(feature: FeatureId, n_tokens: int) -> Iterable[int]:
    return [feature.position or 0]


def everywhere(feature: FeatureId, n_tokens: int) -> Iterable[int]:
    return range(1, n_tokens)


def at_roles(feature: FeatureId, n_tokens: int) -> Iterable[int]:
    """cat at 2 and mat at 9 in the one; red dog at 2 and 3, mat at 7 in the other."""
    there = {2: [2, 3], 9: [7]}
    rest = [at for at in range(1, n_tokens) if at not in (2, 3, 7)]
    return there.get(feature.position or 0, rest)


@pytest.mark.parametrize(
    ("prompt", "roles", "places", "kind"),
    [
        (NEAR, None, by_position, "by position"),
        (FAR, None, everywhere, "summed over tokens"),
        (FAR, ROLES, at_roles, "by roles"),
    ],
    ids=["position", "summed", "roles"],
)
def test_scores_are_those_of_plain_joint_ablation(
    made: Any, prompt: str, roles: Any, places: Any, kind: str
) -> None:
    case_at, graph = made
    report = checked(case_at(PROMPT), graph, prompts=[prompt], roles=roles)
    (test,) = report.tests
    oracle = case_at(prompt).oracle
    read = len(oracle.ids[0]) - 1
    token = int(oracle.logits[read].argmax())
    slow = AnswerOracle(oracle, token, read, zero)
    assert test.prompt == prompt and test.aligned is not None and test.aligned.startswith(kind)
    assert test.clean.nats == pytest.approx(slow.clean, rel=RELATIVE)
    assert test.units[0].name == "Graph"
    for unit in test.units:
        spots = active(oracle, graph, features_of(graph, unit), places)
        assert unit.ablated.nats == pytest.approx(slow.without(spots), rel=RELATIVE)
        assert {null.kind for null in unit.nulls} == {"matched", "scaled", "directions"}
        assert unit.outcome.words and unit.outcome.necessary is not None
    whole = test.units[0]
    assert whole.keep_only is not None
    rare = [
        (layer, feature, at)
        for layer, acts in enumerate(oracle.activations)
        for at, feature in acts.nonzero().tolist()
        if at > 0
    ]
    own = set(active(oracle, graph, features_of(graph, whole), places))
    others = [place for place in rare if place not in own]
    assert whole.keep_only.score.nats == pytest.approx(slow.without(others), rel=RELATIVE)
    assert test.without_any.nats == pytest.approx(slow.without(rare), rel=RELATIVE)


def features_of(graph: CausalGraph, unit: AnswerUnit) -> list[FeatureId]:
    """The unit's features in the graph's own prompt."""
    if unit.kind == "graph":
        return [node.feature for node in graph.nodes if node.feature.is_feature and not node.relay]
    assert graph.run.answer is not None
    path = graph.run.answer.paths[int(unit.name.removeprefix("Path ")) - 1]
    return [FeatureId.parse(feature) for feature in path.features]


def active(
    oracle: Any, graph: CausalGraph, features: Iterable[FeatureId], places: Any
) -> list[Place]:
    """Where the features are active among the tokens that stand for theirs."""
    found = []
    for feature in features:
        layer = graph.depths[feature.layer]
        acts = oracle.activations[layer][:, feature.index]
        for at in places(feature, len(acts)):
            if float(acts[at]) != 0 and (layer, feature.index, at) not in found:
                found.append((layer, feature.index, at))
    return found


def test_what_flows_is_known_by_position_alone(made: Any) -> None:
    case_at, graph = made
    report = checked(case_at(PROMPT), graph, prompts=[NEAR, FAR])
    near, far = report.tests
    oracle = case_at(NEAR).oracle
    read = len(oracle.ids[0]) - 1
    slow = AnswerOracle(oracle, int(oracle.logits[read].argmax()), read, zero)
    paths = [unit for unit in near.units if unit.kind == "path" and not unit.inactive]
    assert paths
    for unit in paths:
        spots = active(oracle, graph, features_of(graph, unit), by_position)
        assert unit.flow is not None
        assert unit.flow.along == pytest.approx(slow.along(spots), rel=RELATIVE)
    for unit in far.units:
        assert unit.mediates is None and unit.flow is None
        if unit.kind == "path":
            assert "? Whether the path mediates cannot be said" in unit.words
            assert all(feature.position is None for feature in unit.features)


@pytest.mark.slow
def test_the_own_prompt_is_as_without_others(made: Any) -> None:
    case_at, graph = made
    alone = checked(case_at(PROMPT), graph)
    report = checked(case_at(PROMPT), graph, prompts=[NEAR, FAR, NEAR, PROMPT])
    assert report.units == alone.units and alone.tests == ()
    assert [test.prompt for test in report.tests] == [NEAR, FAR]
    assert any("it is no test of it" in words for words in report.warnings)
    assert from_json(to_json(report)) == report


def test_features_that_are_not_active_there_are_left_out(made: Any) -> None:
    case_at, graph = made
    (test,) = checked(case_at(PROMPT), graph, prompts="on the mat").tests
    whole = test.units[0]
    merged = {replace(f, position=None) for f in features_of(graph, whole)}
    assert whole.inactive > 0 and len(whole.features) + whole.inactive == len(merged)


def test_a_target_holds_for_all_prompts(made: Any) -> None:
    case_at, graph = made
    report = checked(case_at(PROMPT), graph, prompts=[NEAR], target=" cat", contrast=" dog")
    assert {(each.target, each.contrast) for each in (report, *report.tests)} == {(" cat", " dog")}


# -- a planted route -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def route() -> tuple[Any, CausalGraph]:
    case = planted.planted()
    return case, planted_graph(case, planted.PROMPT)


def planted_graph(case: Any, prompt: str) -> CausalGraph:
    settings = GraphSettings(target=(planted.TARGET,), contrast=planted.CONTRAST, nodes=8)
    return answer_graph(case.model, prompt, settings, references=references(case.model))


@pytest.mark.slow
def test_the_planted_route_holds_in_other_prompts(route: Any) -> None:
    """By position all of it; over tokens too, as it is at all of them."""
    case, graph = route
    near, far = "one two three four five twelve", planted.OTHER_PROMPTS[0]
    options: dict[str, Any] = {"target": planted.TARGET, "contrast": planted.CONTRAST}
    report = checked(case, graph, prompts=[near, far], controls=99, **options)
    first, second = report.tests
    for test in (first, second):
        assert test.units[0].necessary and test.units[0].ablated.nats == pytest.approx(
            test.clean.nats - 4.0
        )
    assert [unit.mediates for unit in first.units] == [None, True, True]
    assert [unit.mediates for unit in second.units] == [None] * 3
    assert second.units[1].necessary and not second.units[1].supported
    plain = {replace(f, position=None) for f in graph_features(graph)}
    assert set(second.units[0].features) == plain


def graph_features(graph: CausalGraph) -> list[FeatureId]:
    return [node.feature for node in graph.nodes if node.feature.is_feature and not node.relay]


def test_where_nothing_is_active_there_is_no_verdict(route: Any) -> None:
    """BOS alone has no token at which anything is ablated."""
    case, graph = route
    report = checked(case, graph, prompts=["^"], controls=3)
    (test,) = report.tests
    assert test.units == () and to_json(report)["tests"][0]["units"] == []
    (words,) = [each for each in report.warnings if "is active there" in each]
    assert "no feature of Graph, Path 1, Path 2" in words and "nothing is said of them" in words


@pytest.mark.slow
def test_common_graphs_are_validated(route: Any) -> None:
    case, graph = route
    near = planted_graph(case, "one two three four five twelve")
    far = planted_graph(case, planted.OTHER_PROMPTS[0])
    options: dict[str, Any] = {
        "target": planted.TARGET,
        "contrast": planted.CONTRAST,
        "controls": 99,
    }
    for graphs, kind in (([graph, near], "by position"), ([graph, far], "summed over tokens")):
        shared = common(graphs, share=1.0)
        assert str(shared.run.settings["aligned"]).startswith(kind)
        found_on = [each.run.prompt for each in graphs]
        test = planted.OTHER_PROMPTS[1]
        report = checked(case, shared, prompts=[*found_on, test], discovery=found_on, **options)
        assert report.discovery == tuple(found_on)
        assert [each.prompt for each in report.tests] == [test]
        assert [unit.name for unit in report.units] == ["Graph"] and report.units[0].necessary
        assert report.tests[0].units[0].necessary
        full = checked(case, shared, quick=False, **{**options, "controls": 19})
        assert [one.feature for one in full.units[0].singles] == list(full.units[0].features)


@pytest.mark.slow
def test_resuming_with_other_prompts(
    route: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, graph = route
    near, far = "one two three four five twelve", planted.OTHER_PROMPTS[0]
    whole = unhurried(checked(case, graph, prompts=[near, far]))
    plain, count = run._tested, [0]

    def stopping(unit: Any, bench: Any) -> Any:
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        return plain(unit, bench)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_tested", stopping)
        with pytest.raises(KeyboardInterrupt):
            checked(case, graph, prompts=[near, far], resume=AnswerPartial(tmp_path / "kept"))
    told: list[tuple[int, int]] = []

    def again(*prompts: str, **options: Any) -> AnswerReport:
        partial = AnswerPartial(tmp_path / "kept", told=lambda *n: told.append(n))
        return unhurried(checked(case, graph, prompts=prompts, resume=partial, **options))

    assert again(near, far) == whole and told == [(5, 9)]
    assert again(far, near).tests == whole.tests[::-1] and told == [(5, 9)]  # others: anew
    names = [json.loads(file.read_text())["name"] for file in (tmp_path / "kept").iterdir()]
    assert len(set(names)) == 9


def unhurried(report: AnswerReport) -> AnswerReport:
    return replace(report, seconds=0.0)


def test_copies_of_all_prompts_are_counted(route: Any) -> None:
    case, graph = route
    told: list[tuple[int, int]] = []
    prompts = [planted.OTHER_PROMPTS[0], "^"]
    checked(case, graph, prompts=prompts, quick=False, progress=lambda *n: told.append(n))
    totals = {total for _, total in told}
    assert len(totals) == 1 and told[-1] == (max(totals), max(totals))
    assert [n for n, _ in told] == sorted(n for n, _ in told)


# -- what is not possible --------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too few roles": ({"prompts": ["one two"], "roles": [{"a": "two"}]}, "expected 2 mappings"),
    "roles alone": ({"roles": [{"a": "two"}] * 2}, "expected 1 mappings"),
    "not there": (
        {"prompts": ["one two"], "roles": [{"a": "two"}, {"a": "six"}]},
        "the role 'a' is 'six', which is not in the prompt",
    ),
    "the contrast itself": (
        {"prompts": [planted.OTHER_PROMPTS[0]], "contrast": planted.CONTRAST, "target": "no"},
        "target and contrast are both",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(route: Any, name: str) -> None:
    options, words = REFUSED[name]
    with pytest.raises(SaeGraphsError, match=words) as raised:
        checked(*route, **options)
    assert "\n" not in str(raised.value)


def test_a_summed_graph_has_no_roles(route: Any) -> None:
    case, graph = route
    with pytest.raises(SaeGraphsError, match="summed over tokens, so no feature has a role"):
        checked(case, graph.summed(), prompts=["one two"], roles=[{"a": "two"}, {"a": "two"}])
