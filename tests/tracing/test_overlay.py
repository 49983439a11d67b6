"""A trace beside the answer graph of its prompt: which cells, what agrees, what is refused."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.render.document.plot import written
from sae_graphs.tracing.overlay import Overlay, overlay_of
from sae_graphs.tracing.overlay_plot import overlay_maps
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.report import trace_files
from tests.support.answer_graphs import answer_graph
from tests.support.graphs import example
from tests.support.traces import TOKENS, graph_beside, hostile, planted, planted_shares, trace_of

N_LAYERS = 8


def test_the_same_places_agree_and_others_do_not() -> None:
    trace, shares = planted(), planted_shares()["state"]
    found = overlay_of(trace, graph_beside(shares))
    assert found.measured is None and len(found.kept) == int((shares > 0).sum())
    assert (found.correlation or 0) > 0.6 and (found.p or 1) < 0.01
    assert found.inside == pytest.approx(1) and found.inside_cells < 0.3
    away = overlay_of(trace, graph_beside(np.roll(shares, 3, axis=0)))
    assert (away.correlation or 0) < 0.3 and (away.p or 0) > 0.05
    assert "rank correlation" in found.words and found.sentence.startswith("Of the graph's 8 ")


def test_the_cells_that_are_compared() -> None:
    found = overlay_of(planted(), graph_beside(planted_shares()["state"]))
    expected = np.ones((len(TOKENS), N_LAYERS), dtype=bool)
    expected[0] = False  # before the subject, and the first
    expected[5:, 0] = False  # beside the subject, where its embeddings are the clean ones
    np.testing.assert_array_equal(found.compared, expected)


def test_an_sae_after_a_block_stands_at_the_next_one() -> None:
    shares = planted_shares()["state"]
    found = overlay_of(planted(), graph_beside(shares, hook="post"))
    assert np.isnan(found.contributed[:, 0]).all()
    np.testing.assert_allclose(found.contributed[:, 1:], shares[:, :-1])
    assert not found.compared[:, 0].any()
    with pytest.raises(SaeGraphsError, match="no SAE of the graph stands at the input"):
        overlay_of(planted(), graph_beside(shares, hook="mid"))


def test_contributions_are_summed_whatever_their_sign() -> None:
    shares = planted_shares()["state"]
    shares[4, 0] = -2.0
    found = overlay_of(planted(), graph_beside(shares))
    assert found.contributed[4, 0] == 2.0
    assert min(each.contribution for each in found.kept) == -2.0


@pytest.mark.slow
def test_chance_agrees_in_one_case_of_twenty() -> None:
    p = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        smooth = np.cumsum(rng.standard_normal((len(TOKENS), N_LAYERS)), axis=1)
        trace = trace_of(
            {"state": rng.permutation(planted_shares()["state"])}, seed=seed, noise=0.5
        )
        p.append(overlay_of(trace, graph_beside(np.abs(smooth)), seed=seed).p or 0)
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "effects": (example, "one of effects"),
    "model": (lambda: graph_beside(np.ones((7, 8)), model="other"), 'of the model "other"'),
    "tokens": (lambda: answer_graph(model="made by hand"), "has other tokens"),
    "read": (lambda: graph_beside(np.ones((7, 8)), read_position=5), "is read at token 5"),
    "summed": (
        lambda: graph_beside(np.ones((7, 8)), settings={"select": "answer", "summed_at": "all"}),
        "summed over tokens",
    ),
    "none": (lambda: None, "is no graph"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    made, told = WRONG[name]
    with pytest.raises(SaeGraphsError, match=told) as raised:
        overlay_of(planted(), made())
    assert "\n" not in str(raised.value)


def test_another_answer_and_nothing_lost_are_refused() -> None:
    graph = graph_beside(planted_shares()["state"])
    with pytest.raises(SaeGraphsError, match="name the same target"):
        overlay_of(replace(planted(), target_ids=(8,)), graph)
    with pytest.raises(SaeGraphsError, match="takes nothing"):
        overlay_of(planted(clean=-9.0), graph)


# -- how it is shown -------------------------------------------------------------------------------


def wild() -> tuple[Trace, Overlay]:
    trace = hostile()
    return trace, overlay_of(trace, graph_beside(planted_shares(2, n_layers=4)["state"], of=trace))


@pytest.mark.slow
def test_the_figure_has_a_dot_in_each_cell_with_features() -> None:
    trace, overlay = wild()
    figure = overlay_maps(trace, overlay)
    dots = figure.axes[0].collections[-1]
    assert len(np.asarray(dots.get_offsets())) == len({(it.token, it.layer) for it in overlay.kept})
    svg = written(figure, "svg")
    assert b"<image" not in svg and b"<script>" not in svg
    told = "".join(ET.fromstring(svg).itertext())
    assert "rank correlation" in told and "sum of |contribution|" in told


@pytest.mark.slow
def test_the_page_has_it_where_there_is_a_graph() -> None:
    trace, overlay = wild()
    shown = trace_files(trace, ("md",), overlay=overlay)
    assert "## Beside the answer graph" in shown["trace.md"].decode()
    assert "](trace-graph.svg)" in shown["trace.md"].decode() and "trace-graph.svg" in shown
