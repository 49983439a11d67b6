"""A tiny Llama as a GGUF file, written by the `gguf` package from a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor
from transformers import AutoModelForCausalLM

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(folder: Path, file: Path) -> Path:
    """The Llama in a folder, in float32, and its byte-level tokenizer."""
    import gguf

    model = AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, folder)
    for name, tensor in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if stem == "lm_head" and config.tie_word_embeddings:
            continue
        if stem in OUTSIDE:
            named = OUTSIDE[stem]
        else:
            _, _, block, part = stem.split(".", 3)
            named = f"blk.{block}.{NAMES[part]}"
        if named.endswith(("attn_q", "attn_k")):
            heads = (
                config.num_attention_heads if named.endswith("q") else config.num_key_value_heads
            )
            tensor = _permuted(tensor, heads)
        writer.add_tensor(f"{named}.{kind}", tensor.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _permuted(weights: Tensor, heads: int) -> Tensor:
    """The rows of a head interleaved, as llama.cpp turns them."""
    rows, width = weights.shape
    return weights.view(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def _add_tokenizer(writer: object, folder: Path) -> None:
    import gguf

    assert isinstance(writer, gguf.GGUFWriter)
    held = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = sorted(held["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["id"] for token in held["added_tokens"]}
    merges = [" ".join(pair) for pair in held["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    kinds = [
        gguf.TokenType.CONTROL if at in special else gguf.TokenType.NORMAL for _, at in vocabulary
    ]
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(1)
