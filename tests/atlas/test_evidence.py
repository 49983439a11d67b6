"""Traces' sites and verdicts beside the graphs: their rows are the reports' own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import sae_graphs as sg
from sae_graphs.atlas import build, measure, store
from sae_graphs.atlas.evidence import CANNOT, trace_rows, verdict_rows_of
from sae_graphs.atlas.plan import Plan, categories_of
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import Rows
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.tracing.reading import read
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.validation.answer.records import AnswerReport
from sae_graphs.validation.answer.run import validate_answer
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.settings import ValidationSettings
from tests.atlas.conftest import TEXTS
from tests.support import evidence
from tests.support.answers import answer_report, graph_unit, path_unit
from tests.support.atlases import EFFECT, FACTS, rows_by_hand
from tests.support.measured_answers import references
from tests.support.slow import examples, first
from tests.support.traces import nothing, planted, trace_of

TRACE = TraceSettings(noise_runs=6, sweeps=("state", "mlp"), strength="3s")
QUICK = ValidationSettings(quick=True, controls=19, paths=2)
ANSWER = GraphSettings(nodes=5)
ROWS = [
    {"prompt": TEXTS[0], "subject": "cat", "kind": "a"},
    {"prompt": TEXTS[2], "subject": "dog", "kind": "b"},  # which is not in it
    {"prompt": TEXTS[3], "kind": "b"},
]


def site_rows(trace: Trace) -> list[tuple[Any, ...]]:
    return [
        (
            *(it.sweep, it.role, it.at[1], it.at[0], trace.tokens[it.at[0]]),
            *(*it.layers, *it.tokens, it.effect, it.low, it.high, it.share),
        )
        for it in read(trace).sites
    ]


SITE = (
    "sweep, role, block, position, token, first_block, last_block, first_position, last_position, "
    "restores, low, high, share"
)
VERDICT = (
    "unit, claim, verdict, supported, necessary, sufficient, mediates, features, before, after, "
    "effect, probability_before, probability_after, share_lost, share_left, share_mediated, "
    "p, q, p_equal_norm, controls, warnings, reason"
)


def verdict_rows(report: AnswerReport) -> list[tuple[Any, ...]]:
    """Read off the records, whatever the report's own tables say."""
    found = []
    for place, unit in enumerate(report.units):
        p = {null.kind: null.p for null in unit.nulls}
        equal = [value for kind in ("scaled", "directions") if (value := p.get(kind)) is not None]
        found.append(
            (
                *(unit.name, unit.kind, unit.verdict, unit.supported, unit.necessary),
                *(unit.sufficient, unit.mediates, [str(feature) for feature in unit.features]),
                *(report.clean.nats, unit.ablated.nats, unit.ablated.nats - report.clean.nats),
                *(report.clean.probability, unit.ablated.probability, report.lost(unit)),
                *(report.left(unit), None if unit.flow is None else unit.flow.share),
                *(p["matched"], unit.outcome.q, max(equal, default=None)),
                *(report.settings["controls"], list(report.warnings) if place == 0 else []),
                " ".join(unit.reason.split()),
            )
        )
    return found


