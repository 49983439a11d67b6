"""Traces beside answer graphs, over held-out cases: `python -m benchmarks.beside_graphs`.

Each of the first cases of every category is traced, and its answer graph made with all effects;
then what restoring a state restores is set beside what features contribute to the same token and
layer. Does a graph agree better with the trace of its own prompt than with those of other prompts
of as many tokens whose subject stands at the same place?
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.progress import HERE, write_text
from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import rank_correlation, spread
from sae_graphs.tracing.cases_file import Case, read_cases
from sae_graphs.tracing.overlay import FEWEST, Overlay, overlay_of
from sae_graphs.words import NONE, amount, percent

if TYPE_CHECKING:
    from sae_graphs.model.instrument import InstrumentedModel

SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class Found:
    """One case: all features that were measured beside the trace, and the graph's own alone."""

    case: Case
    subject: tuple[int, ...]
    every: Overlay
    kept: Overlay


def main(
    cases: Annotated[str, typer.Option(help="A file of cases, or a bundled one.")] = "demo",
    count: Annotated[int, typer.Option(help="Cases of each category.", min=1)] = 10,
    out: Annotated[Path, typer.Option(help="Folder to write beside_graphs.json to.")] = HERE,
) -> None:
    """Rank correlations of traces with answer graphs, over cases of the bundled model."""
    import sae_graphs as sg

    model, found = sg.load("demo"), []
    for case in chosen(read_cases(cases), count):
        try:
            found.append(measured(model, case))
        except SaeGraphsError as problem:
            print(f"left out: {case.prompt!r}: {problem}", flush=True)
            continue
        except KeyboardInterrupt:  # what was found is told
            break
        print(f"{case.prompt!r}: {found[-1].every.words}", flush=True)
    write_text(out / "beside_graphs.json", json.dumps([*map(as_json, found)], indent=1) + "\n")
    print("\n".join(table(found)))


def chosen(cases: Sequence[Case], count: int) -> Iterator[Case]:
    """The first ones of every category that has as many as that, one of each in turn."""
    names = dict.fromkeys(case.category for case in cases)
    same = [[case for case in cases if case.category == name][:count] for name in names]
    for together in zip(*(each for each in same if len(each) == count), strict=True):
        yield from together


def measured(model: InstrumentedModel, case: Case) -> Found:
    """The trace and the graph of one case, beside each other."""
    import sae_graphs as sg

    trace = sg.trace(model, case.prompt, subject=case.subject, sweeps=["state"])
    with tempfile.TemporaryDirectory() as folder:
        effects = Path(folder) / "effects.safetensors"
        graph = sg.causal_graph(model, case.prompt, effects=effects)
        every = overlay_of(trace, graph, effects=folder)
    return Found(case, trace.subject, every, overlay_of(trace, graph))


# -- what is told ----------------------------------------------------------------------------------


def others(one: Found, found: Sequence[Found]) -> list[float]:
    """How well its trace agrees with the graphs of other prompts, where tokens can be aligned."""
    values = []
    for other in found:
        alike = (one.every.restored.shape, one.subject) == (
            other.every.restored.shape,
            other.subject,
        )
        if other is one or not alike:
            continue
        cells = one.every.compared & other.every.compared
        value = rank_correlation(
            one.every.restored[cells], other.every.contributed[cells], fewest=FEWEST
        )
        values += [] if value is None else [value]
    return values


def table(found: Sequence[Found]) -> Iterator[str]:
    """By category and altogether, as Markdown."""
    yield (
        "| category | cases | rank correlation | p ≤ 0.05 | without the read token | kept features "
        "alone | inside | its cells | its own | other prompts' |"
    )
    yield "|---|" + "---|" * 9
    names = dict.fromkeys(it.case.category for it in found)
    for name in [*names, "all"]:
        same = [it for it in found if name in ("all", it.case.category)]
        yield "| " + " | ".join(_row(name, same, found)) + " |"


def _row(name: str, same: Sequence[Found], found: Sequence[Found]) -> list[str]:
    every = [it.every for it in same]
    beside = [(it.every.correlation, others(it, found)) for it in same]
    aligned = [(own, np.mean(values)) for own, values in beside if values and own is not None]
    own, other = np.array(aligned, dtype=float).reshape(-1, 2).T
    significant = sum(it.p is not None and it.p <= SIGNIFICANT for it in every)
    return [
        name,
        str(len(same)),
        _mean([it.correlation for it in every], interval=True),
        str(significant),
        _mean([it.without_read for it in every]),
        _mean([it.kept.correlation for it in same]),
        _share([it.inside for it in every]),
        _share([it.inside_cells for it in every]),
        f"{_mean(own.tolist())} ({len(own)})",
        _mean(other.tolist()),
    ]


def _share(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return percent(float(np.mean(known))) if known else NONE


def _mean(values: Sequence[float | None], *, interval: bool = False) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NONE
    told = spread(known, 0)
    if not interval or told.low is None:
        return amount(told.mean)
    return f"{amount(told.mean)} ({amount(told.low)} to {amount(told.high)})"


def as_json(found: Found) -> dict[str, Any]:
    """One case's numbers."""
    every, kept = found.every, found.kept
    return {
        "prompt": found.case.prompt,
        "subject": found.case.subject,
        "category": found.case.category,
        "cells": int(every.compared.sum()),
        "features": every.measured,
        "correlation": every.correlation,
        "p": every.p,
        "without_read": every.without_read,
        "inside": every.inside,
        "inside_cells": every.inside_cells,
        "kept": {"features": len(kept.kept), "correlation": kept.correlation, "p": kept.p},
    }


if __name__ == "__main__":
    typer.run(main)
