"""The store of top activating contexts, against brute force, and what can go wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.contexts import (
    AFTER,
    BEFORE,
    KEPT,
    SCHEMA,
    read_contexts,
    store_file,
)
from sae_graphs.features.layer_store import MOST, LayerStore, _largest, _windows
from sae_graphs.features.store import build_store
from sae_graphs.features.token_rows import batches_of_text
from sae_graphs.graph.records import Context
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.effect_graphs import effect_graph
from tests.support.loaded import TEXTS, held_in, rows_of
from tests.support.models import (
    N_FEATURES,
    PROMPT,
    STACKS,
    random_stack,
    save_saes,
    tokenizer,
)


def stored(files: Iterable[Path]) -> list[dict[str, Tensor]]:
    return [load_file(file) for file in files]


def test_rows_of_text(model: InstrumentedModel) -> None:
    ids = [
        token for text in TEXTS for token in tokenizer()(text, add_special_tokens=False).input_ids
    ]
    batches = list(batches_of_text(model, TEXTS, length=12, rows=4))
    rows = torch.cat(batches)
    assert all(len(batch) == 4 for batch in batches[:-1])
    assert rows[:, 0].tolist() == [0] * len(rows)
    assert (rows[:, 1:] != 0).all()
    assert rows[:, 1:].flatten().tolist() == ids[: 11 * (len(ids) // 11)]


def test_a_text_shorter_than_a_row_is_used(model: InstrumentedModel) -> None:
    (row,) = batches_of_text(model, ["the cat"], length=12)
    assert row.tolist() == [[0, *tokenizer()("the cat", add_special_tokens=False).input_ids]]


def test_store_equals_brute_force(model: InstrumentedModel) -> None:
    rows = rows_of(model)
    files = build_store(model, rows.split(3))
    assert files == [store_file(model, layer) for layer in model.stack.layers]
    for depth, store in enumerate(stored(files)):
        layer = model.stack.layers[depth]
        acts = torch.stack([layer.encode(model.streams_of(row[None])[depth][0]) for row in rows])
        acts[:, 0] = 0  # the first token does not count
        assert store["fraction_active"] == pytest.approx((acts[:, 1:] != 0).float().mean((0, 1)))
        assert torch.allclose(store["max_activation"], acts.amax((0, 1)), atol=1e-5)
        for feature in range(N_FEATURES):
            peaks = sorted((float(row.max()) for row in acts[:, :, feature]), reverse=True)
            peaks = [peak for peak in peaks[:KEPT] if peak > 0]
            held = store["activations"][feature, :, BEFORE].tolist()
            assert held[: len(peaks)] == pytest.approx(peaks, rel=2e-3, abs=1e-3)
            assert (store["tokens"][feature, len(peaks) :] == -1).all()
            assert (store["activations"][feature, len(peaks) :] == 0).all()


@pytest.mark.parametrize("kind", ["abstopk", "matching_pursuit"])
def test_negative_activations_count_by_their_size(
    kind: str, model_folder: Callable[[str], Path], bridge_of: Callable, tmp_path: Path
) -> None:
    saes = random_stack(bridge_of("gpt2"), STACKS["mixed"], [kind], dtype="float32")
    model = sg.load(model_folder("gpt2"), saes=save_saes(saes, tmp_path / "saes"))
    assert isinstance(model, InstrumentedModel)
    rows = rows_of(model)
    negative = 0
    for depth, store in enumerate(stored(build_store(model, rows.split(3)))):
        layer = model.stack.layers[depth]
        acts = torch.stack([layer.encode(model.streams_of(row[None])[depth][0]) for row in rows])
        acts[:, 0] = 0
        largest = acts.flatten(0, 1).gather(0, acts.flatten(0, 1).abs().argmax(0)[None])[0]
        assert torch.allclose(store["max_activation"], largest, atol=1e-5)
        assert torch.equal(store["max_activation"] != 0, store["fraction_active"] > 0)
        contexts = read_contexts(model, layer, range(N_FEATURES), limit=KEPT)
        for feature in range(N_FEATURES):
            peaks = sorted((float(row.abs().max()) for row in acts[:, :, feature]), reverse=True)
            held = store["activations"][feature, :, BEFORE].tolist()
            expected = [peak for peak in peaks[:KEPT] if peak > 0]
            assert list(map(abs, held))[: len(expected)] == pytest.approx(expected, rel=2e-3)
            assert held[0] == pytest.approx(float(largest[feature]), rel=2e-3)
            assert bool(contexts[feature]) == bool(expected)
            negative += sum(value < 0 for value in held)
    assert (negative > N_FEATURES) == (kind == "abstopk")


def add_by_value(store: LayerStore, tokens: Tensor, activations: Tensor) -> None:
    """`LayerStore.add` as it was when it ranked by value: a reference for SAEs without signs."""
    store.times_active += (activations != 0).sum((0, 1))
    store.sums += activations.double().sum((0, 1))
    peaks, positions = activations.max(1)
    best = _largest(peaks, KEPT)
    ranked = _largest(torch.cat([store.peaks, best.values]), KEPT)
    better = (ranked.indices >= KEPT).any(0).nonzero()[:, 0]
    at = positions.gather(0, best.indices)[:, better]
    new = _windows(tokens, activations, best.indices[:, better], at, better)
    order = ranked.indices[:, better, None].expand(-1, -1, new[0].shape[-1])
    store.peaks = ranked.values
    for held, found in zip((store.tokens, store.activations), new, strict=True):
        held[:, better] = torch.cat([held[:, better], found]).gather(0, order)


def test_without_negative_activations_no_bit_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old = LayerStore.empty(N_FEATURES), LayerStore.empty(N_FEATURES)
    for _ in range(5):
        tokens = torch.randint(99, (7, 24), generator=generator)
        activations = torch.randn(7, 24, N_FEATURES, generator=generator).relu()
        activations = (activations * 4).round() / 4  # with many that are equal
        new.add(tokens, activations)
        add_by_value(old, tokens, activations)
        old_tensors = old.tensors()
        assert all(torch.equal(new.tensors()[name], old_tensors[name]) for name in old_tensors)
        assert new.max_activation().numpy().tobytes() == old.peaks[0].numpy().tobytes()


def test_activations_beyond_half_precision_are_stored_as_its_largest(
    model: InstrumentedModel,
) -> None:
    rows, layer = rows_of(model), model.stack.layers[1]  # JumpReLU
    assert layer.cfg.architecture() == "jumprelu"
    with torch.no_grad():
        layer.sae.W_enc *= 1e6
    store = stored(build_store(model, [rows]))[1]
    assert store["max_activation"].max() > MOST and store["max_activation"].isfinite().all()
    assert store["activations"].max() == MOST
    nodes = effect_graph(model, PROMPT).nodes
    assert any(max(c.activations) == MOST for node in nodes for c in node.contexts)


@pytest.mark.parametrize("wrong", [float("inf"), -float("inf"), float("nan")])
def test_activations_that_are_not_finite_are_an_error(wrong: float) -> None:
    activations = torch.zeros(2, 5, 3)
    activations[1, 2, 1] = wrong
    with pytest.raises(SaeGraphsError, match="not finite; check"):
        LayerStore.empty(3).add(torch.zeros(2, 5, dtype=torch.int64), activations)
    with pytest.raises(SaeGraphsError, match="context 'ab' is not finite"):
        Context(("a", "b"), (1.0, wrong))


def test_windows_hold_the_text_around_the_peak(model: InstrumentedModel) -> None:
    rows = rows_of(model)
    (store, *_) = stored(build_store(model, [rows]))
    layer = model.stack.layers[0]
    texts = ["".join(map(chr, row)) for row in rows.tolist()]
    every = [layer.encode(model.streams_of(row[None])[0][0]) for row in rows]
    checked = 0
    for feature in range(N_FEATURES):
        for tokens, values in zip(
            store["tokens"][feature], store["activations"][feature], strict=True
        ):
            inside = tokens >= 0
            if not inside.any():
                continue
            piece = "".join(map(chr, tokens[inside].tolist()))
            row = next(number for number, text in enumerate(texts) if piece in text)
            acts = every[row][:, feature].clone()
            acts[0] = 0
            start = texts[row].index(piece)
            found = acts[start : start + len(piece)]
            assert torch.allclose(values[inside].float(), found, rtol=2e-3, atol=1e-3)
            assert float(found.max()) == pytest.approx(float(values[BEFORE]), rel=2e-3, abs=1e-3)
            assert inside[BEFORE]
            checked += 1
    assert checked > N_FEATURES
    assert store["tokens"].shape[-1] == BEFORE + 1 + AFTER


def test_batches_do_not_matter(model: InstrumentedModel) -> None:
    rows = rows_of(model)
    whole = stored(build_store(model, [rows]))
    for split in (1, 5):
        for one, other in zip(whole, stored(build_store(model, rows.split(split))), strict=True):
            assert torch.equal(one["tokens"], other["tokens"])
            assert torch.allclose(one["activations"], other["activations"], atol=2e-3)


def test_reading_gives_distinct_active_contexts(model: InstrumentedModel) -> None:
    build_store(model, [rows_of(model)])
    layer = model.stack.layers[0]
    found = read_contexts(model, layer, range(N_FEATURES), limit=3)
    assert len(found) == N_FEATURES
    assert max(map(len, found)) == 3
    for contexts in found:
        peaks = [max(context.activations) for context in contexts]
        assert peaks == sorted(peaks, reverse=True)
        assert all(peak > 0 for peak in peaks)
        assert len({context.tokens for context in contexts}) == len(contexts)


def test_of_texts_that_end_alike_one_is_shown(model: InstrumentedModel) -> None:
    """Their last four tokens up to the peak are the same, what comes before is not."""
    build_store(model, [rows_of(model)])
    layer = model.stack.layers[0]
    file = store_file(model, layer)
    rewritten = held_in(file)
    tokens = torch.full((KEPT, BEFORE + 1 + AFTER), -1)
    tokens[0, BEFORE - 4 : BEFORE + 1] = torch.tensor([10, 20, 21, 22, 23])
    tokens[1, BEFORE - 4 : BEFORE + 1] = torch.tensor([11, 20, 21, 22, 23])  # ends as the first
    tokens[2, BEFORE - 4 : BEFORE + 2] = torch.tensor([10, 30, 21, 22, 23, 24])
    tokens[3, BEFORE - 4 : BEFORE + 1] = torch.tensor([10, 20, 21, 22, 24])
    rewritten["tokens"][5] = tokens
    rewritten["activations"][5] = torch.arange(KEPT, 0, -1)[:, None]
    about = {"schema": SCHEMA, "hook": layer.point.hook_name, "sae": ""}
    save_file(rewritten, file, metadata=about)
    (found,) = read_contexts(model, layer, [5], limit=KEPT)
    assert [context.activations[0] for context in found] == [8.0, 6.0, 5.0]


def test_graph_nodes_show_contexts(model: InstrumentedModel) -> None:
    assert all(node.contexts == () for node in effect_graph(model, PROMPT).nodes)
    build_store(model, [rows_of(model)])
    nodes = effect_graph(model, PROMPT).nodes
    assert any(node.contexts for node in nodes)
    for node in nodes:
        layer = model.stack.layers[model.stack.depths[node.feature.layer]]
        assert node.contexts == read_contexts(model, layer, [node.feature.index])[0]


def test_no_text_is_an_error_and_writes_nothing(model: InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match="empty"):
        build_store(model, batches_of_text(model, ["", ""]))
    assert not store_file(model, model.stack.layers[0]).exists()


def test_progress_counts_tokens(model: InstrumentedModel) -> None:
    told: list[int] = []
    rows = rows_of(model)
    build_store(model, rows.split(4), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == rows.numel()
