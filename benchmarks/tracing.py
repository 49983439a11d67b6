"""Time of a causal trace: `python -m benchmarks.tracing`.

Same model, prompt, noise runs, cells and threads:

- `ours`: `sg.trace`, its clean run, its own checks and its scores included;
- `floor`: the bare multiplications that it needs: the rows that its walks run, through each matrix
  of each block, attention's two products, and the logits of the rows that are read; norms,
  activation functions, softmax, masks and scores are not counted;
- `passes`: a full forward pass with two hooks for every noise run, token and layer: one corrupts
  the subject, the other restores the cell. A sample is timed;
- `causal-tracer` 1.1.0, where it is installed (`pip install --no-deps causal-tracer==1.1.0`), on
  the plain transformers model. It has the hidden states, MLP and attention sweeps, no scores but
  the probability.

Letters: `B` copies, `n` rows of each, `D` d_model, `V` vocabulary.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from unittest.mock import patch

import typer

from benchmarks.progress import HERE, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.tracing.records import Trace

PEER, PEER_VERSION = "causal_tracer", "1.1.0"
BUDGET = 60.0  # seconds for all rounds of a case
SAMPLE = 6  # full passes in a round
STRENGTH = "3s"
JOINT = ("qkv", "c_attn", "query_key_value")  # matrices of queries, keys and values together
ATTENDED = (*JOINT, "k", "v", "k_proj", "v_proj")  # of which attention reads


class Which(StrEnum):
    """Models that are traced."""

    BUNDLED = "bundled"
    GPT2_SMALL = "gpt2-small"
    SMOLLM2 = "smollm2"
    TINY = "tiny"


class Case(NamedTuple):
    """What is traced; `plain` is the path that a transformers model of the same is loaded from."""

    name: str
    model: LanguageModel
    prompt: str
    subject: str
    plain: str | None = None


class Ran(NamedTuple):
    """Rows that one call ran through a block: `read` of `B` copies to its end, `aside` as far as
    their keys and values; `seen` positions are attended to."""

    block: int
    copies: int
    aside: int
    read: int
    seen: int


def main(
    which: Annotated[list[Which] | None, typer.Argument(help="Models to trace.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of every method.", min=1)] = 1,
    noise_runs: Annotated[int, typer.Option(help="Draws of the noise.", min=1)] = 10,
    sweeps: Annotated[str, typer.Option(help="With commas between them.")] = "state",
    budget: Annotated[float, typer.Option(help="Seconds for the rounds of a model.")] = BUDGET,
    out: Annotated[Path, typer.Option(help="Folder to write tracing.json to.")] = HERE,
) -> None:
    """Seconds of causal traces, beside a pass a cell, the multiplications, and causal-tracer."""
    import torch

    from benchmarks.measure import machine

    torch.set_num_threads(threads)
    rows = []
    for each in which or [Which.BUNDLED, Which.GPT2_SMALL, Which.SMOLLM2]:
        case = case_of(each)
        if case is None:
            print(f"{each.value}: not here")
            continue
        options = {"noise_runs": noise_runs, "sweeps": tuple(sweeps.split(","))}
        with torch.no_grad():
            rows.append(timed(case, options, budget))
        print(told(rows[-1]))
        gc.collect()
    found = {"machine": machine(threads), "cases": rows}
    write_text(out / "tracing.json", json.dumps(found, indent=1) + "\n")


def case_of(which: Which) -> Case | None:
    """The model and the prompt; None where the model cannot be had."""
    import sae_graphs as sg
    from benchmarks.shapes import GPT2_SMALL, TINY, make_shapes, prompt_of
    from sae_graphs.model.language_model import LanguageModel

    if which in (Which.GPT2_SMALL, Which.TINY):
        sizes = GPT2_SMALL if which is Which.GPT2_SMALL else TINY
        text = prompt_of(12, sizes).text
        model = LanguageModel(make_shapes(sizes).bridge, name=which.value)
        return Case(which.value, model, text, " ".join(text.split()[2:4]))
    if which is Which.BUNDLED:
        prompt, subject = "When Mary and John went to the store, John gave a drink to", "Mary"
        from sae_graphs.files import bundled_folder

        folder = str(bundled_folder() / "model")
        return Case("bundled model", sg.load_model("demo"), prompt, subject, folder)
    try:
        model = sg.load_model("smollm2")
    except sg.SaeGraphsError as problem:
        logging.getLogger(__name__).warning("%s", problem)
        return None
    source = str(model.tokenizer.name_or_path)
    prompt = "The Eiffel Tower is located in the city of"
    return Case("SmolLM2", model, prompt, "Eiffel Tower", source)


def timed(case: Case, options: dict[str, Any], budget: float) -> dict[str, Any]:
    """Seconds of all methods: medians of rounds that take turns."""
    import sae_graphs as sg
    from benchmarks.measure import Method, interleaved

    def ours() -> Trace:
        return sg.trace(case.model, case.prompt, subject=case.subject, strength=STRENGTH, **options)

    with watched() as work:
        trace = ours()
    n_cells = len(trace.sweeps) * len(trace.corrupted) * len(trace.tokens) * trace.n_layers
    n_read = len(trace.sweeps) * len(trace.corrupted) * (trace.read + 1 - trace.subject[0])
    floor = floor_of(case.model, work, n_read * trace.n_layers)
    one = passes_of(case.model, trace)
    methods = [
        Method("ours", ours, lambda: None),  # run once already
        Method("floor", floor, lambda: None),
        Method("pass", one, one, SAMPLE),
    ]
    timings = interleaved(methods, budget=budget)
    seconds = {name: timing.median for name, timing in timings.items()}
    peer = peer_of(case, trace)
    return {
        "name": case.name,
        "tokens": len(trace.tokens),
        "layers": trace.n_layers,
        "noise_runs": len(trace.corrupted),
        "sweeps": [sweep.name for sweep in trace.sweeps],
        "cells": n_cells,
        "rounds": timings["ours"].runs,
        "seconds": {
            "ours": seconds["ours"],
            "floor": seconds["floor"],
            "passes": n_cells * seconds["pass"],
            PEER: peer if isinstance(peer, float) else None,
        },
        "timings": {name: timing._asdict() for name, timing in timings.items()},
        "gigaflops_needed": operations(case.model, work, n_read * trace.n_layers) / 1e9,
        "faster_than_passes": n_cells * seconds["pass"] / seconds["ours"],
        "ours_to_floor": seconds["ours"] / seconds["floor"],
        "faster_than_causal_tracer": peer / seconds["ours"] if isinstance(peer, float) else peer,
    }


def told(row: dict[str, Any]) -> str:
    """One line of the table."""
    seconds, peer = row["seconds"], row["faster_than_causal_tracer"]
    beside = peer if isinstance(peer, str) else f"{seconds[PEER]:.2f} s, {peer:.1f} times ours"
    return (
        f"{row['name']}, {row['tokens']} tokens, {row['layers']} layers, {row['noise_runs']} noise "
        f"runs, {'+'.join(row['sweeps'])}: ours {seconds['ours']:.2f} s; a pass a cell "
        f"{seconds['passes']:.1f} s, {row['faster_than_passes']:.1f} times ours; floor "
        f"{seconds['floor']:.2f} s, ours {row['ours_to_floor']:.2f} times that; "
        f"causal-tracer: {beside}"
    )


# -- the multiplications ---------------------------------------------------------------------------


@contextmanager
def watched() -> Iterator[list[Ran]]:
    """What walks run through blocks, in order: no row in vain, which they run to save calls.

    The check of the tails is left out.
    """
    from sae_graphs.model.tails import Context, Tail, Tails
    from sae_graphs.tracing import climb

    seen: list[Ran] = []
    through, agree = Tails.through, Tails._agree

    def watching(
        self: Tails,
        block: int,
        streams: Tensor,
        start: int,
        before: Context,
        *,
        last: bool = False,
    ) -> Tail:
        if not self.alone:
            raise RuntimeError("whole copies were run; the floor is for tails")
        rows = streams.shape[1]
        read = 1 if last else rows
        seen.append(Ran(block, len(streams), rows - read, read, start + rows))
        return through(self, block, streams, start, before, last=last)

    def agreeing(self: Tails) -> bool:
        before = len(seen)
        found = agree(self)
        del seen[before:]
        return found

    with (
        patch.object(Tails, "through", watching),
        patch.object(Tails, "_agree", agreeing),
        patch.object(climb, "CALL_WORTH", 0.0),
    ):
        yield seen


def matrices(model: LanguageModel, block: int) -> list[tuple[int, int, bool]]:
    """The sizes of a block's matrices, in and out, and whether keys or values come of each."""
    import torch

    inner = model.model.blocks[block].original_component
    found: list[tuple[str, int, int]] = []
    for name, module in inner.named_modules():
        leaf = name.removesuffix("._original_component").rpartition(".")[2]
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 2 and not list(module.children()):
            n_in, n_out = weight.shape if "Conv1D" in type(module).__name__ else weight.shape[::-1]
            found.append((leaf, int(n_in), int(n_out)))
    names = {leaf for leaf, _, _ in found}
    if {"q", "k", "v"} <= names:  # the bridge's parts of one matrix, which is kept and not used
        found = [each for each in found if each[0] not in JOINT]
    return [(n_in, n_out, leaf in ATTENDED) for leaf, n_in, n_out in found]


