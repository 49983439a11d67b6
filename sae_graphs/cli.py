"""The command line: arguments, wiring, progress. What is printed is made in `terminal`.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sae_graphs._version import __version__
from sae_graphs.cli_compare import compare_and_print
from sae_graphs.cli_console import err, out
from sae_graphs.cli_contexts import contexts
from sae_graphs.cli_export import export
from sae_graphs.cli_graph import Said, Source, Wanted, draw, draw_again
from sae_graphs.cli_models import models
from sae_graphs.cli_neuronpedia import neuronpedia
from sae_graphs.cli_options import (
    Ablate,
    AblateFirst,
    AblateOption,
    AnnotationsFile,
    Caption,
    Contrast,
    Device,
    Dtype,
    Format,
    Formats,
    From,
    Heads,
    Layers,
    Memory,
    Method,
    MethodOption,
    MinPathEdges,
    Model,
    Neuronpedia,
    Out,
    Outputs,
    Per,
    PerOption,
    Pin,
    PrependBos,
    Prompt,
    Read,
    Report,
    Run,
    SaePattern,
    Saes,
    SaveEffects,
    Seed,
    Sign,
    Steps,
    Target,
    Title,
    TopK,
    check_given_with_from,
    check_steps,
)
from sae_graphs.cli_validate import validate
from sae_graphs.cli_view import view
from sae_graphs.errors import SaeGraphsError, quoted

if TYPE_CHECKING:
    from sae_graphs.graph.graph import CausalGraph

STOPPED = 130  # exit status after Ctrl-C
ClickError: type[Any] = typer.BadParameter.__mro__[2]  # the base of every usage error

app = typer.Typer(
    name="sae-graphs",
    help="Causal graphs of what a language model is thinking in one forward pass.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(f"sae-graphs {__version__}", highlight=False)


@app.command()
def graph(
    context: typer.Context,
    prompt: Prompt = None,
    from_folder: From = None,
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    top_k: TopK = 8,
    per: PerOption = Per.layer,
    min_path_edges: MinPathEdges = None,
    ablate: AblateOption = Ablate.all,
    read: Read = "-1",
    outputs: Outputs = 0,
    target: Target = None,
    contrast: Contrast = None,
    layers: Layers = None,
    pin: Pin = None,
    prepend_bos: PrependBos = None,
    ablate_first: AblateFirst = False,
    heads: Heads = False,
    method: MethodOption = Method.exact,
    steps: Steps = 10,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    seed: Seed = 0,
    out_folder: Out = None,
    formats: Formats = "svg,png,html,dot",
    save_effects: SaveEffects = False,
    neuronpedia: Neuronpedia = True,
    title: Title = None,
    caption: Caption = None,
    annotations: AnnotationsFile = None,
) -> None:
    """Draw the causal graph behind a prompt's next token.

    Example: `sae-graphs graph "Copyright (C"`

    Without a model, from saved effects: `sae-graphs graph --from outputs/copyright-c --top-k 12`

    With your own labels: `sae-graphs graph --from outputs/copyright-c --annotations mine.json`
    """
    from sae_graphs.effects.settings import GraphSettings, parse_read
    from sae_graphs.model.stream import parse_layers

    pins = tuple(pin or ())
    said = Said(annotations, title, caption)
    if from_folder is not None:
        given = check_given_with_from(context)
        settings_given = {
            "top_k": top_k,
            "per": per.value,
            "min_path_edges": min_path_edges,
            "layers": parse_layers(layers),
            "pin": pins,
        }
        chosen = {name: value for name, value in settings_given.items() if name in given}
        as_it_is = not chosen and bool(given & {"annotations", "title", "caption", "formats"})
        draw_again(from_folder, chosen, out_folder, _formats(formats), said=said, as_it_is=as_it_is)
        return
    check_steps(context, method)
    settings = GraphSettings(
        top_k=top_k,
        min_path_edges=min_path_edges,
        per=per.value,
        ablate=ablate.value,
        ablate_first=ablate_first,
        heads=heads,
        method=method.value,
        steps=steps,
        read=parse_read(read),
        outputs=outputs,
        targets=tuple(target or ()),
        contrast=contrast,
        layers=parse_layers(layers),
        pin=pins,  # type: ignore[arg-type]  # parsed by the settings
        prepend_bos=prepend_bos,
        seed=seed,
    )
    if prompt is None or not prompt.strip():
        raise SaeGraphsError(
            'no prompt, or an empty one; give some text, such as "Copyright (C", or a folder of '
            "saved effects with --from"
        )
    source = Source(model, saes, device, dtype, memory, sae_pattern, settings.layers)
    wanted = Wanted(out_folder, _formats(formats), save_effects, neuronpedia, said)
    draw(prompt, settings, source, wanted)


@app.command()
def edges(
    run: Run,
    source: Annotated[
        str | None, typer.Option(help="Edges from this feature; or its address on Neuronpedia.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Edges to this feature.")] = None,
    layer: Annotated[str | None, typer.Option(help="Edges from this SAE layer.")] = None,
    sign: Annotated[Sign | None, typer.Option(help="Only what promotes, or suppresses.")] = None,
    min_effect: Annotated[float, typer.Option(help="Smallest |effect|.", min=0.0)] = 0.0,
    component: Annotated[int | None, typer.Option(help="Edges of this graph (1, 2, ...).")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many.", min=1)] = None,
    anatomy: Annotated[
        bool, typer.Option("--anatomy", help="Through which block each effect came.")
    ] = False,
    style: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
) -> None:
    """List the edges of a saved graph, strongest first.

    Example: `sae-graphs edges outputs/copyright-c --layer 3 --sign promotes`
    """
    from sae_graphs.edge_tables import print_edges

    saved = _saved(run)
    found = saved.find_edges(
        source=source,
        target=target,
        layer=layer,
        sign=None if sign is None else sign.value,
        min_abs_effect=min_effect,
        component=component,
    )[:limit]
    print_edges(out, saved, found, style.value, anatomy=anatomy)


@app.command()
def compare(
    prompt: Annotated[str, typer.Argument(help="The text to look into.", show_default=False)],
    steps: Steps = 10,
    top_k: Annotated[int, typer.Option(help="Strongest edges of each layer pair to compare.")] = 8,
    ablate: AblateOption = Ablate.all,
    read: Read = "-1",
    layers: Layers = None,
    prepend_bos: PrependBos = None,
    ablate_first: AblateFirst = False,
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    style: Annotated[Report, typer.Option("--format", help="How to print.")] = Report.table,
) -> None:
    """Show how far estimates from gradients are from exact effects, and where they are safe.

    Example: `sae-graphs compare "Copyright (C"`
    """
    from sae_graphs.effects.settings import GraphSettings, parse_read
    from sae_graphs.model.stream import parse_layers

    settings = GraphSettings(
        top_k=top_k,
        ablate=ablate.value,
        ablate_first=ablate_first,
        read=parse_read(read),
        layers=parse_layers(layers),
        prepend_bos=prepend_bos,
        steps=steps,
    )
    if not prompt.strip():
        raise SaeGraphsError('the prompt is empty; give some text, such as "Copyright (C"')
    source = Source(model, saes, device, dtype, memory, sae_pattern, settings.layers)
    compare_and_print(prompt, settings, source, style.value)


app.command()(contexts)
app.command()(validate)
app.command()(models)
app.command()(neuronpedia)
app.command()(export)
app.command()(view)


def main() -> None:
    """Entry point: exit 0 done, 2 the user's mistake in one line, 130 stopped, 1 a bug."""
    if logging.lastResort is not None:  # what the library warns of, as the commands would say it
        logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show every character
    try:
        code = app(standalone_mode=False, prog_name="sae-graphs")
        if code == STOPPED:  # Ctrl-C, as typer answers it
            raise KeyboardInterrupt
    except SaeGraphsError as mistake:
        _fail(str(mistake))
    except ClickError as mistake:
        if not mistake.format_message():  # no command was given: the help has been shown
            sys.exit(0)
        command = mistake.ctx.command_path if getattr(mistake, "ctx", None) else "sae-graphs"
        _fail(f"{mistake.format_message().rstrip('.')}{given_words(mistake)}; see {command} --help")
    except (KeyboardInterrupt, typer.Abort):
        err.print("stopped; no half-written file is left")
        sys.exit(STOPPED)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def given_words(mistake: Any) -> str:
    """What was given for the option at fault, where the message does not say."""
    names = getattr(getattr(mistake, "param", None), "opts", [])
    given = [
        word.partition("=")[2] if "=" in word else following
        for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True)
        if word.partition("=")[0] in names
    ]
    return f" (given: {given[-1]!r})" if given and repr(given[-1]) not in str(mistake) else ""


def _fail(message: str) -> None:
    line = " ".join(message.split())
    err.print(f"error: {line}", markup=False, highlight=False, soft_wrap=True, style="red")
    sys.exit(2)


def _saved(run: Path) -> CausalGraph:
    from sae_graphs.graph.graph import CausalGraph

    return CausalGraph.load(run)


def _formats(text: str) -> tuple[str, ...]:
    from sae_graphs.render.pictures import FORMATS

    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown or not wanted:
        raise SaeGraphsError(
            f"formats {text!r}: expected some of {quoted(FORMATS)}, separated by commas"
        )
    return wanted


if __name__ == "__main__":
    main()
