"""Loading stacks of SAEs: what is accepted, and one clear line for everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.sae_setup import check_activation
from sae_graphs.model.saes import stack_from
from sae_graphs.model.stream import StreamPoint
from sae_graphs.pretrained.find_saes import load_stack
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_graph
from tests.support.models import KINDS, STACKS, random_sae, save_saes
from tests.support.stacks import one_line, saes_on


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four good SAEs."""
    return save_saes(saes_on(*STACKS["pre"]), tmp_path / "saes")


# -- points and labels -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("blocks.0.hook_resid_pre", StreamPoint(0, "pre")),
        ("blocks.11.hook_resid_mid", StreamPoint(11, "mid")),
        ("blocks.3.hook_resid_post", StreamPoint(3, "post")),
        ("blocks.3.hook_in", StreamPoint(3, "pre")),
        ("blocks.3.hook_out", StreamPoint(3, "post")),
        ("model.layers.3", StreamPoint(3, "post")),
        ("transformer.h.3", StreamPoint(3, "post")),
        ("gpt_neox.layers.3.output", StreamPoint(3, "post")),
    ],
)
def test_stream_points(name: str, point: StreamPoint) -> None:
    assert StreamPoint.parse(name) == point


@pytest.mark.parametrize(
    "name", [None, "", "blocks.0.attn.hook_z", "blocks.0.hook_mlp_out", "blocks.x.hook_resid_pre",
             "blocks.0.hook_resid_pre.extra", "hook_embed", "model.layers.3.mlp",
             "model.layers.3.self_attn.output"],
)  # fmt: skip
def test_other_hooks_are_refused(name: str | None) -> None:
    with pytest.raises(SAELoadError, match="not on the residual stream"):
        StreamPoint.parse(name)


def test_depth_follows_the_stream() -> None:
    names = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post",
             "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"]  # fmt: skip
    depths = [StreamPoint.parse(name).depth for name in names]
    assert depths == sorted(set(depths))
    assert StreamPoint(0, "post").depth == StreamPoint(1, "pre").depth


@pytest.mark.parametrize(
    ("hooks", "labels"),
    [
        (STACKS["pre"], ["0", "1", "2", "3"]),
        (STACKS["post"], ["0", "1", "2"]),
        (STACKS["gap"], ["0", "2"]),
        (STACKS["mid"], ["0", "1", "2"]),
        (
            ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.1.hook_resid_pre"),
            ["0-pre", "0-mid", "1"],
        ),
    ],
)
def test_labels_without_neuronpedia_ids(hooks: tuple[str, ...], labels: list[str]) -> None:
    stack = stack_from(saes_on(*reversed(hooks)))  # any order
    assert [layer.label for layer in stack.layers] == labels
    assert [layer.point.hook_name for layer in stack.layers] == list(hooks)
    assert list(stack.depths.values()) == list(range(len(labels)))


def test_labels_follow_neuronpedia_ids() -> None:
    saes = saes_on(*STACKS["pre"])
    for sae, name in zip(saes, ("e-res-sm", "0-res-sm", "1-res-sm", "2-res-sm"), strict=True):
        sae.cfg.metadata.neuronpedia_id = f"pythia-70m-deduped/{name}"
    stack = stack_from(saes)
    assert [layer.label for layer in stack.layers] == ["e", "0", "1", "2"]
    assert stack.layers[0].neuronpedia_id == "pythia-70m-deduped/e-res-sm"


def test_one_label_for_two_layers_is_refused() -> None:
    saes = saes_on("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre")
    for sae in saes:
        sae.cfg.metadata.neuronpedia_id = "gpt2-small/5-res-jb"
    with pytest.raises(SAELoadError, match="both called"):
        stack_from(saes)


# -- stacks that make no sense ---------------------------------------------------------------------


@pytest.mark.parametrize("hooks", [(), STACKS["pre"][:1]])
def test_fewer_than_two(hooks: tuple[str, ...]) -> None:
    with pytest.raises(SAELoadError, match="at least 2"):
        stack_from(saes_on(*hooks))


