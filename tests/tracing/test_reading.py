"""Sites and handovers: planted ones are found as they are, chance alone is taken for none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import signed_differences
from sae_graphs.tracing.handover import handover_of, last_rise, layers_of
from sae_graphs.tracing.reading import Site, differences, loss, means, read, restored_runs
from tests.support.slow import slow
from tests.support.traces import (
    CLEAN,
    CORRUPTED,
    PLANTED,
    nothing,
    planted,
    planted_shares,
    trace_of,
)


def found(site: Site) -> tuple[str, tuple[int, int], tuple[int, int], str]:
    return site.sweep, site.tokens, site.layers, site.role


@pytest.mark.parametrize("seed", [*range(5), *map(slow, range(5, 100))])
def test_planted_sites_are_found_exactly(seed: int) -> None:
    block = seed % 5 + 1
    reading = read(planted(block, seed=seed))
    expected = {
        ("state", (4, 4), (0, block), "subject"),
        ("state", (6, 6), (block + 1, 7), "read"),
        ("attention", (6, 6), (block, block + 1), "read"),
    }
    expected |= {("mlp", (4, 4), (1, block - 1), "subject")} if block > 1 else set()
    assert {found(site) for site in reading.sites} == expected
    assert reading.handover is not None and reading.handover.block == block
    low, high = reading.handover.interval("crosses") or (0.0, 0.0)
    assert block <= low <= reading.handover.crosses <= high < block + 1
    assert not any(site.is_harmful for site in reading.sites)
    assert reading.problem is None and reading.lost == pytest.approx(6.0, abs=0.6)


def test_intervals_hold_for_all_sites_at_once() -> None:
    covered = []
    for seed in range(8):
        trace = planted(seed=seed)
        sites = read(trace).sites
        real = [PLANTED[site.sweep] * (CLEAN - CORRUPTED) for site in sites]
        covered.append(all(s.low < it < s.high for s, it in zip(sites, real, strict=True)))
    assert np.mean(covered) >= 0.75


def claims(seeds: range, **others: float) -> float:
    readings = [read(nothing(seed, **others)) for seed in seeds]  # type: ignore[arg-type]
    assert not any(reading.handover for reading in readings)
    return float(np.mean([bool(reading.sites) for reading in readings]))


def test_chance_is_taken_for_no_site() -> None:
    assert claims(range(12), noise=3.0) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("runs", [6, 10, 20])
def test_one_trace_in_twenty_at_most_has_a_site_by_chance(runs: int) -> None:
    assert claims(range(400), noise=3.0, runs=runs) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_a_site_that_harms_is_told_apart() -> None:
    shares = planted_shares()
    shares["mlp"][:] = 0.0
    shares["mlp"][5, 2:4] = -0.5
    (harmful,) = [site for site in read(trace_of(shares)).sites if site.is_harmful]
    assert found(harmful) == ("mlp", (5, 5), (2, 3), "other")
    assert harmful.share == pytest.approx(-0.5, abs=0.1)


def test_touching_tokens_are_one_site() -> None:
    shares = {"state": np.zeros((7, 8))}
    shares["state"][3:5, 2:4] = 1.0
    shares["state"][1, 6] = 1.0
    sites = read(trace_of(shares)).sites  # type: ignore[arg-type]
    assert {(site.tokens, site.layers) for site in sites} == {((3, 4), (2, 3)), ((1, 1), (6, 6))}


def test_without_runs_nothing_is_claimed_and_it_says_so() -> None:
    for runs, told in ((1, "one run of the corruption"), (5, "5 runs of the corruption")):
        reading = read(planted(runs=runs))
        assert reading.sites == () and told in (reading.problem or "")
    assert read(planted(runs=6)).sites


def test_a_corruption_that_helps_leaves_nothing_to_restore() -> None:
    trace = planted(clean=-9.0)
    assert "nothing to restore" in (read(trace).problem or "")
    with pytest.raises(SaeGraphsError, match="nothing can be restored"):
        restored_runs(trace, "state")


def test_numbers_over_runs() -> None:
    trace = planted(noise=0.0)
    for measure in ("log_odds", "probability", "kl"):
        found = means(trace, "state", measure)
        assert found.restored[0] == pytest.approx(np.zeros(8), abs=1e-9)
        assert found.mean.shape == (7, 8) and found.error is not None
        assert found.error[4, 0] > 0  # what is planted adds to runs that differ
    assert means(planted(runs=1), "state").error is None
    assert differences(trace, "state")[:, 4, 0] == pytest.approx(np.full(10, 6.0))
    assert loss(trace) == pytest.approx(CLEAN - np.mean([s.log_odds for s in trace.corrupted]))
    with pytest.raises(SaeGraphsError, match="no sweep"):
        means(planted(), "no such")


# -- handover --------------------------------------------------------------------------------------


def test_layers_of_curves_by_hand() -> None:
    subject = np.array([[1.0, 1.0, 0.6, 0.2, 0.0]])
    reader = np.array([[0.0, 0.0, 0.2, 0.8, 1.0]])
    leaves, crosses, enters, starts, ends = layers_of(subject, reader)[0]
    assert leaves == pytest.approx(2.25)  # 0.6 to 0.2 passes 0.5 after a quarter
    assert crosses == pytest.approx(2.4)  # -0.4 to 0.6
    assert enters == pytest.approx(2.5)  # 0.2 to 0.8 passes 0.5 halfway
    assert (starts, ends) == pytest.approx((2 + 0.05 / 0.6, 2 + 0.55 / 0.6))
    assert np.isnan(last_rise(np.array([[1.0, -1.0]]))).all()
    assert np.isnan(layers_of(reader, subject)[0]).any()


def test_an_interval_covers_what_varies() -> None:
    rng = np.random.default_rng(0)
    layers = np.arange(12)
    middles = 6 + rng.standard_normal(30)
    reader = 1 / (1 + np.exp(-2 * (layers - middles[:, None])))
    found = handover_of(1 - reader, reader, seed=0)
    assert found is not None
    low, high = found.interval("crosses") or (0.0, 0.0)
    assert low < middles.mean() < high and high - low < 1.5
    assert handover_of(reader, 1 - reader, seed=0) is None
    single = handover_of(1 - reader[:1], reader[:1], seed=0)
    assert single is not None and single.intervals == (None,) * 5


def test_a_crossing_is_told_where_a_row_begins_high() -> None:
    """The read token has three tenths of its best from the start: it never rises to a quarter."""
    reader = np.array([[0.3, 0.3, 0.4, 0.9, 1.0]] * 4)
    found = handover_of(1 - reader, reader, seed=0)
    assert found is not None and found.starts is None and found.interval("starts") is None
    assert found.crosses == pytest.approx(2.2) and found.ends is not None


def test_neighbours_keep_their_roles() -> None:
    """The subject's last token and the read one stand side by side, and hold the same layer."""
    trace = planted()
    sweep = trace.sweep("state")
    moved = {name: getattr(sweep, name).copy() for name in ("log_odds", "probability", "kl")}
    for cells in moved.values():
        cells[:, 5] = cells[:, 4]  # beside the read token 6
        cells[:, 6, 2] = cells[:, 4, 2]
        cells[:, 4] = cells[:, 0]
    beside = replace(trace, subject=(5,), sweeps=(replace(sweep, **moved),))
    roles = {site.role: site.tokens for site in read(beside).sites}
    assert roles["subject"] == (5, 5) and roles["read"] == (6, 6)


# -- many cells at once ----------------------------------------------------------------------------


def test_fewer_than_six_runs_have_no_rare_pattern() -> None:
    values = np.ones((5, 3)) + 0.01 * np.arange(15).reshape(5, 3)
    assert signed_differences(values, seed=0).critical == np.inf
    six = signed_differences(np.vstack([values, values[:1]]), seed=0)
    assert (six.t > six.critical).all()


def test_cells_that_never_move_have_no_t() -> None:
    values = np.zeros((8, 2))
    values[:, 1] = 1.0
    found = signed_differences(values, seed=0)
    assert found.t[0] == 0 and found.t[1] > found.critical


def test_many_runs_are_turned_at_random_but_seeded() -> None:
    values = np.random.default_rng(0).standard_normal((20, 50))
    one, two = (signed_differences(values, seed=3) for _ in range(2))
    assert one.critical == two.critical and 2.5 < one.critical < 5
