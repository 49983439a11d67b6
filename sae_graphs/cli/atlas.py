"""`sae-graphs atlas`: the graphs of many prompts in a database, and questions to it.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sae_graphs.cli.console import err, out, progress, resumable
from sae_graphs.cli.options import (
    Dense,
    Device,
    Dtype,
    Format,
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
from sae_graphs.errors import SaeGraphsError, quoted

LISTED = 10  # prompts that failed, which are printed
ROWS = 20  # printed where no limit is given

app = typer.Typer(
    help="The graphs of many prompts in a database, and what it says.\n\n"
    "Example: `sae-graphs atlas build --prompts prompts.jsonl --out outputs/atlas`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class What(StrEnum):
    """What is asked of an atlas."""

    recurring = "recurring"
    features = "features"
    edges = "edges"
    prompts = "prompts"
    feature = "feature"
    similar = "similar"
    differences = "differences"
    separation = "separation"
    failures = "failures"
    sql = "sql"


def build(
    prompts: Annotated[
        Path | None,
        basics(
            metavar="FILE",
            help="JSONL, CSV, TSV or Parquet with a column `prompt`; or a text file, a prompt a "
            "line. A column `target` is the answer; others are categories.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        basics(help="Or a dataset on the Hugging Face hub, or its folder.", show_default=False),
    ] = None,
    column: Annotated[
        str | None, basics(help="The column with the prompts.", show_default="prompt; text")
    ] = None,
    category: Annotated[
        list[str] | None,
        basics(
            metavar="<column>",
            help="A column to carry along; repeatable.",
            show_default="all others of the file",
        ),
    ] = None,
    config: Annotated[
        str | None, basics(help="The dataset's configuration.", show_default=False)
    ] = None,
    split: Annotated[str | None, basics(help="Its split.", show_default="train")] = None,
    first: Annotated[
        int | None,
        basics(metavar="<int>", help="Only so many, the first.", min=1, show_default="all"),
    ] = None,
    model: Model = "demo",
    saes: Saes = None,
    sae_pattern: SaePattern = None,
    select: SelectOption = Select.answer,
    intervention: InterventionOption = None,
    layers: Layers = None,
    target: Annotated[
        str | None,
        measured(
            metavar="<token>",
            help="The answer to prompts that name none.",
            show_default="the likeliest",
        ),
    ] = None,
    nodes: NodesOption = None,
    dense: Dense = False,
    budget: Annotated[
        int | None,
        kept(
            "--budget",
            help="Features at tokens to measure of each prompt; the others are judged by "
            "gradients.",
            show_default="2000",
        ),
    ] = None,
    top_k: TopK = None,
    folder: Annotated[Path, output("--out", help="Folder to write, or to add to.")] = Path(
        "outputs/atlas"
    ),
    ray: Annotated[
        str | None,
        compute(
            metavar="<where>",
            help="Measure in workers: `local`, or a Ray cluster such as ray://host:10001.",
            show_default="in this process",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        compute(metavar="<int>", help="Workers of --ray.", min=1, show_default="one a core"),
    ] = None,
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
    from sae_graphs.atlas.prompts import read_dataset, read_prompts
    from sae_graphs.atlas.store import check_folder
    from sae_graphs.effects.settings import GraphSettings

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
        asked = read_prompts(prompts, column=column or "prompt", categories=category)[:first]
    else:
        if category:
            raise SaeGraphsError("--category is for --prompts; a dataset gives its texts alone")
        asked = read_dataset(
            str(dataset), column=column, config=config, split=split or "train", limit=first
        )
    source = Source(model, saes, device, dtype, memory, sae_pattern)
    _build(asked, folder, settings, intervention, source, ray, workers)


def _build(
    asked: Any,
    folder: Path,
    settings: GraphSettings,
    intervention: str | None,
    source: Source,
    ray: str | None,
    workers: int | None,
) -> None:
    loaded: Any = source.model if ray else source.load()
    from sae_graphs.atlas.build import build_atlas
    from sae_graphs.text import visible
    from sae_graphs.words import counted

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
            settings=settings,
            intervention=intervention,
            loading=loading if ray else None,
            ray=ray,
            workers=workers,
            progress=told,
        )
    for prompt, reason in built.failed[:LISTED]:
        line = f"failed: {visible(prompt, space=' ')[:60]}: {reason}"
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


def query(
    folder: Annotated[Path, typer.Argument(help="Folder that `atlas build` wrote.")],
    what: Annotated[What, typer.Argument(help="What to list.", metavar="[WHAT]")] = What.recurring,
    feature: Annotated[
        str | None, basics(help="Of `features` and `feature`: such as 3.734.", show_default=False)
    ] = None,
    source: Annotated[
        str | None, basics(help="Of `edges`: the feature they come from.", show_default=False)
    ] = None,
    into: Annotated[
        str | None, basics(help="Of `edges`: the feature they lead to.", show_default=False)
    ] = None,
    layer: Annotated[
        str | None, basics(help="Features, or sources, of this layer.", show_default=False)
    ] = None,
    token: Annotated[
        str | None, basics(help="Features, or sources, at this token.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, basics(help="Prompts with this answer.", show_default=False)
    ] = None,
    category: Annotated[
        str | None,
        basics(
            metavar="<value>",
            help="Prompts of this category; `column=value` for another column than the first.",
            show_default=False,
        ),
    ] = None,
    sign: Annotated[
        str | None,
        basics(
            metavar="<sign>",
            help="`supports` or `opposes`; of edges `promotes` or `suppresses`.",
            show_default=False,
        ),
    ] = None,
    min_effect: Annotated[
        float, basics(metavar="<float>", help="The least |effect|.", min=0.0)
    ] = 0.0,
    by: Annotated[
        str | None,
        basics(metavar="<column>", help="The categories to compare.", show_default="the first"),
    ] = None,
    least: Annotated[
        int, basics(metavar="<int>", help="Edges of at least so many prompts.", min=1)
    ] = 5,
    between: Annotated[
        tuple[str, str] | None,
        basics(metavar="<a> <b>", help="Of `differences`: two categories.", show_default=False),
    ] = None,
    like: Annotated[
        str | None,
        basics(metavar="<id>", help="Of `similar`: a prompt, by its id.", show_default=False),
    ] = None,
    sql: Annotated[
        str | None,
        basics(
            metavar="<query>",
            help="A SELECT over prompts, nodes, edges and failures.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        output(
            metavar="<int>",
            help="At most so many rows.",
            min=1,
            show_default="20; all as CSV, JSON",
        ),
    ] = None,
    style: Annotated[Format, output("--format", help="How to print.")] = Format.table,
) -> None:
    """Ask an atlas: which edges recur, where a feature matters, which prompts are alike.

    Example: `sae-graphs atlas query outputs/atlas recurring`

    In SQL: `sae-graphs atlas query outputs/atlas --sql "SELECT count(*) FROM edges"`
    """
    what = What.sql if sql is not None else what
    given = {
        "feature": feature,
        "source": source,
        "into": into,
        "layer": layer,
        "token": token,
        "target": target,
        "category": _category(category),
        "sign": sign,
        "min_effect": min_effect or None,
        "by": by,
        "least": None if least == 5 else least,
        "between": between,
        "like": like,
        "sql": sql,
    }
    given = {name: value for name, value in given.items() if value is not None}
    _check(what, given)
    from sae_graphs.cli.atlas_tables import answer, print_table

    shown = limit or (ROWS if style is Format.table else None)
    for title, table, more in answer(folder, what.value, given, shown):
        print_table(out, table, style.value, title=title, more=more)


class Picture(StrEnum):
    """What is drawn of an atlas."""

    circuit = "circuit"
    map = "map"


def draw(
    folder: Annotated[Path, typer.Argument(help="Folder that `atlas build` wrote.")],
    picture: Annotated[
        Picture, typer.Argument(help="What to draw.", metavar="[PICTURE]")
    ] = Picture.circuit,
    category: Annotated[
        str | None,
        basics(
            metavar="<value>",
            help="Of `circuit`: prompts of this category, or `column=value`.",
            show_default="all prompts",
        ),
    ] = None,
    share: Annotated[
        float, basics(metavar="<share>", help="Of `circuit`: of the prompts that have an edge.")
    ] = 0.2,
    most: Annotated[int, basics(metavar="<int>", help="Of `circuit`: edges.", min=1)] = 40,
    by: Annotated[
        str | None,
        basics(
            metavar="<column>",
            help="Of `map`: the categories that are coloured.",
            show_default="the first",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        output(
            "--out",
            help="SVG, PNG or PDF.",
            show_default="circuit.svg, map.svg in the atlas's folder",
        ),
    ] = None,
) -> None:
    """Draw the circuit of edges that recur, or a map of the prompts.

    Example: `sae-graphs atlas draw outputs/atlas circuit --share 0.5`
    """
    if by is not None and picture is Picture.circuit:
        raise SaeGraphsError("--by is for map; of a circuit give --category")
    if category is not None and picture is Picture.map:
        raise SaeGraphsError("--category is for circuit; a map is of all prompts")
    from sae_graphs.atlas.atlas import Atlas
    from sae_graphs.atlas.pictures import draw_circuit, draw_map

    atlas, place = Atlas(folder), file or folder / f"{picture.value}.svg"
    if picture is Picture.map:
        draw_map(atlas, place, by=by)
    else:
        draw_circuit(atlas, place, category=_category(category), share=share, most=most)
    out.print(f"wrote {place}", markup=False, highlight=False, soft_wrap=True)


OWN = {
    What.recurring: {"by", "category", "least"},
    What.features: {
        *("feature", "layer", "token", "target", "category", "sign", "min_effect"),
    },
    What.edges: {
        *("source", "into", "layer", "token", "target", "category", "sign", "min_effect"),
    },
    What.prompts: {"target", "category"},
    What.feature: {"feature"},
    What.similar: {"like"},
    What.differences: {"between", "by", "least"},
    What.separation: {"by"},
    What.failures: set(),
    What.sql: {"sql"},
}
NEEDED = {What.feature: "feature", What.similar: "like", What.differences: "between"}
NEEDED |= {What.sql: "sql"}


def _check(what: What, given: dict[str, Any]) -> None:
    """Raise where an option is not of what is asked, or the one that it needs is missing."""
    if unfit := sorted(given.keys() - OWN[what]):
        flag = f"--{unfit[0].replace('_', '-')}"
        fits = [each.value for each, own in OWN.items() if unfit[0] in own]
        raise SaeGraphsError(f"{flag} is for {quoted(fits)}, not for {what.value}; leave it out")
    needed = NEEDED.get(what)
    if needed is not None and needed not in given:
        raise SaeGraphsError(f"{what.value} needs --{needed}; see sae-graphs atlas query --help")


def _category(text: str | None) -> str | dict[str, str] | None:
    """`closings`, or `phenomenon=closings`."""
    if text is None or "=" not in text:
        return text
    name, _, value = text.partition("=")
    return {name.strip(): value.strip()}
