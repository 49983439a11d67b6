"""The files of a report: what they show is what was found, and no text from outside acts."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.render.document.blocks import Definitions, Fold, Heading, Table, unfolded
from sae_graphs.render.document.markdown import markdown, shown
from sae_graphs.render.document.page import STYLE
from sae_graphs.validation.evidence import Kept, UnitReport, ValidationReport
from sae_graphs.validation.evidence_json import from_json, load, to_json
from sae_graphs.validation.report.content import blocks, cover
from sae_graphs.validation.report.files import report_files
from sae_graphs.validation.report.marks import judged
from sae_graphs.validation.verdicts import verdict
from sae_graphs.words import p_value, points, probability, relative_to, share
from tests.support import evidence
from tests.support.graphs import example
from tests.support.report_page import ODD, Page, active_parts, page_of, printed
from tests.support.slow import examples, first

PLOTS = {
    "plot-graph-1-nulls.svg",
    "plot-graph-1-kept.svg",
    "plot-graph-1-path-1-nulls.svg",
    "plot-graph-1-path-1-features.svg",
    "plot-graph-1-path-1-kept.svg",
    "plot-graph-1-path-1-curve-1.svg",
    "plot-graph-1-path-1-curve-2.svg",
    "plot-graph-2-nulls.svg",
    "plot-graph-curve-1.svg",
    "plot-noise.svg",
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Those of a full report, with its graph."""
    return report_files(evidence.report(), example())


@pytest.mark.slow
def test_the_files_of_a_full_report(files: dict[str, bytes], tmp_path: Path) -> None:
    report = evidence.report()
    names = {"validation.json", "validation.html", "validation.md"}
    assert set(files) == names | {"graph-validated.svg", "graph-validated.png"} | PLOTS
    (tmp_path / "validation.json").write_bytes(files["validation.json"])
    assert load(tmp_path) == report
    for name, data in files.items():
        if name.endswith(".svg"):
            ElementTree.fromstring(data)
    referenced = set(re.findall(r"\]\(([^)]*)\)", files["validation.md"].decode()))
    assert referenced == PLOTS | {"graph-validated.svg"}


@pytest.mark.slow
def test_a_report_needs_no_graph() -> None:
    files = report_files(evidence.report())
    assert not [name for name in files if name.startswith("graph")]
    assert "graph-validated" not in files["validation.md"].decode()


@pytest.mark.parametrize("report", first(2, ODD.values()), ids=ODD)
def test_odd_reports_are_told_too(report: ValidationReport) -> None:
    files = report_files(report)
    found = Page(files["validation.html"].decode())
    for unit in report.units:
        assert all(words in found.text for words in verdict(unit, report).sentences)
    assert not list(active_parts(found))
    assert not re.search(r"\bnan\b|None(?! of)", found.text)


@pytest.mark.slow
def test_a_report_of_nothing_says_so() -> None:
    nothing = replace(evidence.report(), units=())
    text = Page(report_files(nothing)["validation.html"].decode()).text
    assert "What was tested: nothing" in text and "What came out: nothing" in text
    untold = replace(evidence.report(), units=(evidence.bare_unit(results=()),))
    assert report_files(untold)["validation.md"]


def without_numbers(data: Any) -> Any:
    """The same data with every number that has a fraction lost, as where it was not finite."""
    if isinstance(data, dict):
        return {name: without_numbers(value) for name, value in data.items()}
    if isinstance(data, list):
        return [without_numbers(value) for value in data]
    return None if isinstance(data, float) else data


@pytest.mark.parametrize("made", first(1, [evidence.with_contrast, evidence.report]))
def test_numbers_that_were_not_finite_break_nothing(made: Callable[[], ValidationReport]) -> None:
    report = from_json(without_numbers(to_json(made())))
    found = Page(report_files(report, example())["validation.html"].decode())
    assert not re.search(r"\bnan\b", found.text)
    assert printed(report, 100)


def test_nothing_is_fetched_and_nothing_runs(files: dict[str, bytes]) -> None:
    text = files["validation.html"].decode()
    assert not list(active_parts(Page(text)))
    addresses = set(re.findall(r"https?://[^\s\"'<>)/]+", text))
    assert addresses <= {"http://www.w3.org", "https://www.neuronpedia.org"}


def test_the_check_of_active_parts_can_fail() -> None:
    for text in (
        "<script>alert(1)</script>",
        "<b onclick='x'></b>",
        "<a href='javascript:x'></a>",
        "<p style='background: url(https://x)'></p>",
    ):
        assert list(active_parts(Page(text)))


