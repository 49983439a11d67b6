"""Cases: read, filtered, traced one by one and resumed; averages, confounds, their page."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.schema import record_bytes
from sae_graphs.tracing.cases_file import Case, Looked, bundled, kind_of, read_cases, refusal
from sae_graphs.tracing.confounds import confounds
from sae_graphs.tracing.last_token import FirstToken, LastToken
from sae_graphs.tracing.many import (
    CasesPartial,
    LeftOut,
    TracedCase,
    averaged,
    crossings,
    gathered,
    load,
    trace_cases,
)
from sae_graphs.tracing.many_report import findings, many_files
from sae_graphs.tracing.stability import stability
from tests.support.traced_cases import traced, traces
from tests.support.traces import planted

# -- files -----------------------------------------------------------------------------------------


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"prompt": 'a "b", c', "subject": "b", "category": "x", "target": " d"},
        {"prompt": "two\nlines on", "subject": "lines"},
    ]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "cases.csv").write_text(
        'prompt,subject,category,target\n"a ""b"", c",b,x, d\n"two\nlines on",lines,,\n'
    )
    found = read_cases(tmp_path / "cases.csv")
    assert found == read_cases(tmp_path / "cases.jsonl")
    assert found[0] == Case('a "b", c', "b", "x", " d")
    assert (found[1].category, found[1].target) == ("all", None)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "prompt,subject\n", "holds no case"),
        ("a.csv", "prompt\nx\n", "line 2: subject is missing"),
        ("a.csv", "prompt,subject\na b,c\n", 'line 2: the subject "c" is not in the prompt'),
        ("a.csv", "prompt,subject,wrong\na b,a,1\n", "wrong is no column"),
        ("a.csv", "prompt,subject\na,a,b\n", "an unnamed column is no column|expected a text"),
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", "[1]", "expected an object"),
        ("a.jsonl", '{"prompt": 3, "subject": "a"}', "prompt is 3, expected a text"),
        ("a.csv", "", "holds no case"),
    ],
)
def test_a_wrong_file_is_one_line(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SaeGraphsError, match=told):
        read_cases(tmp_path / name)


def test_a_file_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SaeGraphsError, match="one of demo, pairs, smollm2"):
        read_cases("no such file")


@pytest.mark.parametrize("name", ["demo", "smollm2"])
def test_bundled_cases(name: str) -> None:
    found = read_cases(name)
    counts = Counter(case.category for case in found)
    assert bundled() == ("demo", "pairs", "smollm2") and min(counts.values()) >= 20
    assert all(case.target for case in found)
    assert len(set(found)) == len(found)
    if name == "smollm2":
        assert len(counts) == 3 and min(counts.values()) >= 45


# -- filters ---------------------------------------------------------------------------------------

CASE = Case("The capital of France is", "France", "semantic", " Paris")
LOOKED = Looked(("The", " capital", " of", " France", " is"), (3,), 4, " Paris", 0.8, " Paris")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"top": " P"}, "another next token"),
        ({"top": " P", "wanted": " P"}, None),
        ({"top": " Lyon"}, "another next token"),
        ({"top": ""}, "another next token"),
        ({"subject": (2, 3)}, "more than one token"),
        ({"subject": (0,)}, "the first token"),
        ({"subject": (4,)}, "the last token"),
    ],
)
def test_filters(change: dict[str, object], told: str | None) -> None:
    found = refusal(CASE, replace(LOOKED, **change))  # type: ignore[arg-type]
    assert (None if found is None else kind_of(found)) == told
    if change == {"top": " Lyon"}:
        assert refusal(replace(CASE, target=None), replace(LOOKED, top=" Lyon")) is None


# -- one after another -----------------------------------------------------------------------------


def look(case: Case) -> Looked:
    if case.prompt == "a bug a":
        raise RuntimeError("out of\nmemory")
    if case.prompt == "not there a":
        raise SaeGraphsError("the subject is not there")
    tokens = tuple(planted().tokens)
    return Looked(tokens, (4,), 6, " Paris", 0.8, case.target and f" {case.target}")


CASES = [
    Case("one a", "a", "x"),
    Case("a bug a", "a", "x"),
    Case("not there a", "a", "y"),
    Case("two a", "a", "y", "no"),
    Case("three a", "a", "y"),
]


def test_one_bad_case_ends_nothing() -> None:
    done: list[int] = []
    found = trace_cases(CASES, look, lambda _: planted(3), progress=lambda at, _: done.append(at))
    assert [type(it) for it in found] == [TracedCase, LeftOut, LeftOut, LeftOut, TracedCase]
    assert done == [1, 2, 3, 4, 5]
    result = gathered(found, model="m", n_layers=8, settings={"a": "b"}, seed=0)
    assert result.reasons("x") == {"failed": 1}
    assert result.reasons("y") == {"other": 1, "another next token": 1}
    assert result.categories == ("x", "y")
    assert result.left_out[0].reason == "RuntimeError: out of memory"
    first = result.traced[0]
    assert (first.at, first.read, first.distance) == (4, 6, 2)
    assert first.rows["state"].subject[0] == pytest.approx(1, abs=0.1)
    assert first.rows["state"].read[-1] == pytest.approx(1, abs=0.1)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    def stopped(case: Case) -> Looked:
        if case == CASES[3]:
            raise KeyboardInterrupt
        return look(case)

    def partial(key: str) -> CasesPartial:
        made = CasesPartial(tmp_path / "partial")
        made.patience = 0.0
        made.begin(lambda: key, range(len(CASES)))
        return made

    with pytest.raises(KeyboardInterrupt):
        trace_cases(CASES, stopped, lambda _: planted(3), partial=partial("a"))
    asked: list[Case] = []

    def again(case: Case) -> Looked:
        asked.append(case)
        return look(case)

    assert partial("another").n_kept == 0
    held = partial("a")
    assert held.n_kept == 2  # the one that failed is tried again
    found = trace_cases(CASES, again, lambda _: planted(3), partial=held)
    assert asked == [CASES[1], *CASES[3:]]
    assert found == trace_cases(CASES, look, lambda _: planted(3))
    held.remove()
    assert not (tmp_path / "partial").exists()


def test_a_record_comes_back(tmp_path: Path) -> None:
    made = traces(n=4)
    (tmp_path / "traces.json").write_bytes(record_bytes(made))
    assert load(tmp_path) == made
    (tmp_path / "traces.json").write_text("[]")
    with pytest.raises(SaeGraphsError, match="holds no traces"):
        load(tmp_path)


# -- averages --------------------------------------------------------------------------------------


def test_categories_hand_over_where_they_were_planted() -> None:
    made = traces(n=20, seed=1)
    for name, middle in (("cached", 4.0), ("semantic", 8.0)):
        found = averaged(made, name)
        assert found is not None and found.handover is not None
        low, high = found.handover.interval("crosses") or (0.0, 0.0)
        assert low - 0.2 < middle < high + 0.2 and high - low < 1.5
        starts, ends = found.handover.starts, found.handover.ends
        assert starts is not None and ends is not None
        assert starts < found.handover.crosses < ends
        assert (found.subject[0] <= found.subject[1] + 1e-12).all()
    assert averaged(made, "nobody") is None
    few = averaged(traces(n=2), "cached")
    assert few is not None and (few.subject[0] == few.subject[2]).all()
    assert np.isfinite(crossings(made)).all()


def test_a_difference_that_is_a_confound_is_told_so() -> None:
    real = confounds(traces(n=20, middles={"a": 4.0, "b": 7.0}))
    assert real is not None and (real.p_plain or 1) < 0.001 and (real.p_adjusted or 1) < 0.001
    distance = confounds(traces(n=20, middles={"a": 2.0, "b": 2.0}, by_distance=0.9, spread=0.3))
    assert distance is not None and (distance.p_plain or 1) < 0.001
    slope = distance.slopes[0]
    assert slope.low < 0.9 < slope.high and distance.explained > 0.8
    one, other = distance.categories
    assert abs(other.adjusted.value - one.adjusted.value) < abs(other.plain.value - one.plain.value)
    assert confounds(traces(n=2)) is None


@pytest.mark.slow
def test_confounds_alone_leave_no_category_in_nineteen_of_twenty_cases() -> None:
    found = [
        confounds(traces(n=12, seed=seed, middles={"a": 2.0, "b": 2.0}, by_distance=0.5))
        for seed in range(40)
    ]
    p = np.array([1.0 if it is None else it.p_adjusted or 0.0 for it in found])
    assert np.mean(p <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 40)


def test_the_page_of_many_prompts() -> None:
    made = traces(n=6, sweeps=("state",))
    shown = many_files(made, ("html", "md"))
    page, told = shown["traces.html"].decode(), shown["traces.md"].decode()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "| cached | 7 | 6 | 1 | 0 |" in told and "Layers later for one more" in told
    assert {"traces.svg", "traces-transitions.svg"} <= shown.keys()
    assert "Categories differ in it" in list(findings(made, confounds(made)))[1]


@pytest.mark.slow
def test_stability_over_strengths() -> None:
    made = traces(n=12, sweeps=("state",))
    shifted = [
        replace(it, others={"1s": traced(it.case.category, at + 1.5).rows["state"]})
        for it, at in zip(made.traced, crossings(made), strict=True)
    ]
    one, other, both = stability(replace(made, traced=tuple(shifted)))
    assert (one.category, other.category, both.n) == ("cached", "semantic", 24)
    assert both.moved is not None and both.moved.low < 1.5 < both.moved.high + 0.1
    assert both.rank is not None and both.rank.value > 0.98
    page = many_files(replace(made, traced=tuple(shifted)), ("md",))["traces.md"].decode()
    assert "Other strengths" in page and "| 1s | all categories | 24 of 24 |" in page
    asked = replace(made, settings={"strength": "3s, 1s"})
    assert [(it.n, it.of, it.here) for it in stability(asked)][-1] == (0, 24, None)
    few = replace(made, traced=tuple(shifted[:2]))
    assert next(stability(few)).moved is None and not list(stability(made))


@pytest.mark.slow
def test_the_read_token_is_shown_by_category(tmp_path: Path) -> None:
    row = ((0.5, 0.1), (0.2, 0.9))
    seen = LastToken(
        row, ((0.1, 0.0), (0.0, 0.7)), row, row, (1.0, 2.0, 9.0), (0.9, 0.1), (2.0, 8.0)
    )
    made = traces(n=3, sweeps=("state",))
    made = replace(
        made,
        traced=tuple(replace(it, last_token=seen) for it in made.traced),
        first_token=FirstToken(3, (1, 2), ((0.5, 0.25), (0.1, 0.2))),
    )
    (tmp_path / "traces.json").write_bytes(record_bytes(made))
    assert load(tmp_path) == made
    shown = many_files(made, ("md",))
    assert {"traces-attention.svg", "traces-motion.svg", "traces-first-token.svg"} <= shown.keys()
    told = shown["traces.md"].decode()
    assert "most with head 1 of layer 1 (70%); its attention is diffuse in layers 1." in told
    assert "| cached | 3 | 42% | head 1 of layer 1 (70%) | 1 | layer 1 | layer 1 |" in told
    assert "| 2 | 15% | 20% in layer 1 |" in told


def test_nothing_left_is_told() -> None:
    made = replace(traces(n=1), traced=())
    assert list(findings(made, confounds(made))) == ["No handover is claimed in any category."]
    assert "0 prompts passed" in many_files(made, ("md",))["traces.md"].decode()