@pytest.mark.parametrize(
    "second", ["blocks.1.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_in"]
)
def test_two_at_one_point(second: str) -> None:
    with pytest.raises(SAELoadError, match="two SAEs at one place"):
        stack_from(saes_on("blocks.1.hook_resid_pre", second))


def test_another_model(bridge_of: BridgeOf) -> None:
    wide = [random_sae("standard", h, size=1.0, seed=0, d_in=24) for h in STACKS["pre"]]
    with pytest.raises(SAELoadError, match="reads 24 dimensions"):
        InstrumentedModel(bridge_of(), wide)
    deep = saes_on("blocks.0.hook_resid_pre", "blocks.7.hook_resid_pre")
    with pytest.raises(SAELoadError, match="3 blocks"):
        InstrumentedModel(bridge_of(), deep)


def test_disagreement_on_bos(bridge_of: BridgeOf) -> None:
    saes = saes_on(*STACKS["pre"])
    saes[2].cfg.metadata.prepend_bos = False
    model = InstrumentedModel(bridge_of(), saes)
    with pytest.raises(SAELoadError, match="disagree on prepend_bos"):
        effect_graph(model, "the cat")


def test_kinds_that_do_not_work_token_by_token(bridge_of: BridgeOf) -> None:
    from sae_lens.saes.transcoder import SkipTranscoder, SkipTranscoderConfig

    odd = SkipTranscoder(
        SkipTranscoderConfig(d_in=16, d_sae=40, d_out=16, apply_b_dec_to_input=False)
    )
    odd.cfg.metadata.hook_name = "blocks.2.hook_resid_pre"
    with pytest.raises(SAELoadError, match="skip_transcoder"):
        stack_from([*saes_on("blocks.0.hook_resid_pre"), odd])


def test_mid_hooks_of_a_parallel_model(bridge_of: BridgeOf) -> None:
    """GPT-NeoX has no stream between attention and MLP."""
    model = InstrumentedModel(bridge_of("neox"), saes_on(*STACKS["mid"]))
    with pytest.raises(SAELoadError, match=r"has no blocks\.0\.hook_resid_mid"):
        effect_graph(model, "the cat")


def test_objects_are_checked_as_loaded_ones_are() -> None:
    saes = saes_on(*STACKS["pre"])
    saes[1].cfg.normalize_activations = "expected_average_only_in"
    with pytest.raises(SAELoadError, match="wants its inputs normalised") as caught:
        stack_from(saes)
    assert "blocks.1.hook_resid_pre" in one_line(caught)
    saes = saes_on(*STACKS["pre"])
    saes[2].W_dec.data[3, 3] = float("nan")
    with pytest.raises(SAELoadError, match=r"blocks\.2\.hook_resid_pre .* holds NaN") as caught:
        stack_from(saes)
    one_line(caught)


