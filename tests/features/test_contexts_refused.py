"""Stores of contexts that cannot be used: damaged, of other weights, stale."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sae_graphs.effects import build
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.contexts import (
    BEFORE,
    FILE_NAME,
    SCHEMA,
    corpora_of,
    read_contexts,
    store_file,
)
from sae_graphs.features.store import build_store, stream_store
from sae_graphs.features.token_rows import batches_of_text
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.effect_graphs import effect_graph
from tests.support.loaded import TEXTS, held_in, rows_of
from tests.support.models import (
    N_FEATURES,
    PROMPT,
    STACKS,
    random_stack,
)
from tests.support.slow import first
from tests.support.stacks import one_line


def test_damaged_and_foreign_stores(model: InstrumentedModel) -> None:
    first, second, _ = model.stack.layers
    files = build_store(model, [rows_of(model)])
    good = files[0].read_bytes()
    for damaged in (b"", b"garbage", good[: len(good) // 2]):
        files[0].write_bytes(damaged)
        with pytest.raises(SaeGraphsError, match="build it again"):
            read_contexts(model, first, [0])
    shutil.copy(files[1], files[0])  # another layer's store
    with pytest.raises(SaeGraphsError, match="was made for"):
        read_contexts(model, first, [0])
    save_file({"tokens": torch.zeros(3, 1, 20)}, files[1], metadata={"schema": "other"})
    with pytest.raises(SaeGraphsError, match="format 'other'"):
        read_contexts(model, second, [0])


def test_a_store_of_another_width_is_refused(model: InstrumentedModel) -> None:
    layer = model.stack.layers[0]
    (file, *_) = build_store(model, [rows_of(model)])
    tensors = {name: values[:-1].contiguous() for name, values in load_file(file).items()}
    about = {"schema": "sae_graphs/contexts/1", "hook": layer.point.hook_name}
    save_file(tensors, file, metadata=about)
    with pytest.raises(SaeGraphsError, match=f"{N_FEATURES - 1} features"):
        read_contexts(model, layer, [0])


def test_stores_of_saes_without_a_folder_lie_in_the_cache(
    tiny: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = [store_file(tiny, layer) for layer in tiny.stack.layers]
    assert len(set(files)) == 4
    assert all(tmp_path in file.parents and file.name == FILE_NAME for file in files)
    assert read_contexts(tiny, tiny.stack.layers[0], [1, 2]) == [(), ()]


def test_a_store_of_other_weights_is_refused(model: InstrumentedModel) -> None:
    build_store(model, batches_of_text(model, TEXTS))
    layer = model.stack.layers[1]
    read_contexts(model, layer, [0])
    with torch.no_grad():
        layer.sae.W_dec[:, 0] += 1.0
    with pytest.raises(SaeGraphsError, match="other weights"):
        read_contexts(model, layer, [0])


@pytest.fixture
def ablated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whether anything was measured."""
    calls: list[str] = []
    measure = build.measure_all

    def heard(*arguments: Any) -> Any:
        calls.append("measured")
        return measure(*arguments)

    monkeypatch.setattr(build, "measure_all", heard)
    return calls


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
def test_a_store_with_infinite_activations_is_damaged_before_anything_is_measured(
    model: InstrumentedModel, ablated: list[str], wrong: float
) -> None:
    """As they were written before they were clamped."""
    build_store(model, [rows_of(model)])
    layer = model.stack.layers[1]
    file = store_file(model, layer)
    about = {"schema": SCHEMA, "hook": layer.point.hook_name, "sae": ""}
    spoilt = held_in(file)
    spoilt["activations"][7, 0, BEFORE] = wrong
    spoilt["max_activation"][7] = 7e4
    save_file(spoilt, file, metadata=about)
    with pytest.raises(SaeGraphsError, match=r"damaged \(an activation of feature 7") as caught:
        effect_graph(model, PROMPT)
    one_line(caught)
    assert not ablated
    spoilt["max_activation"][7] = 1.0  # then it is seen when it is read
    save_file(spoilt, file, metadata=about)
    with pytest.raises(SaeGraphsError, match=r"damaged \(an activation is not finite") as caught:
        read_contexts(model, layer, [6, 7])
    one_line(caught)


