"""Generated SAEs that explain a stream, written in the formats of the real releases.

Letters: `N` tokens, `D` d_model, `F` features.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

SHARE = 0.25  # of a small SAE's features are active at a token
RIDGE = 0.05  # how far from the stream the decoder's last touch may stay
K = 8  # features that a small TopK SAE keeps


class Place(NamedTuple):
    """Which SAE to write: its block and hook, its path in the repository, and where that lies."""

    snapshot: Path
    path: str
    block: int
    hook_name: str


class Weights(NamedTuple):
    """`W_enc` `[D, F]`, `W_dec` `[F, D]`, the biases, and what each feature must exceed `[F]`."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    threshold: Tensor

    @property
    def sizes(self) -> dict[str, int]:
        return {"d_in": self.W_enc.shape[0], "d_sae": self.W_enc.shape[1]}


def explaining(
    stream: Tensor,
    n_features: int,
    *,
    kind: str,
    seed: int,
    b_dec_to_input: bool,
    k: int = K,
    share: float = SHARE,
) -> Weights:
    """An SAE of a `kind` (`relu`, `jumprelu`, `topk`) fitted by hand to a stream `[N, D]`.

    Features come in pairs along random orthogonal axes, one for each direction, so that they
    rebuild what they let through; about a `share` of them is active at a token, or `k` with
    TopK. The decoder is then moved as little as it takes to rebuild this stream (ridge
    regression).
    `b_dec_to_input` says whether the SAE subtracts `b_dec` before it encodes.
    """
    generator = torch.Generator().manual_seed(seed)
    d_model = stream.shape[1]
    mean = stream.mean(0)
    centred = stream - mean
    axes = _axes(d_model, n_features, generator)  # [F, D]
    scale = 0.75 + 0.5 * torch.rand(n_features, generator=generator)
    spread = (centred @ axes.T).std(0)  # [F]
    least = NormalDist().inv_cdf(1 - share)  # in standard deviations
    quiet = spread * least * (0.9 + 0.2 * torch.rand(n_features, generator=generator))
    encoder = axes.T * scale  # [D, F]
    bias = -quiet * scale if kind == "relu" else torch.zeros(n_features)
    threshold = quiet * scale
    before = centred @ encoder + bias  # [N, F]
    match kind:
        case "relu":
            active = before.relu()
        case "jumprelu":
            active = before * (before > threshold)
        case "topk":
            last = before.topk(k, dim=-1).values[:, -1:]
            active = before.relu() * (before >= last)
        case _:
            raise AssertionError(f"no kind {kind}")
    decoder = axes / scale[:, None]
    rebuilt = active @ decoder
    decoder = decoder * ((centred * rebuilt).sum() / rebuilt.square().sum())
    products = active @ active.T  # [N, N]
    products.diagonal().add_(RIDGE * products.diagonal().mean())
    decoder += active.T @ torch.linalg.solve(products, centred - active @ decoder)
    if not b_dec_to_input:
        bias = bias - mean @ encoder
    parts = (encoder, bias, decoder, mean, threshold)
    return Weights(*(part.float().contiguous() for part in parts))


def _axes(d_model: int, n_features: int, generator: torch.Generator) -> Tensor:
    """`[F, D]` unit vectors: random orthogonal ones and their opposites, as often as they fit."""
    rows: list[Tensor] = []
    while sum(len(row) for row in rows) < n_features:
        basis = torch.linalg.qr(torch.randn(d_model, d_model, generator=generator)).Q
        rows += [basis, -basis]
    return torch.cat(rows)[:n_features]


# -- formats ---------------------------------------------------------------------------------------


def write_res_jb(place: Place, weights: Weights) -> None:
    """gpt2-small-res-jb: a flat configuration from before sae-lens 6, without `prepend_bos`."""
    cfg = {
        "model_name": "gpt2-small",
        "hook_point": place.hook_name,
        "hook_point_layer": place.block,
        "hook_point_head_index": None,
        "dataset_path": "Skylion007/openwebtext",
        "is_dataset_tokenized": False,
        "context_size": 128,
        "use_cached_activations": False,
        "device": "mps",
        "seed": 42,
        "dtype": "torch.float32",
        "b_dec_init_method": "geometric_median",
        "expansion_factor": weights.sizes["d_sae"] // weights.sizes["d_in"],
        "l1_coefficient": 8e-05,
        **weights.sizes,
    }
    ones = {"scaling_factor": torch.ones(weights.sizes["d_sae"])}  # as the real files still have
    _write_sae_lens(place, cfg, {**_standard(weights), **ones})