def operations(model: LanguageModel, work: list[Ran], n_read: int) -> int:
    """Floating point operations of the floor."""
    width, vocabulary = int(model.model.cfg.d_model), int(model.model.cfg.d_vocab)
    total = 2 * n_read * width * vocabulary
    for ran in work:
        for n_in, n_out, attended in matrices(model, ran.block):
            rows = ran.copies * (ran.read + (ran.aside if attended else 0))
            total += 2 * rows * n_in * n_out
        total += 4 * ran.copies * ran.read * ran.seen * width
    return total


def floor_of(model: LanguageModel, work: list[Ran], n_read: int) -> Callable[[], None]:
    """The products, and nothing else."""
    import torch

    from sae_graphs.model.rows import ENCODED_ROWS

    cfg = model.model.cfg
    width, heads, depth = int(cfg.d_model), int(cfg.n_heads), int(cfg.d_head)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[0] ** 0.5

    sizes = {block: matrices(model, block) for block in {ran.block for ran in work}}
    shapes = {(n_in, n_out) for found in sizes.values() for n_in, n_out, _ in found}
    weights = {shape: random(*shape) for shape in shapes}
    most = max(ran.copies * (ran.read + ran.aside) for ran in work)
    rows = {n_in: random(most, n_in) for n_in, _ in shapes}
    flat = random(most * heads * depth)
    unembedding, ends = random(width, int(cfg.d_vocab)), random(ENCODED_ROWS, width)
    keys = {(ran.copies, ran.seen): random(ran.copies * heads, ran.seen, depth) for ran in work}

    def run() -> None:
        for ran in work:
            for n_in, n_out, attended in sizes[ran.block]:
                n = ran.copies * (ran.read + (ran.aside if attended else 0))
                torch.mm(rows[n_in][:n], weights[n_in, n_out])
            held = keys[ran.copies, ran.seen]
            queries = flat[: ran.copies * ran.read * heads * depth]
            scores = torch.bmm(queries.view(ran.copies * heads, ran.read, depth), held.mT)
            torch.bmm(scores, held)
        for _ in range(0, n_read, ENCODED_ROWS):
            torch.mm(ends, unembedding)

    return run


