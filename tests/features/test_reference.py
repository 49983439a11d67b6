"""Reference means and densities: by hand, kept, refused where others', put in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import batches as row_batches
from sae_graphs.features import reference
from sae_graphs.features.reference import (
    DENSE,
    Reference,
    Tally,
    mean_intervention,
    references_of,
)
from sae_graphs.features.token_rows import batches_of_text
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, mean_where_active
from tests.support.effect_graphs import effect_graph
from tests.support.linear_model import linear_model
from tests.support.loaded import TEXTS, files_of, same
from tests.support.models import CORPUS, N_FEATURES, PROMPT
from tests.support.slow import first
from tests.support.stacks import one_line


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# -- what they are ---------------------------------------------------------------------------------


def test_by_hand() -> None:
    """`^ab` as in `tests/effects/test_analytic.py`; the last stream at a is (-8, 3, 33)."""
    found = references_of(linear_model(), texts=["ab"])
    assert [it.mean.tolist() for it in found] == [[1.5, 1.5, 1.5], [1.5, 4.5, 3], [2.5, 3, 18]]
    assert [it.density.tolist() for it in found] == [[1, 1, 0.5], [1, 1, 0.5], [0.5, 1, 1]]
    assert [it.tokens for it in found] == [2, 2, 2]
    assert found[0].dense.tolist() == [True, True, True]


def test_effects_by_hand() -> None:
    """At b: 0.0 from 2 to 1.5 makes y (1.5, 4, 0.5); 0.1 from 1 to 1.5 makes y1 5.5; 0.2 from 3
    to 1.5 leaves y2 below 0, and at a, where it is silent, it stays so."""
    model = linear_model()
    mean = mean_intervention(model, references_of(model, texts=["ab"]))
    graph = effect_graph(model, "ab", intervention=mean, top_k=100, min_path_edges=1)
    first = {(str(e.source), str(e.target)): e.effect for e in graph.edges if e.source.layer == "0"}
    assert first == {
        ("0.0", "1.0"): -0.5,
        ("0.0", "1.1"): -1.0,
        ("0.0", "1.2"): 0.5,
        ("0.1", "1.1"): 0.5,
    }


def test_equal_brute_force(model: InstrumentedModel) -> None:
    rows = torch.cat(list(batches_of_text(model, TEXTS)))
    for depth, found in enumerate(references_of(model, texts=TEXTS)):
        layer = model.stack.layers[depth]
        acts = torch.cat([layer.encode(model.streams_of(row[None])[depth][0, 1:]) for row in rows])
        assert torch.allclose(found.mean, acts.mean(0), atol=1e-5)
        assert found.density == pytest.approx((acts != 0).float().mean(0))
        assert found.tokens == len(acts) == rows[:, 1:].numel()
        assert found.dense.tolist() == [bool(share >= DENSE) for share in found.density]


def test_batches_change_no_bit(model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batches, "ROWS_TOGETHER", 2)
    whole = references_of(model, texts=TEXTS)
    monkeypatch.setattr(row_batches, "MOST_ROWS", 2)
    assert same(whole, references_of(model, texts=TEXTS))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_how_a_tally_is_cut_changes_no_bit(sizes: list[int], seed: int) -> None:
    acts = torch.randn(sum(sizes), 6, 5, generator=torch.Generator().manual_seed(seed)).relu()
    whole, parts = Tally.empty(5), Tally.empty(5)
    whole.add(acts)
    for part in acts.split(sizes):
        parts.add(part)
    assert torch.equal(whole.sums, parts.sums)
    assert torch.equal(whole.times_active, parts.times_active)


def test_what_is_not_finite_is_an_error() -> None:
    tally = Tally.empty(2)
    tally.add(torch.tensor([[[0.0, 1.0], [float("nan"), 0.0]]]))
    with pytest.raises(SaeGraphsError, match="not finite; check"):
        tally.reference(2, "", "")


@pytest.mark.parametrize(
    ("mean", "density", "tokens"),
    [
        (torch.zeros(3), torch.zeros(2), 1),
        (torch.zeros(2).double(), torch.zeros(2).double(), 1),
        (torch.tensor([0.0, float("inf")]), torch.zeros(2), 1),
        (torch.zeros(2), torch.tensor([0.0, 1.5]), 1),
        (torch.zeros(2), torch.zeros(2), 0),
    ],
)
def test_what_is_no_reference(mean: torch.Tensor, density: torch.Tensor, tokens: int) -> None:
    with pytest.raises(ValueError, match=r"float32|finite|between"):
        Reference(mean, density, tokens, "", "")


# -- in an activation's place ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_only_what_is_active_is_moved(dtype: torch.dtype) -> None:
    (layer, *_) = linear_model().stack.layers
    kind = mean_where_active({layer.point: torch.tensor([4.0, -5.0, 6.0])}, "mean")
    acts = torch.tensor([[1.0, 0.0], [0.0, -2.0]], dtype=dtype)  # [T, S]
    moved = torch.tensor([[6.0, 0.0], [0.0, -5.0]], dtype=dtype)
    features = torch.tensor([2, 1])
    assert torch.equal(kind.replace(layer.point, features, acts), moved)
    several = torch.stack([acts, acts * 2])  # [B, T, S]
    found = kind.replace(layer.point, features, several)
    assert torch.equal(found, torch.stack([moved, moved])) and found.dtype == dtype
    assert torch.equal(acts, torch.tensor([[1.0, 0.0], [0.0, -2.0]], dtype=dtype))
    assert len(kind.also(layer.point)) == 0


@pytest.mark.parametrize("ablate", first(1, ["all", "each"]))
def test_a_mean_of_nothing_is_zero_ablation(model: InstrumentedModel, ablate: Any) -> None:
    nothing = [
        Reference(torch.zeros(N_FEATURES), torch.zeros(N_FEATURES), 9, "abc", "")
        for _ in model.stack.layers
    ]
    kind = mean_intervention(model, nothing)
    assert kind.name == "mean (of 9 tokens, abc)"
    found = effect_graph(model, PROMPT, intervention=kind, ablate=ablate)
    assert found.edges == effect_graph(model, PROMPT, intervention=ZERO, ablate=ablate).edges


def test_references_of_different_texts_say_so(model: InstrumentedModel) -> None:
    zeros = torch.zeros(N_FEATURES)
    mixed = [Reference(zeros, zeros, 9 * (n + 1), f"corpus{n}", "") for n in range(3)]
    name = mean_intervention(model, mixed).name
    assert name.startswith("mean (of 9 to 27 tokens, ") and "corpus" not in name


# -- a stack without any ---------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_taken_once_from_the_bundled_text(
    model: InstrumentedModel, runs: list[int], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    foretold: list[float] = []
    found = references_of(model, progress=lambda *done: told.append(done), foretold=foretold.append)
    assert sum(runs) == told[-1][0] == told[-1][1] >= 300
    assert told == sorted(told) and len(foretold) == 1 and foretold[0] >= 0
    assert {it.text for it in found} == {"bundled English text"}
    assert not any(file.exists() for file in files_of(model))  # nothing beside the weights
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == len(found)
    runs.clear()
    assert same(found, references_of(model, progress=lambda *done: told.append(done)))
    assert not runs


@pytest.mark.usefixtures("short")
def test_a_graph_takes_them(model: InstrumentedModel, runs: list[int]) -> None:
    graph = effect_graph(model, PROMPT, intervention="mean")
    assert runs
    expected = mean_intervention(model, references_of(model))
    assert graph.run.settings["intervention"] == expected.name
    assert graph.edges == effect_graph(model, PROMPT, intervention=expected).edges


@pytest.mark.usefixtures("short")
def test_what_is_kept_is_told_apart_by_weights_and_text(
    model: InstrumentedModel, runs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references_of(model)
    runs.clear()
    with torch.no_grad():
        model.stack.layers[1].sae.b_enc += 0.5
    references_of(model)  # of one layer alone
    assert runs
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4
    runs.clear()
    monkeypatch.setattr(reference, "bundled_text", lambda: [CORPUS * 20])
    assert references_of(model)[0].corpus
    assert runs


@pytest.mark.usefixtures("short")
def test_what_is_kept_and_damaged_is_taken_again(
    model: InstrumentedModel, runs: list[int], tmp_path: Path
) -> None:
    found = references_of(model)
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:99])
    runs.clear()
    assert same(found, references_of(model))
    assert runs


@pytest.mark.usefixtures("short")
def test_a_cache_that_cannot_be_written_does_not_stop_it(
    model: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(references_of(model)) == len(model.stack.layers)


def test_a_text_without_two_tokens_is_an_error(model: InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match="no two tokens") as caught:
        references_of(model, texts=[""])
    one_line(caught)
