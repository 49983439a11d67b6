"""`sae-graphs atlas build`: the graphs of many prompts into a folder.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sae_graphs.cli.console import err, out, progress, resumable
from sae_graphs.cli.options import (
    Dense,
    Device,
    Dtype,
    InterventionOption,
    Layers,
    Memory,
    Model,
    NodesOption,
    PrependBos,
    SaePattern,
    Saes,
    Select,
    SelectOption,
    Source,
    TopK,
    basics,
    compute,
    kept,
    measured,
    output,
)
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.text import visible
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.words import counted

if TYPE_CHECKING:
    from sae_graphs.atlas.prompts import Asked

LISTED = 10  # prompts that failed, which are printed

File = Annotated[
    Path | None,
    basics(
        metavar="FILE",
        help="JSONL, CSV, TSV or Parquet with a column `prompt`; or a text file, a prompt a "
        "line. A column `target` is the answer; others are categories.",
        show_default=False,
    ),
]
Dataset = Annotated[
    str | None,
    basics(help="Or a dataset on the Hugging Face hub, or its folder.", show_default=False),
]
Column = Annotated[
    str | None, basics(help="The column with the prompts.", show_default="prompt; text")
]
Columns = Annotated[
    list[str] | None,
    basics(
        metavar="<column>",
        help="A column to carry along; repeatable.",
        show_default="all others of the file",
    ),
]
Config = Annotated[str | None, basics(help="The dataset's configuration.", show_default=False)]
Split = Annotated[str | None, basics(help="Its split.", show_default="train")]
First = Annotated[
    int | None,
    basics(metavar="<int>", help="Only so many, the first.", min=1, show_default="all"),
]
Target = Annotated[
    str | None,
    measured(
        metavar="<token>",
        help="The answer to prompts that name none.",
        show_default="the likeliest",
    ),
]
Budget = Annotated[
    int | None,
    kept(
        "--budget",
        help="Features at tokens to measure of each prompt; the others are judged by gradients.",
        show_default="2000",
    ),
]
Trace = Annotated[
    bool,
    measured(
        "--trace",
        help="Trace each prompt as well, its column `subject` corrupted: the sites that restore "
        "the answer.",
    ),
]
Validate = Annotated[
    bool,
    measured(
        "--validate",
        help="Test each graph and its paths as well, beside controls: their verdicts. Takes "
        "several times as long.",
    ),
]
Folder = Annotated[Path, output("--out", help="Folder to write, or to add to.")]
RayAddress = Annotated[
    str | None,
    compute(
        metavar="<where>",
        help="Measure in workers: `local`, or a Ray cluster such as ray://host:10001.",
        show_default="in this process",
    ),
]
Workers = Annotated[
    int | None,
    compute(metavar="<int>", help="Workers of --ray.", min=1, show_default="one a core"),
]


def build(
    prompts: File = None,
    dataset: Dataset = None,
    column: Column = None,
    category: Columns = None,
    config: Config = None,
    split: Split = None,
    first: First = None,
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    select: SelectOption = Select.answer,
    intervention: InterventionOption = None,
    layers: Layers = None,
    target: Target = None,
    nodes: NodesOption = None,
    dense: Dense = False,
    budget: Budget = None,
    top_k: TopK = None,
    trace: Trace = False,
    validate: Validate = False,
    folder: Folder = Path("outputs/atlas"),
    ray: RayAddress = None,
    workers: Workers = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    memory: Memory = None,
    prepend_bos: PrependBos = None,
) -> None:
    """Measure the graphs of many prompts into a folder, which questions are asked of.

    Example: `sae-graphs atlas build --prompts prompts.jsonl --out outputs/atlas`

    An interrupted build goes on where it was; further prompts are added. What fails is listed, and
    does not end it.
    """
    from sae_graphs.atlas.plan import Plan, categories_of
    from sae_graphs.atlas.store import check_folder

    if (prompts is None) == (dataset is None):
        raise SaeGraphsError("give the prompts, as --prompts FILE or as --dataset NAME")
    if workers is not None and ray is None:
        raise SaeGraphsError("--workers is for --ray; give --ray local as well")
    settings = GraphSettings(
        select=select.value,
        nodes=nodes,
        dense=dense,
        budget=budget,
        top_k=top_k,
        layers=layers,  # type: ignore[arg-type]  # the settings read it
        target=() if target is None else (target,),
        prepend_bos=prepend_bos,
    )
    check_folder(folder)
    if prompts is not None:
        if config is not None or split is not None:
            raise SaeGraphsError("--config and --split are for --dataset; leave them out")
        asked = _of_file(prompts, column, category, trace)[:first]
    else:
        asked = _of_dataset(str(dataset), column, config, split, first, category, trace)
    tracing = TraceSettings() if trace else None
    validation = ValidationSettings(quick=True) if validate else None
    categories_of(asked, Plan(settings, intervention, tracing, validation))
    source = Source(model, saes, device, dtype, memory, sae_pattern)
    more = {"intervention": intervention, "trace": trace, "validate": validate}
    _build(asked, folder, source, ray, workers, settings=settings, **more)


def _of_file(
    file: Path, column: str | None, category: list[str] | None, trace: bool
) -> tuple[Asked, ...]:
    """The prompts of a file; with a trace their subjects as well, where they have one."""
    from sae_graphs.atlas.prompts import SUBJECT, read_prompts

    besides = [SUBJECT] if trace else []
    return read_prompts(file, column=column or "prompt", categories=category, besides=besides)


def _of_dataset(
    name: str,
    column: str | None,
    config: str | None,
    split: str | None,
    first: int | None,
    category: list[str] | None,
    trace: bool,
) -> tuple[Asked, ...]:
    """The texts of a dataset, which has nothing beside these."""
    from sae_graphs.atlas.prompts import read_dataset

    if category:
        raise SaeGraphsError("--category is for --prompts; a dataset gives its texts alone")
    if trace:
        raise SaeGraphsError(
            "--trace is for --prompts with a column `subject`; a dataset gives its texts alone"
        )
    return read_dataset(name, column=column, config=config, split=split or "train", limit=first)


def _build(
    asked: Any,
    folder: Path,
    source: Source,
    ray: str | None,
    workers: int | None,
    **plan: Any,
) -> None:
    """Build, and say what became of it; the `plan` says what is measured of each prompt."""
    loaded: Any = source.model if ray else source.load()
    from sae_graphs.atlas.build import build_atlas

    loading = {
        "saes": source.saes,
        "sae_pattern": source.sae_pattern,
        "device": source.device,
        "dtype": source.dtype,
        "memory": source.memory,
    }
    with (
        resumable(lambda: "what is measured is kept"),
        progress("measuring", "prompts") as told,
    ):
        built = build_atlas(
            loaded,
            asked,
            folder,
            loading=loading if ray else None,
            ray=ray,
            workers=workers,
            progress=told,
            **plan,
        )
    for prompt, reason in built.failed[:LISTED]:
        line = f"failed: {visible(prompt, space=' ')[:60]}: {visible(reason, space=' ')}"
        err.print(line, markup=False, highlight=False, soft_wrap=True, style="yellow")
    if len(built.failed) > LISTED:
        err.print(
            f"and {len(built.failed) - LISTED} more: sae-graphs atlas query {folder} failures",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    pace = f", {built.per_minute:,.0f} a minute" if built.measured else ""
    failed = f", {counted(len(built.failed), 'prompt')} failed" if built.failed else ""
    out.print(
        f"wrote {folder}: {counted(built.measured, 'prompt')} measured{pace}, "
        f"{built.known} already there{failed}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
