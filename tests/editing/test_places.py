"""Where facts are written best: maps worked out by hand, permutation nulls, the sweep itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

import sae_graphs as sg
from sae_graphs.editing.cases_file import FactCase
from sae_graphs.editing.covariance import covariance_of, text_of
from sae_graphs.editing.hearing import hear, questions_of
from sae_graphs.editing.many import LeftOut
from sae_graphs.editing.places import (
    FILE_NAME,
    SHUFFLES,
    Everywhere,
    Places,
    _ways,
    load,
    over_facts,
    over_places,
    rows_of,
    sentences,
)
from sae_graphs.editing.places_report import places_files
from sae_graphs.editing.scores import measured
from sae_graphs.editing.settings import TOKENS, EditSettings
from sae_graphs.editing.where import Sweep
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.schema import record_bytes
from tests.support.models import CORPUS

LAYERS = 5


def places_of(measures: np.ndarray[Any, Any], restored: np.ndarray[Any, Any]) -> Places:
    """Facts with this one number `[N, P, L]` for every measure, and for every sweep."""
    names = ("ES", "PS", "NS", "EM", "PM", "NM")
    placed = tuple(
        Everywhere(
            number,
            f"fact {number}",
            {name: rows_of(one.tolist()) for name in names},
            {name: rows_of(other.tolist()) for name in ("state", "mlp")},
        )
        for number, (one, other) in enumerate(zip(measures, restored, strict=True))
    )
    return Places("tiny", "mine.jsonl", LAYERS, placed)


def test_a_map_that_follows_the_trace_is_told_from_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    shape = (6, len(TOKENS), LAYERS)
    ramp = np.linspace(0.1, 0.9, len(TOKENS) * LAYERS).reshape(shape[1:])
    edited = ramp + 0.01 * rng.random(shape)
    follows = over_places(places_of(edited, 2 * edited), "mlp")
    assert follows.rank == pytest.approx(1.0) and follows.p == pytest.approx(1 / 120)  # 4! x 5
    other = over_places(places_of(edited, rng.random(shape)), "mlp")
    assert other.p is not None and other.p > 0.05
    assert over_places(places_of(edited, np.ones(shape)), "state").rank is None


def test_facts_are_told_apart_by_their_own_traces() -> None:
    rng = np.random.default_rng(1)
    size = rng.random((12, 1, 1)) * np.ones((12, len(TOKENS), LAYERS))
    own = over_facts(places_of(size, size + 0.01 * rng.random(size.shape)), "state")
    assert own.rank is not None and own.rank > 0.9 and own.p is not None and own.p < 0.01
    none = over_facts(places_of(size, rng.random((12, 1, 1)) * np.ones_like(size)), "state")
    assert none.p is not None and none.p > 0.05
    cells = (size + 0.3 * rng.random(size.shape), size + 0.3 * rng.random(size.shape))
    one, other = (it.reshape(12, -1).T for it in cells)
    alone = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    found = over_facts(places_of(*cells), "mlp")
    assert found.rank == pytest.approx(np.mean(alone)) and found.p == 1 / 2001
    assert over_facts(places_of(size[:2], size[:2]), "state").rank is None
    assert over_facts(places_of(size, np.ones_like(size)), "state").rank is None


def test_many_layers_are_turned_in_all_orders_of_the_rows() -> None:
    few, many = _ways(LAYERS, 0), _ways(200, 0)
    assert len(few) == 24 * LAYERS - 1 and len(many) == len(set(many)) == SHUFFLES
    assert len({order for order, _ in many}) == 24  # not those alone that come first
    assert many == _ways(200, 0) != _ways(200, 1)
    assert ((0, 1, 2, 3), 0) not in few + many


def test_a_case_without_what_s_is_made_of_is_left_out(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    sweep = Sweep(model, EditSettings(), text_of(model, [CORPUS]), {})
    lacking: list[dict[str, Any]] = [{"paraphrases": ("a cat",)}, {"neighbours": ("a dog",)}]
    for lacks in lacking:
        with pytest.raises(SaeGraphsError, match="no S without paraphrases and neighbours"):
            sweep(FactCase(1, "cat", "the {} sat on", " mat", " red", **lacks))


def test_the_best_place_is_named_and_drawn(tmp_path: Path) -> None:
    measures = np.full((3, len(TOKENS), LAYERS), 0.5)
    measures[:, 1, 2] = 0.9
    rng = np.random.default_rng(2)
    places = places_of(measures, rng.random(measures.shape))
    assert places.best == ("subject-last", 2) and places.s[1, 2] == pytest.approx(0.9)
    assert sentences(places)[0] == "S is largest at the subject last token in layer 2: 0.900."
    places = Places(**{**vars(places), "left_out": (LeftOut(9, "<i>odd</i>\x1b", "it is odd"),)})
    files = places_files(places, ("svg", "html", "md"))
    assert set(files) == {"places.svg", "places.html", "places.md"}
    page = files["places.html"].decode()
    assert "<i>odd" not in page and "0.900" in page and "rank correlation with S" in page
    assert "(one-sided p 0." in page and "\x1b" not in page and "\\x1b" in page
    (tmp_path / FILE_NAME).write_bytes(record_bytes(places))
    assert load(tmp_path) == places


def test_a_sweep_is_the_edits_one_by_one(
    bridge_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = LanguageModel(bridge_of("gpt2", "float64"))
    case = FactCase(1, "cat", "the {} sat on", " mat", " red", ("and the cat sat",), ("the dog",))
    settings = EditSettings(prefixes=0, steps=2, tokens=120, stop=0.0, rate=1.0)
    text = text_of(model, [CORPUS] * 9)
    covariances = {layer: covariance_of(model, layer, text, 120) for layer in range(3)}
    found = Sweep(model, settings, text, covariances, strength="20s")(case)
    assert np.array(found.measures["EM"]).shape == (len(TOKENS), 3)
    edit = sg.edit(
        model,
        subject="cat",
        prompt=case.prompt,
        target=" mat",
        texts=[CORPUS] * 9,
        settings=replace(settings, layer=2, token="last"),
    )
    asked = questions_of(model, case)
    before = hear(model, asked, []).heard
    with edit.applied(model):
        after = hear(model, asked, []).heard
    expected = measured(before, after)
    cells = np.array(found.measures["EM"])
    assert len(np.unique(cells.round(9))) >= 8  # first and last token of one subject are the same
    np.testing.assert_array_equal(cells[0], cells[1])
    for name in ("ES", "EM", "PM", "NM"):
        assert found.measures[name][3][2] == pytest.approx(expected[name]), name
    trace = sg.trace(
        model, case.asked, subject="cat", target=" red", noise_runs=6, window=1, strength="20s"
    )
    lost = trace.clean.log_odds - np.mean([it.log_odds for it in trace.corrupted])
    cells = trace.sweep("mlp").log_odds.mean(0) - np.mean([it.log_odds for it in trace.corrupted])
    at = [*trace.subject] * 2 + [trace.subject[-1] + 1, trace.read]
    np.testing.assert_allclose(found.restored["mlp"], cells[at] / lost, rtol=1e-6, atol=1e-9)
