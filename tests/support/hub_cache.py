"""A local Hugging Face cache with generated models and SAEs, under the real names and formats.

With it, what is loaded by name online is loaded by the same code offline:

    python -m tests.support.hub_cache FOLDER --stack gpt2-small
    HF_HOME=FOLDER HF_HUB_OFFLINE=1 sae-graphs graph "Copyright (C" --model gpt2-small

`--full` makes GPT-2 and its SAEs at their real widths (2.5 GB; about 2 GiB of memory). Stacks with
`overrides` are narrower than sae-lens takes for granted: they load inside `cache_in_use` only.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from tests.support.hub_models import D_MODEL, save_model
from tests.support.hub_weights import (
    SHARE,
    K,
    Place,
    Writer,
    explaining,
    write_gemma_scope,
    write_gemma_scope_2,
    write_llama_scope,
    write_openai,
    write_pythia,
    write_qwen_scope,
    write_res_jb,
)
from tests.support.models import OTHER_PROMPT, PROMPT, load_bridge

PROMPTS = (PROMPT, OTHER_PROMPT, "Copyright (C", "Foreign Direct Investment (F")
N_FEATURES = 32
FULL_K, FULL_SHARE = 32, 0.003  # about 70 of 24576 are active at a token, as in res-jb's middle
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubStack:
    """A model and a release of SAEs: how both are called on the hub, and how they are generated.

    `ids` is a regular expression of the SAEs to write; `pattern` is what a user would choose of
    them with, where there are several a layer.
    """

    name: str
    model: str
    architecture: str
    n_blocks: int
    release: str
    kind: str
    write: Writer | None
    ids: str = ".*"
    pattern: str | None = None
    b_dec_to_input: bool = False
    layer_norm: bool = False
    n_features: int = N_FEATURES
    full_features: int | None = None
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> Any:
        """What sae-lens's directory says of the release."""
        return get_pretrained_saes_directory()[self.release]

    @property
    def paths(self) -> dict[str, str]:
        """SAE id to path in the repository, of those that are written."""
        return {i: path for i, path in self.entry.saes_map.items() if re.fullmatch(self.ids, i)}


_NARROW: dict[str, Any] = {"d_in": D_MODEL, "d_sae": N_FEATURES}
_ALL = (
    HubStack(
        name="gpt2-small",
        model="gpt2",
        architecture="gpt2",
        n_blocks=12,
        release="gpt2-small-res-jb",
        kind="relu",
        write=write_res_jb,
        b_dec_to_input=True,
        full_features=24576,
    ),
    HubStack(
        name="gpt2-small-v5",
        model="gpt2",
        architecture="gpt2",
        n_blocks=12,
        release="gpt2-small-resid-post-v5-32k",
        kind="topk",
        write=write_openai,
        b_dec_to_input=True,
        layer_norm=True,
        full_features=32768,
    ),
    HubStack(
        name="pythia-70m-deduped",
        model="EleutherAI/pythia-70m-deduped",
        architecture="gpt_neox",
        n_blocks=6,
        release="pythia-70m-deduped-res-sm",
        kind="relu",
        write=write_pythia,
        b_dec_to_input=True,
    ),
    HubStack(
        name="gemma-2-2b",
        model="google/gemma-2-2b",
        architecture="gemma2",
        n_blocks=26,
        release="gemma-scope-2b-pt-res-canonical",
        kind="jumprelu",
        write=write_gemma_scope,
        ids=r"layer_\d+/width_(16k|65k)/canonical",
        pattern="layer_{layer}/width_16k/canonical",
        overrides=_NARROW,
    ),
    HubStack(
        name="qwen3-1.7b",
        model="Qwen/Qwen3-1.7B-Base",
        architecture="qwen3",
        n_blocks=28,
        release="qwen-scope-3-1.7b-base-w32k-l50",
        kind="topk",
        write=write_qwen_scope,
        overrides={**_NARROW, "activation_fn_kwargs": {"k": K}},
    ),
    HubStack(
        name="llama-3.1-8b",
        model="meta-llama/Llama-3.1-8B",
        architecture="llama",
        n_blocks=32,
        release="llama_scope_lxr_8x",
        kind="jumprelu",
        write=None,  # each SAE has a factor of its own
    ),
    HubStack(
        name="gemma-3-270m",
        model="google/gemma-3-270m",
        architecture="gemma3_text",
        n_blocks=18,
        release="gemma-scope-2-270m-pt-res-all",
        kind="jumprelu",
        write=write_gemma_scope_2,
        ids=r"layer_\d+_width_16k_l0_(big|small)",
        pattern="layer_{layer}_width_16k_l0_big",
    ),
)
STACKS = {stack.name: stack for stack in _ALL}


