"""Tiny random language models and SAEs: real classes, real files, seeded, made in a second.

Letters: `T` tokens, `D` d_model, `F` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from sae_lens import SAE
from sae_lens.saes.abstopk_sae import AbsTopKSAE, AbsTopKSAEConfig
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE, MatchingPursuitSAEConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from tests.support.once import state_of

D_MODEL, N_BLOCKS, N_FEATURES, CONTEXT = 16, 3, 40, 32
CORPUS = "the cat sat on the mat and (the dog) ran to the old red house while the cat slept on"
PROMPT = "the cat sat on the (old mat"  # 10 tokens with BOS, some of them twice
OTHER_PROMPT = "the dog ran to the (red cat"
ARCHITECTURES = ("gpt2", "llama", "neox", "gemma2", "qwen3", "gemma3")
KINDS = (
    "standard",
    "jumprelu",
    "topk",
    "topk_rescaled",
    "gated",
    "layer_norm",
    "constant_norm",
    "abstopk",
    "matching_pursuit",
)
STACKS: dict[str, tuple[str, ...]] = {
    "pre": (
        "blocks.0.hook_resid_pre",
        "blocks.1.hook_resid_pre",
        "blocks.2.hook_resid_pre",
        "blocks.2.hook_resid_post",
    ),
    "post": tuple(f"blocks.{block}.hook_resid_post" for block in range(N_BLOCKS)),
    "gap": ("blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre"),
    "mid": tuple(f"blocks.{block}.hook_resid_mid" for block in range(N_BLOCKS)),
    "mixed": ("blocks.0.hook_resid_mid", "blocks.1.hook_resid_pre", "blocks.2.hook_resid_mid"),
}


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE; like Llama's it puts BOS first unless told not to."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([CORPUS] * 3, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>", unk_token="<eos>"
    )


def _config(architecture: str) -> Any:
    vocabulary = {
        "vocab_size": len(tokenizer()),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    usual: dict[str, Any] = {
        "hidden_size": D_MODEL,
        "intermediate_size": 2 * D_MODEL,
        "num_hidden_layers": N_BLOCKS,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        **vocabulary,
    }
    grouped = {**usual, "num_key_value_heads": 2, "head_dim": 4}
    windowed = {**grouped, "sliding_window": 4, "query_pre_attn_scalar": 4}
    match architecture:
        case "gpt2":
            sizes = {"n_embd": D_MODEL, "n_layer": N_BLOCKS, "n_head": 4, "n_positions": CONTEXT}
            return GPT2Config(**sizes, **vocabulary)
        case "llama":
            return LlamaConfig(**grouped)
        case "neox":
            return GPTNeoXConfig(**usual)
        case "gemma2":
            caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0}
            return Gemma2Config(**windowed, **caps)
        case "qwen3":
            return Qwen3Config(**grouped)
        case "gemma3":
            return Gemma3TextConfig(**windowed)
        case "gpt_neo":  # masks by a buffer of its own, which looks at how long the input is
            layers = [[["local", "global"], 2]]
            sizes = {"hidden_size": D_MODEL, "num_layers": 4, "num_heads": 4, "window_size": 64}
            return GPTNeoConfig(
                **sizes, attention_types=layers, max_position_embeddings=2048, **vocabulary
            )
        case "bloom":  # tells positions by a tensor that does not take copies of the prompt
            return BloomConfig(hidden_size=D_MODEL, n_layer=N_BLOCKS, n_head=4, **vocabulary)
    raise AssertionError(f"no architecture {architecture}")


def save_model(architecture: str, folder: Path, *, seed: int = 0) -> Path:
    """A random model and its tokenizer as a Hugging Face folder.

    Weights are larger than an untrained model's, so that every block changes the stream visibly.
    """
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(_config(architecture))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            noise = torch.randn(weights.shape, generator=generator)
            if weights.ndim == 2:
                weights.copy_(noise * (0.7 if "emb" in name or "wte" in name else 0.35))
            elif name.endswith("bias"):
                weights.copy_(0.1 * noise)
            else:  # a norm's scale: around 1 as GPT-2 stores it, around 0 as Gemma does
                weights.copy_(weights + 0.1 * noise)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def load_bridge(folder: Path, dtype: torch.dtype) -> Any:
    """The saved model through the bridge, without gradients."""
    with torch.no_grad():
        bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=dtype)
        return bridge.eval().requires_grad_(False)


def random_sae(
    kind: str,
    hook_name: str,
    *,
    size: float,
    seed: int,
    dtype: str = "float64",
    d_in: int = D_MODEL,
    n_features: int = N_FEATURES,
    **metadata: Any,
) -> SAE[Any]:
    """An SAE for a stream whose entries have root mean square `size`.

    About a quarter of its features are active at a position (a fifth with TopK), and each
    decodes to about a fifth of the stream's norm.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shared: dict[str, Any] = {"d_in": d_in, "d_sae": n_features, "dtype": dtype}
    normalised = {"layer_norm": "layer_norm", "constant_norm": "constant_norm_rescale"}.get(kind)
    if normalised is not None:
        shared["normalize_activations"] = normalised
        size = 1.0
    sae: SAE[Any]
    match kind:
        case "standard" | "layer_norm" | "constant_norm":
            sae = StandardSAE(StandardSAEConfig(**shared))
        case "jumprelu":
            sae = JumpReLUSAE(JumpReLUSAEConfig(**shared))
        case "topk" | "topk_rescaled":
            rescale = kind == "topk_rescaled"
            sae = TopKSAE(TopKSAEConfig(**shared, k=8, rescale_acts_by_decoder_norm=rescale))
        case "gated":
            sae = GatedSAE(GatedSAEConfig(**shared))
        case "abstopk":
            sae = AbsTopKSAE(AbsTopKSAEConfig(**shared, k=8))
        case "matching_pursuit":
            sae = MatchingPursuitSAE(MatchingPursuitSAEConfig(**shared, max_iterations=6))
        case _:
            raise AssertionError(f"no SAE kind {kind}")
    weights = {
        "W_enc": normal(d_in, n_features) / (size * d_in**0.5),
        "W_dec": size * 0.2 * normal(n_features, d_in) * (0.5 + normal(n_features, 1).abs()),
        "b_dec": size * 0.1 * normal(d_in),
        "b_enc": 0.1 * normal(n_features) - 0.67,
        "threshold": 0.3 + 0.6 * normal(n_features).abs(),
        "b_gate": 0.1 * normal(n_features) - 0.67,
        "b_mag": 0.1 * normal(n_features),
        "r_mag": 0.2 * normal(n_features),
    }
    if kind == "jumprelu":
        weights["b_enc"] += 0.3
    if kind == "matching_pursuit":  # its directions are projected on, and must have length 1
        weights["W_dec"] /= weights["W_dec"].norm(dim=1, keepdim=True)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(weights[name])
    said = {"model_name": "tiny", "hook_name": hook_name, "prepend_bos": True, **metadata}
    sae.cfg.metadata = SAEMetadata(**said)
    return sae.requires_grad_(False).eval()


