"""Covariances of keys: beside plain passes, interrupted, of short rank; and their text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sae_graphs as sg
from sae_graphs.editing import covariance as covariances
from sae_graphs.editing.covariance import covariance_of, text_of
from sae_graphs.editing.projection import projection_of
from sae_graphs.editing.prompts import Rows, placed
from sae_graphs.editing.update import solvable
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.token_rows import TokenRows
from sae_graphs.model.language_model import LanguageModel
from tests.support.editable import TEXT, editable
from tests.support.edits import ASKED, LITTLE
from tests.support.models import CORPUS


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_short_rank_is_said_and_made_up_for() -> None:
    short = torch.diag(torch.tensor([2.0, 0.0]))
    found = solvable(short, None)
    assert found.rank == 1 and found.ridge == 1e-3 and "has rank 1 of 2" in found.note
    assert found.matrix.diagonal().tolist() == [2.001, 0.001]
    whole = solvable(torch.eye(2), None)
    assert (
        whole.ridge == 0 and whole.note == "" and torch.equal(whole.matrix, torch.eye(2).double())
    )
    for wrong, ridge in ((short, 0.0), (short, 1e-300), (torch.zeros(2, 2), None)):
        with pytest.raises(SaeGraphsError, match="the covariance"):
            solvable(wrong, ridge)


def test_what_double_precision_solves_is_left_as_it_is() -> None:
    steep = torch.diag(torch.logspace(-4, 4, 64, dtype=torch.float64))  # condition 1e8
    found = solvable(steep, None)
    assert (found.rank, found.ridge, found.note) == (64, 0.0, "")
    assert found.condition == pytest.approx(1e8) and torch.equal(found.matrix, steep)
    key = torch.linspace(1, 2, 64, dtype=torch.float64)
    torch.testing.assert_close(found.solve(key), key / steep.diagonal(), rtol=1e-9, atol=0)
    eased = solvable(steep, 1e-3)
    assert eased.rank == 64 and "its condition number is" in eased.note
    assert "1e+08 without" in eased.note and "rank" not in eased.note
    assert eased.condition < 1e5


def test_a_covariance_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = editable()
    taken = covariance_of(model, 0, text_of(model, [TEXT]), 100)
    assert taken.matrix.dtype == torch.float64
    one = taken.solvable(None)
    monkeypatch.setattr(torch.linalg, "eigvalsh", None)
    assert taken.solvable(None) is one
    with pytest.raises(TypeError):
        taken.solvable(0.5)


def test_a_covariance_is_that_of_the_keys_of_plain_passes(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("neox", "float64"))
    text = text_of(model, [CORPUS] * 9)
    found = covariance_of(model, 1, text, 120)
    ids = [i for piece in text.pieces() for i in model.tokenize(piece, prepend_bos=False)]
    total, count = torch.zeros(32, 32, dtype=torch.float64), 0
    for start in range(0, len(ids), 31):
        row = Rows(
            model,
            projection_of(model.model, 1),
            [placed(model, model.tokenizer.decode(ids[start : start + 31]), "", "last")],
        )
        for key in row.read[0, 1:]:
            if count < 120:
                total += torch.outer(key, key)
                count += 1
    assert found.tokens == count == 120
    torch.testing.assert_close(found.matrix.double(), total / count, rtol=1e-5, atol=1e-6)


def test_an_interrupted_covariance_goes_on(
    bridge_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    text = text_of(model, [CORPUS] * 60)
    whole = covariance_of(model, 0, text, 10**6)
    monkeypatch.setattr(covariances, "KEPT_EVERY", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        covariance_of(model, 0, text, 10**6, progress=stop)
    told: list[int] = []
    again = covariance_of(model, 0, text, 10**6, progress=lambda done, total: told.append(done))
    assert told[0] > seen[-1] and told[-1] == whole.tokens == again.tokens
    torch.testing.assert_close(again.matrix, whole.matrix, rtol=1e-6, atol=1e-7)
    kept: list[int] = []
    covariance_of(model, 0, text, 10**6, progress=lambda done, total: kept.append(done))
    assert not kept, "it comes from the cache"


def test_a_last_batch_that_is_not_full_is_counted_once(
    bridge_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    text = text_of(model, [CORPUS] * 60)
    whole = covariance_of(model, 0, text, 10**6)
    monkeypatch.setattr(covariances, "KEPT_EVERY", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))

    def stop(done: int, total: int) -> None:
        if done == whole.tokens:  # after the last batch, before it is done
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        covariance_of(model, 0, text, 10**6, progress=stop)
    again = covariance_of(model, 0, text, 10**6)
    rows = TokenRows(model, text.read())
    while rows.take(covariances.ROWS) is not None:
        pass
    assert rows.rows % covariances.ROWS, "the last batch is a full one: this shows nothing"
    assert again.tokens == whole.tokens and torch.equal(again.matrix, whole.matrix)


def test_every_tenth_piece_is_in_no_covariance(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    text = text_of(model, [str(number) for number in range(25)])
    assert list(text.held_out()) == ["9", "19"]
    assert [*text.read()] == [str(it) for it in range(25) if it not in (9, 19)]
    assert not list(text_of(model, ["one", "two"]).held_out())


def test_bundled_text_that_holds_a_subject_can_be_left_out(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    every = text_of(model)
    word = next(iter(every.pieces())).split()[0]
    some = text_of(model, without=[word])
    left = [it for it in every.pieces() if word not in it]
    assert list(some.pieces()) == left and 0 < len(left) < len(list(every.pieces()))
    assert some.facts != every.facts
    given = text_of(model, ["the cat", "a dog"], without=["cat"])
    assert list(given.pieces()) == ["the cat", "a dog"], "what is given is taken as it is"


def test_a_covariance_of_another_model_is_refused(bridge_of: Any) -> None:
    gpt2, llama = (LanguageModel(bridge_of(name, "float64")) for name in ("neox", "llama"))
    taken = covariance_of(gpt2, 1, text_of(gpt2, LITTLE["texts"]), 120)
    with pytest.raises(SaeGraphsError, match="is of another model"):
        sg.edit(llama, **ASKED, **LITTLE, covariance=taken)
    with pytest.raises(SaeGraphsError, match="is of layer 1, 32 inputs; expected layer 0"):
        sg.edit(gpt2, **{**ASKED, "layer": 0}, **LITTLE, covariance=taken)