def test_the_rows_are_what_trace_and_validate_find(model: Any, tmp_path: Path) -> None:
    """Of the same prompts, each asked by itself, with a graph that has all that is drawn."""
    folder = tmp_path / "a"
    built = sg.build_atlas(model, ROWS, folder, settings=ANSWER, trace=TRACE, validate=QUICK)
    assert (built.measured, built.failed) == (3, ())
    atlas = sg.Atlas(folder)
    assert atlas.categories == ("kind", "subject"), "prompts are not compared by their subjects"
    rows, traced = atlas._database.rows, [Asked(TEXTS[0]).id]
    trace = sg.trace(model, TEXTS[0], subject="cat", settings=TRACE)
    assert set(rows(f"SELECT {SITE} FROM sites")) == set(site_rows(trace))
    assert len(site_rows(trace)) == len(atlas.sites()) > 0
    lost = trace.clean.log_odds - np.mean([score.log_odds for score in trace.corrupted])
    (held,) = rows(
        "SELECT subject_first, subject_last, noise, clean, lost_nats, clean_probability, sites, "
        "warnings, reason FROM traces WHERE prompt_id = ?",
        traced,
    )
    assert held == (
        *(trace.subject[0], trace.subject[-1], trace.noise, trace.clean.log_odds),
        *(pytest.approx(lost), trace.clean.probability, len(site_rows(trace))),
        *(list(trace.warnings), None),
    )
    reasons = rows("SELECT reason FROM traces JOIN prompts USING (prompt_id) ORDER BY prompt")
    told = [reason for (reason,) in reasons]
    assert told[0] is None and "there is no subject" in told[1]
    assert "the subject 'dog' is not in the prompt" in told[2]
    for text in (row["prompt"] for row in ROWS):
        graph = sg.causal_graph(model, text, settings=build.plan_of(ANSWER).settings)
        report = validate_answer(model, graph, QUICK, references=references(model))
        found = rows(f"SELECT {VERDICT} FROM verdicts WHERE prompt_id = ?", [Asked(text).id])
        assert close(found, verdict_rows(report)) and len(found) > 1


def close(found: Sequence[tuple[Any, ...]], expected: Sequence[tuple[Any, ...]]) -> bool:
    """Whether rows are equal, but for the rounding of numbers."""
    return all(
        a == (pytest.approx(b, rel=1e-6, abs=1e-9) if isinstance(b, float) else b)
        for one, other in zip(sorted(found), sorted(expected), strict=True)
        for a, b in zip(one[:-1], other[:-1], strict=True)  # a reason says rounded numbers
    )


@pytest.mark.slow
def test_graphs_of_effects_have_verdicts_too(model: Any, tmp_path: Path) -> None:
    settings = ValidationSettings(quick=True, controls=9, paths=1)
    sg.build_atlas(model, TEXTS[:1], tmp_path / "a", settings=EFFECT, validate=settings)
    atlas = sg.Atlas(tmp_path / "a")
    report = sg.validate(
        model, sg.causal_graph(model, TEXTS[0], settings=EFFECT), settings=settings
    )
    assert isinstance(report, ValidationReport)
    table = report.to_pandas().sort_values("unit")
    held = atlas.verdicts()
    assert {*held["claim"]} == {"component", "path"}
    for name in ("unit", "verdict", "supported"):
        assert held[name].tolist() == table[name].tolist()
    for name in ("before", "after", "effect", "p", "q"):
        assert held[name].tolist() == pytest.approx(table[name].tolist())
    with pytest.raises(SaeGraphsError, match=r"has no sites: .* build one with --trace"):
        atlas.sites()


def test_questions_of_sites_and_verdicts(tmp_path: Path) -> None:
    """Of two prompts by hand: one with a handover and two claims, one without either."""
    folder = tmp_path / "a"
    made = Asked("one", None, {"kind": "a"}), Asked("two", None, {"kind": "b"})
    reports: list[AnswerReport | str] = [
        replace(answer_report(graph_unit(), path_unit(along=-0.1)), warnings=("few controls",)),
        "the graph keeps no features",
    ]
    traces: list[Trace | str] = [replace(planted(), warnings=("weak\nnoise",)), nothing(0)]
    written(folder, list(made), traces, reports)
    atlas = sg.Atlas(folder)
    assert set(atlas.sites()["kind"]) == {"a"}
    states = atlas.sites(sweep="state", role="subject")
    assert states["share"].tolist() == sorted(states["share"], reverse=True) and len(states)
    assert {*atlas.verdicts(claim="graph")["unit"]} == {"Graph"}
    supported = atlas.verdicts(supported=True)
    assert supported["unit"].tolist() == ["Graph"] and supported["prompt"].tolist() == ["one"]
    cannot = atlas.verdicts(category="b")
    assert cannot["verdict"].tolist() == [CANNOT]
    assert cannot["reason"].tolist() == ["the graph keeps no features"]
    assert atlas.traces(category="a")["handover_block"].tolist() == [4]
    told = atlas.traces().set_index("prompt")["warnings"]
    assert {prompt: list(words) for prompt, words in told.items()} == {
        "one": ["weak noise"],
        "two": [],
    }
    (graph, path) = atlas.verdicts(category="a")["warnings"]
    assert (list(graph), list(path)) == (["few controls"], [])
    with pytest.raises(SaeGraphsError, match=r"failures, traces, sites, verdicts$"):
        atlas.sql("SELECT nothing")
    for asked in (lambda: atlas.sites(sweep=3), lambda: atlas.verdicts(claim=True)):  # type: ignore[arg-type]
        with pytest.raises(SaeGraphsError, match="expected text"):
            asked()


