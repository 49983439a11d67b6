"""`sae-graphs models`: the stacks of SAEs that can be loaded by name, and what each one takes.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_graphs.cli.console import err, out, progress
from sae_graphs.cli.options import Report
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.memory import format_size
from sae_graphs.pretrained.sizes import ITEM_BYTES

if TYPE_CHECKING:
    from sae_graphs.pretrained.catalogue import ListedStack

UNKNOWN = "?"


def models(
    containing: Annotated[
        str,
        typer.Argument(help="Only models or releases whose name contains this.", show_default=""),
    ] = "",
    style: Annotated[Report, typer.Option("--format", help="How to print.")] = Report.table,
) -> None:
    """List models with an SAE at every, or nearly every, layer of the residual stream.

    From sae-lens's own directory; sizes come from the Hugging Face hub, and from what is here
    where there is no network.

    Example: `sae-graphs models gemma-2`
    """
    with err.status("reading sae-lens's directory"):
        from sae_graphs.pretrained.catalogue import listed_stacks, with_sizes

        found = listed_stacks(containing)
    if not found:
        raise SaeGraphsError(
            f"no model or release with SAEs at nearly every layer is called like {containing!r}; "
            "`sae-graphs models` lists all"
        )
    with progress("asking for sizes", unit="releases") as report:
        stacks, problem = with_sizes(found, report)
    if style is Report.json:
        out.print_json(json.dumps([_plain(stack) for stack in stacks]))
        return
    _print_stacks(stacks)
    _print_legend(stacks, problem)


def _print_stacks(stacks: Sequence[ListedStack]) -> None:
    """One paragraph per model, a few lines per stack: names are long, and are to be copied."""
    from rich.text import Text

    for _, group in groupby(stacks, key=lambda stack: stack.model):
        of_model = list(group)
        out.print(Text(_heading(of_model[0]), style="bold"), soft_wrap=True)
        for stack in of_model:
            mark = "*" if stack.is_default else " "
            style = "bold cyan" if stack.is_default else "cyan"
            out.print(Text(f"{mark} --saes {stack.release}", style=style), soft_wrap=True)
            if stack.pattern is not None:
                out.print(Text(f"  --sae-pattern '{stack.pattern}'", style="cyan"), soft_wrap=True)
            for line in _lines(stack):
                out.print(Text(f"      {line}"), soft_wrap=True)


def _heading(stack: ListedStack) -> str:
    heading = f"{stack.model}, {stack.n_blocks} blocks"
    if stack.parameters is None:
        return heading
    weights = stack.parameters * ITEM_BYTES["float32"]
    return f"{heading}, {format_size(weights)} of memory for its weights"


def _lines(stack: ListedStack) -> list[str]:
    width = UNKNOWN if stack.width is None else f"{stack.width:,}"
    fetch = "here" if stack.download == 0 else f"{_size(stack.download)} to fetch"
    memory, pair = stack.memory(), stack.memory(at_once=2)
    lines = [
        f"{len(stack.saes)} SAEs ({', '.join(f'resid_{site}' for site in stack.sites)}), {width} "
        f"features each; {fetch}; {_size(memory)} of memory, {_size(pair)} two at a time"
    ]
    held = stack.neuronpedia
    if held:
        how_many = "" if len(held) == len(stack.saes) else f"{len(held)} of them "
        lines.append(f"{how_many}on Neuronpedia, as {held[0]}")
    return lines


def _size(size: int | None) -> str:
    return UNKNOWN if size is None else format_size(size)


def _print_legend(stacks: Sequence[ListedStack], problem: str | None) -> None:
    say: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    out.print(
        "* is what the model gets without --saes. Memory is in float32; a run takes that of the "
        "model, of its SAEs (all or two at a time), and 1 GiB or more besides. "
        f"{UNKNOWN}: not known.",
        style="dim",
        **say,
    )
    if problem is not None and any(stack.download is None for stack in stacks):
        err.print(f"sizes are of what is here: {problem}", style="yellow", **say)


def _plain(stack: ListedStack) -> dict[str, Any]:
    return {
        "model": stack.model,
        "release": stack.release,
        "sae_pattern": stack.pattern,
        "is_default": stack.is_default,
        "hooks": [sae.point.hook_name for sae in stack.saes if sae.point is not None],
        "blocks": stack.n_blocks,
        "parameters": stack.parameters,
        "width": stack.width,
        "d_in": stack.d_in,
        "neuronpedia": list(stack.neuronpedia),
        "download_bytes": stack.download,
        "memory_bytes": stack.memory(),
        "memory_two_at_once_bytes": stack.memory(at_once=2),
    }
