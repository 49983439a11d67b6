"""Figures: same bytes, no image a page would refuse, any token as text, nothing clipped."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
from matplotlib.figure import Figure

from sae_graphs.errors import SaeGraphsError
from sae_graphs.render.document import plot
from sae_graphs.render.document.plot import written
from sae_graphs.tracing.difference import difference_of, roles
from sae_graphs.tracing.drawn import MEASURES, Measure, values
from sae_graphs.tracing.lines_plot import lines
from sae_graphs.tracing.plots import difference_maps, heat_maps, noise_levels, rows_drawn
from sae_graphs.tracing.reading import read
from sae_graphs.tracing.records import Trace
from tests.support.slow import first
from tests.support.traces import (
    HOSTILE,
    PLANTED,
    hostile,
    nothing,
    planted,
    planted_shares,
    trace_of,
)


def texts(figure: Figure) -> str:
    """What an SVG says, as a reader reads it."""
    root = ET.fromstring(written(figure, "svg"))
    return "\n".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))


def small() -> Trace:
    return trace_of(planted_shares(1, n_layers=3, sweeps=("state", "mlp")))


def levels() -> Figure:
    return noise_levels([planted(strength=size) for size in (0.1, 0.3)])


@pytest.mark.parametrize(
    "made",
    [
        lambda: heat_maps(small()),
        pytest.param(lambda: lines(planted(), reading=read(planted())), marks=pytest.mark.slow),
        pytest.param(levels, marks=pytest.mark.slow),
    ],
)
def test_the_same_trace_gives_the_same_bytes(
    made: Callable[[], Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time laid out by matplotlib itself, as it draws all parts once to place them."""
    figure = made()
    engine, svg = figure.get_layout_engine(), written(figure, "svg")
    assert engine is not None and figure.get_layout_engine() is engine
    monkeypatch.setattr(plot, "_laid_out", nullcontext)
    assert svg == written(made(), "svg")
    assert b"<image" not in svg, "a page's policy lets no image be loaded, not even one within it"
    ET.fromstring(svg)


@pytest.mark.slow
def test_every_kind_of_file() -> None:
    figure = heat_maps(hostile())
    assert written(figure, "png").startswith(b"\x89PNG")
    assert written(figure, "png") == written(figure, "png")
    assert written(figure, "pdf").startswith(b"%PDF") and b"CreationDate" not in written(
        figure, "pdf"
    )


def test_hostile_tokens_stay_text() -> None:
    told = texts(heat_maps(hostile()))
    for shown in ("␣$x_1$ *", "[bold␣red] *", "␣&amp;", "*`|", "\\u202e↵ *"):
        assert shown in told, shown
    assert "<script>" in told and len(HOSTILE) == 7


def test_stars_and_both_probabilities_are_told() -> None:
    told = texts(heat_maps(planted(n_layers=3, block=1)))
    assert "clean 88.1 %, corrupted 2." in told and "10 runs" in told
    assert told.count(" *\n") == 4
    assert "MLP, windows of 2 layers" in told and "State" in told


def test_letters_that_the_font_lacks_are_escaped_in_pictures_of_dots_alone() -> None:
    shares = planted_shares(1, n_layers=3, sweeps=("state",))
    figure = heat_maps(trace_of(shares, tokens=[*"abcd", "東", "e", "f"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdf = written(figure, "pdf")
    assert pdf.startswith(b"%PDF")
    assert "東 *" in texts(figure)


@pytest.mark.parametrize("measure", first(2, MEASURES))
def test_nothing_is_clipped(measure: Measure) -> None:
    shares = planted_shares()
    shares["state"][5, 3] = -0.5
    shares["state"][5, 4] = 1.4
    trace = trace_of(shares)
    drawn = values(trace, "state", measure)
    assert drawn.helps[5, 3] < 0 < drawn.helps[5, 4]
    mesh = heat_maps(trace, measure).axes[0].collections[0]
    low, high = mesh.get_clim()
    assert low <= drawn.mean.min() and drawn.mean.max() <= high


def test_worse_than_corrupted_has_a_hue_of_its_own() -> None:
    shares = planted_shares(sweeps=("state",))
    shares["state"][5, 3] = -1.0
    mesh = heat_maps(trace_of(shares, noise=0.0), "log-odds").axes[0].collections[0]
    mesh.update_scalarmappable()
    colours = np.asarray(mesh.get_facecolor()).reshape(7, 8, 4)
    helps, harms, neither = colours[4, 0], colours[5, 3], colours[0, 0]
    assert helps[2] > helps[0] + 0.1, "purple"
    assert harms[0] > harms[2] + 0.3, "orange"
    assert neither[:3].min() > 0.9, "pale"


def test_a_long_prompt_keeps_what_matters() -> None:
    shares = {"state": np.zeros((60, 4))}
    shares["state"][30, 2] = 0.8
    trace = trace_of(shares, tokens=[f" t{n}" for n in range(60)], subject=(7, 8))  # type: ignore[arg-type]
    rows = rows_drawn(trace)
    assert len(rows) == 40 and {7, 8, 30, 59} <= set(rows) and rows == sorted(rows)
    assert "20 tokens that restore least are not drawn" in texts(heat_maps(trace))


def test_five_sweeps_stand_below_each_other() -> None:
    figure = heat_maps(trace_of(planted_shares(3, sweeps=tuple(PLANTED))))
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert "State, MLPs severed" in titles and "State, attention severed" in titles


# -- two traces ------------------------------------------------------------------------------------


def test_alike_traces_are_alike_and_others_are_not() -> None:
    alike = difference_of(planted(seed=0), planted(seed=1))
    assert alike.aligned == "place" and (alike.similarity or 0) > 0.9 and (alike.p or 1) < 0.01
    assert np.abs(alike.change).max() < 0.3
    chance = [difference_of(nothing(n), nothing(n + 50)).p or 0 for n in range(3)]
    assert np.median(chance) > 0.05
    small = difference_of(*(trace_of(planted_shares(n, n_layers=3)) for n in (0, 1)))
    found = texts(difference_maps(small))
    assert "the first minus the second" in found and "rows aligned by place" in found


@pytest.mark.slow
def test_chance_is_alike_in_one_case_of_twenty() -> None:
    p = [difference_of(nothing(n), nothing(n + 500)).p or 0 for n in range(100)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)


def test_prompts_of_other_lengths_are_aligned_by_roles() -> None:
    longer = planted_shares(tokens=9, last=3)
    other = trace_of(longer, tokens=[f" {n}" for n in range(9)], subject=(2, 3))
    found = difference_of(planted(), other)
    assert found.aligned == "role"
    assert found.rows == (
        "before the subject",
        "subject, first",
        "subject, last",
        "right after it",
        "read",
    )
    last = found.rows.index("subject, last")
    assert found.left[last, 0] == pytest.approx(1, abs=0.1)
    assert found.right[last, 0] == pytest.approx(1, abs=0.1)
    assert roles(other)["further on"] == [5, 6, 7]
    with pytest.raises(SaeGraphsError, match="no layer in common"):
        difference_of(planted(), planted(n_layers=9))
    assert re.search("aligned by the tokens' roles", found.words)
