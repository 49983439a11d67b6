"""Plots and the marked picture: they draw what was found, the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.render import pictures as render
from sae_graphs.render.document.blocks import Table, unfolded
from sae_graphs.validation.report.content import blocks
from sae_graphs.validation.report.files import report_files
from sae_graphs.validation.report.marks import marks_of
from sae_graphs.validation.report.plots import curve_plot, keep_only_plot, noise_plot
from sae_graphs.validation.report.strips import strip_of
from tests.support import evidence
from tests.support.graphs import example
from tests.support.report_page import page_of


def test_strips_hold_every_control_of_the_record() -> None:
    unit = evidence.unit()
    strip = strip_of(unit, evidence.report(units=(unit,)))
    assert strip.own == pytest.approx(71.9, abs=0.1)
    assert strip.axis == 'contribution to ")", percentage points'
    for row, null in zip(strip.rows, unit.of_discovery.nulls, strict=True):
        assert row.values == pytest.approx([-100 * change for change in null.changes])
    assert strip.rows[0].note == "0 of 19 as much, q = 0.050"
    assert strip.rows[0].needed == pytest.approx(max(map(abs, strip.rows[0].values)))
    assert strip_of(evidence.refused(), evidence.report()).rows == ()


def test_a_strip_over_prompts_shows_the_mean_and_all_controls() -> None:
    results = [
        evidence.result(role="test", prompt=prompt, change=change)
        for prompt, change in (("a", -0.5), ("b", 0.25))
    ]
    unit = evidence.unit(results=tuple(results), tested=None)
    strip = strip_of(unit, evidence.report(units=(unit,)))
    assert strip.own == 12.5 and len(strip.rows[0].values) == 2 * 19
    assert "in each of 2 prompts" in strip.rows[0].note and strip.rows[0].needed is None


@pytest.mark.slow
def test_plots_are_the_same_every_time(tmp_path: Path) -> None:
    code = (
        "import hashlib\nfrom tests.support import evidence\n"
        "from tests.support.graphs import example\n"
        "from sae_graphs.validation.report.files import report_files\n"
        "files = report_files(evidence.report(), example())\n"
        "print(hashlib.sha256(b''.join(files[name] for name in sorted(files))).hexdigest())"
    )
    settings_file = tmp_path / "matplotlibrc"
    settings_file.write_text("font.size: 30\nsvg.fonttype: path\n")
    odd = {"MATPLOTLIBRC": str(settings_file), "PYTHONHASHSEED": "7"}
    found = set()
    for extra in ({"PYTHONHASHSEED": "1"}, odd):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **extra},
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_plots_leave_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    curve_plot(evidence.curve(), 63.0)
    keep_only_plot(evidence.keep_only())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_a_wide_curve_takes_its_clean_point_from_the_narrow_one() -> None:
    """A clean point is never made up: between the wide steps the response may be anything."""
    narrow = evidence.curve()
    wide = evidence.curve(coefficients=(-4.0, 0.0, 4.0), responses=(0.0, 1.0, 2.0))
    for curves, tangents in (((narrow, wide), 2), ((wide,), 0)):
        report = evidence.report(units=(evidence.unit(curves=curves),), curves=())
        plots = [data for name, data in report_files(report).items() if "curve" in name]
        assert sum(b"tangent" in data for data in plots) == tangents


@pytest.mark.slow
def test_long_lists_are_cut_and_say_so() -> None:
    many = tuple(FeatureId("0", index) for index in range(40))
    found = replace(
        evidence.mediation(),
        joint=-4.0,
        without={name: -4.0 + (name.index % 20) / 10 for name in many},
        singles=dict.fromkeys(many, 0.0),
    )
    text = page_of(evidence.report(units=(evidence.unit(mediation=found, curves=()),))).text
    assert "the 16 that matter most of 40 features, all are in validation.json" in text
    report = evidence.report(units=(evidence.unit(mediation=found, curves=()),))
    tables = [part for part in unfolded(blocks(report)) if isinstance(part, Table)]
    rows = next(each.rows for each in tables if each.caption.startswith("Minimality"))
    shares = [float(row[3].text.split()[0].replace("−", "-")) for row in rows]
    assert shares == sorted(shares, key=abs, reverse=True)


@pytest.mark.filterwarnings("error")
def test_text_in_any_script_is_drawn_without_complaint() -> None:
    assert "中文 😀" in curve_plot(evidence.curve(cause="中文 😀"), 63.0)


def test_noise_without_snippets_is_not_drawn() -> None:
    assert noise_plot(()) is None


# -- marks on the picture --------------------------------------------------------------------------


def test_marks_follow_the_verdicts() -> None:
    marks = marks_of(evidence.report())
    assert marks.components[1].supported
    assert (
        marks.components[2].words
        == "not distinguishable from controls, p = 0.900, 0.2 × their median"
    )
    assert not marks.components[2].supported
    assert marks.features == frozenset(evidence.features())
    assert marks.edges == {(FeatureId.parse("0.1"), FeatureId.parse("1.1"))}  # 50 %; then -25 %
    assert marks.subtitle == ()


def test_features_that_undo_nothing_are_not_ticked() -> None:
    """Of the joint change of −3.178 nats 0.1 undoes 9 %, 1.1 69 %, 2.10600 none, 3.5 94 %."""
    marks = marks_of(evidence.report(units=(evidence.unit(),)))
    assert marks.features == frozenset(evidence.features("1.1", "3.5"))
    unsupported = evidence.unit(tested=evidence.tested(p=0.9, q=0.9))
    marks = marks_of(evidence.report(units=(unsupported,)))
    assert not marks.features and not marks.edges
    assert marks.caption.endswith("so nothing is ticked.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edges", "told"), [(True, "✓ on an arrow: path patching measured"), (False, "No arrow is")]
)
def test_the_caption_says_what_ticks_mean(edges: bool, told: str) -> None:
    found = evidence.mediation()
    unit = evidence.unit(mediation=found if edges else replace(found, edges=()))
    report = evidence.report(units=(unit,))
    files = report_files(report, example())
    for name in ("validation.html", "validation.md"):
        text = files[name].decode()
        assert "part of a component or path that was tested and matters" in text and told in text


@pytest.mark.slow
def test_a_graph_of_several_prompts_names_them_in_its_picture() -> None:
    report = evidence.report(discovery=("Copyright (C", "[bold] <b> (B"))
    pictures, _ = render.marked_pictures(example(), marks_of(report))
    picture = pictures["svg"].decode().replace("\u00a0", " ").replace("&#160;", " ")
    assert "found on 2 prompts:" in picture and "&lt;b&gt;" in picture
    assert 'The graph was found on 2 prompts: "Copyright (C", "[bold] <b> (B".' in (
        page_of(report).text
    )


def test_the_marked_picture_says_what_is_supported() -> None:
    graph = example()
    pictures, inline = render.marked_pictures(graph, marks_of(evidence.report()))
    picture, inline = (svg.replace("\u00a0", " ") for svg in (pictures["svg"].decode(), inline))
    assert picture.count("✓ supported: its features matter, p = 0.050") == 1
    assert "not distinguishable from controls, p = 0.900, 0.2 × their median" in picture
    assert "thick frame: tested; ablated together, its features matter" in picture
    assert "How to read it" not in inline and "✓ supported" in inline
    for number in ("✓ −4.00", " −2.00", " −1.50", " +1.00"):
        assert f"{number} <" in picture


def test_a_picture_without_marks_is_as_before() -> None:
    graph = example()
    assert render.dot(graph) == render.dot(graph, marks=render.Marks({}))
    assert "✓" not in render.svg(graph)
