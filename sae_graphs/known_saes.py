"""Which SAEs a well-known model gets where the user names none: one default each."""

from __future__ import annotations

from typing import NamedTuple


class DefaultSAEs(NamedTuple):
    """A release of sae-lens, and which SAE of each layer."""

    release: str
    pattern: str | None = None


_SCOPE_2 = "layer_{layer}_width_16k_l0_big"  # closest to the mean L0 of 100 of Gemma Scope's own
# By the last part of the model's name, lower case.
DEFAULTS: dict[str, DefaultSAEs] = {
    "gpt2": DefaultSAEs("gpt2-small-res-jb"),
    "gpt2-small": DefaultSAEs("gpt2-small-res-jb"),
    "pythia-70m-deduped": DefaultSAEs("pythia-70m-deduped-res-sm"),
    "gemma-2-2b": DefaultSAEs(
        "gemma-scope-2b-pt-res-canonical", "layer_{layer}/width_16k/canonical"
    ),
    "gemma-2-9b": DefaultSAEs(
        "gemma-scope-9b-pt-res-canonical", "layer_{layer}/width_16k/canonical"
    ),
    "gemma-3-270m": DefaultSAEs("gemma-scope-2-270m-pt-res-all", _SCOPE_2),
    "gemma-3-270m-it": DefaultSAEs("gemma-scope-2-270m-it-res-all", _SCOPE_2),
    "gemma-3-1b-pt": DefaultSAEs("gemma-scope-2-1b-pt-res-all", _SCOPE_2),
    "gemma-3-1b-it": DefaultSAEs("gemma-scope-2-1b-it-res-all", _SCOPE_2),
    "gemma-3-4b-pt": DefaultSAEs("gemma-scope-2-4b-pt-res-all", _SCOPE_2),
    "gemma-3-4b-it": DefaultSAEs("gemma-scope-2-4b-it-res-all", _SCOPE_2),
    "gemma-3-12b-pt": DefaultSAEs("gemma-scope-2-12b-pt-res-all", _SCOPE_2),
    "gemma-3-12b-it": DefaultSAEs("gemma-scope-2-12b-it-res-all", _SCOPE_2),
    "gemma-3-27b-pt": DefaultSAEs("gemma-scope-2-27b-pt-res-all", _SCOPE_2),
    "gemma-3-27b-it": DefaultSAEs("gemma-scope-2-27b-it-res-all", _SCOPE_2),
    "llama-3.1-8b": DefaultSAEs("llama_scope_lxr_8x"),
    "deepseek-r1-distill-llama-8b": DefaultSAEs(
        "llama_scope_r1_distill", "l{layer}r_800m_slimpajama"
    ),
    "qwen3-1.7b-base": DefaultSAEs("qwen-scope-3-1.7b-base-w32k-l50"),
    "qwen3-8b-base": DefaultSAEs("qwen-scope-3-8b-base-w64k-l50"),
}


def default_saes(model: str) -> DefaultSAEs | None:
    """The default for a model's name; None where there is none."""
    return DEFAULTS.get(model.rpartition("/")[2].lower())