@pytest.mark.slow
def test_a_model_that_is_not_centred_is_told(
    bridge_of: BridgeOf, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """SAE objects on a model object: their metadata says what it should have been."""
    wanted = {"center_writing_weights": True}
    raw = InstrumentedModel(
        bridge_of(), saes_on(*STACKS["pre"], model_from_pretrained_kwargs=wanted)
    )
    told = effect_graph(raw, "the cat sat").run.warnings
    assert any("centred writing weights, and this one's are not" in text for text in told)
    for dtype in ("float32", "bfloat16", "float16"):
        saes = save_saes(saes_on(*STACKS["pre"], model_from_pretrained_kwargs=wanted), tmp_path)
        centred = sg.load(model_folder("gpt2"), saes=saes, dtype=dtype)
        for prompt in ("the cat sat", "the dog ran to the (red cat", "the old house"):
            told = effect_graph(centred, prompt).run.warnings
            assert not any("centred" in text for text in told)
    plain = InstrumentedModel(bridge_of(), saes_on(*STACKS["pre"]))
    told = effect_graph(plain, "the cat sat").run.warnings
    assert not any("centred" in text for text in told)


def test_a_pattern_is_part_of_a_folder_s_name(folder: Path) -> None:
    for part in list(folder.iterdir()):
        shutil.copytree(part, folder / f"{part.name}_b")
    with pytest.raises(SAELoadError, match="several SAEs a layer"):
        load_stack(folder)
    stack = load_stack(folder, "*_b")
    assert stack.name == f"{folder}/*_b"
    assert len(stack.layers) == 4


# -- folders ---------------------------------------------------------------------------------------


def test_a_folder_loads(folder: Path) -> None:
    stack = load_stack(folder)
    assert [layer.label for layer in stack.layers] == ["0", "1", "2", "3"]
    assert [layer.folder for layer in stack.layers] == sorted(folder.iterdir())
    assert stack.name == str(folder)
    assert stack.prepend_bos
    assert not any(p.requires_grad for layer in stack.layers for p in layer.sae.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_a_folder(tmp_path: Path, kind: str) -> None:
    saes = [random_sae(kind, hook, size=1.0, seed=1) for hook in STACKS["gap"]]
    stack = load_stack(save_saes(saes, tmp_path), dtype="float64")
    stream = torch.randn(5, 16, dtype=torch.float64)
    for sae, layer in zip(saes, stack.layers, strict=True):
        acts = sae.encode(stream)
        assert torch.allclose(layer.encode(stream), acts)
        assert torch.allclose(layer.decode(acts, stream), sae.decode(acts))


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_some_features_alone(kind: str) -> None:
    sae = random_sae(kind, "blocks.0.hook_resid_pre", size=1.0, seed=1)
    stack = stack_from([sae, random_sae(kind, "blocks.1.hook_resid_pre", size=1.0, seed=2)])
    layer = stack.layers[0]
    stream = torch.randn(5, 16, dtype=torch.float64)
    chosen = torch.tensor([7, 3, 30])
    acts = torch.rand(5, 3, dtype=torch.float64)
    whole = torch.zeros(5, 40, dtype=torch.float64)
    whole[:, chosen] = acts
    before = {name: p.clone() for name, p in sae.named_parameters()}
    decode = layer.decoder_of(chosen)
    assert torch.allclose(decode(acts, stream), layer.decode(whole, stream))
    assert torch.allclose(decode(acts, stream), layer.decode(whole, stream))  # and once more
    for name, parameter in sae.named_parameters():
        assert torch.equal(parameter, before[name])
    assert sae.W_dec.shape == (40, 16)


def remove(folder: Path, name: str) -> None:
    (folder / "layer_2" / name).unlink()


def truncate(folder: Path) -> None:
    file = folder / "layer_2" / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def poison(folder: Path, value: float) -> None:
    file = folder / "layer_2" / "sae_weights.safetensors"
    weights = load_file(file)
    weights["W_dec"][3, 3] = value
    save_file(weights, file)


def pickle_only(folder: Path) -> None:
    for part in folder.iterdir():
        (part / "sae_weights.safetensors").unlink()
        torch.save({}, part / "weights.pt")


def reshape(folder: Path) -> None:
    file = folder / "layer_2" / "sae_weights.safetensors"
    save_file({n: w[..., :-1].contiguous() for n, w in load_file(file).items()}, file)


def configure(folder: Path, **changes: Any) -> None:
    file = folder / "layer_2" / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def finetune(folder: Path) -> None:
    configure(folder, finetuning_scaling_factor=True)
    file = folder / "layer_2" / "sae_weights.safetensors"
    weights = load_file(file)
    save_file({**weights, "scaling_factor": torch.full_like(weights["b_enc"], 1.5)}, file)


def empty_part(folder: Path) -> None:
    for file in (folder / "layer_2").iterdir():
        file.unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: remove(f, "sae_weights.safetensors"), "layer_2 has no sae_weights"),
    "no config": (lambda f: remove(f, "cfg.json"), "layer_2 has no cfg.json"),
    "a layer's folder empty": (empty_part, "layer_2 has no cfg.json"),
    "cut off": (truncate, "layer_2 cannot be loaded"),
    "no weights in the file": (
        lambda f: (f / "layer_2" / "sae_weights.safetensors").write_bytes(b""),
        "layer_2 cannot be loaded",
    ),
    "NaN": (lambda f: poison(f, float("nan")), "W_dec holds NaN or infinity"),
    "infinity": (lambda f: poison(f, float("inf")), "W_dec holds NaN or infinity"),
    "pickles": (pickle_only, "weights.pt are never opened"),
    "config not JSON": (
        lambda f: (f / "layer_2" / "cfg.json").write_text("{"),
        "layer_2 cannot be loaded",
    ),
    "unknown kind": (lambda f: configure(f, architecture="magic"), "layer_2 cannot be loaded"),
    "another hook": (
        lambda f: configure(f, metadata={"hook_name": "blocks.0.hook_mlp_out"}),
        "not on the residual stream",
    ),
    "an average norm that is not folded in": (
        lambda f: configure(f, normalize_activations="expected_average_only_in"),
        "layer_2 wants its inputs normalised by numbers that are not in its files",
    ),
    "whitening that is not folded in": (
        lambda f: configure(f, normalize_activations="covariance_whitening"),
        "fold_activation_whitening",
    ),
    "no hook": (lambda f: configure(f, metadata={}), "not on the residual stream"),
    "said to be finetuned": (
        lambda f: configure(f, finetuning_scaling_factor=True),
        "finetuned with a factor for each feature",
    ),
    "finetuned": (finetune, "finetuned with a factor for each feature .* multiply each row"),
}
# Activations that sae-lens takes for ReLU without a word, in its old and its new spelling.
OTHERWISE = ["tanh-relu", "gelu", "leaky-relu", "identity", "jumprelu", "topk"]


