"""Edits in force, undone, stacked, saved; and other weights than theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sae_graphs as sg
from sae_graphs.editing.applied import applied
from sae_graphs.editing.projection import projection_of
from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from tests.support.edits import ASKED, LITTLE, SAID


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_edits_are_stacked_and_undone_in_turn(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("llama", "float64"))
    weights = projection_of(model.model, 1).weights
    clean = weights.matrix.clone()
    one = sg.edit(model, **ASKED, **LITTLE)
    with one.applied(model):
        only = weights.matrix.clone()
        two = sg.edit(model, **{**ASKED, "subject": "dog"}, **LITTLE)  # on top of the first
        with two.applied(model):
            both = weights.matrix.clone()
        assert torch.equal(weights.matrix, only)
    np.testing.assert_allclose(both - only, np.outer(two.right, two.left), atol=1e-9)
    with pytest.raises(SaeGraphsError, match="made for other weights"), two.applied(model):
        raise AssertionError("a fact on top of another fits there alone")
    other = sg.edit(model, **{**ASKED, "subject": "dog"}, **LITTLE)
    with applied(model, one, other):
        added = np.outer(one.right, one.left) + np.outer(other.right, other.left)
        np.testing.assert_allclose(weights.matrix - clean, added, atol=1e-9)
    assert torch.equal(weights.matrix, clean)
    with pytest.raises(ZeroDivisionError), one.applied(model):
        raise ZeroDivisionError
    assert torch.equal(weights.matrix, clean)


def test_edits_left_in_another_order_are_told_and_undone(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("llama", "float64"))
    clean = projection_of(model.model, 1).weights.matrix.clone()
    edit = sg.edit(model, **ASKED, **LITTLE)
    one, two = edit.applied(model), edit.applied(model)
    one.__enter__()
    two.__enter__()
    with pytest.raises(SaeGraphsError, match="undone before those that were applied after"):
        one.__exit__(None, None, None)
    two.__exit__(None, None, None)
    assert torch.equal(projection_of(model.model, 1).weights.matrix, clean)
    with edit.applied(model):
        pass


def test_what_goes_wrong_inside_is_told_before_the_order(
    bridge_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel(bridge_of("llama", "float64"))
    weights = projection_of(model.model, 1).weights
    clean = weights.matrix.clone()
    edit = sg.edit(model, **ASKED, **LITTLE)
    inner = edit.applied(model)
    with pytest.raises(ZeroDivisionError), edit.applied(model):
        inner.__enter__()
        raise ZeroDivisionError
    inner.__exit__(None, None, None)
    assert torch.equal(weights.matrix, clean)

    def half(into: Any, matrix: torch.Tensor) -> None:
        into.tensors[0][:1] += 1
        raise MemoryError

    monkeypatch.setattr("sae_graphs.editing.applied.put", half)
    with pytest.raises(MemoryError), edit.applied(model):
        raise AssertionError("it is not in force")
    assert torch.equal(weights.matrix, clean)
    monkeypatch.undo()
    with edit.applied(model):  # no mark was left
        assert not torch.equal(weights.matrix, clean)


@pytest.mark.parametrize("vector", ["right", "left"])
def test_vectors_of_another_length_are_refused(bridge_of: Any, vector: str) -> None:
    model = LanguageModel(bridge_of("llama", "float64"))
    edit = sg.edit(model, **ASKED, **LITTLE)
    other: dict[str, Any] = {vector: np.ones(1)}  # which would be broadcast
    crafted = replace(edit, **other)
    with pytest.raises(SaeGraphsError, match="made for other weights"), crafted.applied(model):
        raise AssertionError


def test_a_file_gives_the_same_edit(bridge_of: Any, tmp_path: Path) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    edit = sg.edit(model, **ASKED, **LITTLE)
    file = edit.save(tmp_path)
    assert file.name == "edit.safetensors" and file.stat().st_size < 5000
    again = sg.Edit.load(tmp_path)
    np.testing.assert_array_equal(again.left, edit.left)
    np.testing.assert_array_equal(again.right, edit.right)
    for name in ("settings", "before", "after", "subject", "weights", "surprisal", "about"):
        assert getattr(again, name) == getattr(edit, name), name
    with edit.applied(model):
        expected = model.run(SAID).logits
    with again.applied(model):
        assert torch.equal(model.run(SAID).logits, expected)


def test_an_edit_of_other_weights_is_refused(bridge_of: Any, tmp_path: Path) -> None:
    edit = sg.edit(LanguageModel(bridge_of("gpt2", "float64")), **ASKED, **LITTLE)
    others = [LanguageModel(bridge_of("llama", "float64")), bridge_of("qwen3", "float64")]
    others.append(torch.nn.Linear(64, 16))
    for other in others:
        with pytest.raises(SaeGraphsError, match="made for other weights") as told:
            edit.applied(other).__enter__()
        assert "\n" not in str(told.value)
    with pytest.raises(SaeGraphsError, match="is no model"):
        edit.applied("gpt2").__enter__()
    file = edit.save(tmp_path)
    whole = file.read_bytes()
    (tmp_path / "none.safetensors").write_bytes(whole[:100])
    (tmp_path / "other.safetensors").write_bytes(
        whole.replace(b"sae_graphs.edit/1", b"sae_graphs.none/1")
    )
    (tmp_path / "lacks.safetensors").write_bytes(whole.replace(b"before", b"befire"))
    for name, line in (
        ("none", "is damaged"),
        ("other", "holds no edit"),
        ("lacks", "is damaged"),
        ("nowhere", "cannot read"),
    ):
        with pytest.raises(GraphFileError, match=line):
            sg.Edit.load(tmp_path / f"{name}.safetensors")
