"""Peak memory of a Gemma-2-2B-shaped run, two SAEs at a time and all at once, beside its plan.

    python -m benchmarks.stack_memory --parts 3

The model has Gemma 2 2B's 26 blocks, its widths divided by `parts`, with random weights; its SAEs
are in Gemma Scope's own files. Loading and a whole graph run in a process of their own, within the
smallest budget that the plan allows, and the most that the process ever held is set beside it.
The plan for the real shapes is printed too, computed alone. Sizes are in bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from sae_graphs.model.memory import GIB, SAESize, format_size

RELEASE, PATTERN = "gemma-scope-2b-pt-res-canonical", "layer_{layer}/width_16k/canonical"
PROMPT = "w5 w17 w99 w250 w44 w8 w1 w731"


class Shape(NamedTuple):
    """Gemma 2 2B with 16,384 features at each of its 26 blocks."""

    d_model: int = 2304
    d_mlp: int = 9216
    head: int = 256
    n_heads: int = 8
    n_blocks: int = 26
    vocabulary: int = 256_000
    n_features: int = 16_384

    def over(self, parts: int) -> Shape:
        """The same with widths divided."""
        return self._replace(
            d_model=self.d_model // parts,
            d_mlp=self.d_mlp // parts,
            head=2 * (self.head // parts // 2),
            vocabulary=self.vocabulary // parts,
            n_features=self.n_features // parts,
        )

    @property
    def sae(self) -> SAESize:
        """One SAE in float32, read out of numpy's file, by the rule of `hub_saes`."""
        held = 4 * (2 * self.d_model * self.n_features + self.d_model + 2 * self.n_features)
        return SAESize(held, loading=held)


def write(home: Path, shape: Shape) -> None:
    """The model's folder, and the SAEs in a hub's cache."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

    from sae_graphs.pretrained.releases import release_named

    torch.manual_seed(0)
    config = Gemma2Config(
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        head_dim=shape.head,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_heads // 2,
        num_hidden_layers=shape.n_blocks,
        vocab_size=shape.vocabulary,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    Gemma2ForCausalLM(config).save_pretrained(home / "model")
    words = {"<bos>": 0, **{f"w{n}": n for n in range(1, 1000)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<bos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>").save_pretrained(
        home / "model"
    )
    release = release_named(RELEASE)
    assert release is not None
    repository = home / "hub" / f"models--{release.repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    random = np.random.default_rng(0)
    for sae in release.residual:
        if "width_16k" not in sae.sae_id:
            continue
        folder = repository / "snapshots" / ("0" * 40) / sae.path
        folder.mkdir(parents=True)
        w_enc = random.standard_normal((shape.d_model, shape.n_features), dtype=np.float32)
        block = 0 if sae.point is None else sae.point.block
        # a block of Gemma 2 adds two vectors of unit mean square: pre-activations get variance 1
        w_enc /= np.sqrt(shape.d_model * (0.3 + 2 * (block + 1)))
        np.savez(
            folder / "params.npz",
            w_enc=w_enc,
            w_dec=np.ascontiguousarray(w_enc.T),
            b_enc=np.full(shape.n_features, -2.6, np.float32),
            b_dec=np.zeros(shape.d_model, np.float32),
            threshold=np.full(shape.n_features, 0.1, np.float32),
        )


def run(home: Path, shape: Shape, memory: int | None) -> dict[str, int]:
    """Load and draw a graph's numbers within a budget; the plan's and the process's sizes."""
    import time

    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    import sae_graphs as sg

    get_pretrained_saes_directory()[RELEASE].config_overrides = {
        "d_in": shape.d_model,
        "d_sae": shape.n_features,
    }
    started = time.perf_counter()
    try:
        model = sg.load(home / "model", saes=RELEASE, sae_pattern=PATTERN, memory=memory or 1)
    except sg.SaeGraphsError:
        if memory is not None:
            raise
        model = sg.load(home / "model", saes=RELEASE, sae_pattern=PATTERN)
    loaded = time.perf_counter() - started
    graph = sg.causal_graph(model, PROMPT, select="effect")
    plan = model.memory_plan
    assert plan is not None  # `load` plans
    return {
        "least": plan.least,
        "least_keeping_all": plan.least_keeping_all,
        "model": plan.model,
        "sae": plan.saes[0].held,
        "kept": model.stack.layers[0].shelf.n_loaded,
        "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "edges": len(graph.edges),
        "load_ms": round(1000 * loaded),
        "all_ms": round(1000 * (time.perf_counter() - started)),
    }


def in_child(home: Path, parts: int, memory: int | None) -> dict[str, int]:
    """`run` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stack_memory", "--parts", str(parts)]
    command += ["--home", str(home), *(["--memory", str(memory)] if memory else [])]
    offline = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the plan beside what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack_memory")
    parser.add_argument("--parts", type=int, default=3, help="what the widths are divided by")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    shape = Shape().over(given.parts)
    if given.home is not None:
        print(json.dumps(run(given.home, shape, given.memory)))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write(home, shape)
        free = in_child(home, given.parts, None)
        print(f"widths over {given.parts}: {shape}")
        for name, budget in (
            ("two at a time", free["least"]),
            ("all at once", free["least_keeping_all"]),
        ):
            found = in_child(home, given.parts, budget)
            print(
                f"{name}: budget {format_size(budget)} (model {format_size(found['model'])}, SAE "
                f"{format_size(found['sae'])}), peak {format_size(found['peak'])}, "
                f"{found['kept']} SAEs kept, {found['edges']} edges, loaded in "
                f"{found['load_ms'] / 1000:.1f} s, all in {found['all_ms'] / 1000:.1f} s"
            )
    print(f"real shapes, computed: {_real(Shape())}")


def _real(shape: Shape) -> str:
    """The plan for the real shapes; the model's parameters counted by hand."""
    from sae_graphs.model.memory import LEAST_WORKING, MIB, MemoryPlan

    attention = 2 * shape.d_model * shape.head * (shape.n_heads + shape.n_heads // 2)
    block = attention + 3 * shape.d_model * shape.d_mlp
    embedding = shape.vocabulary * shape.d_model
    weights = 4 * (shape.n_blocks * block + embedding)
    model = weights + weights // 50 + 4 * embedding + 64 * MIB
    plan = MemoryPlan(10**12, model, (shape.sae,) * shape.n_blocks)
    assert plan.least > LEAST_WORKING
    return (
        f"model {format_size(model)}, SAE {format_size(shape.sae.held)}, all SAEs "
        f"{format_size(plan.stack)}; two at a time {format_size(plan.least)}, all at once "
        f"{format_size(plan.least_keeping_all)} ({plan.least / GIB:.1f} and "
        f"{plan.least_keeping_all / GIB:.1f} GiB)"
    )


if __name__ == "__main__":
    main()
