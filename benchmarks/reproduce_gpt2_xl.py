"""`python -m benchmarks.reproduce_gpt2_xl`: the sources' figures of causal tracing, again.

On a machine with internet this fetches GPT-2-XL (6.4 GB), traces what the sources traced, and
prints ours beside what was published. It was never run on the real weights, as it says itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.progress import HERE, write_text
from sae_graphs.errors import SaeGraphsError
from sae_graphs.text import visible
from sae_graphs.words import amount, probability

if TYPE_CHECKING:
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.tracing.cases_file import Case
    from sae_graphs.tracing.handover import Handover
    from sae_graphs.tracing.records import Trace

FILE = HERE / "gpt2_xl_traces_published.json"
NOT_RUN = (
    "This script has been tested on a small generated GPT-2 alone. Its authors had no network, and "
    "have never run it on the weights of GPT-2-XL: nothing below was expected in advance."
)
NEAR = 0.1  # of a published probability
LAYERS = 5  # of a layer that was read off a figure


class Row(NamedTuple):
    """One published figure and ours; `agrees` is None where ours could not be told."""

    what: str
    published: str
    ours: str
    agrees: bool | None


def main(
    model: Annotated[str, typer.Option(help="A model's name, or its folder.")] = "gpt2-xl",
    noise_runs: Annotated[int, typer.Option(help="Draws of the noise; 50 in the source.")] = 10,
    cases: Annotated[str, typer.Option(help="Prompts by category: a file, or a bundled one.")] = (
        "smollm2"
    ),
    count: Annotated[int, typer.Option(help="Prompts of each category, at most.", min=1)] = 25,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, or another precision.")] = "float32",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers.")] = None,
) -> None:
    """Trace what the sources traced in GPT-2-XL, and print ours beside what was published.

    Needs a network the first time, about 8 GB of memory, and a GPU or patience: the averages by
    category are three traces of each prompt.
    """
    import sae_graphs as sg
    from sae_graphs.tracing.cases_file import read_cases

    published, known = json.loads(FILE.read_text(encoding="utf-8")), read_cases(cases)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(NOT_RUN)
    loaded = sg.load_model(model, device=device, dtype=dtype)
    scale = len(loaded.model.blocks) / 48
    if scale != 1:
        told = f"{loaded.name} has {len(loaded.model.blocks)} layers: published ones are of 48"
        console.print(Text(told, style="bold yellow"))
    rows = [
        *fact_rows(loaded, published["fact"], noise_runs),
        *start_rows(loaded, published["starts"], noise_runs),
        *category_rows(loaded, published, known, noise_runs, count),
    ]
    console.print(table_of(rows))
    for note in (published["source"], *published["notes"]):
        console.print(note)
    if json_file is not None:
        found = {"model": loaded.name, "not_run": NOT_RUN, "rows": [row._asdict() for row in rows]}
        write_text(json_file, json.dumps(found, indent=1) + "\n")


# -- what was published ----------------------------------------------------------------------------


def fact_rows(model: LanguageModel, fact: dict[str, Any], noise_runs: int) -> Iterator[Row]:
    """The Eiffel Tower: both probabilities, the early and the late site."""
    import numpy as np

    from sae_graphs.tracing.reading import read

    what = fact["prompt"]
    trace = traced(model, fact, noise_runs, subject=fact["subject"], target=fact["target"])
    if not isinstance(trace, str):
        corrupted = float(np.mean([score.probability for score in trace.corrupted]))
        ends = {"clean": trace.clean.probability, "corrupted": corrupted}
        for name, found in ends.items():
            near = abs(found - fact[name]) <= NEAR
            yield Row(f"{what}: {name}", probability(fact[name]), probability(found), near)
        reading = read(trace)
        early, late = (reading.first("state", role) for role in ("subject", "read"))
        first, last = fact["early"]
        ours = "no site" if early is None else f"{early.layers[0]} to {early.layers[1]}"
        meets = early is not None and early.layers[0] <= last and first <= early.layers[1]
        yield Row(f"{what}: early site, layers", f"{first} to {last}", ours, meets)
        ours = "no site" if late is None else f"{late.layers[0]} on"
        near = late is not None and abs(late.layers[0] - fact["late"]) <= LAYERS
        yield Row(f"{what}: late site, layers", f"about {fact['late']} on", ours, near)
    else:
        yield Row(what, "", trace, None)


def start_rows(
    model: LanguageModel, starts: Sequence[dict[str, Any]], noise_runs: int
) -> Iterator[Row]:
    """From where on restoring the last token's state brings the answer back: a quarter of it."""
    import numpy as np

    from sae_graphs.tracing.handover import last_rise
    from sae_graphs.tracing.reading import restored_runs

    for each in starts:
        first, last = each["layers"]
        what, range_of = f"{each['prompt']} → {each['target']}: starts", f"{first} to {last}"
        before = range(len(model.tokenize(each["prompt"])) - 1)
        trace = traced(model, each, noise_runs, subject=before, target=each["target"])
        if isinstance(trace, str):
            yield Row(what, range_of, trace, None)
            continue
        row = restored_runs(trace, "state").mean(axis=0)[trace.read]
        (found,) = last_rise((row - row.max() / 4)[None])
        ours = amount(float(found)) if np.isfinite(found) else "nowhere"
        yield Row(what, range_of, ours, bool(first <= found <= last))