def written(
    folder: Path,
    asked: Sequence[Asked],
    traces: Sequence[Trace | str],
    reports: Sequence[AnswerReport | ValidationReport | str],
) -> None:
    """An atlas of these, in parts that were made one."""
    facts = {**FACTS, "trace": {"noise_runs": 10}, "validation": {"controls": 200}}
    with store.writing(folder, store.Manifest(facts, ("kind",))) as made:
        for each, trace, report in zip(asked, traces, reports, strict=True):
            found = {**trace_rows(each.id, trace), **verdict_rows_of(each.id, report)}
            rows = rows_by_hand(each, [])
            made.note(Rows(each.id, {**rows.tables, **found}))
            made.recover()
        made.compact()
        made.write_database()


NATS = st.floats(-20, 20)
P = st.none() | st.floats(0.005, 1)


@st.composite
def reports(draw: st.DrawFn) -> AnswerReport:
    p = draw(P), draw(st.floats(0.005, 1)), draw(st.floats(0.005, 1))
    graph = graph_unit(draw(NATS), p, draw(P))
    paths = [
        path_unit(draw(NATS), draw(NATS), draw(NATS), p, name=f"Path {n}")
        for n in range(draw(st.integers(0, 3)))
    ]
    return answer_report(graph, *paths)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    seed = draw(st.integers(0, 2**32))
    shares = np.random.default_rng(seed).normal(0.2, 0.5, (2, 9, 5)) * draw(st.booleans())
    return trace_of(
        {"state": shares[0], "attention": shares[1]},
        tokens=draw(st.lists(st.text(st.characters(codec="utf-8")), min_size=9, max_size=9)),
        subject=(1, 2),
        runs=draw(st.integers(1, 8)),
        seed=seed,
    )