@pytest.mark.parametrize("key", ["activation_fn", "activation_fn_str", "activation", "metadata"])
@pytest.mark.parametrize("activation", OTHERWISE)
def test_an_activation_that_would_not_be_applied(folder: Path, activation: str, key: str) -> None:
    declared = {"activation_fn": activation} if key == "metadata" else activation
    configure(folder, architecture="standard", **{key: declared})
    with pytest.raises(SAELoadError, match=f"declares the activation '{activation}'") as caught:
        load_stack(folder)
    one_line(caught)
    assert "sae-lens would apply 'relu'" in str(caught.value)


@pytest.mark.parametrize(
    "cfg",
    [
        {"architecture": "jumprelu", "activation_fn": "relu"},
        {"architecture": "jumprelu", "activation_fn": "jumprelu"},
        {"architecture": "gated", "activation_fn_str": "relu"},
        {"activation_fn": "topk", "activation_fn_kwargs": {"k": 4}},
        {},
    ],
)
def test_activations_as_old_files_have_them(cfg: dict[str, Any]) -> None:
    check_activation(cfg, "an SAE")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders(folder: Path, name: str) -> None:
    breaking, message = BROKEN[name]
    breaking(folder)
    with pytest.raises(SAELoadError, match=message) as caught:
        load_stack(folder)
    one_line(caught)


def test_weights_of_another_shape(folder: Path, bridge_of: BridgeOf) -> None:
    """Found on loading, or at the latest when the SAEs meet the model."""
    reshape(folder)
    with pytest.raises(SAELoadError) as caught:
        InstrumentedModel(bridge_of(), load_stack(folder))
    one_line(caught)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(SAELoadError, match="holds no SAEs"):
        load_stack(tmp_path)
    with pytest.raises(SAELoadError, match="no folder and no sae-lens release"):
        load_stack(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(SAELoadError, match="is a file"):
        load_stack(tmp_path / "file")
    with pytest.raises(SAELoadError, match="gpt2-small-res-jb"):
        load_stack("gpt2-small-res-jbb")


def test_between() -> None:
    stack = stack_from(saes_on(*STACKS["pre"]))
    assert [layer.label for layer in stack.between("1", "2").layers] == ["1", "2"]
    for ends in (("2", "1"), ("1", "1"), ("0", "9"), ("x", "1")):
        with pytest.raises(SaeGraphsError):
            stack.between(*ends)
