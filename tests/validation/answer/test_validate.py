"""Answer graphs validated from start to end: a planted route, resuming, seeds, refusals."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binom, kstest

from sae_graphs.effects.answer.build import answer_graph
from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.reference import Reference
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.answer import Answer
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.answer import run
from sae_graphs.validation.answer.partial import AnswerPartial
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.answer.run import validate_answer
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.validate import validate
from tests.support.answers import measured, ready, references
from tests.support.planted import (
    CONTRAST,
    PROMPT,
    TARGET,
    WORDS,
    Planted,
    planted,
    planted_null,
)


@pytest.fixture(scope="module")
def case() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def graph(case: Planted) -> CausalGraph:
    return graph_of(case)


def graph_of(case: Planted, **options: Any) -> CausalGraph:
    settings = GraphSettings(**{"target": [TARGET], "contrast": CONTRAST, "nodes": 8, **options})
    return answer_graph(case.model, PROMPT, settings, references=references(case.model))


def checked(case: Planted, graph: CausalGraph, **options: Any) -> AnswerReport:
    resume, progress = options.pop("resume", None), options.pop("progress", None)
    settings = ValidationSettings(**{"controls": 99, **options})
    found = validate_answer(
        case.model,
        graph,
        settings,
        references=references(case.model),
        resume=resume,
        progress=progress,
    )
    return replace(found, seconds=0.0)


def test_the_planted_route_is_supported(case: Planted, graph: CausalGraph) -> None:
    report = checked(case, graph)
    assert (report.target, report.contrast) == (TARGET, CONTRAST)
    assert [unit.name for unit in report.units] == ["Graph", "Path 1", "Path 2"]
    for unit in report.units:
        assert unit.supported and unit.necessary, unit.words
        assert unit.ablated.nats == pytest.approx(report.clean.nats - 4.0)  # all that was planted
        assert [null.p for null in unit.nulls] == [0.01] * 3
    whole, *paths = report.units
    assert whole.sufficient and report.lost(whole) == pytest.approx(
        4.0 / (report.clean.nats - report.without_any.nats)
    )
    shares = [path.flow.share for path in paths if path.flow is not None]
    assert shares == pytest.approx([1.0, 0.5])  # half of it goes by the token after
    assert [path.mediates for path in paths] == [True, True]


def test_what_does_nothing_is_not_necessary(case: Planted) -> None:
    graph = graph_of(case, nodes=1, pin=["0.5@4", "1.13@5", "2.21@5", "3.29@6"])
    report = checked(case, graph, path="0.5@4", target=TARGET)
    (unit,) = report.units
    assert (unit.necessary, unit.kind, unit.name) == (False, "path", "0.5@4")
    assert unit.mediates is None and not unit.supported
    assert unit.reason == "the answer's score does not fall"


def test_a_part_of_what_flows_is_no_mediation() -> None:
    """A chain of three, each half at its token and half at the next: a quarter flows along it."""
    case = planted()
    graph = graph_of(case, nodes=24, top_k=24)
    ends = next(n.feature for n in graph.nodes if n.feature.layer == "3" and n.feature.is_feature)
    chain = ["0.3@5", "1.11@5", "2.19@6", str(ends)]
    report = checked(case, graph, path=" > ".join([*chain, "answer"]))
    (unit,) = report.units
    assert unit.flow is not None and unit.flow.share is not None
    assert 0 < unit.flow.share < 0.5 and unit.mediates is False and not unit.supported
    assert "flows along it" in unit.reason


def test_the_same_seed_finds_the_same(case: Planted, graph: CausalGraph) -> None:
    one, again = checked(case, graph, controls=19), checked(case, graph, controls=19)
    other = checked(case, graph, controls=19, seed=1)
    assert one == again
    assert [u.ablated for u in one.units] == [u.ablated for u in other.units]
    assert one.units[0].nulls[0].scores != other.units[0].nulls[0].scores
    assert any("could not be called necessary" in words for words in one.warnings)


@pytest.mark.parametrize("quick", [True, False])
def test_copies_are_counted(case: Planted, graph: CausalGraph, quick: bool) -> None:
    told: list[tuple[int, int]] = []
    checked(case, graph, controls=19, progress=lambda *n: told.append(n), quick=quick)
    totals = {total for _, total in told}
    assert len(totals) == 1 and told[-1] == (max(totals), max(totals))
    assert [n for n, _ in told] == sorted(n for n, _ in told)


def test_in_full(case: Planted, graph: CausalGraph) -> None:
    report = checked(case, graph, controls=19, other_controls=19, quick=False)
    for unit in report.units:
        change = unit.ablated.nats - report.clean.nats
        assert [one.feature for one in unit.singles] == list(unit.features)
        assert (unit.null("shuffles") is None) == (unit.kind == "graph")
        last = unit.singles[-1]
        assert last.alone == pytest.approx(graph[last.feature].effect_on_answer)
        assert last.without >= change - 1e-9


def test_resuming(case: Planted, graph: CausalGraph, tmp_path: Path) -> None:
    whole = checked(case, graph, controls=19)
    plain, names = run._tested, list[str]()

    def stopping(unit: Any, bench: Any) -> Any:
        names.append(unit.name)
        if len(names) == 2:
            raise KeyboardInterrupt
        return plain(unit, bench)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_tested", stopping)
        with pytest.raises(KeyboardInterrupt):
            checked(case, graph, controls=19, resume=AnswerPartial(tmp_path / "kept"))
    held = {file: digest(file) for file in (tmp_path / "kept").iterdir()}
    assert len(held) == 1
    told: list[tuple[int, int]] = []
    partial = AnswerPartial(tmp_path / "kept", told=lambda *n: told.append(n))
    assert checked(case, graph, controls=19, resume=partial) == whole
    assert told == [(1, 3)]
    assert all(digest(file) == was for file, was in held.items())
    other = AnswerPartial(tmp_path / "kept", told=lambda *n: told.append(n))
    assert checked(case, graph, controls=20, resume=other) != whole  # of other settings: anew
    assert told == [(1, 3)]
    for file in (tmp_path / "kept").iterdir():
        file.write_text("{}")
    assert checked(case, graph, controls=20, resume=AnswerPartial(tmp_path / "kept")).units
    other.remove()
    assert not (tmp_path / "kept").exists()


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_controls_that_are_refused(case: Planted) -> None:
    """Where all others at a place are dense there is nothing to draw: it cannot be said."""
    dense = [
        Reference(found.mean, torch.ones(len(found.mean)), 1000, "made up", "none")
        for found in references(case.model)
    ]
    sparse = graph_of(case)
    found = validate_answer(
        case.model, sparse, ValidationSettings(controls=99, paths=0), references=dense
    )
    (unit,) = found.units
    assert unit.necessary is None and unit.sufficient is None and not unit.supported
    assert "layer 0 has 0 other rarely-on active features at token 4" in unit.reason
    assert "cannot be said" in unit.words


# -- what is not possible --------------------------------------------------------------------------


REFUSED = {
    "roles of one prompt": (
        {"prompts": "one two", "roles": [{"a": "two"}]},
        "expected 2 mappings of role to text",
    ),
    "a curve": ({"curve": "0.3 > 1.11"}, "no use for a curve"),
    "other text": ({"texts": ["one two"]}, "no use for a text"),
    "no such path": ({"path": "0.3@4 > 3.27@6"}, "is no edge of this graph"),
    "not in the graph": ({"path": "0.9@4"}, "0.9@4"),
    "the answer alone": ({"path": "answer"}, "is no feature"),
    "no such kind": ({"intervention": "half"}, "expected zero, mean"),
    "the answer itself": ({"contrast": TARGET}, "is the answer itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(
    case: Planted, graph: CausalGraph, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_graphs.validation.answer import subject

    monkeypatch.setattr(subject, "references_of", references)
    options, words = REFUSED[name]
    with pytest.raises(SaeGraphsError, match=words) as raised:
        validate(case.model, graph, **options)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_further_prompts(
    case: Planted, graph: CausalGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_graphs.validation.answer import subject

    monkeypatch.setattr(subject, "references_of", references)
    report = validate(case.model, graph, "one two", discovery=["three", PROMPT], controls=2)
    assert isinstance(report, AnswerReport)
    assert report.discovery == ("three", PROMPT) and [t.prompt for t in report.tests] == ["one two"]
    again = validate(case.model, graph, ["three"], discovery=["three", PROMPT], controls=2)
    assert isinstance(again, AnswerReport) and again.tests == ()
    assert any("it is no test of it" in words for words in again.warnings)


def test_the_graph_of_another_model(case: Planted, tiny: InstrumentedModel) -> None:
    graph = graph_of(case)
    with pytest.raises(SaeGraphsError, match="load those, or make the graph again"):
        validate(tiny, graph)
    with pytest.raises(SaeGraphsError, match="make the graph again"):
        checked(planted(seed=7), graph)


def test_graphs_with_nothing_to_test(case: Planted, graph: CausalGraph) -> None:
    bare = [node for node in graph.nodes if not node.feature.is_feature and node.feature.is_output]
    assert graph.run.answer is not None
    run_record = replace(graph.run, answer=replace(graph.run.answer, paths=(), stranded=()))
    with pytest.raises(SaeGraphsError, match="nothing to validate"):
        checked(case, CausalGraph(run_record, tuple(bare), ()))


def test_how_the_graph_was_made(case: Planted, graph: CausalGraph) -> None:
    """Its own intervention, or one that is given; what a record does not hold must be given."""

    def made_with(name: str) -> CausalGraph:
        settings = {**graph.run.settings, "intervention": name}
        return CausalGraph(replace(graph.run, settings=settings), graph.nodes, graph.edges)

    options: dict[str, Any] = {"references": references(case.model)}
    few = ValidationSettings(controls=2, paths=0)
    halved = validate_answer(case.model, made_with("scale 0.5"), few, **options)
    whole = validate_answer(case.model, made_with("zero"), few, **options)
    assert (halved.intervention, whole.intervention) == ("scale 0.5", "zero")
    assert not any("was made with" in words for words in (*halved.warnings, *whole.warnings))
    assert halved.units[0].ablated.nats > whole.units[0].ablated.nats
    with pytest.raises(SaeGraphsError, match="--intervention"):
        validate_answer(case.model, made_with("resample (abc)"), few, **options)
    given = validate_answer(
        case.model, made_with("resample (abc)"), few, intervention="zero", **options
    )
    assert given.units[0].ablated == whole.units[0].ablated
    assert any("was made with the intervention" in words for words in given.warnings)
    with pytest.raises(SaeGraphsError, match="not changed by the intervention"):
        validate_answer(case.model, graph, few, intervention="scale:1", **options)


# -- nothing is found where nothing is -------------------------------------------------------------


@pytest.mark.slow
def test_p_values_of_any_features_are_uniform() -> None:
    """Every feature's effect is drawn alike: one-sided p, against all nulls, is no better than
    chance. Random directions are weaker than features on average, and may be beaten less often."""
    found: dict[str, list[float]] = {}
    for seed in range(100):
        case = planted_null(seed)
        answer = Answer(WORDS.index(TARGET), WORDS.index(CONTRAST))
        prompt = ready(case.model, PROMPT, answer=answer)
        generator = torch.Generator().manual_seed(seed)
        spots = []
        for depth, here in enumerate(prompt.table.ablations):
            rows = (here.positions == prompt.asked.read).nonzero()[:, 0]  # others reach nothing
            row = int(torch.randint(len(rows), (1,), generator=generator))
            spots.append(prompt.table.spot(depth, int(rows[row])))
        unit = measured(prompt, sorted(spots), controls=39, seed=seed)
        for null in unit.nulls:
            assert null.p is not None
            found.setdefault(null.kind, []).append(null.p)
        assert unit.keep_only is not None and unit.keep_only.null.p is not None
        found.setdefault("kept", []).append(unit.keep_only.null.p)
    for kind in ("matched", "kept"):
        assert kstest(found[kind], "uniform").pvalue > 0.01, kind
    for kind, p_values in found.items():
        often = sum(p <= 0.05 for p in p_values)
        assert binom.sf(often - 1, 100, 0.05) > 0.001, (kind, often)


def test_a_random_set_is_not_necessary(case: Planted) -> None:
    prompt = ready(case.model, PROMPT, answer=Answer(WORDS.index(TARGET), WORDS.index(CONTRAST)))
    spots = [Spot(0, 1, 3), Spot(1, 2, 4), Spot(2, 4, 5)]
    spots = [spot for spot in spots if spot in prompt.table.rare()]
    unit = measured(prompt, spots, controls=99)
    assert unit.nulls[0].p is not None and unit.nulls[0].p > 0.05


@pytest.mark.slow
def test_the_bundled_model() -> None:
    import sae_graphs as sg

    model = sg.load("demo")
    graph = sg.causal_graph(model, "The letter [room 32")
    report = sg.validate(model, graph, controls=99)
    assert isinstance(report, AnswerReport) and graph.run.answer is not None
    whole = report.units[0]
    assert whole.necessary and whole.supported and len(whole.features) == 16
    coverage = graph.run.answer.coverage
    assert coverage is not None
    assert whole.ablated.nats == pytest.approx(coverage.without_kept, abs=1e-3)
    assert report.lost(whole) == pytest.approx(coverage.lost, abs=1e-3)
    assert report.left(whole) == pytest.approx(coverage.left, abs=1e-3)
    for unit, path in zip(report.units[1:], graph.run.answer.paths, strict=True):
        assert unit.features == tuple(map(FeatureId.parse, path.features))
        assert unit.flow is not None and unit.flow.share == pytest.approx(path.share, abs=1e-3)