def test_hostile_text_stays_text() -> None:
    report = evidence.hostile()
    files = report_files(report, example())
    found = Page(files["validation.html"].decode("utf-8"))
    assert not list(active_parts(found))
    assert "<script>alert(1)</script>|`↵$x_1$\\x00\\u202e\\ud83d" in found.text
    for name, data in files.items():
        assert re.fullmatch(r"[a-z0-9.-]+", name)
        if name.endswith((".html", ".md", ".svg")):
            assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", data.decode("utf-8"))
        if name.endswith(".svg"):
            root = ElementTree.fromstring(data)
            assert not [part for part in root.iter() if part.tag.endswith("script")]


@examples(30)
@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_text_stays_text(text: str) -> None:
    result = evidence.result(prompt=text, target=evidence.token_change(text), nulls=())
    unit = evidence.bare_unit(results=(result,))
    texts = {"prompt": text, "target": text, "warnings": (text,)}
    report = evidence.report(units=(unit,), curves=(), noise=(), **texts)
    assert not list(active_parts(page_of(report)))


# -- Markdown --------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=())))
def test_markdown_keeps_text_as_text(text: str) -> None:
    line = shown(text)
    assert "\n" not in line and "<" not in line
    bare = re.sub(r"\\[\\`*_\[\]{}|#$~!^@:.]", "", line)
    assert not re.search(r"[\\`*_\[\]{}|#$~!^@]|://|www\.", bare)


@pytest.mark.slow
def test_markdown_tables_have_as_many_cells_as_headings() -> None:
    report = evidence.hostile()
    text = markdown(cover(report), blocks(report))
    tables = re.findall(r"(?:^\|.*\|\n?)+", text, flags=re.MULTILINE)
    assert len(tables) > 5
    for found in tables:
        cells = {len(re.split(r"(?<!\\)\|", line)) for line in found.strip().splitlines()}
        assert len(cells) == 1
    assert "<script" not in text and not re.search(r"(?<!\\)\]\(javascript", text)


@pytest.mark.slow
def test_markdown_says_what_the_page_says() -> None:
    report = evidence.report()
    text = markdown(cover(report), blocks(report))
    for unit, found, _ in judged(report):
        assert f"{unit.name}: {found.kind}" in text
        assert shown(found.more) in text
        own = text[text.index(f"{unit.name}: {found.kind}") :]
        at = [own.index(shown(words)) for words in found.sentences]
        assert at == sorted(at)


# -- numbers ---------------------------------------------------------------------------------------


def test_the_page_shows_the_numbers_of_the_record(files: dict[str, bytes]) -> None:
    report = evidence.report()
    text = Page(files["validation.html"].decode()).text
    unit = report.units[1]
    assert unit.tested and unit.mediation and unit.keep_only and unit.kinds
    wanted = [p_value(unit.tested.p), p_value(unit.tested.q)]
    for change in (*unit.of_discovery.lowered, *unit.of_discovery.raised):
        wanted.append(f"{probability(change.before)} → {probability(change.after)}")
        wanted.append(points(change.after - change.before))
        if change.before:
            wanted.append(relative_to(change.relative_change, change.before))
    wanted += [p_value(null.p) for null in unit.of_discovery.nulls]
    wanted += ["1,330", "0.81 / 0.94 / 1.07", "feature 0 of the same layers (1 of 4 active)"]
    wanted += [share(edge.fraction) for edge in unit.mediation.edges]
    wanted += [share(unit.mediation.needed(feature)) for feature in unit.mediation.without]
    wanted += ["interaction (the difference): −0.322 nats"]
    wanted += ["feature of these layers (−6.20 nats), 100 % that with everything (−0.288"]
    wanted += ["alone (faithfulness; 100 % is best): 86 %"]
    wanted += ["without them (completeness; 0 % is best): 46 %", "+2.75", "0.200 to 0.600", "0.930"]
    for words in wanted:
        assert words in text, words


def test_a_loss_is_told_as_the_source_tells_it() -> None:
    change = evidence.token_change(before=0.422, after=0.0001)
    unit = evidence.unit(results=(evidence.result(target=change),))
    report = evidence.report(units=(unit,), curves=(), noise=())
    assert "−100 % of 42.2 %" in page_of(report).text


@pytest.mark.slow
def test_prompts_are_numbered_alike_and_their_likeliest_tokens_shown() -> None:
    report = evidence.report(units=(evidence.over_prompts(),), test=("© (C", "(C"))
    tables = [part for part in unfolded(blocks(report)) if isinstance(part, Table)]
    top = next(each for each in tables if each.caption.startswith("Likeliest next tokens"))
    assert [[cell.text for cell in row][:3] for row in top.rows] == [
        ["discovery", "Copyright (C", '")" 75.0 %'],
        ["test 1", "© (C", '")" 50.0 %'],
        ["test 2", "(C", '")" 25.0 %'],
    ]
    for each in tables:
        if each.head[0] == "Prompt":
            assert {row[0].text for row in each.rows} <= {"discovery", "test 1", "test 2"}
    summary = next(each for each in tables if each.caption == "Components and paths")
    row = dict(zip(summary.head, (cell.text for cell in summary.rows[0]), strict=True))
    assert row["In single prompts"] == "+18.8 to +37.5 points"
    assert row["Mediated"] == "81 %"
    assert ("test prompt 2", "(C") in made_with(report)


