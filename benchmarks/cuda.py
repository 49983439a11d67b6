"""`python -m benchmarks.cuda`: is it right on a GPU, and how fast? Under eight minutes.

1. The engine beside the tests' oracle (full passes, plain hooks), all on the device, on several
architectures, in float32 and bfloat16. 2. Seconds of graphs at GPT-2 small's shapes, and at the
widths of Gemma 2 2B. Each result is written as soon as it is there, so that a run that is stopped
leaves what it has. The oracle lies in `tests/`, so this runs in a clone.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from sae_graphs.files import write_atomically

FILE = Path(__file__).resolve().parent / "results-cuda.json"
LIMIT = 480.0  # seconds, after which no further step is begun
RUNS = 3  # of what is timed, after one that is not
DTYPES = ("float32", "bfloat16")


class Timed(NamedTuple):
    """A graph that is timed: at which shapes, in which precision, and how quick it should be."""

    name: str
    sizes: dict[str, int]
    dtype: str
    select: Literal["answer", "effect"]
    goal: float | None  # seconds
    tokens: int = 16
    active: int = 40


GPT2 = {"n_layers": 12, "d_model": 768, "n_heads": 12, "n_features": 24_576, "vocabulary": 50_257}
GEMMA = {"n_layers": 26, "d_model": 2304, "n_heads": 8, "n_features": 16_384, "vocabulary": 256_000}
SMALL = {"n_layers": 3, "d_model": 32, "n_heads": 4, "n_features": 256, "vocabulary": 101}
TIMED = (
    Timed("GPT-2 small's shapes, effect", GPT2, "float32", "effect", 0.1),
    Timed("GPT-2 small's shapes, answer", GPT2, "float32", "answer", None),
    Timed("Gemma 2 2B's widths, GPT-2's blocks, effect", GEMMA, "bfloat16", "effect", 2.0),
)
TINY = (
    Timed("tiny, effect", SMALL, "float32", "effect", None, 8, 8),
    Timed("tiny, answer", SMALL, "float32", "answer", None, 8, 8),
)


def main(
    device: Annotated[str, typer.Option(help="Where all of it runs.")] = "cuda",
    out: Annotated[Path, typer.Option(help="File to write the results to.")] = FILE,
    tiny: Annotated[bool, typer.Option(help="Tiny shapes: does it run?")] = False,
) -> None:
    """Exactness and seconds on a GPU.

    Example: `python -m benchmarks.cuda`
    """
    typer.echo(f"measuring on {device}: loading torch")
    os.environ["HF_HUB_OFFLINE"] = "1"  # all weights are made here
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        typer.echo(f"device is {device!r}: {reason}; give --device cpu", err=True)
        raise typer.Exit(2) from None
    started = time.perf_counter()
    found: dict[str, Any] = {"machine": machine_of(device), "steps": {}, "left_out": []}
    for name, step in steps_of(device, tiny=tiny):
        if time.perf_counter() - started > LIMIT:
            found["left_out"].append(name)
            continue
        typer.echo(f"{name} ...")
        try:
            with torch.no_grad():
                found["steps"][name] = step()
        except Exception as problem:  # the other steps still say something
            found["steps"][name] = {"failed": f"{type(problem).__name__}: {problem}"[:400]}
        typer.echo(f"  {json.dumps(found['steps'][name])}")
        found["seconds"] = round(time.perf_counter() - started, 1)
        write_atomically(out, (json.dumps(found, indent=1) + "\n").encode("ascii"))
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    typer.echo(f"wrote {out}")
    if any("failed" in step for step in found["steps"].values()):
        raise typer.Exit(1)


def steps_of(device: str, *, tiny: bool) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """All there is to do, in order."""
    from tests.support.models import ARCHITECTURES

    architectures = ARCHITECTURES[:1] if tiny else ARCHITECTURES
    steps: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        (f"oracle {architecture} {dtype}", partial(beside_oracle, architecture, dtype, device))
        for dtype in DTYPES
        for architecture in architectures
    ]
    return steps + [(each.name, partial(timed, each, device)) for each in (TINY if tiny else TIMED)]


def beside_oracle(architecture: str, dtype: str, device: str) -> dict[str, Any]:
    """The largest deviation of an effect from the oracle's, as a part of its layer pair's largest.

    In bfloat16 both round at every step, and a feature may be chosen by the one alone: what is
    told is how far apart they are.
    """
    import torch

    from sae_graphs.effects.settings import GraphSettings
    from sae_graphs.model.instrument import InstrumentedModel
    from tests.support.against_oracle import Case, engine_effects, kinds_for, oracle_effects
    from tests.support.models import (
        PROMPT,
        STACKS,
        in_dtype,
        load_bridge,
        random_stack,
        save_model,
        tokenizer,
    )
    from tests.support.oracle import Oracle

    with tempfile.TemporaryDirectory() as folder:
        bridge = load_bridge(save_model(architecture, Path(folder)), getattr(torch, dtype))
    saes = in_dtype(random_stack(bridge, STACKS["pre"], kinds_for(architecture)), dtype)
    bridge, saes = bridge.to(device), [sae.to(device) for sae in saes]
    ids = [0, *tokenizer()(PROMPT, add_special_tokens=False)["input_ids"]]
    with torch.device(device):
        case = Case(InstrumentedModel(bridge, saes), Oracle(bridge, saes, ids))
        settings = GraphSettings(select="effect")
        slow = [each.float().cpu() for each in oracle_effects(case, settings)]
    ours = [each.float() for each in engine_effects(case, settings)]
    worst = max(
        float((a.cpu() - b).abs().max() / b.abs().max()) for a, b in zip(ours, slow, strict=True)
    )
    middle = max(
        float((a.cpu() - b).abs().median() / b.abs().max()) for a, b in zip(ours, slow, strict=True)
    )
    return {"largest": float(f"{worst:.3g}"), "median": float(f"{middle:.3g}")}


def timed(each: Timed, device: str) -> dict[str, Any]:
    """Seconds of a graph, at the median, and what it held of the device's memory at the most."""
    import torch

    import sae_graphs as sg
    from benchmarks.shapes import Sizes, make_shapes, prepare
    from sae_graphs.effects.answer.build import answer_graph
    from sae_graphs.effects.settings import GraphSettings
    from sae_graphs.features.reference import references_of
    from sae_graphs.model.interventions import ZERO

    shapes = make_shapes(Sizes(**each.sizes))
    workload = prepare(shapes, each.tokens, each.active)
    dtype = getattr(torch, each.dtype)
    saes = []
    for sae in shapes.saes:
        sae.cfg.device, sae.cfg.dtype = device, each.dtype
        saes.append(sae.to(device=device, dtype=dtype))
    model = sg.InstrumentedModel(shapes.bridge.to(device).to(dtype), saes, name="random")
    settings, prompt = GraphSettings(select=each.select), workload.prompt.text
    # What features are on ordinary text is found once for a stack, and kept: it is not timed.
    references = references_of(model) if each.select == "answer" else None

    def run() -> float:
        start = time.perf_counter()
        if references is None:
            sg.causal_graph(model, prompt, settings=settings)
        else:
            answer_graph(model, prompt, settings, ZERO, references=references)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    first = run()
    seconds = [run() for _ in range(RUNS)]
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    return {
        "seconds": round(statistics.median(seconds), 4),
        "first": round(first, 3),
        "goal": each.goal,
        "dtype": each.dtype,
        "tokens": each.tokens,
        "peak_bytes": peak,
    }


def machine_of(device: str) -> dict[str, Any]:
    """The device and the versions."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


if __name__ == "__main__":
    typer.run(main)
