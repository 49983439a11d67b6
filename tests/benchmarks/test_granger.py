"""The comparison of prediction and intervention: its sums beside the oracle's, curves, reasons."""

from __future__ import annotations

import doctest
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import granger_figure
from benchmarks.granger import (
    Compared,
    all_tests,
    correlations_of,
    effects_of,
    load,
    rates,
    strongest,
    weights_of,
    without_arrows,
)
from benchmarks.granger_figure import curve, drawn, reasons, table
from benchmarks.progress import write_text
from sae_graphs.editing.granger.read import Reader
from sae_graphs.editing.granger.records import GrangerTest, Pair, SeriesName
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.editing.granger.texts import token_ids
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.schema import plain
from sae_graphs.significance import adjusted
from tests.editing.granger.test_granger import TEXTS
from tests.support.oracle import Oracle


@pytest.fixture
def reader(tiny: InstrumentedModel) -> Reader:
    ids = token_ids(tiny, TEXTS[:9], length=16)
    return Reader(tiny, ids, GrangerSettings(max_lag=2, together=9))


@pytest.fixture
def active(reader: Reader) -> list[list[SeriesName]]:
    """Two features of each layer that are on."""
    return reader.most_active(2)


def test_effects_are_the_oracles_summed_over_texts(
    tiny: InstrumentedModel, reader: Reader, active: list[list[SeriesName]]
) -> None:
    panel = reader.panel([*itertools.chain.from_iterable(active)])
    sources, targets = ([it.index or 0 for it in names] for names in active[1:3])
    pairs = [*itertools.product(map(str, active[1]), map(str, active[2]))]
    found = effects_of(tiny, reader, panel, pairs)
    saes = [layer.sae for layer in tiny.stack.layers]
    signed, sizes, acts = np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2)
    for group in reader.groups:
        for ids in reader.tokens(group).tolist():
            oracle = Oracle(tiny.model, saes, ids)
            for read in range(1, len(ids)):
                each = oracle.effects(1, range(1, len(ids)), read)
                values = each[sources][:, targets].numpy()  # [sources, targets]
                signed, sizes = signed + values, sizes + np.abs(values)
            acts = acts + oracle.activations[2][1:, targets].sum(0).numpy()
    assert (sizes > 0).any()
    expected = [(signed[i, j] / acts[j], sizes[i, j] / acts[j]) for i in (0, 1) for j in (0, 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def test_sources_of_other_texts_have_no_arrow(
    reader: Reader, active: list[list[SeriesName]]
) -> None:
    panel = reader.panel([*itertools.chain.from_iterable(active)])
    ends = [*itertools.product(map(str, active[1]), map(str, active[2]))]
    found = without_arrows(panel, ends, GrangerSettings(permutations=19, together=9), 1)
    assert len(found) == 4 and all(0.05 <= p <= 1 for p, _ in found)
    told = rates([(0.05, 0.0001), (0.5, 0.02), (1.0, 0.5), (0.01, 0.9)])
    assert "at most 0.05 in 50.00%, 0.01 in 25.00%" in told
    assert "F alone at most 0.05 in 50.00%, 0.0001 in 25.00%" in told


def test_weights_and_correlations(
    tiny: InstrumentedModel, reader: Reader, active: list[list[SeriesName]]
) -> None:
    source, target = active[1][0], active[2][0]
    panel = reader.panel([source, target])
    pairs = [(str(source), str(target))]
    (cosine,) = weights_of(tiny, pairs)
    out = tiny.stack.layers[1].sae.W_dec[source.index].numpy()
    into = tiny.stack.layers[2].sae.W_enc[:, target.index].numpy()
    assert cosine == pytest.approx(out @ into / np.linalg.norm(out) / np.linalg.norm(into))
    one, other = (
        np.concatenate([(g[n] - g[n].mean(1)[:, None]).ravel() for g in panel.groups])
        for n in (0, 1)
    )
    (found,) = correlations_of(panel, pairs)
    assert found == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-9)


# -- what is told ----------------------------------------------------------------------------------


def pair(q: float | None, share: float) -> Pair:
    test = None if q is None else GrangerTest(1.0, share, 4.0, q, q, q, (0, 1), (share, 0.0))
    return Pair("a", "b", test, test, "" if test else "rarely on")


def compared(
    size: float,
    q: float | None,
    share: float = 0.1,
    drivers: float = 1.0,
    *,
    given: float = 0.25,
    later: float = 1.0,
    target: str = "b",
) -> Compared:
    """`given` and `later`: of the share, so much given the drivers, and without the same token."""
    one, two = pair(q, share), pair(q, later * share)
    three = pair(None if q is None else drivers, given * share)
    return Compared("a", target, -size, size, 0.1, share, one, two, share, one, three)


MANY = [
    compared(0.3, 0.001, 0.4),
    compared(0.1, 0.001, 0.3, target="c"),
    compared(0.001, 0.001, 0.2),
    compared(0.002, 0.001, 0.1, drivers=0.001, target="c"),
    compared(0.002, 0.001, 0.1, drivers=0.001, given=0.9, target="c"),
    compared(0.002, 0.001, 0.1, drivers=0.001, given=0.9, later=0.1),
    compared(0.2, 0.5, 0.01, drivers=0.01),
    compared(0.2, 0.5, 0.02, target="c"),
    compared(0.4, None),
    compared(0.001, 0.9, 0.001),
    compared(0.03, 0.001, 0.05),
]


def test_each_reason_is_told() -> None:
    counts = {name: len(those) for name, those in reasons(MANY)._asdict().items()}
    expected = {"right": 2, "shared": 2, "earlier": 1, "left": 1}
    assert counts == {**expected, "masked": 1, "unseen": 1, "rare": 1}
    told = "\n".join(table(MANY))
    assert "11 pairs, 10 tested" in told
    assert "verdict alone: 7 predict, of which 2 act: precision 29%, recall 50%" in told
    assert "of 2 that predict and act, 2 with the sign of the effect" in told


def test_curves() -> None:
    assert doctest.testmod(granger_figure).failed == 0
    truth = [True, False, True, False, False, True]
    scores = [0.9, 0.8, 0.7, 0.7, 0.2, 0.1]
    wins = [
        (a > b) + 0.5 * (a == b)
        for a, right in zip(scores, truth, strict=True)
        for b, wrong in zip(scores, truth, strict=True)
        if right and not wrong
    ]
    assert curve(scores, truth).auc == pytest.approx(np.mean(wins))


def test_no_pair_that_acts_is_no_area() -> None:
    """Nor an end of the table: where no effect reaches a fifth there is no curve to draw."""
    assert np.isnan(curve([2.0, 1.0], [False, False]).auc)
    weak = [it for it in MANY if it.size < 0.2]
    told = "\n".join(table(weak))
    assert "effects of 20% or more: 0" in told and "| nan |" not in told


def test_each_direction_is_a_family_of_its_own(
    reader: Reader, active: list[list[SeriesName]]
) -> None:
    """So q means the same of a test with others given, which is not made the other way."""
    panel = reader.panel([*active[1], *active[2]])
    pairs = [*itertools.product(map(str, active[1]), map(str, active[2]))]
    settings = GrangerSettings(permutations=19, least_on=1)
    both = all_tests(panel, pairs, settings, 1, None)
    for way in ("forward", "backward"):
        tests = [getattr(it, way) for it in both]
        there = [it for it in tests if it is not None]
        assert there and [it.q for it in there] == list(adjusted([it.p for it in there]))
    given = all_tests(panel, pairs, settings, 1, {ends: [] for ends in pairs})
    assert [it.forward for it in given] == [it.forward for it in both]
    assert all(it.backward is None for it in given)


def test_the_others_of_a_target_that_are_given() -> None:
    values = {(source, "t"): float(size) for size, source in enumerate("abcde")}
    assert strongest(values)["e", "t"] == ["d", "c", "b"]
    assert strongest(values)["a", "t"] == ["e", "d", "c"]


@pytest.mark.slow
def test_pairs_there_and_back_and_their_figure(tmp_path: Path) -> None:
    write_text(tmp_path / "granger.json", json.dumps({"pairs": [*map(plain, MANY)]}))
    assert load(tmp_path / "granger.json") == MANY
    picture = drawn([*MANY, replace(MANY[0], effect=0.3)])
    assert picture.startswith(b"\x89PNG")
