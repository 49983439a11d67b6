"""The arguments and options of the commands, what `--help` says of each, and in which panel."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sae_graphs.cli.console import err, progress_of_bytes
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.late import quick_imports
from sae_graphs.model.memory import format_size

if TYPE_CHECKING:
    from sae_graphs.model.instrument import InstrumentedModel
    from sae_graphs.model.language_model import LanguageModel
    from sae_graphs.pretrained.fetching import Fetch, Fetching


class Select(StrEnum):
    """Which graph is drawn."""

    answer = "answer"
    effect = "effect"


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


# -- the panels of `--help`, in their order --------------------------------------------------------

BASICS = "Basics"
basics = partial(typer.Option, rich_help_panel=BASICS)
measured = partial(typer.Option, rich_help_panel="What is measured")
beside = partial(typer.Option, rich_help_panel="Controls and other text")
kept = partial(typer.Option, rich_help_panel="What is kept")
output = partial(typer.Option, rich_help_panel="Output")
compute = partial(typer.Option, rich_help_panel="Compute")

# -- which model -----------------------------------------------------------------------------------

Model = Annotated[
    str,
    basics(
        help="`demo` (bundled), `smollm2`, a Hugging Face name such as `gpt2-small`, a local model "
        "folder, or a GGUF file."
    ),
]
Saes = Annotated[
    str | None,
    basics(
        help="Folder with one sub-folder per SAE, a sae-lens release (`sae-graphs models` lists "
        "them), or a Hugging Face repository.",
        show_default="the model's best known",
    ),
]
SaePattern = Annotated[
    str | None,
    basics(
        "--sae-pattern",
        help="Which SAE of each layer, where there are several: 'layer_{layer}/width_16k/*'; "
        "{layer} is its number, * anything, {l0:70} a number close to 70.",
        show_default=False,
    ),
]
Device = Annotated[str, compute(help="cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, compute(help="float32, bfloat16, float16 or float64.")]
Memory = Annotated[
    str | None,
    compute(
        help="Memory to stay within, such as 4GiB; SAEs are loaded two at a time if it is short.",
        show_default="80 % of what is free",
    ),
]
Run = Annotated[Path, typer.Argument(help="Folder that `sae-graphs graph` wrote.")]

# -- what to draw ----------------------------------------------------------------------------------

Prompt = Annotated[str | None, typer.Argument(help="The text to look into.", show_default=False)]
From = Annotated[
    Path | None,
    basics(
        "--from",
        help="Draw a run again, from its folder, with other edges (if it has --save-effects), "
        "formats or annotations; no model is loaded. Writes a folder beside it, such as "
        "`outputs/copyright-c-top-k-12`.",
        show_default=False,
    ),
]
SelectOption = Annotated[
    Select,
    basics(
        "--select",
        help="What the `answer`, the likeliest next token, hangs on; or the strongest `effect`s "
        "of each layer on the next, whatever comes of them.",
    ),
]
AblateOfGraph = Annotated[
    Ablate | None,
    measured(
        "--ablate",
        help="For `effect`: ablate at all positions together, at the one that is read, or at each "
        "by itself, as for `answer`: then boxes are features at a token.",
        show_default="each; all for `effect`",
    ),
]
AblateFirst = Annotated[bool, measured("--ablate-first", help="Ablate at the first position, too.")]
_INTERVENTION = (
    "What an activation becomes: `zero`; `mean`, its mean over reference text; `scale:0.5`, a "
    "multiple; or `resample:FILE`, its value in another prompt of as many tokens."
)
InterventionOption = Annotated[
    str | None,
    measured(
        "--intervention",
        metavar="<kind>",
        help=_INTERVENTION,
        show_default="mean; zero for `effect`",
    ),
]
InterventionOfEffects = Annotated[
    str, measured("--intervention", metavar="<kind>", help=_INTERVENTION)
]
Read = Annotated[
    str,
    measured(
        help="Position where effects are read; negative from the end. `all` with --ablate each."
    ),
]
Layers = Annotated[
    str | None,
    measured(
        help="First and last SAE layer, such as 3:8, both included.", show_default="all of them"
    ),
]
Pin = Annotated[
    list[str] | None,
    measured(
        metavar="<feature>",
        help="Keep this feature whatever its effect, e.g. 5.10603, or its address on Neuronpedia; "
        "for `effect`, measure it alone. Repeatable.",
        show_default=False,
    ),
]
Outputs = Annotated[
    int,
    measured(help="For `effect`: so many of the likeliest next tokens end the graph's paths."),
]
Target = Annotated[
    list[str] | None,
    measured(
        metavar="<token>",
        help="The answer, or the token that paths end in, e.g. ' Paris'; repeatable for `effect`.",
        show_default="the likeliest",
    ),
]
Contrast = Annotated[
    str | None,
    measured(
        metavar="<token>",
        help="Ask of the difference to this token's logit.",
        show_default=False,
    ),
]
MethodOption = Annotated[
    Method,
    measured(
        "--method",
        metavar="<method>",
        help="Measure effects (`exact`), or estimate them: `gradient`, `integrated-gradients`; "
        "`sae-graphs compare` shows how far off these are.",
    ),
]
Steps = Annotated[
    int, measured(help="Points on the line of integrated gradients; for that method only.")
]
Heads = Annotated[bool, measured("--heads", help="Split what came through attention by head.")]

NodesOption = Annotated[
    int | None,
    kept(
        "--nodes",
        help="Features at tokens that are kept, of the strongest on the answer.",
        show_default="16",
    ),
]
Dense = Annotated[
    bool,
    kept(
        "--dense",
        help="Keep features that are on at 30 % of any text, or more, as well.",
    ),
]
Budget = Annotated[
    int | None,
    kept(
        "--budget",
        help="Features at tokens to measure; the others are judged by gradients.",
        show_default="what takes five minutes",
    ),
]
TopK = Annotated[
    int | None,
    kept(
        help="Edges kept into each feature; for `effect`, in each set of effects.",
        show_default="4; 8 for `effect`",
    ),
]
PerOption = Annotated[
    Per | None,
    kept(
        "--per",
        help="For `effect`: a set is that of a layer, of a source feature, or all.",
        show_default="layer",
    ),
]
MinPathEdges = Annotated[
    int | None,
    kept(
        help="For `effect`: keep edges on paths of at least this many edges.",
        show_default="3, or what the layers allow; 1 with --pin",
    ),
]
SaveEffects = Annotated[
    bool, kept("--save-effects", help="Keep every measured effect, to draw again with --from.")
]

Out = Annotated[
    Path | None, output("--out", help="Folder to write.", show_default="outputs/<slug>")
]
Formats = Annotated[str, output(help="Pictures to write: svg, png, html, dot, pdf.")]
Title = Annotated[str | None, output(help="What stands above the pictures.", show_default=False)]
Caption = Annotated[
    str | None, output(help="What stands below them, as in a paper.", show_default=False)
]
AnnotationsFile = Annotated[
    Path | None,
    output(
        "--annotations",
        help="Draw the pins, groups, labels and notes that the explorer in graph.html saved in "
        "this file.",
        show_default=False,
    ),
]
Neuronpedia = Annotated[
    bool,
    output(
        "--neuronpedia/--no-neuronpedia",
        help="Ask Neuronpedia what the features mean; answers are kept in your cache. A service "
        "that fails delays the graph by some seconds.",
    ),
]

PrependBos = Annotated[
    bool | None,
    compute("--prepend-bos/--no-prepend-bos", help="BOS first.", show_default="as the SAEs say"),
]
Seed = Annotated[int, compute(help="Kept in the record; nothing in a graph is random.")]


# -- what was given --------------------------------------------------------------------------------


def some_text(prompt: str | None) -> str:
    """A prompt as it was given; raises `SaeGraphsError` where there is none. Blanks are text."""
    if not prompt:
        raise SaeGraphsError('no prompt, or an empty one; give some text, such as "Copyright (C"')
    return prompt


def formats_of(text: str, known: Collection[str]) -> tuple[str, ...]:
    """Formats from a list such as `svg, png`; raises where one is not known, or there is none."""
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not wanted or not set(wanted) <= set(known):
        raise SaeGraphsError(
            f"formats {text!r}: expected some of {quoted(known)}, separated by commas"
        )
    return wanted


def fetching_under(status: Any) -> Fetching:
    """What is said and shown while something is fetched, the line of `status` being away."""

    @contextmanager
    def fetching(plan: Fetch, least: int | None) -> Iterator[Any]:
        status.stop()
        memory = "" if least is None else f"; loaded, {format_size(least)} of memory"
        err.print(f"{plan.words}{memory}", highlight=False, markup=False, soft_wrap=True)
        with progress_of_bytes("fetching") as report:
            yield report
        status.start()

    return fetching


class Source(NamedTuple):
    """The model to load."""

    model: str
    saes: str | None
    device: str
    dtype: str
    memory: str | None = None
    sae_pattern: str | None = None
    layers: tuple[str, str] | None = None

    def load_model(self) -> LanguageModel:
        """The model alone, after fetching what is not here; torch is imported here."""
        with err.status(f"loading {self.model}") as status:
            with quick_imports():
                from sae_graphs.pretrained.loading import load_model

            return load_model(
                self.model,
                device=self.device,
                dtype=self.dtype,
                memory=self.memory,
                fetching=fetching_under(status),
            )

    def load(self) -> InstrumentedModel:
        """Loaded, after fetching what is not here; torch is imported here."""
        with err.status(f"loading {self.model}") as status:
            with quick_imports():
                from sae_graphs.pretrained.loading import load

            return load(
                self.model,
                saes=self.saes,
                sae_pattern=self.sae_pattern,
                layers=self.layers,
                device=self.device,
                dtype=self.dtype,
                memory=self.memory,
                fetching=fetching_under(status),
            )


def is_given(context: Any, name: str) -> bool:
    """Whether an option stands on the command line."""
    return bool(context.get_parameter_source(name).name == "COMMANDLINE")
