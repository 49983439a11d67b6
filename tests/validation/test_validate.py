"""`validate`: what it tests, that it can be repeated, stopped and gone on with, what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.node_link import to_bytes
from sae_graphs.model.instrument import InstrumentedModel, weights_of
from sae_graphs.validation import validate as validation
from sae_graphs.validation.evidence import PromptResult, ValidationReport
from sae_graphs.validation.path_ablation import ablate_path
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import settings_of
from sae_graphs.validation.validate import validate
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_graph
from tests.support.models import OTHER_PROMPT, PROMPT, STACKS, in_dtype, random_stack
from tests.support.slow import first
from tests.support.stacks import one_line
from tests.support.subjects import names, subject_of
from tests.support.subjects import small_validation as run

THIRD = "the old dog ran on the mat"
CURVE = "0.3 > 2.1"  # the first is active in the prompt
Told = list[tuple[int, int]]


@pytest.fixture(scope="module")
def graph(tiny_graph: CausalGraph) -> CausalGraph:
    return tiny_graph


def metric_change(result: PromptResult) -> float:
    """Of the target's logit less that of the likeliest other token."""
    rival = next(token for token in result.top if token.token_id != result.target.token_id)
    return result.target.logit_change - rival.logit_change


# -- the report ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_report(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    report: ValidationReport = run(tiny, graph, OTHER_PROMPT, PROMPT, THIRD, OTHER_PROMPT)
    assert (report.model, report.saes, report.prompt) == ("tiny", "custom", PROMPT)
    assert report.discovery == (PROMPT,) and report.test == (OTHER_PROMPT, THIRD)
    assert report.target is None and report.contrast is None
    likeliest = tiny.token_string(int(tiny.clean_run(PROMPT).logits[-1].argmax()))
    assert report.units[0].of_discovery.target.token == likeliest
    assert [unit.name for unit in report.units] == ["Graph 1", "Graph 1, path 1"]
    for unit in report.units:
        assert [result.prompt for result in unit.results] == [PROMPT, OTHER_PROMPT, THIRD]
        assert [result.role for result in unit.results] == ["discovery", "test", "test"]
        assert unit.tested is not None and unit.tested.n_prompts == 2
        assert unit.mediation is not None and len(unit.mediation.edges) == len(unit.edges)
        assert unit.keep_only is not None and unit.background is not None
        assert unit.kinds is not None and set(unit.kinds) == {"zero", "mean", "resample"}
        assert unit.mediation.joint == pytest.approx(unit.kinds["zero"])
        assert unit.mediation.joint == pytest.approx(metric_change(unit.of_discovery))
    whole, path = report.units
    assert [len(unit.curves) for unit in report.units] == [2, 4]
    assert path.curves[0].responses[4] == pytest.approx(  # coefficient 0: ablation
        path.of_discovery.target.logit_change + path.curves[0].responses[8]
    )
    assert path.curves[1].effect == str(path.features[-1]) and whole.curves[0].cause == "Graph 1"
    assert report.noise and report.agreement is not None and report.corpus == "the texts given"


