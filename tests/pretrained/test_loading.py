"""Loading models: processed as their SAEs want, within a budget; or one clear line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE

import sae_graphs as sg
from sae_graphs.errors import HubError, ModelLoadError, SaeGraphsError, SAELoadError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.memory import LEAST_WORKING, MIB, SAESize
from sae_graphs.pretrained import bridge, loading
from sae_graphs.pretrained import find_saes as sae_files
from sae_graphs.pretrained import sizes as model_size
from sae_graphs.pretrained.find_saes import load_stack
from tests.support.effect_graphs import effect_graph
from tests.support.models import ARCHITECTURES, STACKS, load_bridge, random_sae, save_saes
from tests.support.slow import only
from tests.support.stacks import cached, one_line, saes_on


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four good SAEs."""
    return save_saes(saes_on(*STACKS["pre"]), tmp_path / "saes")


def test_load_carries_the_weight_processing(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """As the deprecated `from_pretrained_no_processing(..., center_writing_weights=True)`."""
    wanted = {"center_writing_weights": True}
    saes = saes_on(*STACKS["pre"], model_from_pretrained_kwargs=wanted)
    model = sg.load(model_folder("gpt2"), saes=save_saes(saes, tmp_path / "saes"), dtype="float64")
    plain = sg.load(
        model_folder("gpt2"),
        saes=save_saes(saes_on(*STACKS["pre"]), tmp_path / "plain"),
        dtype="float64",
    )
    prompt = "the cat sat"
    one, two = model.clean_run(prompt), plain.clean_run(prompt)
    assert torch.allclose(one.logits, two.logits, atol=1e-5)  # processed in float32
    for centred, raw in zip(one.streams, two.streams, strict=True):
        expected = raw - raw.mean(-1, keepdim=True)
        assert torch.allclose(centred, expected, atol=1e-5)
        assert not torch.allclose(centred, raw, atol=1e-3)
    assert effect_graph(model, prompt).run.total_abs_effect > 0


def test_saes_that_disagree_on_processing(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    saes = saes_on(*STACKS["pre"])
    saes[1].cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    with pytest.raises(SaeGraphsError, match="disagree on the model's weight processing"):
        sg.load(model_folder("gpt2"), saes=save_saes(saes, tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "'int8' is not one of"),
        ({"device": "gpu9"}, "no device 'gpu9'"),
        pytest.param(
            {"device": "cuda"},
            "'cuda' is not available",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_wrong_device_and_dtype(
    model_folder: Callable[[str], Path], folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SaeGraphsError, match=message) as caught:
        sg.load(model_folder("gpt2"), saes=folder, **options)
    one_line(caught)


def test_wrong_models(
    model_folder: Callable[[str], Path],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    good = model_folder("gpt2")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((good / "config.json").read_bytes())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in good.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = damaged / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    for name, message in (
        ("", "no model given"),
        ("./no-such-model", "there is no folder ./no-such-model"),
        ("no-such/model", "'no-such/model' is not in the cache"),
        (str(folder), "has no config.json"),
        (str(broken), "cannot be loaded"),
        (str(damaged), "cannot be loaded"),
    ):
        with pytest.raises((ModelLoadError, HubError), match=message) as caught:
            sg.load(name, saes=folder)
        one_line(caught)
    with pytest.raises(SaeGraphsError, match="no SAEs are known"):
        sg.load(good)
    with pytest.raises(SaeGraphsError, match=r"gpt2-smal; .* did you mean gpt2-small"):
        sg.load("gpt2-smal")
    with pytest.raises(SaeGraphsError, match=r"goes to sae_graphs\.InstrumentedModel"):
        sg.load(object())  # type: ignore[arg-type]
    for layers in (5, ("1",), ("1", "2", "3"), range(3)):
        with pytest.raises(SaeGraphsError, match="expected first and last"):
            sg.load(good, saes=folder, layers=layers)  # type: ignore[arg-type]
    with pytest.raises(SAELoadError, match="reads 16 dimensions"):
        InstrumentedModel(_narrow(tmp_path), load_stack(folder))


def _narrow(tmp_path: Path) -> Any:
    """Something with a width of 8: only what the check reads."""
    from types import SimpleNamespace

    cfg = SimpleNamespace(d_model=8, model_name="narrow")
    return SimpleNamespace(cfg=cfg, blocks=[None, None, None])


# -- budgets ---------------------------------------------------------------------------------------


def least_named(caught: pytest.ExceptionInfo[SaeGraphsError]) -> str:
    return one_line(caught).split("; give ")[1].split(" or more")[0]


def test_a_budget_of_little_loads_two_at_a_time(
    model_folder: Callable[[str], Path],
    tmp_path: Path,
    logged: StringIO,
) -> None:
    """SAEs of 4 MiB each: the least budget holds two, and gives the same streams and features."""
    saes = [
        random_sae("standard", hook, size=1.0, seed=n, dtype="float32", n_features=2**15)
        for n, hook in enumerate(STACKS["pre"])
    ]
    folder = save_saes(saes, tmp_path)
    with pytest.raises(SaeGraphsError, match="is too little") as caught:
        sg.load(model_folder("gpt2"), saes=folder, memory="100MiB")
    few = sg.load(model_folder("gpt2"), saes=folder, memory=least_named(caught))
    said = logged.getvalue()
    assert "4 SAEs take 17MiB: two at a time" in said
    assert few.stack.layers[0].shelf.n_loaded == 2
    assert LEAST_WORKING <= few.working_memory < LEAST_WORKING + MIB
    assert few.memory_plan is not None
    enough = sg.load(model_folder("gpt2"), saes=folder, memory=few.memory_plan.least_keeping_all)
    assert logged.getvalue() == said
    assert enough.stack.layers[0].shelf.n_loaded == 4
    assert enough.working_memory == LEAST_WORKING
    for one, two in zip(few.stack.layers, enough.stack.layers, strict=True):
        stream = torch.ones(2, 16)
        assert torch.equal(one.encode(stream), two.encode(stream))
    assert few.stack.layers[0].shelf.n_loaded == 2


def test_too_little_is_refused_before_anything_is_loaded(
    model_folder: Callable[[str], Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "load_bridge", lambda *args: pytest.fail("loaded"))
    monkeypatch.setattr(SAE, "load_from_disk", lambda *args, **kwargs: pytest.fail("loaded"))
    with pytest.raises(SaeGraphsError, match=r"^512MiB of memory is too little") as caught:
        sg.load(model_folder("gpt2"), saes=folder, memory="512MiB")
    one_line(caught)
    for memory, message in (("4", "not a size"), ("900TiB", "more than cpu has"), (0, "not a")):
        with pytest.raises(SaeGraphsError, match=message) as caught:
            sg.load(model_folder("gpt2"), saes=folder, memory=memory)
        one_line(caught)


def test_too_little_for_what_only_loading_tells(
    model_folder: Callable[[str], Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes that no file tells beforehand are taken from what has been loaded."""
    monkeypatch.setattr(loading, "_stored_model_bytes", lambda source, dtype: None)
    monkeypatch.setattr(sae_files, "tensor_sizes", lambda files, dtype: None)
    with pytest.raises(SaeGraphsError, match="is too little") as caught:
        sg.load(model_folder("gpt2"), saes=folder, memory="700MiB")
    model = sg.load(model_folder("gpt2"), saes=folder, memory=least_named(caught))
    assert model.working_memory >= LEAST_WORKING
    assert model.stack.sizes == (SAESize(4 * (2 * 16 * 40 + 16 + 40)),) * 4


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    only(
        product(ARCHITECTURES, ["float32", "bfloat16"]), ("neox", "float32"), ("llama", "bfloat16")
    ),
)
def test_the_size_of_a_model_is_never_guessed_too_small(
    model_folder: Callable[[str], Path],
    architecture: str,
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its files give at least what it takes once all its weights are processed."""
    monkeypatch.setattr(model_size, "BUFFERS", 4096)  # biases count for more in a tiny model
    folder = model_folder(architecture)
    stored = loading._stored_model_bytes(str(folder), dtype)
    assert stored is not None
    bridge = load_bridge(folder, getattr(torch, dtype))
    unprocessed = model_size.size_of_loaded(bridge)
    bridge.enable_compatibility_mode(disable_warnings=True)
    storages = [p.untyped_storage() for p in (*bridge.parameters(), *bridge.buffers())]
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    assert held <= stored <= 1.6 * held
    assert held <= unprocessed <= 1.6 * held


def test_a_model_in_the_hub_s_cache_has_a_size(
    model_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert loading._stored_model_bytes("some/model", "float32") is None
    cached(tmp_path, "some/model", model_folder("llama"))
    size = loading._stored_model_bytes(str(model_folder("llama")), "float32")
    assert loading._stored_model_bytes("some/model", "float32") == size


def test_models_that_are_not_here_have_no_size(tmp_path: Path) -> None:
    for name in ("no-such/model", "a/b/c", "", str(tmp_path)):
        assert loading._stored_model_bytes(name, "float32") is None


# -- without SAEs ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_demo_s_model_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its SAEs are not even there; what it answers is what it answers with them."""
    from sae_graphs.files import bundled_folder

    prompt = "Copyright (C"
    clean = sg.load("demo").clean_run(prompt)
    shutil.copytree(bundled_folder() / "model", tmp_path / "demo" / "model")
    monkeypatch.setattr(loading, "bundled_folder", lambda: tmp_path / "demo")
    for name in ("demo", tmp_path / "demo" / "model"):
        model = sg.load_model(name)
        assert isinstance(model, sg.LanguageModel)
        assert not isinstance(model, InstrumentedModel)
        assert model.name == str(name)
        run = model.run(prompt, prepend_bos=True)
        assert (run.token_ids, run.tokens) == (clean.token_ids, clean.tokens)
        assert torch.equal(run.logits, clean.logits)
        # Its tokenizer prepends none; by name it is known never to have been without.
        assert model.run(prompt).token_ids == clean.token_ids[name != "demo" :]


def test_a_model_alone_within_a_budget(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder("gpt2")
    plenty = sg.load_model(folder, memory="2GiB", dtype="float64")
    assert next(plenty.model.parameters()).dtype == torch.float64
    plan = plenty.memory_plan
    assert plan is not None
    assert plan.saes == ()
    assert plan.least == plan.least_keeping_all
    assert plenty.working_memory == plan.working == plan.total - plan.libraries - plan.model
    assert sg.load_model(folder, memory=plan.least, dtype="float64").working_memory == LEAST_WORKING
    monkeypatch.setattr(bridge, "load_bridge", lambda *args: pytest.fail("loaded"))
    with pytest.raises(SaeGraphsError, match="is too little") as caught:
        sg.load_model(folder, memory=plan.least - 1, dtype="float64")
    one_line(caught)
    assert "SAE" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("", {}, "no model given"),
        ("./no-such-model", {}, "there is no folder ./no-such-model"),
        ("no-such/model", {}, "'no-such/model' is not in the cache"),
        (object(), {}, r"goes to sae_graphs\.LanguageModel\(model\)"),
        ("demo", {"dtype": "int8"}, "'int8' is not one of"),
        ("demo", {"device": "gpu9"}, "no device 'gpu9'"),
        ("demo", {"memory": "much"}, "memory 'much' is not a size"),
        ("demo", {"saes": "folder"}, "no option 'saes'"),
    ],
)
def test_wrong_input_for_a_model_alone(
    monkeypatch: pytest.MonkeyPatch, model: Any, options: dict[str, Any], message: str
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SaeGraphsError, match=message) as caught:
        sg.load_model(model, **options)
    one_line(caught)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no config\.json") as caught:
        sg.load_model(tmp_path)
    one_line(caught)
