"""The arguments and options of the commands, with what `--help` says of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sae_graphs.cli.console import err, progress_of_bytes
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.model.memory import format_size

if TYPE_CHECKING:
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.pretrained.fetching import Fetch


class Per(StrEnum):
    """The set of effects that each keeps `top_k` edges."""

    layer = "layer"
    source = "source"
    graph = "graph"


class Ablate(StrEnum):
    """Positions at which features are ablated."""

    all = "all"
    read = "read"
    each = "each"


class Format(StrEnum):
    """How a list of edges is written."""

    table = "table"
    csv = "csv"
    json = "json"


class Report(StrEnum):
    """How a report is written."""

    table = "table"
    json = "json"


class Method(StrEnum):
    """How effects are found."""

    exact = "exact"
    gradient = "gradient"
    integrated_gradients = "integrated-gradients"


class Sign(StrEnum):
    """Which effects to list."""

    promotes = "promotes"
    suppresses = "suppresses"


# -- which model -----------------------------------------------------------------------------------

Model = Annotated[
    str,
    typer.Option(
        help="`demo` (bundled), a Hugging Face name such as `gpt2-small`, or a local model folder."
    ),
]
Saes = Annotated[
    str | None,
    typer.Option(
        help="Folder with one sub-folder per SAE, a sae-lens release (`sae-graphs models` lists "
        "them), or a Hugging Face repository.",
        show_default="the model's best known",
    ),
]
SaePattern = Annotated[
    str | None,
    typer.Option(
        "--sae-pattern",
        help="Which SAE of each layer, where there are several, such as "
        "'layer_{layer}/width_16k/canonical'; {layer} is its number, * anything, {l0:70} a number "
        "close to 70.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory to stay within, such as 4GiB; SAEs are loaded two at a time if it is short.",
        show_default="80 % of what is free",
    ),
]
Run = Annotated[Path, typer.Argument(help="Folder that `sae-graphs graph` wrote.")]

# -- what to draw ----------------------------------------------------------------------------------

Prompt = Annotated[str | None, typer.Argument(help="The text to look into.", show_default=False)]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Draw again from the effects that a run with --save-effects left in this folder; no "
        "model is loaded. Writes a folder of its own beside it, such as "
        "`outputs/copyright-c-top-k-12`. The graph of any run can be drawn again as it is, in "
        "other formats or with annotations, a title or a caption.",
        show_default=False,
    ),
]
SaveEffects = Annotated[
    bool,
    typer.Option("--save-effects", help="Keep every measured effect, to draw again with --from."),
]
TopK = Annotated[int, typer.Option(help="Edges kept in each set of effects.")]
PerOption = Annotated[Per, typer.Option("--per", help="What a set of effects is.")]
MinPathEdges = Annotated[
    int | None,
    typer.Option(
        help="Keep edges on paths of at least this many edges.",
        show_default="3, or what the layers allow; 1 with --pin",
    ),
]
AblateOption = Annotated[
    Ablate,
    typer.Option(
        "--ablate",
        help="Ablate at all positions together, at the one that is read, or at each by itself: "
        "then boxes are features at a token.",
    ),
]
Read = Annotated[
    str,
    typer.Option(
        help="Position where effects are read; negative from the end. `all` with --ablate each."
    ),
]
Outputs = Annotated[
    int, typer.Option(help="So many of the likeliest next tokens end the graph's paths.")
]
Target = Annotated[
    list[str] | None,
    typer.Option(help="Paths end in this token, e.g. ' Paris'; repeatable.", show_default=False),
]
Contrast = Annotated[
    str | None,
    typer.Option(help="Paths end in the difference to this token's logit.", show_default=False),
]
Layers = Annotated[
    str | None, typer.Option(help="First and last SAE layer, such as 3:8, both included.")
]
Pin = Annotated[
    list[str] | None,
    typer.Option(
        help="Measure this feature only, e.g. 5.10603, or its address on Neuronpedia; repeatable."
    ),
]
PrependBos = Annotated[
    bool | None,
    typer.Option(
        "--prepend-bos/--no-prepend-bos", help="BOS first.", show_default="as the SAEs say"
    ),
]
AblateFirst = Annotated[
    bool, typer.Option("--ablate-first", help="Ablate at the first position, too.")
]
MethodOption = Annotated[
    Method,
    typer.Option(
        "--method",
        help="Measure effects, or estimate them from gradients; `sae-graphs compare` shows how far "
        "off these are.",
    ),
]
Steps = Annotated[
    int, typer.Option(help="Points on the line of integrated gradients; for that method only.")
]
Heads = Annotated[bool, typer.Option("--heads", help="Split what came through attention by head.")]
Seed = Annotated[int, typer.Option(help="Kept in the record.")]
Neuronpedia = Annotated[
    bool,
    typer.Option(
        "--neuronpedia/--no-neuronpedia",
        help="Ask Neuronpedia what the features mean, where their SAEs are there; what was asked "
        "before is kept in your cache. A service that fails delays the graph by some seconds.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder to write.", show_default="outputs/<slug>")
]
Formats = Annotated[str, typer.Option(help="Pictures to write: svg, png, html, dot, pdf.")]
Title = Annotated[
    str | None, typer.Option(help="What stands above the pictures.", show_default=False)
]
Caption = Annotated[
    str | None, typer.Option(help="What stands below them, as in a paper.", show_default=False)
]
AnnotationsFile = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        help="Draw the pins, groups, labels and notes that the explorer in graph.html saved in "
        "this file.",
        show_default=False,
    ),
]

_WITH_FROM = {
    "from_folder": "--from",
    "top_k": "--top-k",
    "per": "--per",
    "min_path_edges": "--min-path-edges",
    "layers": "--layers",
    "pin": "--pin",
    "out_folder": "--out",
    "formats": "--formats",
    "annotations": "--annotations",
    "title": "--title",
    "caption": "--caption",
}


def check_steps(context: Any, method: Method) -> None:
    """Raises where steps were given for a method that has none."""
    if method is not Method.integrated_gradients and _is_given(context, "steps"):
        raise SaeGraphsError(
            f"--steps is for --method {Method.integrated_gradients.value}, and the method is "
            f"{method.value}; leave --steps out, or give that method"
        )


def _is_given(context: Any, name: str) -> bool:
    return bool(context.get_parameter_source(name).name == "COMMANDLINE")


def check_given_with_from(context: Any) -> set[str]:
    """The names of the parameters that were given; raises where some do not go with `--from`."""
    given = {
        parameter.name: parameter
        for parameter in context.command.params
        if _is_given(context, parameter.name)
    }
    foreign = [
        max(parameter.opts, key=len) if parameter.opts[0].startswith("-") else "the prompt"
        for name, parameter in given.items()
        if name not in _WITH_FROM
    ]
    if foreign:
        fitting = quoted(list(_WITH_FROM.values())[1:], 20)
        raise SaeGraphsError(
            f"--from draws effects that were measured before, so {quoted(foreign, 20)} cannot be "
            f"given with it; expected {fitting} alone, or no --from"
        )
    return set(given)


class Source(NamedTuple):
    """The model to load."""

    model: str
    saes: str | None
    device: str
    dtype: str
    memory: str | None = None
    sae_pattern: str | None = None
    layers: tuple[str, str] | None = None

    def load(self) -> InstrumentedModel:
        """Loaded, after fetching what is not here; torch is imported here."""
        with err.status(f"loading {self.model}") as status:
            from sae_graphs.pretrained.loading import load

            @contextmanager
            def fetching(plan: Fetch, least: int | None) -> Iterator[Any]:
                status.stop()
                memory = "" if least is None else f"; loaded, {format_size(least)} of memory"
                err.print(f"{plan.words}{memory}", highlight=False, markup=False, soft_wrap=True)
                with progress_of_bytes("fetching") as report:
                    yield report
                status.start()

            return load(
                self.model,
                saes=self.saes,
                sae_pattern=self.sae_pattern,
                layers=self.layers,
                device=self.device,
                dtype=self.dtype,
                memory=self.memory,
                fetching=fetching,
            )
