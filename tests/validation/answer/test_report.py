"""The report on an answer graph: the page, Markdown, a notebook, the terminal, and the ticks."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_graphs.cli.answer_verdict_table import print_answer_report
from sae_graphs.graph.annotations import NO_ANNOTATIONS
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.validation.answer.content import blocks
from sae_graphs.validation.answer.outcomes import sentences
from sae_graphs.validation.answer.record_json import from_json, to_json
from sae_graphs.validation.answer.records import AnswerReport, Single
from sae_graphs.validation.answer.report import findings_of, marks_of
from sae_graphs.validation.answer.rows import OTHERS_HEAD, others
from sae_graphs.validation.answer.strips import kept_strip_of, strip_of
from sae_graphs.validation.report.files import report_files
from sae_graphs.validation.report.marks import explorer_of, is_of
from tests.support import evidence
from tests.support.answers import answer_report, graph_unit, null, path_unit
from tests.support.graphs import example

FEATURES = tuple(FeatureId.parse(name) for name in ("0.1", "1.4"))
SINGLES = (
    Single(FEATURES[0], -6.0, -3.0),
    Single(FEATURES[1], -3.0, -6.0),
)
REPORTS: dict[str, AnswerReport] = {
    "plain": answer_report(),
    "unsupported": answer_report(graph_unit(p=(0.5, 0.5, 0.5)), path_unit(along=-0.1)),
    "refused": answer_report(graph_unit(p=(None, None, 0.01), kept=None), path_unit(0.0, 0.0)),
    "full": answer_report(graph_unit(singles=SINGLES), path_unit(), contrast=")"),
    "shuffles": answer_report(path_unit(nulls=(null("shuffles", 0.5),))),
    "other prompts": answer_report(
        tests=(
            answer_report(
                prompt="The memo [room 32", aligned="by position: the prompts differ in 1 of 4"
            ),
            answer_report(
                graph_unit(inactive=3),
                path_unit(flow=None),
                prompt="A [b",
                aligned="summed over tokens: the prompts have 4 and 3 tokens",
            ),
        ),
        discovery=("The letter [room 32", "The note [room 32"),
        warnings=("in 'A [b': no feature of Path 2 is active there: nothing is said of it",),
    ),
    "hostile": answer_report(
        tests=(answer_report(prompt=evidence.HOSTILE, aligned=evidence.HOSTILE),),
        prompt=evidence.HOSTILE,
        tokens=(evidence.HOSTILE,),
        target=evidence.HOSTILE,
        contrast=evidence.HOSTILE,
        warnings=(evidence.HOSTILE,),
    ),
}


def printed(report: AnswerReport, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=False)
    print_answer_report(console, report)
    return file.getvalue()


@pytest.mark.parametrize("name", REPORTS)
def test_everywhere_the_same_words(name: str) -> None:
    report = REPORTS[name]
    files = report_files(report)
    shown = report._repr_html_()
    page, markdown = files["validation.html"].decode(), files["validation.md"].decode()
    told = " ".join(printed(report).split())
    if name == "hostile":
        return
    for unit in report.units:
        assert " ".join(unit.words.split()) in told
        assert unit.words == " ".join(sentences(unit, report))
        for place in (page, markdown, shown):
            text = re.sub(r"&#34;|&quot;", '"', place).replace("&gt;", ">").replace("&lt;", "<")
            text = text.replace("\\", "")
            at = [text.index(words) for words in sentences(unit, report)]
            assert at == sorted(at)  # the same order everywhere
            assert f"{unit.name}: {unit.verdict}" in text or place is page


@pytest.mark.parametrize("name", REPORTS)
def test_the_terminal_is_80_columns_wide(name: str) -> None:
    lines = printed(REPORTS[name]).splitlines()
    assert max(map(len, lines)) <= 80
    head = next(line for line in lines if line.startswith("unit"))
    assert all(word in head for word in ("necessary", "sufficient", "mediates", "equal norm"))


def test_the_table_says_yes_and_no() -> None:
    graph, path = (line.split() for line in printed(answer_report()).splitlines()[3:5])
    assert graph == ["✓", "Graph", "2", "+9.00", "0.005", "0.005", "✓", "yes", "✓", "50", "%", "–"]
    assert path == [
        "✓",
        "Path",
        "1",
        "2",
        "+9.00",
        "0.005",
        "0.005",
        "✓",
        "yes",
        "–",
        "✓",
        "75",
        "%",
    ]
    unknown = printed(REPORTS["refused"]).splitlines()[3]
    assert unknown.split() == ["?", "Graph", "2", "+9.00", "–", "0.010", "?", "?", "50", "%", "–"]


def test_hostile_text() -> None:
    report = REPORTS["hostile"]
    files = report_files(report)
    texts = [printed(report), report._repr_html_(), files["validation.html"].decode()]
    for text in texts:
        assert "\x00" not in text and "\u202e" not in text and "\ud83d" not in text
    for text in texts[1:]:
        assert "<script>alert" not in text
    assert "[a](javascript" not in files["validation.md"].decode()
    assert all("\x00" not in data.decode() for name, data in files.items() if name != "x")


def test_the_page_names_what_decides() -> None:
    report = REPORTS["refused"]
    page = report_files(report)["validation.html"].decode()
    assert "layer 3 has 1 other" in page and "Refused" in page
    assert "? cannot be said" in page
    full = report_files(REPORTS["full"])["validation.html"].decode()
    assert "Contributions of single features" in full and "+6.00" in full and "contrast" in full


def test_strips_hold_the_records_numbers() -> None:
    """Clean is 6: what scores 5.5 has taken 0.5, and the unit, at -3, 9."""
    scores = tuple(5.5 - number / 10 for number in range(200))
    report = answer_report(
        graph_unit(nulls=(null("matched", 0.005, scores=scores), null("scaled", None)))
    )
    (unit,) = report.units
    strip = strip_of(unit, report)
    assert strip.own == 9.0 and strip.axis == 'contribution to the log-odds of "]", nats'
    (row,) = strip.rows  # what was refused has no row
    assert row.values == pytest.approx([0.5 + number / 10 for number in range(200)])
    assert (row.label, row.note) == ("matched controls", "0 of 200 as much, q = 0.005")
    assert row.needed == pytest.approx(0.5 + 19.9 - 0.9)  # nine may do as much, the tenth not
    kept = kept_strip_of(unit, report)
    assert kept is not None and kept.own == 5.0  # 1 above -4
    assert set(kept.rows[0].values) == {9.5}
    assert kept_strip_of(answer_report(path_unit()).units[0], report) is None


def test_q_is_harder_to_earn_among_others_that_fail() -> None:
    """Of two units, the other at p = 0.9, q is twice p: 4 of 200 may do as much."""
    scores = tuple(5.5 - number / 10 for number in range(200))
    mine = path_unit(nulls=(null("matched", 0.005, scores=scores),))
    report = answer_report(mine, graph_unit(p=(0.9, 0.9, 0.9)))
    (row,) = strip_of(report.units[0], report).rows
    assert row.needed == pytest.approx(0.5 + 19.9 - 0.4)
    few = path_unit(nulls=(null("matched", 0.1, scores=(5.5,) * 9),))
    report = answer_report(few)
    assert strip_of(report.units[0], report).rows[0].needed is None  # no result could


def test_a_plot_for_each_unit_that_has_controls() -> None:
    files = report_files(answer_report(graph_unit(), path_unit(nulls=(null("matched", None),))))
    assert {name for name in files if name.startswith("plot")} == {
        "plot-unit-1.svg",
        "plot-unit-1-kept.svg",
    }
    told = files["validation.md"].decode()
    assert "](plot-unit-1.svg)" in told and "matched controls: 200 dots from" in told


def test_ticks_and_findings() -> None:
    report = REPORTS["full"]
    marks = marks_of(report, example())
    assert marks.components[1].supported and marks.components[1].words == "necessary, sufficient"
    assert marks.features == {*report.units[0].features}
    assert marks.edges == {report.units[1].features}
    whole, path = findings_of(report)
    assert (whole.kind, path.kind) == ("component", "path")
    assert whole.needed == pytest.approx({FEATURES[0]: 1 - 3 / 9, FEATURES[1]: 1 - 6 / 9})
    none = marks_of(REPORTS["unsupported"], example())
    assert not none.features and not none.edges and not none.components[1].supported


def test_the_explorer_tells_of_it(tmp_path: Path) -> None:
    graph = example()
    own = tuple(node.feature for node in graph.nodes if not node.feature.is_output)[:2]
    report = answer_report(graph_unit(features=own), path_unit(features=own))
    (tmp_path / "validation").mkdir()
    file = tmp_path / "validation" / "validation.json"
    file.write_bytes(report_files(report)["validation.json"])
    page = explorer_of(tmp_path, graph, annotations=NO_ANNOTATIONS).decode()
    assert "necessary, sufficient" in page and "Path mediates: 75 %" in page
    assert is_of(report, graph) and not is_of(answer_report(), graph)
    file.write_bytes(report_files(answer_report())["validation.json"])  # of another graph
    other = explorer_of(tmp_path, graph, annotations=NO_ANNOTATIONS).decode()
    assert "necessary, sufficient" not in other


def test_every_block_has_an_anchor() -> None:
    found: list[Any] = list(blocks(answer_report()))
    anchors = [block.anchor for block in found if getattr(block, "anchor", None)]
    assert anchors == ["unit-1", "unit-2"]


def test_a_table_of_other_prompts() -> None:
    report = REPORTS["other prompts"]
    rows = others(report)
    assert [row[3] for row in rows] == ["Graph", "Path 1"] * 2
    first, _, third, fourth = rows
    assert first[:6] == (
        *('"The memo [room 32"', "by position: the prompts differ in 1 of 4", '"]"'),
        *("Graph", "2", "+9.00"),
    )
    assert (third[4], fourth[8]) == ("2 of 5", "?") and len(first) == len(OTHERS_HEAD)
    told = printed(report)
    assert "in other prompts" in told and "2 of 5" in told
    assert all(len(line) <= 80 for line in told.splitlines())
    words = str(list(blocks(report)))
    assert "In other prompts" in words and "The note [room 32" in words
    assert "In other prompts" not in str(list(blocks(answer_report())))


def test_a_report_of_before_is_told_in_the_words_of_now() -> None:
    """Its numbers decide; the words that it holds are of another version."""
    data = to_json(answer_report())
    for unit in data["units"]:
        unit["outcome"]["words"] = "Necessary: without its 2 features it falls."
    old = from_json(json.loads(json.dumps(data)))
    page = report_files(old)["validation.html"].decode()
    assert "✓ Necessary: ablating its 2 features together" in page and "it falls." not in page
    assert "✓ Path mediates: 75 %" in old._repr_html_()
    assert all(found.words.startswith("✓ Necessary: ablating") for found in findings_of(old))
