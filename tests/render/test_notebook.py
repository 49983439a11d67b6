"""What a notebook shows of graphs, features, curves, reports and comparisons."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from sae_graphs.effects.agreement import Agreement, MethodComparison, PairComparison
from sae_graphs.errors import SaeGraphsError
from sae_graphs.render.notebook import Explorer
from sae_graphs.render.pictures import html as page_of
from tests.support import evidence
from tests.support.rich_graphs import HOSTILE, graph_of, hostile, resolved, two_edges


class Shown(HTMLParser):
    """The elements of a piece of HTML, their attributes, its text; everything is closed again."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


PLAIN_TAGS = {
    "div",
    "b",
    "code",
    "span",
    "a",
    "table",
    "caption",
    "tr",
    "th",
    "td",
    "ul",
    "li",
    "p",
}


def figures(**changes: object) -> Agreement:
    values: dict[str, object] = {
        "k": 8,
        "n_exact": 9,
        "n_estimated": 9,
        "rank_correlation": 0.5,
        "leaders_correlation": None,
        "overlap": 0.75,
        "wide_overlap": 0.5,
        "wrong_sign": 0.125,
        "unseen": 0.0,
        "unseen_effect": 0.0,
        "worst": (),
        "strongest_unseen": (),
        "seconds": 1.0,
        "verdict": "rough",
    }
    return Agreement(**{**values, **changes})  # type: ignore[arg-type]


def comparison() -> MethodComparison:
    pair = PairComparison("0", "1", 1.0, {"gradient": figures(rank_correlation=None)})
    overall = {"gradient": figures(verdict="not safe")}
    return MethodComparison("m", "s", ("a",), 0, {}, 10, (pair,), overall)


# -- a graph ---------------------------------------------------------------------------------------


def test_the_explorer_is_the_page_in_a_frame_of_its_own() -> None:
    graph = two_edges()
    shown = Shown(graph.explore(height=400)._repr_html_())
    assert shown.tags == ["iframe"]
    found = dict(shown.attributes)
    assert found["srcdoc"] == page_of(graph)
    assert "height:400px" in (found["style"] or "")
    assert "allow-same-origin" not in (found["sandbox"] or "")
    assert "characters" in repr(graph.explore())


def test_a_hostile_page_stays_in_its_frame() -> None:
    shown = Shown(hostile().explore()._repr_html_())
    assert shown.tags == ["iframe"] and shown.text == ""


@pytest.mark.parametrize("height", [0, 99, -1, 7.5, True, "720"])
def test_a_height_that_is_none(height: object) -> None:
    with pytest.raises(SaeGraphsError, match="expected whole pixels"):
        Explorer("", height)  # type: ignore[arg-type]


# -- its parts -------------------------------------------------------------------------------------


def test_a_feature_is_a_card() -> None:
    node = replace(two_edges()["0.1"], neuronpedia="https://www.neuronpedia.org/m/0-s/1")
    shown = Shown(node._repr_html_())
    assert shown.text.replace("\xa0", " ") == (
        "0.1 active 2.50, in Graph 1All rights reserved"
        "ablating lowers (nats): ␣) −3.2ablating raises (nats): ␣and +0.75"
    )
    assert ("href", "https://www.neuronpedia.org/m/0-s/1") in shown.attributes
    shades = [value for name, value in shown.attributes if name == "style"]
    assert shades == [
        "background:rgba(90, 169, 248, 1.00)",
        "background:rgba(90, 169, 248, 0.25)",
    ]


def test_an_output_token_is_a_line() -> None:
    lines = [Shown(n._repr_html_()).text for n in resolved().nodes if n.feature.is_output]
    assert "out.340@10 ␣Software logit 14.2" in lines


def test_hostile_features_run_nothing() -> None:
    for node in (*hostile().nodes, *resolved(hostile_text=True).nodes):
        bad = replace(node, neuronpedia="javascript:alert(1)")
        shown = Shown(bad._repr_html_())
        assert set(shown.tags) <= PLAIN_TAGS
        assert not [value for _, value in shown.attributes if value and "javascript" in value]
    assert "<script>" in HOSTILE[0]


def test_a_feature_of_which_nothing_is_known() -> None:
    graph = graph_of(
        ("0.1", "1.2", -8.0),
        contexts=(),
        promotes=(),
        suppresses=(),
        activations=(),
        activation=0.0,
    )
    assert Shown(graph["0.1"]._repr_html_()).text == "0.1 active 0, in Graph 1"


def test_a_report_is_a_table_and_its_verdicts() -> None:
    report = evidence.report(warnings=(HOSTILE[0],))
    shown = Shown(report._repr_html_())
    assert set(shown.tags) <= PLAIN_TAGS
    assert shown.tags.count("tr") == 1 + len(report.units)
    for unit in report.units:
        assert unit.name in shown.text
    assert "⚠ <script>" in shown.text


def test_odd_reports_show_themselves() -> None:
    for report in (
        evidence.report(units=(evidence.refused(),)),
        evidence.report(units=[evidence.bare_unit()], settings={}),
        evidence.with_contrast(),
    ):
        assert "Verdict" in Shown(report._repr_html_()).text


def test_a_comparison_is_a_table() -> None:
    shown = Shown(comparison()._repr_html_())
    assert shown.tags.count("tr") == 3
    assert "0 → 1gradient75%12%0%rough" in shown.text
    assert "allgradient0.5075%12%0%not safe" in shown.text


def test_a_curve_is_a_plot() -> None:
    curve = next(curve for unit in evidence.report().units for curve in unit.curves)
    assert curve._repr_svg_().startswith("<svg")
