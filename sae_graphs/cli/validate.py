"""`sae-graphs validate`: from a saved graph, or from prompts to find one on, to a report.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sae_graphs.cli.options import (
    Device,
    Dtype,
    Memory,
    SaePattern,
    Saes,
    Source,
    basics,
    beside,
    compute,
    measured,
    output,
    some_text,
)
from sae_graphs.cli.validating import Asked, validate_and_print
from sae_graphs.errors import SaeGraphsError


def validate(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run, or its graph.json.", show_default=False)
    ] = None,
    all_in: Annotated[
        Path | None,
        basics(
            "--all",
            metavar="DIR",
            help="All runs in this folder that have no report yet, then a table of all.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        basics(
            metavar="<text>",
            help="Test on this prompt, too; repeatable.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        basics(help="Test on the prompts of this file, one a line.", show_default=False),
    ] = None,
    discover: Annotated[
        float | None,
        basics(
            help="Without a run: find a graph on this part of the prompts, test the rest.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, basics(help="As for `graph`.", show_default="the graph's own")
    ] = None,
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    target: Annotated[
        str | None,
        measured(
            metavar="<token>",
            help="The token that is watched.",
            show_default="each prompt's likeliest",
        ),
    ] = None,
    contrast: Annotated[
        str | None,
        measured(
            metavar="<token>",
            help="Watch the difference of the target's logit to this token's.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        measured(
            metavar="<path>",
            help="Test this path alone, e.g. '0.715 > 1.187'; repeatable.",
            show_default=False,
        ),
    ] = None,
    paths: Annotated[int, measured(help="Strongest paths tested of each component.")] = 3,
    curve: Annotated[
        list[str] | None,
        measured(
            metavar="<pair>",
            help="Response curve, e.g. '3.309 > 4.436', or '3.309 > )'; repeatable.",
            show_default=False,
        ),
    ] = None,
    controls: Annotated[int, beside(help="Matched controls for each path.")] = 200,
    text: Annotated[
        str | None,
        beside(
            help="Other text for snippets: a file, or a dataset's name.",
            show_default="the bundled corpus",
        ),
    ] = None,
    snippets: Annotated[int, beside(help="Pieces of other text; 0 for none.")] = 32,
    quick: Annotated[
        bool | None,
        beside(
            "--quick/--full",
            help="What decides alone, or the long report.",
            show_default="quick of answer graphs, full of others",
        ),
    ] = None,
    intervention: Annotated[
        str | None,
        measured(
            metavar="<kind>",
            help="Of an answer graph: what a feature's activation becomes.",
            show_default="the graph's own",
        ),
    ] = None,
    out_folder: Annotated[
        Path | None,
        output("--out", help="Folder to write.", show_default="RUN/validation"),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    seed: Annotated[int, compute(help="Of all that is drawn at random.")] = 0,
) -> None:
    """Test a graph: ablate its paths, beside controls that could have done as much.

    Example: `sae-graphs validate outputs/copyright-c --prompt "All rights reserved. (C"`

    On prompts that had no say in the graph: `sae-graphs validate --prompts FILE --discover 0.5`

    All saved runs, and one table of their verdicts: `sae-graphs validate --all outputs`
    """
    from sae_graphs.validation.settings import ValidationSettings

    settings = ValidationSettings(
        controls=controls,
        paths=paths,
        path=tuple(path or ()),  # type: ignore[arg-type]  # parsed by the settings
        target=target,
        contrast=contrast,
        curve=tuple(curve or ()),  # type: ignore[arg-type]
        snippets=snippets,
        quick=quick,
        seed=seed,
    )
    if all_in is not None:
        from sae_graphs.cli.validate_all import check_alone, validate_all

        about_one: dict[str, object] = {
            "a run": run,
            "--prompt": prompt,
            "--prompts": prompts,
            "--discover": discover,
            "--model": model,
            "--saes": saes,
            "--sae-pattern": sae_pattern,
            "--target": target,
            "--contrast": contrast,
            "--path": path,
            "--curve": curve,
            "--text": text,
            "--intervention": intervention,
            "--out": out_folder,
        }
        check_alone(about_one)
        raise typer.Exit(validate_all(all_in, settings, device, dtype, memory))
    given = prompts_given(prompt, prompts)
    if discover is None and run is None:
        raise SaeGraphsError(
            "nothing to validate; give the folder of a run, such as outputs/copyright-c, or "
            "prompts and --discover 0.5"
        )
    if discover is not None and run is not None:
        raise SaeGraphsError(
            f"{run} holds a graph, and --discover {discover:g} asks for another; give one of them"
        )
    if discover is not None and not given:
        raise SaeGraphsError("no prompts to discover a graph on; give --prompts FILE")
    source = Source(model or "demo", saes, device, dtype, memory, sae_pattern)
    if intervention is not None:
        from sae_graphs.effects.intervention_kinds import parse_intervention

        parse_intervention(intervention)
    named = model is not None
    asked = Asked(run, given, discover, text, out_folder, intervention, names_model=named)
    validate_and_print(asked, settings, source)


def prompts_given(prompt: Sequence[str] | None, file: Path | None) -> tuple[str, ...]:
    """The prompts of the options and of the file; empty ones raise `SaeGraphsError`."""
    given = tuple(prompt or ())
    for text in given:
        some_text(text)
    if file is None:
        return given
    from sae_graphs.pretrained.corpora import prompts_of

    return (*given, *prompts_of(file))