@pytest.mark.slow
def test_quick_is_ablation_and_controls_alone(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    report: ValidationReport = run(tiny, graph, quick=True, curve=CURVE, texts=None)
    whole: ValidationReport = run(tiny, graph)
    for unit, other in zip(report.units, whole.units, strict=True):
        assert unit.results == other.results and unit.tested == other.tested
        parts = (unit.mediation, unit.keep_only, unit.kinds, unit.background)
        assert parts == (None, None, None, None) and unit.curves == ()
    assert report.noise == () and report.agreement is None and report.corpus is None
    assert [curve.cause for curve in report.curves] == ["0.3", "0.3"]


def test_curves_to_tokens(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    """At coefficient 1 nothing is changed: the clean logit."""
    report: ValidationReport = run(tiny, graph, quick=True, curve=["0.3 >  cat", CURVE])
    assert [curve.effect for curve in report.curves] == ["logit of ' cat'"] * 2 + ["2.1"] * 2
    (cat,) = tiny.tokenizer(" cat", add_special_tokens=False)["input_ids"]
    first = report.curves[0]
    clean = float(tiny.clean_run(PROMPT).logits[-1, cat])
    assert first.responses[first.coefficients.index(1.0)] == pytest.approx(clean)
    assert len({*first.responses}) > 1


@pytest.mark.slow
def test_without_other_text(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    report: ValidationReport = run(tiny, graph, snippets=0, texts=[])
    assert report.corpus is None and report.noise == ()
    assert all(unit.mediation is not None and unit.background is None for unit in report.units)


def test_targets_and_contrasts(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    report: ValidationReport = run(
        tiny, graph, OTHER_PROMPT, target=" cat", contrast=" dog", quick=True
    )
    assert (report.target, report.contrast) == (" cat", " dog")
    for result in report.units[0].results:
        clean = tiny.clean_run(result.prompt).logits[-1]
        assert result.contrast is not None
        ids = result.target.token_id, result.contrast.token_id
        assert result.score == pytest.approx(float(clean[ids[0]] - clean[ids[1]]))
        assert result.change == pytest.approx(
            result.target.logit_change - result.contrast.logit_change
        )


def test_given_paths_alone(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    first = graph.edges[0]
    report: ValidationReport = run(tiny, graph, path=f"{first.source} > {first.target}")
    (unit,) = report.units
    assert unit.features == (first.source, first.target)
    assert unit.tested is not None and unit.tested.q == unit.tested.p


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    first(
        1,
        [
            {"ablate": "read"},
            {"ablate": "each"},
            {"ablate": "each", "read": "all", "outputs": 2},
            {"ablate_first": True},
            {"outputs": 2},
            {"layers": ("1", "3")},
            {"read": -3},
            {"prepend_bos": False},
            {"method": "gradient"},
        ],
    ),
    ids=str,
)
def test_graphs_of_all_kinds(tiny: InstrumentedModel, options: dict[str, Any]) -> None:
    graph = effect_graph(tiny, PROMPT, min_path_edges=1, **options)
    report: ValidationReport = run(tiny, graph, OTHER_PROMPT)
    for unit in report.units:
        own = unit.of_discovery
        assert 1 <= own.active <= sum(not feature.is_output for feature in unit.features)
        assert own.change != 0.0 and own.kl > 0.0
        assert unit.mediation is not None
        assert unit.mediation.joint == pytest.approx(metric_change(own))


def test_a_graph_that_was_saved_is_the_same(
    tiny: InstrumentedModel, graph: CausalGraph, tmp_path: Path
) -> None:
    saved = CausalGraph.load(graph.save(tmp_path))
    assert run(tiny, saved, quick=True) == run(tiny, graph, quick=True)


@pytest.fixture(scope="module")
def half(bridge_of: BridgeOf) -> InstrumentedModel:
    """Model and SAEs of `tiny` in bfloat16."""
    saes = random_stack(bridge_of("gpt2", "float64"), STACKS["pre"], ["standard"])
    return InstrumentedModel(bridge_of("gpt2", "bfloat16"), in_dtype(saes, "bfloat16"), name="half")


@pytest.mark.slow
def test_in_half_precision(half: InstrumentedModel) -> None:
    report: ValidationReport = run(half, effect_graph(half, PROMPT), OTHER_PROMPT, curve=CURVE)
    nulls = [null for unit in report.units for result in unit.results for null in result.nulls]
    kinds = [null.kind for null in nulls if null.refused is None]
    assert {"matched", "scaled", "directions"} <= set(kinds)
    assert all(math.isfinite(change) for null in nulls for change in null.changes)
    for null in nulls:
        if null.kind == "directions" and null.match is not None:
            assert null.match.low == pytest.approx(1.0, abs=0.01) == null.match.high
    for unit in report.units:
        assert unit.of_discovery.change != 0.0 and math.isfinite(unit.of_discovery.kl)
        assert unit.mediation is not None and unit.background is not None
        assert all(math.isfinite(value) for curve in unit.curves for value in curve.responses)


def test_one_layer_is_scaled_within_the_digits_of_half_precision(half: InstrumentedModel) -> None:
    """bfloat16 has 8 binary digits: a factor, what is taken and its norm are each off by 1/256."""
    clean = half.clean_run(PROMPT)
    acts = clean.activations[1].of(torch.arange(40)) != 0
    there, elsewhere = (
        int(group.nonzero()[0, 0]) for group in (acts[-1], acts[1:].any(0) & ~acts[-1])
    )
    path = names(f"1.{there}", f"1.{elsewhere}")
    settings = ValidationSettings(controls=20)
    found = ablate_path(subject_of(half, PROMPT), path, path, settings, lambda n: None)
    matched, scaled = (found.null(kind) for kind in ("matched", "scaled"))
    assert matched is not None and matched.match is not None and matched.match.low < 0.9
    assert scaled is not None and scaled.match is not None
    assert scaled.match.low == pytest.approx(1.0, abs=0.02) == scaled.match.high


# -- repeating -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_seed_gives_one_report(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    first = run(tiny, graph, OTHER_PROMPT, seed=3)
    assert run(tiny, graph, OTHER_PROMPT, seed=3) == first
    other = run(tiny, graph, OTHER_PROMPT, seed=4)
    for one, two in zip(first.units, other.units, strict=True):
        assert one.of_discovery.change == two.of_discovery.change
        assert one.mediation == two.mediation and one.curves == two.curves
        for null, again in zip(one.of_discovery.nulls[:3], two.of_discovery.nulls[:3], strict=True):
            assert null.changes != again.changes
        assert one.background is not None and two.background is not None
        assert one.background.controls_active != two.background.controls_active


@pytest.mark.slow
def test_nothing_that_is_given_changes(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    before = to_bytes(graph.parts)
    weights = {name: tensor.clone() for name, tensor in weights_of(tiny)}
    settings = dict(graph.run.settings)
    run(tiny, graph, OTHER_PROMPT)
    assert to_bytes(graph.parts) == before and dict(graph.run.settings) == settings
    for name, tensor in weights_of(tiny):
        assert torch.equal(tensor, weights[name]), name
        assert not tensor.requires_grad
    assert effect_graph(tiny, PROMPT) == graph  # and no hook is left


# -- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    first(
        1,
        [
            {"quick": True},
            {},
            {"snippets": 0},
            {"curve": CURVE},
            {"curve": CURVE, "quick": True},
            {"curve": CURVE, "snippets": 0},
            {"controls": 5},
        ],
    ),
    ids=str,
)
def test_progress_goes_up_to_its_end(
    tiny: InstrumentedModel, graph: CausalGraph, options: dict[str, Any]
) -> None:
    told: Told = []
    run(tiny, graph, OTHER_PROMPT, progress=lambda *at: told.append(at), **options)
    done = [at for at, _ in told]
    (total,) = {total for _, total in told}
    assert done == sorted(done) and done[-1] == total and done[0] > 0
    assert len(set(done)) > 5


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {"controls": 0}, "controls is 0"),
        ([], {"colour": "red"}, "no option 'colour'"),
        ([], {"path": "0.3 > 1.99"}, "1.99"),
        ([], {"target": "the cat"}, "2 tokens"),
        ([], {"target": ""}, "0 tokens"),
        ([], {"contrast": "cat dog"}, "tokens"),
        ([], {"curve": "9.1 > 1.1"}, "no SAE layer '9'"),
        ([], {"curve": "0.3 > 1.40"}, "features 0 to 39"),
        ([], {"curve": "1.1 > 0.1"}, "not above"),
        ([], {"curve": "0.1 > 1.1 > 2.1"}, "tokens"),  # a pair, or a token's text
        ([], {"curve": "0.3 > the cat"}, "2 tokens"),
        ([""], {}, "give some text"),
        ([5], {}, "give some text"),
        (["(" * 40], {}, "at most"),
        ([], {"texts": ["the"]}, "give one of at least"),
    ],
)
def test_mistakes(
    tiny: InstrumentedModel,
    graph: CausalGraph,
    prompts: list[Any],
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        run(tiny, graph, *prompts, **options)
    assert message in one_line(caught)


def test_mistakes_come_before_the_work(
    tiny: InstrumentedModel, graph: CausalGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[str] = []
    monkeypatch.setattr(validation, "_tested", lambda unit, *_: tested.append(unit.name))
    for options in ({"curve": "0.3 > 1.99"}, {"path": "0.3 > 1.99"}, {"texts": ["the"]}):
        with pytest.raises(SaeGraphsError):
            run(tiny, graph, **options)
    assert tested == []


def test_a_graph_from_another_model(
    bridge_of: BridgeOf, tiny: InstrumentedModel, graph: CausalGraph
) -> None:
    bridge = bridge_of("gpt2", "float64")
    llama = bridge_of("llama", "float64")
    others = {
        "SAEs of other places": InstrumentedModel(
            bridge, random_stack(bridge, STACKS["post"], ["standard"]), name="other"
        ),
        "other SAEs": InstrumentedModel(
            bridge, random_stack(bridge, STACKS["pre"], ["standard"], seed=7), name="other"
        ),
        "another model": InstrumentedModel(
            llama, random_stack(llama, STACKS["pre"], ["standard"]), name="other"
        ),
    }
    for what, other in others.items():
        with pytest.raises(SaeGraphsError) as caught:
            run(other, graph)
        line = one_line(caught)
        assert "'tiny'" in line and "'other'" in line and "make the graph again" in line, what
    nodes = tuple(
        replace(node, feature=replace(node.feature, index=node.feature.index + 40))
        for node in graph.nodes
    )
    ends = {
        node.feature: replace(node.feature, index=node.feature.index + 40) for node in graph.nodes
    }
    moved = tuple(
        replace(edge, source=ends[edge.source], target=ends[edge.target]) for edge in graph.edges
    )
    with pytest.raises(SaeGraphsError, match="feature"):
        run(tiny, CausalGraph(graph.run, nodes, moved))


def test_settings_and_options_are_not_both_given(
    tiny: InstrumentedModel, graph: CausalGraph
) -> None:
    settings = ValidationSettings(controls=5)
    with pytest.raises(SaeGraphsError, match="not both"):
        validate(tiny, graph, settings=settings, seed=3)


def test_an_older_record_does_not_say_what_was_selected(graph: CausalGraph) -> None:
    settings = {k: v for k, v in graph.run.settings.items() if k not in ("select", "budget")}
    older = CausalGraph(replace(graph.run, settings=settings), graph.nodes, graph.edges)
    assert settings_of(older) == settings_of(graph) and settings_of(older).select == "effect"


def test_a_graph_without_edges(tiny: InstrumentedModel, graph: CausalGraph) -> None:
    with pytest.raises(SaeGraphsError, match="nothing to validate"):
        run(tiny, CausalGraph(graph.run, (), ()))


@pytest.mark.slow
def test_prompts_that_the_graph_was_found_on_are_no_test_of_it(tiny: InstrumentedModel) -> None:
    graph = effect_graph(tiny, PROMPT, min_path_edges=1)
    report = validate(tiny, graph, [PROMPT, OTHER_PROMPT], quick=True, controls=2, paths=0)
    assert isinstance(report, ValidationReport)
    assert (report.discovery, report.test) == ((PROMPT,), (OTHER_PROMPT,))
    assert [PROMPT in warning for warning in report.warnings] == [True, False]


@pytest.mark.parametrize(
    ("options", "tests", "told"),
    first(
        5,
        [
            ({"controls": 19, "paths": 0}, 0, None),
            # of 50 other ones, as many as matched ones at most: 1 / 19 each, and 2 / 39 together
            ({"controls": 18, "paths": 0}, 1, "with 18 controls of its norm, nothing can be"),
            ({"controls": 39, "paths": 1}, 1, None),  # two units: 2 / 40
            ({"controls": 38, "paths": 1}, 1, "below 0.051; give --controls 39,"),
            ({"controls": 38, "paths": 0}, 2, "supported; give at least --controls 39"),
            ({"controls": 79, "paths": 1}, 2, None),  # twice the mean: 2 * 2 / 80
            ({"controls": 78, "paths": 1}, 2, "below 0.051; give --controls 79,"),
            ({"controls": 79, "other_controls": 38, "paths": 1}, 2, "at least other_controls 39"),
        ],
    ),
)
def test_too_few_controls_are_told(
    tiny: InstrumentedModel,
    graph: CausalGraph,
    options: dict[str, int],
    tests: int,
    told: str | None,
) -> None:
    prompts = (OTHER_PROMPT, THIRD)[:tests]
    options = {"other_controls": 50, **options}
    report: ValidationReport = run(tiny, graph, *prompts, quick=True, **options)
    assert len(report.units) == 1 + options["paths"]
    assert len(report.warnings) == (told is not None)
    assert all(told in warning for warning in report.warnings if told is not None)
