"""Families of transformers models, tiny and random, each beside the plain model: equal, or refused.

`python -m tests.support.zoo` writes the table of docs/families.md anew.

A family's model is saved as a folder, and loaded twice: by sae_graphs, and by transformers alone.
What the second makes of a prompt, with plain forward hooks on its own blocks and no other code of
the package, is what the first must measure.

Letters: `T` tokens, `D` d_model, `F` features.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as hf
from sae_lens import SAE
from torch import Tensor, nn

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from tests.support.models import PROMPT, random_sae, tokenizer

WIDTH, LAYERS, FEATURES = 32, 3, 24
USUAL: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**USUAL, "num_key_value_heads": 2, "head_dim": 8}
OPT = {"hidden_size": WIDTH, "ffn_dim": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
WINDOWED = {**GROUPED, "sliding_window": 4, "query_pre_attn_scalar": 8}
GPT = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
EXPERTS = {**GROUPED, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SCALED_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


class Family(NamedTuple):
    """A model class of transformers, by its configuration's name, and one of its shapes."""

    config: str
    sizes: dict[str, Any]
    dtype: str = "float64"  # mixtures of experts run in float32 alone


FAMILIES: dict[str, Family] = {
    "GPT-2": Family("GPT2Config", GPT),
    "GPT-Neo": Family(
        "GPTNeoConfig",
        {
            **{"hidden_size": WIDTH, "num_layers": 4, "num_heads": 4, "window_size": 4},
            "attention_types": [[["global", "local"], 2]],
            "max_position_embeddings": 64,
        },
    ),
    "GPT-NeoX": Family("GPTNeoXConfig", USUAL),
    "GPT-NeoX, sequential": Family("GPTNeoXConfig", {**USUAL, "use_parallel_residual": False}),
    "GPT-J": Family("GPTJConfig", {**GPT, "rotary_dim": 4}),
    "GPT BigCode": Family("GPTBigCodeConfig", GPT),
    "BLOOM": Family("BloomConfig", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4}),
    "OPT": Family("OPTConfig", {**OPT, "word_embed_proj_dim": WIDTH}),
    "OPT-350m": Family(
        "OPTConfig", {**OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}
    ),
    "Falcon": Family("FalconConfig", USUAL),
    "Falcon, new decoder": Family(
        "FalconConfig", {**USUAL, "new_decoder_architecture": True, "num_kv_heads": 2}
    ),
    "MPT": Family("MptConfig", {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": 4}),
    "Llama": Family("LlamaConfig", GROUPED),
    "Llama 3, scaled rope": Family("LlamaConfig", {**GROUPED, "rope_parameters": SCALED_ROPE}),
    "Mistral": Family("MistralConfig", {**GROUPED, "sliding_window": 4}),
    "Mixtral": Family("MixtralConfig", {**GROUPED, "num_local_experts": 4}, "float32"),
    "Qwen2": Family("Qwen2Config", GROUPED),
    "Qwen2 MoE": Family(
        "Qwen2MoeConfig",
        {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 24},
        "float32",
    ),
    "Qwen3": Family("Qwen3Config", GROUPED),
    "Qwen3 MoE": Family("Qwen3MoeConfig", {**EXPERTS, "num_experts": 4}, "float32"),
    "Gemma": Family("GemmaConfig", GROUPED),
    "Gemma 2": Family(
        "Gemma2Config",
        {**WINDOWED, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0},
    ),
    "Gemma 3": Family("Gemma3TextConfig", WINDOWED),
    "Phi": Family("PhiConfig", USUAL),
    "Phi-3": Family("Phi3Config", {**USUAL, "num_key_value_heads": 2, "pad_token_id": 1}),
    "StableLM": Family("StableLmConfig", {**USUAL, "num_key_value_heads": 2}),
    "StableLM, head_dim 4": Family("StableLmConfig", {**USUAL, "num_attention_heads": 8}),
    "StarCoder2": Family("Starcoder2Config", {**USUAL, "num_key_value_heads": 2}),
    "Granite": Family(
        "GraniteConfig",
        {
            **GROUPED,
            **{"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
        },
    ),
    "Cohere": Family("CohereConfig", {**GROUPED, "logit_scale": 1.0}),
    "Cohere, q/k norm": Family(
        "CohereConfig", {**GROUPED, "logit_scale": 0.25, "use_qk_norm": True}
    ),
    "Cohere 2": Family("Cohere2Config", {**GROUPED, "logit_scale": 0.25, "sliding_window": 4}),
    "OLMo": Family("OlmoConfig", {**USUAL, "num_key_value_heads": 2}),
    "OLMo 2": Family("Olmo2Config", {**USUAL, "num_key_value_heads": 2}),
    "OLMo 3": Family("Olmo3Config", {**USUAL, "num_key_value_heads": 2, "sliding_window": 4}),
    "OLMoE": Family(
        "OlmoeConfig", {**USUAL, "num_experts": 4, "num_experts_per_tok": 2}, "float32"
    ),
    "EXAONE 4": Family("Exaone4Config", {**GROUPED, "sliding_window": 4}),
    "SmolLM3": Family("SmolLM3Config", GROUPED),
    "HunYuan dense": Family("HunYuanDenseV1Config", GROUPED),
    "Nemotron": Family("NemotronConfig", GROUPED),
    "GLM": Family("GlmConfig", GROUPED),
    "GLM-4": Family("Glm4Config", GROUPED),
    "ERNIE 4.5": Family("Ernie4_5Config", GROUPED),
    "GPT-OSS": Family("GptOssConfig", {**EXPERTS, "num_local_experts": 4}, "float32"),
    "Arcee": Family("ArceeConfig", GROUPED),
    "SeedOSS": Family("SeedOssConfig", GROUPED),
    "NanoChat": Family("NanoChatConfig", GROUPED),
    "Mamba": Family("MambaConfig", {"hidden_size": WIDTH, "num_hidden_layers": LAYERS}),
    "BERT": Family("BertConfig", USUAL),
}


# What transformer_lens 3.9 cannot carry, and a word of the reason. A later one may, and no test
# fails then.
REFUSED = {
    "BERT": "left to right",
    "Cohere": "is not the model",
    "Cohere 2": "is not the model",
    "Cohere, q/k norm": "q_norm",
    "Falcon, new decoder": "split_with_sizes",
    "HunYuan dense": "is not the model",
    "StableLM, head_dim 4": "its own forward pass",
}


def save_family(name: str, folder: Path, *, seed: int = 0) -> Path:
    """A random model of a family and a tokenizer, as a folder; every scale is its own number."""
    family = FAMILIES[name]
    vocabulary = {"vocab_size": len(tokenizer()), "bos_token_id": 0, "eos_token_id": 1}
    config = getattr(hf, family.config)(**vocabulary, **{"pad_token_id": 1} | family.sizes)
    generator = torch.Generator().manual_seed(seed)
    loader = hf.AutoModelForMaskedLM if name == "BERT" else hf.AutoModelForCausalLM
    model = loader.from_config(config)
    with torch.no_grad():
        for part, weights in model.named_parameters():
            noise = torch.randn(weights.shape, generator=generator)
            embeds = any(word in part for word in ("emb", "wte", "wpe"))
            if weights.ndim >= 2:
                weights.copy_(noise * (0.7 if embeds else 0.25))
            elif part.endswith("bias"):
                weights.copy_(0.1 * noise)
            else:  # a norm's scale
                weights.copy_(weights + 0.3 * noise)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


class Plain:
    """A model of transformers alone: its streams, logits and effects by plain forward hooks."""

    def __init__(self, folder: Path, dtype: str) -> None:
        with torch.no_grad():
            self.model: Any = hf.AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation="eager"
            ).eval()
        text = self.model.config.get_text_config()
        self.blocks = next(
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == text.num_hidden_layers
        )

    @torch.no_grad()
    def run(
        self, ids: Sequence[int], change: tuple[int, Tensor] | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """The stream after each block `[T, D]`, and the logits; one block's may be replaced."""
        seen: dict[int, Tensor] = {}

        def hook(number: int) -> Any:
            def put(module: nn.Module, args: Any, out: Any) -> Any:
                if change is not None and number == change[0]:
                    out = (change[1][None], *out[1:]) if isinstance(out, tuple) else change[1][None]
                seen[number] = (out[0] if isinstance(out, tuple) else out)[0]
                return out

            return put

        handles = [block.register_forward_hook(hook(n)) for n, block in enumerate(self.blocks)]
        try:
            logits = self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        return [seen[number] for number in range(len(self.blocks))], logits

    @torch.no_grad()
    def effects(self, ids: Sequence[int], saes: Sequence[SAE[Any]], block: int) -> Tensor:
        """`[F, F]`: each feature of the SAE after a block zeroed everywhere but at the first token,
        read at the last; on features of the SAE after the next block."""
        streams, _ = self.run(ids)
        sae, target = saes[block], saes[block + 1]
        acts, clean = sae.encode(streams[block]), target.encode(streams[block + 1])
        found = torch.zeros(acts.shape[1], clean.shape[1], dtype=acts.dtype)
        for feature in range(acts.shape[1]):
            changed = acts.clone()
            changed[1:, feature] = 0
            stream = streams[block] - (sae.decode(acts) - sae.decode(changed))
            after, _ = self.run(ids, (block, stream))
            found[feature] = (target.encode(after[block + 1]) - clean)[-1]
        return found


class Row(NamedTuple):
    """A family beside its plain model: the largest deviations, or why it is refused.

    Of streams and logits as parts of their norm, row by row; of effects as parts of the largest.
    """

    family: str
    streams: float = float("nan")
    logits: float = float("nan")
    effects: float = float("nan")
    refused: str = ""


def compared(name: str, folder: Path) -> Row:
    """A family's model through sae_graphs beside transformers' own."""
    dtype = FAMILIES[name].dtype
    try:
        model = sg.load_model(folder, dtype=dtype)
        run = model.run(PROMPT, prepend_bos=True)
        plain = Plain(folder, dtype)
        streams, logits = plain.run(run.token_ids)
        saes = _saes(streams, dtype)
        instrumented = sg.InstrumentedModel(model.model, saes, name=name)
        graph = sg.causal_graph(
            instrumented, PROMPT, select="effect", top_k=10**6, min_path_edges=1, prepend_bos=True
        )
    except SaeGraphsError as problem:
        return Row(name, refused=str(problem))
    off = [_off(ours, theirs) for ours, theirs in zip(run.inputs[1:], streams, strict=True)]
    worst = 0.0
    for block in range(len(streams) - 1):
        expected = plain.effects(run.token_ids, saes, block)
        measured = torch.zeros_like(expected)
        for edge in graph.edges:
            if edge.source.layer == str(block):
                measured[edge.source.index, edge.target.index] = edge.effect
        assert expected.abs().max() > 0, f"{name}: nothing changes anything"
        worst = max(worst, float((measured - expected).abs().max() / expected.abs().max()))
    unembedded = model.unembed(run.inputs[-1])  # logits come of it wherever effects are on tokens
    both = max(_off(run.logits, logits), _off(unembedded, logits))
    return Row(name, max(off), both, worst)


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| family | streams | logits | effects |", "|---|---|---|---|"]
    for row in rows:
        if row.refused:
            lines.append(f"| {row.family} | refused | | {_reason(row.refused)} |")
        else:
            numbers = (f"{value:.0e}" for value in row[1:4])
            lines.append(f"| {row.family} | {' | '.join(numbers)} |")
    return "\n".join(lines)


# -- inside ----------------------------------------------------------------------------------------


def _saes(streams: Sequence[Tensor], dtype: str) -> list[SAE[Any]]:
    return [
        random_sae(
            "standard",
            f"blocks.{block}.hook_resid_post",
            size=float(stream[1:].double().square().mean().sqrt()),
            seed=block,
            dtype=dtype,
            d_in=stream.shape[1],
            n_features=FEATURES,
        )
        for block, stream in enumerate(streams)
    ]


def _off(ours: Tensor, theirs: Tensor) -> float:
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


def _reason(refused: str) -> str:
    """The line of a refusal without paths, and what one does about it."""
    return re.sub(r"(model )?\S*/\S*/\d+'?", "it", refused).split("; ")[0].replace("|", "\\|")


def main(file: Path) -> None:
    """Write the table of the documents anew, between its marks."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        rows = [
            compared(name, save_family(name, Path(folder) / str(number)))
            for number, name in enumerate(FAMILIES)
        ]
    before, mark, rest = file.read_text(encoding="utf-8").partition("<!-- families -->\n")
    _, end, after = rest.partition("\n<!-- end -->")
    file.write_text(before + mark + table(rows) + end + after, encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    main(Path("docs/families.md"))