# -- a pass for each cell --------------------------------------------------------------------------


def passes_of(model: LanguageModel, trace: Trace) -> Callable[[], Any]:
    """One full pass at a time, going round the cells of the first sweep."""
    import torch

    from sae_graphs.model.recording import entering

    ids = torch.tensor([trace.about["token_ids"]])
    clean = model.run(trace.about["token_ids"])
    noisy = clean.inputs[0].clone()
    noisy[list(trace.subject)] += (trace.noise or 0) * torch.randn(
        len(trace.subject), noisy.shape[-1], generator=torch.Generator().manual_seed(0)
    )
    cells = [(at, layer) for layer in range(1, trace.n_layers) for at in range(len(trace.tokens))]
    turns = cycle(cells)

    def run() -> Any:
        at, layer = next(turns)

        def restore(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            stream = args[0].clone()
            stream[0, at] = clean.inputs[layer][at]
            return stream, *args[1:]

        with ExitStack() as hooks:
            hooks.enter_context(entering(model.model.blocks[0], noisy[None]))
            handle = model.model.blocks[layer].register_forward_pre_hook(restore)
            hooks.callback(handle.remove)
            return model.model(ids, use_cache=False)[0, trace.read].softmax(-1)

    return run


# -- the peer --------------------------------------------------------------------------------------


def peer_of(case: Case, trace: Trace) -> float | str:
    """Seconds of causal-tracer for the same sweeps; a word of why not, where it cannot be timed."""
    if importlib.util.find_spec(PEER) is None:
        return f"not installed ({PEER_VERSION})"
    if case.plain is None:
        return "no transformers model of it"
    import torch
    from transformers import AutoModelForCausalLM

    from benchmarks.measure import seconds_of

    plain = AutoModelForCausalLM.from_pretrained(case.plain, dtype=torch.float32).eval()
    tracer = importlib.import_module(PEER).CausalTracer(
        plain, case.model.tokenizer, noise=trace.noise
    )
    kinds = {"state": "hidden", "mlp": "mlp", "attention": "attention"}

    def run() -> None:
        for sweep in trace.sweeps:
            tracer.calculate_hidden_flow(
                case.prompt,
                subject=case.subject,
                kind=kinds[sweep.name],
                window=sweep.window,
                samples=len(trace.corrupted),
            )

    return seconds_of(run)


if __name__ == "__main__":
    typer.run(main)