def write_pythia(place: Place, weights: Weights) -> None:
    """pythia-70m-deduped-res-sm: flat, from before sae-lens 6."""
    cfg = {
        "architecture": "standard",
        "model_name": "pythia-70m-deduped",
        "hook_name": place.hook_name,
        "hook_layer": place.block,
        "hook_head_index": None,
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "normalize_activations": "none",
        "context_size": 128,
        "prepend_bos": True,
        "dtype": "torch.float32",
        **weights.sizes,
    }
    _write_sae_lens(place, cfg, _standard(weights))


def write_openai(place: Place, weights: Weights) -> None:
    """gpt2-small-resid-post-v5-32k: TopK said by the activation's name, inputs layer-normalised."""
    cfg = {
        "architecture": "standard",
        "model_name": "gpt2-small",
        "hook_name": place.hook_name,
        "hook_layer": place.block,
        "hook_head_index": None,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 32 if weights.sizes["d_in"] == 768 else K},
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "normalize_activations": "layer_norm",
        "context_size": 64,
        "prepend_bos": False,
        "dtype": "torch.float32",
        **weights.sizes,
    }
    _write_sae_lens(place, cfg, _standard(weights))


def write_gemma_scope(place: Place, weights: Weights) -> None:
    """Gemma Scope: `params.npz` alone, lower-case names."""
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in _lower(weights).items()}
    np.savez(_file(place, "params.npz"), **arrays)


def write_gemma_scope_2(place: Place, weights: Weights) -> None:
    """Gemma Scope 2: `params.safetensors` with a `config.json`."""
    cfg = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-270m-pt",
        "hf_hook_point_in": f"model.layers.{place.block}.output",
        "width": weights.sizes["d_sae"],
    }
    save_file(_lower(weights), _file(place, "params.safetensors"))
    _file(place, "config.json").write_text(json.dumps(cfg), encoding="utf-8")


def write_llama_scope(place: Place, weights: Weights, factor: float) -> None:
    """Llama Scope: weights for a stream times `factor`, one threshold for all features."""
    sizes = weights.sizes
    cfg = {
        "d_model": sizes["d_in"],
        "d_sae": sizes["d_sae"],
        "hook_point_in": place.hook_name,
        "hook_point_out": place.hook_name,
        "dataset_average_activation_norm": {"in": sizes["d_in"] ** 0.5 / factor},
        "jump_relu_threshold": float(weights.threshold.mean()) / factor,
    }
    tensors = {
        "encoder.weight": weights.W_enc.T.contiguous(),
        "encoder.bias": weights.b_enc,
        "decoder.weight": weights.W_dec.T.contiguous(),
        "decoder.bias": weights.b_dec,
    }
    _file(place, "hyperparams.json").write_text(json.dumps(cfg), encoding="utf-8")
    save_file(tensors, _file(place, "checkpoints/final.safetensors"))


def write_qwen_scope(place: Place, weights: Weights) -> None:
    """Qwen Scope: one file per layer made by `torch.save`, matrices the other way round."""
    at = place.snapshot / place.path
    at.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        "W_enc": weights.W_enc.T.contiguous(),
        "W_dec": weights.W_dec.T.contiguous(),
        "b_enc": weights.b_enc,
        "b_dec": weights.b_dec,
    }
    torch.save(tensors, at)


Writer = Callable[[Place, Weights], None]


def _standard(weights: Weights) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights._asdict().items() if name != "threshold"}


def _lower(weights: Weights) -> dict[str, Tensor]:
    return {name.lower(): tensor for name, tensor in weights._asdict().items()}


def _file(place: Place, name: str) -> Path:
    at = place.snapshot / place.path / name
    at.parent.mkdir(parents=True, exist_ok=True)
    return at


def _write_sae_lens(place: Place, cfg: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    _file(place, "cfg.json").write_text(json.dumps(cfg), encoding="utf-8")
    save_file(tensors, _file(place, "sae_weights.safetensors"))