@examples(60, phases=[hypothesis.Phase.generate])
@hypothesis.given(st.lists(st.tuples(traces(), reports()), min_size=1, max_size=3))
def test_the_rows_are_those_of_any_reports(held: list[tuple[Trace, AnswerReport]]) -> None:
    """Written to parts, made one and read again: to the last digit, whatever the texts say."""
    asked = [Asked(f"prompt {n}", None, {"kind": "a"}) for n in range(len(held))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "atlas"
        written(folder, asked, [trace for trace, _ in held], [report for _, report in held])
        rows = sg.Atlas(folder)._database.rows
        for each, (trace, report) in zip(asked, held, strict=True):
            found = rows(f"SELECT {SITE} FROM sites WHERE prompt_id = ?", [each.id])
            assert sorted(found) == sorted(site_rows(trace))
            found = rows(f"SELECT {VERDICT} FROM verdicts WHERE prompt_id = ?", [each.id])
            assert sorted(found) == sorted(verdict_rows(report))
            (told,) = rows("SELECT sites, reason FROM traces WHERE prompt_id = ?", [each.id])
            assert told == (len(site_rows(trace)), read(trace).problem)


def test_a_report_of_effects_has_its_changes_in_probability() -> None:
    report = evidence.report()
    (row, *_) = verdict_rows_of("id", report)["verdicts"]
    target = report.units[0].of_discovery.target
    assert (row["probability_before"], row["probability_after"]) == (target.before, target.after)


def test_other_traces_are_refused(model: Any, tmp_path: Path) -> None:
    """Atlases of before have neither: they are added to without, and refused with."""
    folder = tmp_path / "a"
    sg.build_atlas(model, TEXTS[:1], folder, settings=EFFECT)
    assert not {"trace", "validation"} & {*sg.Atlas(folder).facts}
    row = {"prompt": TEXTS[0], "subject": "cat"}
    with pytest.raises(SaeGraphsError, match="an atlas without trace, and this build is with it"):
        sg.build_atlas(model, [row], folder, settings=EFFECT, trace=True)
    folder = tmp_path / "b"
    sg.build_atlas(model, [row], folder, settings=EFFECT, trace=TRACE)
    other = TraceSettings(noise_runs=7, sweeps=("state", "mlp"), strength="3s")
    with pytest.raises(SaeGraphsError, match="with noise_runs 6, and this build has 7"):
        sg.build_atlas(model, [row], folder, settings=EFFECT, trace=other)
    with pytest.raises(SaeGraphsError, match="is an atlas with trace, and this build is without"):
        sg.build_atlas(model, [row], folder, settings=EFFECT)
    assert sg.build_atlas(model, [row], folder, settings=EFFECT, trace=TRACE).known == 1


def test_an_interchange_needs_no_subject() -> None:
    trace = TraceSettings(corruption="interchange", other="the dog sat")
    asked = [Asked("the cat sat", None, {"subject": "", "kind": "a"})]
    assert categories_of(asked, Plan(ANSWER, trace=trace)) == ("kind", "subject")
    with pytest.raises(SaeGraphsError, match="no prompt names a subject"):
        categories_of(asked, Plan(ANSWER, trace=TraceSettings()))


def test_mistakes(model: Any, tmp_path: Path) -> None:
    row = {"prompt": TEXTS[0], "subject": "cat"}
    curve = ValidationSettings(curve=(("0.1", " cat"),))  # type: ignore[arg-type]
    wrong: dict[str, dict[str, Any]] = {
        "no prompt names a subject": {"prompts": TEXTS, "trace": True},
        "trace is 'noise'; expected True, False or TraceSettings": {"trace": "noise"},
        "validate is 3; expected True, False or ValidationSettings": {"validate": 3},
        "no prompt names a subject,": {"prompts": [{**row, "subject": ""}], "trace": True},
        "a token over ' dog', which a trace cannot be": {
            "trace": True,
            "settings": GraphSettings(target=(" cat",), contrast=" dog"),
        },
        "an answer graph has no use for a curve": {"validate": curve},
        "'verdict' has the name of one that": {
            "prompts": [{**row, "verdict": "x"}],
            "validate": True,
        },
    }
    for words, given in wrong.items():
        with pytest.raises(SaeGraphsError, match=words):
            sg.build_atlas(model, given.pop("prompts", [row]), tmp_path / "a", **given)
    assert not (tmp_path / "a").exists()
    sg.build_atlas(model, [{**row, "verdict": "x"}], tmp_path / "a", settings=EFFECT)  # as before


@pytest.mark.parametrize("what", first(1, ["trace", "validate"]))
def test_an_accident_is_the_prompts(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is listed, and tried again: nothing is said of a prompt that a full memory made."""

    def failing(*_: Any, **__: Any) -> Iterator[Any]:
        raise MemoryError("too much")

    row = {"prompt": TEXTS[0], "subject": "cat"}
    given: Any = {"settings": EFFECT, what: TRACE if what == "trace" else QUICK}
    with monkeypatch.context() as patch:
        patch.setattr(measure, what, failing)
        with pytest.raises(SaeGraphsError, match="the first: MemoryError: too much"):
            sg.build_atlas(model, [row], tmp_path / "a", **given)
    assert sg.build_atlas(model, [row], tmp_path / "a", **given).measured == 1