def build(home: Path, name: str, *, full: bool = False) -> HubStack:
    """Write a stack's model and SAEs into the cache below `home`, the folder that HF_HOME names.

    A model that another stack has written is used as it is.
    """
    stack = STACKS[name]
    assert not full or stack.full_features is not None, f"{name} is never made at its full width"
    model = snapshot_of(home, stack.model)
    if not (model / "config.json").is_file():
        log.info("writing %s", stack.model)
        save_model(stack.architecture, model, n_blocks=stack.n_blocks, full=full)
    width = AutoConfig.from_pretrained(model).hidden_size
    assert (width > D_MODEL) == full, f"{stack.model} was written {width} wide; use another folder"
    n_features = stack.full_features if full else stack.n_features
    assert n_features is not None
    snapshot = snapshot_of(home, stack.entry.repo_id)
    places = {i: _place(stack, snapshot, i, path) for i, path in stack.paths.items()}
    streams = _streams(stack, model, {place.hook_name for place in places.values()})
    for seed, (sae_id, place) in enumerate(places.items()):
        log.info("writing %s of %s", sae_id, stack.release)
        write, factor = _writer(stack, sae_id)
        stream = streams[place.hook_name] * factor
        write(
            place,
            explaining(
                _layer_normed(stream) if stack.layer_norm else stream,
                n_features,
                kind=stack.kind,
                seed=seed,
                b_dec_to_input=stack.b_dec_to_input,
                k=FULL_K if full else K,
                share=FULL_SHARE if full else SHARE,
            ),
        )
    return stack


def snapshot_of(home: Path, repo_id: str) -> Path:
    """The folder of a repository's files in the cache below `home`, made if it is not there."""
    repository = home / "hub" / f"models--{repo_id.replace('/', '--')}"
    commit = hashlib.sha1(repo_id.encode(), usedforsecurity=False).hexdigest()
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit, encoding="ascii")
    return snapshot


@contextmanager
def cache_in_use(home: Path, *names: str) -> Iterator[None]:
    """In this process, the hub's cache is the one below `home`, and there is no network.

    For the stacks in `names`, sae-lens is told of their small widths besides.
    """
    with ExitStack() as undo:
        undo.enter_context(mock.patch("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub")))
        undo.enter_context(mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", new=True))
        for stack in (STACKS[name] for name in names):
            own = {**(stack.entry.config_overrides or {}), **stack.overrides}
            undo.enter_context(mock.patch.object(stack.entry, "config_overrides", own))
        yield


# -- inside ----------------------------------------------------------------------------------------


def _writer(stack: HubStack, sae_id: str) -> tuple[Writer, float]:
    """How to write an SAE, and what its stream is multiplied by."""
    if stack.write is not None:
        return stack.write, 1.0
    factor = float(stack.entry.norm_scaling_factor[sae_id])
    return partial(write_llama_scope, factor=factor), factor


def _place(stack: HubStack, snapshot: Path, sae_id: str, path: str) -> Place:
    number = re.search(r"\d+", sae_id)
    assert number is not None, f"{sae_id} names no layer"
    site = "pre" if sae_id.endswith("_pre") else "post"
    block = int(number[0])
    return Place(snapshot, path, block, f"blocks.{block}.hook_resid_{site}")


def _layer_normed(stream: Tensor) -> Tensor:
    """As sae-lens does to the inputs of SAEs with `layer_norm`."""
    centred = stream - stream.mean(-1, keepdim=True)
    return centred / (centred.std(-1, keepdim=True) + 1e-5)


def _streams(stack: HubStack, model: Path, hooks: set[str]) -> dict[str, Tensor]:
    """The stream `[N, D]` at each hook on all prompts but for their first tokens.

    Processed as the release says: some SAEs see a model whose writing weights are centred.
    """
    reads = AutoTokenizer.from_pretrained(model)
    bridge: Any = load_bridge(model, torch.float32)
    said = (stack.entry.config_overrides or {}).get("model_from_pretrained_kwargs", {})
    if said.get("center_writing_weights"):
        others = {"fold_ln": False, "center_unembed": False, "fold_value_biases": False}
        bridge.enable_compatibility_mode(disable_warnings=True, **others)
    first = reads.bos_token_id if reads.bos_token else reads.eos_token_id
    rows: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for prompt in PROMPTS:
        ids = [first, *reads(prompt, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            _, seen = bridge.run_with_cache(torch.tensor([ids]))
        for hook in hooks:
            rows[hook].append(seen[hook][0, 1:].float())
    return {hook: torch.cat(parts) for hook, parts in rows.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.hub_cache", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, help="what HF_HOME will be")
    parser.add_argument("--stack", action="append", choices=sorted(STACKS), help="default: all")
    parser.add_argument("--full", action="store_true", help="real widths (GPT-2 only)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in given.stack or STACKS:
        build(given.folder, name, full=given.full)


if __name__ == "__main__":
    main()