def made_with(report: ValidationReport) -> tuple[tuple[str, str], ...]:
    *_, last = blocks(report)
    assert isinstance(last, Fold)
    (found,) = last.blocks
    assert isinstance(found, Definitions)
    return found.entries


@pytest.mark.slow
def test_with_a_contrast_the_logit_difference_is_shown() -> None:
    report = evidence.with_contrast()
    assert "Logit difference, before → after" in page_of(report).text
    for text in (page_of(report).text, printed(report, 120)):
        assert "3.25 → 0.450" in text


@pytest.mark.slow
def test_what_was_measured_in_one_prompt_says_so() -> None:
    headings = [part for part in unfolded(blocks(evidence.report())) if isinstance(part, Heading)]
    asked = [part.text for part in headings if "?" in part.text]
    own = [text for text in asked if text.endswith("(in the graph's own prompt)")]
    assert {text.split("?")[0] for text in own} == {
        "Does the effect flow along the edges",
        "Is every feature needed",
        "Is it enough on its own",
        "How does the response scale",
        "Does the kind of ablation matter",
    }


@pytest.mark.slow
def test_details_are_folded_and_printed() -> None:
    unsupported = evidence.unit(tested=evidence.tested(p=0.9, q=0.9))
    units = evidence.unit("Graph 1"), evidence.unit(), replace(unsupported, name="Graph 1, path 2")
    found = page_of(evidence.report(units=units))
    folds = ["open" in attributes for tag, attributes in found.elements if tag == "details"]
    assert len(folds) >= 3 and not any(folds)
    assert "@media print { details::details-content { content-visibility: visible;" in STYLE


@pytest.mark.slow
def test_reasons_for_refusing_controls_are_told_once() -> None:
    why = "the graph's nodes make only 0 other sets"
    empty: dict[str, Any] = {"changes": (), "kls": (), "p": None, "p_kl": None, "match": None}
    nulls = evidence.null(), evidence.null("shuffles", refused=why, **empty)
    results = [
        evidence.result(role=role, prompt=prompt, nulls=nulls)
        for role, prompt in (("discovery", "a"), ("test", "b"), ("test", "c"))
    ]
    unit = evidence.unit("Graph 1", results=tuple(results))
    text = page_of(evidence.report(units=(unit,), test=("b", "c"))).text
    assert (
        text.count(
            "No other features of the graph: it holds all of the graph's nodes in its layers."
        )
        == 1
    )
    assert "refused:" not in text and why not in text
    alone = replace(unit, results=(results[0], evidence.result(role="test", nulls=()), results[2]))
    text = page_of(evidence.report(units=(alone,), test=("b", "c"))).text
    assert "No other features of the graph (discovery, test 2): it holds" in text


@pytest.mark.slow
def test_features_that_work_through_errors_alone_say_so() -> None:
    told = "only together with the SAEs' errors"
    kept = evidence.keep_only()
    assert told not in page_of(evidence.report()).text
    for metric, said in ((-5.7, True), (-5.5, False)):  # 8 % and 12 % of the way
        unit = evidence.unit(keep_only=replace(kept, kept_bare=Kept(metric, 0.003)))
        assert (told in page_of(evidence.report(units=(unit,))).text) == said


@pytest.mark.slow
def test_every_unit_is_reached_from_the_summary() -> None:
    twins = evidence.unit("a|b"), evidence.unit("a|b"), evidence.bare_unit("Graph 1")
    report = evidence.report(units=(*twins, evidence.bare_unit("Graph 1")))
    elements = page_of(report).elements
    anchors = [it["id"] for tag, it in elements if tag == "h2" and "id" in it]
    assert len(set(anchors)) == len(anchors) == 4
    links = {str(attributes["href"]) for tag, attributes in elements if tag == "a"}
    assert links == {f"#{anchor}" for anchor in anchors}


def unit_named(report: ValidationReport, name: str) -> UnitReport:
    return next(unit for unit in report.units if unit.name == name)


@pytest.mark.slow
def test_the_json_of_the_files_is_plain() -> None:
    data = json.loads(report_files(evidence.report())["validation.json"])
    assert unit_named(evidence.report(), "Graph 2").name == data["units"][2]["name"]