def test_a_store_of_other_weights_stops_a_graph_before_anything_is_measured(
    model: InstrumentedModel, ablated: list[str]
) -> None:
    build_store(model, [rows_of(model)])
    with torch.no_grad():
        model.stack.layers[1].sae.W_dec[:, 0] += 1.0
    with pytest.raises(SaeGraphsError, match="other weights"):
        effect_graph(model, PROMPT)
    assert not ablated


def narrower(file: Path) -> None:
    tensors = {name: values[:-1].contiguous() for name, values in held_in(file).items()}
    with safe_open(file, framework="pt") as store:
        about = store.metadata()
    save_file(tensors, file, metadata=about)


def of_other_weights(file: Path) -> None:
    with safe_open(file, framework="pt") as store:
        about = {**store.metadata(), "sae": "0123456789abcdef"}
    save_file(held_in(file), file, metadata=about)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:99])


@pytest.mark.parametrize("spoil", first(1, [narrower, of_other_weights, cut_short]))
def test_a_stale_store_in_the_cache_is_warned_about_once(
    bridge_of: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
) -> None:
    """It may have been made for another release of the same name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    saes = random_stack(bridge_of("gpt2"), STACKS["mixed"], ["topk"], dtype="float32")
    model = InstrumentedModel(bridge_of("gpt2"), saes)
    bare = effect_graph(model, PROMPT)
    files = build_store(model, [rows_of(model)])
    assert all(tmp_path in file.parents for file in files)
    whole = effect_graph(model, PROMPT)
    assert any(node.contexts for node in whole.nodes)
    assert whole.run.warnings == bare.run.warnings
    for file in files[:2]:
        spoil(file)
    graph = effect_graph(model, PROMPT)
    assert graph.edges == whole.edges
    (warning,) = (w for w in graph.run.warnings if w not in bare.run.warnings)
    assert warning.startswith("no contexts are shown for layers 0, 1: ") and "\n" not in warning
    assert "build it again with `sae-graphs contexts`" in warning
    last = [node.contexts for node in graph.nodes if node.feature.layer == "2"]
    assert any(last) and not any(n.contexts for n in graph.nodes if n.feature.layer != "2")


def test_contexts_of_different_texts_are_warned_about(model: InstrumentedModel) -> None:
    stream_store(model, lambda: iter(TEXTS))
    assert corpora_of(model) == [["0", "1", "2"]]
    assert not any("texts" in warning for warning in effect_graph(model, PROMPT).run.warnings)
    first = store_file(model, model.stack.layers[0])
    kept = first.read_bytes()
    stream_store(model, lambda: iter([*TEXTS[:-1], TEXTS[-1][::-1]]))
    first.write_bytes(kept)
    assert corpora_of(model) == [["0"], ["1", "2"]]
    warnings = effect_graph(model, PROMPT).run.warnings
    (warning,) = (warning for warning in warnings if "texts" in warning)
    assert warning.startswith("the contexts of layers 0 and of 1, 2 come from different texts; ")


def test_folders_in_the_cache_are_short_and_readable(
    tiny: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    layer = tiny.stack.layers[0]
    hook = layer.point.hook_name
    model = copy.copy(tiny)

    def folder(name: str, stack: str, source: str) -> list[str]:
        model.name, model.stack = name, replace(tiny.stack, name=stack)
        named = replace(layer, source=replace(layer.source, name=source))
        return list(store_file(model, named).parent.relative_to(tmp_path).parts)

    release = "gpt2-small-res-jb"
    place = ["sae_graphs", "contexts", "gpt2", release, hook]
    assert folder("gpt2", release, f"{hook} of {release}") == place
    assert folder("gpt2", "custom", "custom") == [*place[:3], "custom", hook]
    scope = folder("google/gemma-2-2b", "scope", "layer_3/width_16k/canonical of scope")
    assert scope[2:] == ["google_gemma-2-2b", "scope", "layer_3_width_16k_canonical"]
    assert folder("..", "..", "/")[2:] == ["_", "_", "_"]