def category_rows(
    model: LanguageModel,
    published: dict[str, Any],
    cases: Sequence[Case],
    noise_runs: int,
    count: int,
) -> Iterator[Row]:
    """The transition layers of each category at each strength of the noise."""
    for std in published["stds"]:
        for name, (first, last) in published["categories"].items():
            same = [case for case in cases if case.category == name][:count]
            number, found = transition(model, same, name, str(std), noise_runs)
            what = f"{name}, noise of {std}: transition, {number} prompts left"
            if found is None or found.starts is None or found.ends is None:
                yield Row(what, f"{first} to {last}", "no transition", None)
                continue
            meets = found.starts <= last and first <= found.ends
            ours = f"{found.starts:.1f} to {found.ends:.1f}"
            yield Row(what, f"{first} to {last}", ours, meets)


def transition(
    model: LanguageModel, cases: Sequence[Case], category: str, std: str, noise_runs: int
) -> tuple[int, Handover | None]:
    """How many prompts are left, and the average's handover, if it has one."""
    import sae_graphs as sg
    from sae_graphs.tracing.many import averaged, gathered, trace_cases
    from sae_graphs.tracing.subject import looked_at

    found = trace_cases(
        cases,
        lambda case: looked_at(model, case, model.run(case.prompt)),
        lambda case: sg.trace(
            model,
            case.prompt,
            subject=case.subject,
            sweeps=["state"],
            strength=std,
            noise_runs=noise_runs,
        ),
    )
    layers = len(model.model.blocks)
    traces = gathered(found, model=model.name, n_layers=layers, settings={}, seed=0)
    mean = averaged(traces, category)
    return len(traces.of(category)), None if mean is None else mean.handover


def traced(
    model: LanguageModel, asked: dict[str, Any], noise_runs: int, **options: Any
) -> Trace | str:
    """A trace of states; why there is none, where that is so."""
    import sae_graphs as sg
    from sae_graphs.tracing.reading import loss

    try:
        found = sg.trace(
            model,
            asked["prompt"],
            sweeps=["state"],
            strength=str(asked["std"]),
            noise_runs=noise_runs,
            **options,
        )
    except SaeGraphsError as problem:
        return str(problem)
    return found if loss(found) > 0 else "the corruption takes nothing from the answer"


def table_of(rows: Sequence[Row]) -> Table:
    """All of it, with a mark where ours agrees."""
    table = Table(title="GPT-2-XL's causal traces: ours beside what was published")
    for name in ("", "published", "ours", ""):
        table.add_column(name, overflow="fold")
    for row in rows:
        mark = {True: "agrees", False: "differs", None: ""}[row.agrees]
        table.add_row(*(Text(visible(cell, space=" ")) for cell in (*row[:3], mark)))
    return table


if __name__ == "__main__":
    typer.run(main)
