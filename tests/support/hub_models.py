"""Generated language models and tokenizers as the hub's repositories hold them.

The architectures, numbers of blocks, and habits of the tokenizers (who puts BOS first)
are the real models'; the weights are random and the widths small, but for GPT-2's where asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from tests.support.models import CORPUS

D_MODEL, CONTEXT = 16, 64
TEXT = (
    CORPUS,
    "Copyright (C) 1990 (C) Free Software Foundation. All rights reserved.",
    "Foreign Direct Investment (FDI) and the International Monetary Fund (IMF)",
)


class Special(NamedTuple):
    """A tokenizer's special tokens, and whether it puts BOS before every text."""

    bos: str | None
    eos: str
    adds_bos: bool


SPECIAL = {
    "gpt2": Special("<|endoftext|>", "<|endoftext|>", adds_bos=False),
    "gpt_neox": Special("<|endoftext|>", "<|endoftext|>", adds_bos=False),
    "gemma2": Special("<bos>", "<eos>", adds_bos=True),
    "gemma3_text": Special("<bos>", "<eos>", adds_bos=True),
    "llama": Special("<|begin_of_text|>", "<|end_of_text|>", adds_bos=True),
    "qwen3": Special(None, "<|endoftext|>", adds_bos=False),
}


def tokenizer(kind: str, size: int | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE; with `size`, padded with entries that no text gives."""
    special = SPECIAL[kind]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[name for name in dict.fromkeys(special[:2]) if name],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT * 2, trainer)
    if size is not None:
        bpe.model = _padded(bpe, size)
    bpe.decoder = decoders.ByteLevel()
    if special.adds_bos and special.bos is not None:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{special.bos} $A", special_tokens=[(special.bos, bpe.token_to_id(special.bos))]
        )
    named = {"bos_token": special.bos, "eos_token": special.eos, "pad_token": special.eos}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, **{name: token for name, token in named.items() if token}
    )


def _padded(bpe: Tokenizer, size: int) -> models.BPE:
    import json

    learned = json.loads(bpe.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    for number in range(len(vocabulary), size):
        vocabulary[f"<unused{number}>"] = number  # no merge leads there
    return models.BPE(vocab=vocabulary, merges=[tuple(pair) for pair in learned["merges"]])


def config(kind: str, n_blocks: int, reads: PreTrainedTokenizerFast, *, full: bool = False) -> Any:
    """The configuration of a small model of the architecture; `full`: of GPT-2 as it is."""
    vocabulary = {
        "vocab_size": len(reads),
        "bos_token_id": reads.bos_token_id if reads.bos_token else reads.eos_token_id,
        "eos_token_id": reads.eos_token_id,
        "pad_token_id": reads.pad_token_id,
    }
    if full:
        assert kind == "gpt2", f"{kind} is never made at its full width"
        return GPT2Config(n_ctx=1024, **vocabulary)
    usual: dict[str, Any] = {
        "hidden_size": D_MODEL,
        "intermediate_size": 2 * D_MODEL,
        "num_hidden_layers": n_blocks,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        **vocabulary,
    }
    grouped = {**usual, "num_key_value_heads": 2, "head_dim": 4}
    windowed = {**grouped, "sliding_window": 8, "query_pre_attn_scalar": 4}
    match kind:
        case "gpt2":
            sizes = {"n_embd": D_MODEL, "n_layer": n_blocks, "n_head": 4, "n_positions": CONTEXT}
            return GPT2Config(**sizes, **vocabulary, n_ctx=CONTEXT)  # n_ctx: as the real file
        case "gpt_neox":
            return GPTNeoXConfig(**{**usual, "num_attention_heads": 2}, use_parallel_residual=True)
        case "gemma2":
            return Gemma2Config(
                **windowed, attn_logit_softcapping=50.0, final_logit_softcapping=30.0
            )
        case "gemma3_text":
            return Gemma3TextConfig(**windowed)
        case "llama":
            return LlamaConfig(**grouped)
        case "qwen3":
            return Qwen3Config(**grouped)
    raise AssertionError(f"no architecture {kind}")


def save_model(
    kind: str, folder: Path, *, n_blocks: int, full: bool = False, seed: int = 0
) -> None:
    """Configuration, weights and tokenizer, as a repository's files.

    Weights are larger than an untrained model's, so that every block changes the stream visibly.
    """
    reads = tokenizer(kind, 50257 if full else None)
    model = AutoModelForCausalLM.from_config(config(kind, n_blocks, reads, full=full))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            noise = torch.randn(weights.shape, generator=generator)
            if weights.ndim == 2:
                embeds = "emb" in name or "wte" in name or "wpe" in name
                weights.copy_(noise * (0.7 if embeds else 1.4 / model.config.hidden_size**0.5))
            elif name.endswith("bias"):
                weights.copy_(0.1 * noise)
            else:  # a norm's scale: around 1 as GPT-2 stores it, around 0 as Gemma does
                weights.copy_(weights + 0.1 * noise)
    model.save_pretrained(folder)
    reads.save_pretrained(folder)
