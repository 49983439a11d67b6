"""`sae-graphs ablate`: features set to something, and the next tokens before and after.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from sae_graphs.cli.console import out, prompt_line, warn
from sae_graphs.cli.options import (
    Contrast,
    Device,
    Dtype,
    Memory,
    Model,
    PrependBos,
    Report,
    SaePattern,
    Saes,
    Source,
    measured,
    output,
    some_text,
)
from sae_graphs.effects.changes import given_changes
from sae_graphs.effects.outcome import Ablation


def ablate(
    prompt: Annotated[str, typer.Argument(help="The text to look into.", show_default=False)],
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="FEATURE=VALUE...",
            help="3.309=0 sets a feature at all tokens but the first, 4.34@5=2.0 at token 5; "
            "5.1=x0.5 multiplies it, 5.1=mean puts its mean over reference text there.",
            show_default=False,
        ),
    ],
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    read: Annotated[
        int, measured(help="Token whose next one is looked at; negative from the end.")
    ] = -1,
    target: Annotated[
        str | None,
        measured(
            metavar="<token>",
            help="The answer whose log-odds are told, e.g. ' Paris', or its id, #276.",
            show_default="the likeliest",
        ),
    ] = None,
    contrast: Contrast = None,
    style: Annotated[Report, output("--format", help="How to print.")] = Report.table,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    prepend_bos: PrependBos = None,
) -> None:
    """Set features to something, all together, and show the next tokens before and after.

    Example: `sae-graphs ablate "Copyright (C" 3.309=0 4.34@3=2.0 5.1=x0.5`
    """
    wanted = given_changes(changes)
    some_text(prompt)
    instrumented = Source(model, saes, device, dtype, memory, sae_pattern).load()
    from sae_graphs.effects.ablate import ablate as ablated

    found = ablated(
        instrumented,
        prompt,
        wanted,
        read=read,
        target=target,
        contrast=contrast,
        prepend_bos=prepend_bos,
    )
    print_ablation(out, found, style.value)


def print_ablation(console: Console, found: Ablation, style: str) -> None:
    """What came of it as a `table`, or as `json` with all numbers."""
    if style == "json":
        console.out(json.dumps(found.to_json(), indent=1), highlight=False)
        return
    console.print(prompt_line(found.tokens, found.read_position))
    console.print(Text(", ".join(map(str, found.changes)), style="dim"))
    console.print(Text(found.table_words))
    console.print(Text(found.score_words, style="bold"), soft_wrap=True)
    for warning in found.warnings:
        warn(warning)