def random_stack(
    bridge: Any,
    hook_names: Sequence[str],
    kinds: Sequence[str],
    *,
    seed: int = 0,
    dtype: str = "float64",
    **metadata: Any,
) -> list[SAE[Any]]:
    """One SAE per hook, its kind going round `kinds`, scaled to the stream of `PROMPT`."""
    sizes = _sizes(bridge, hook_names)
    return [
        random_sae(
            kinds[number % len(kinds)],
            hook,
            size=sizes[hook],
            seed=1000 * seed + number,
            dtype=dtype,
            **metadata,
        )
        for number, hook in enumerate(hook_names)
    ]


def _sizes(bridge: Any, hook_names: Sequence[str]) -> dict[str, float]:
    """The root mean square of the stream's entries at hooks; the model is run once."""
    state, known = _SIZES.get(bridge, (None, {}))
    if state != state_of(bridge) or not known.keys() >= set(hook_names):
        ids = [0, *tokenizer()(PROMPT, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            _, cache_ = bridge.run_with_cache(torch.tensor([ids]))
        usual = {hook for stack in STACKS.values() for hook in stack if hook in cache_}
        known = {
            hook: float(cache_[hook][0, 1:].double().square().mean().sqrt())
            for hook in usual.union(hook_names)
        }
        _SIZES[bridge] = state_of(bridge), known
    return known


_SIZES: WeakKeyDictionary[Any, tuple[object, dict[str, float]]] = WeakKeyDictionary()


def in_dtype(saes: Sequence[SAE[Any]], dtype: str) -> list[SAE[Any]]:
    """Copies of the SAEs with their weights in another precision."""
    copies: list[SAE[Any]] = []
    for sae in saes:
        cfg = type(sae.cfg).from_dict({**sae.cfg.to_dict(), "dtype": dtype})
        twin = type(sae)(cfg)
        twin.load_state_dict(sae.state_dict())
        copies.append(twin.requires_grad_(False).eval())
    return copies


def save_model_folder(folder: Path) -> Path:
    """A tiny GPT-2 as a Hugging Face folder."""
    return save_model("gpt2", folder)


def save_sae_folder(folder: Path) -> Path:
    """Four SAEs that fit it, `0` to `3`, one sub-folder each."""
    saes = [
        random_sae("standard", hook, size=1.0, seed=number, dtype="float32")
        for number, hook in enumerate(STACKS["pre"])
    ]
    return save_saes(saes, folder)


def save_saes(saes: Sequence[SAE[Any]], folder: Path) -> Path:
    """One sub-folder per SAE, as sae-lens writes them."""
    for number, sae in enumerate(saes):
        sae.save_model(folder / f"layer_{number}")
    return folder
