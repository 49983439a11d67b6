"""`sae-graphs atlas query`: questions to an atlas.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sae_graphs.cli.console import out
from sae_graphs.cli.options import Format, basics, output
from sae_graphs.errors import SaeGraphsError, quoted

ROWS = 20  # printed where no limit is given


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
    traces = "traces"
    sites = "sites"
    verdicts = "verdicts"
    failures = "failures"
    sql = "sql"


Folder = Annotated[Path, typer.Argument(help="Folder that `atlas build` wrote.")]
Question = Annotated[What, typer.Argument(help="What to list.", metavar="[WHAT]")]
Feature = Annotated[
    str | None, basics(help="Of `features` and `feature`: such as 3.734.", show_default=False)
]
SourceFeature = Annotated[
    str | None, basics(help="Of `edges`: the feature they come from.", show_default=False)
]
IntoFeature = Annotated[
    str | None, basics(help="Of `edges`: the feature they lead to.", show_default=False)
]
Layer = Annotated[
    str | None, basics(help="Features, or sources, of this layer.", show_default=False)
]
Token = Annotated[
    str | None, basics(help="Features, or sources, at this token.", show_default=False)
]
Target = Annotated[str | None, basics(help="Prompts with this answer.", show_default=False)]
Category = Annotated[
    str | None,
    basics(
        metavar="<value>",
        help="Prompts of this category; `column=value` for another column than the first.",
        show_default=False,
    ),
]
Sign = Annotated[
    str | None,
    basics(
        metavar="<sign>",
        help="`supports` or `opposes`; of edges `promotes` or `suppresses`.",
        show_default=False,
    ),
]
MinEffect = Annotated[float, basics(metavar="<float>", help="The least |effect|.", min=0.0)]
By = Annotated[
    str | None,
    basics(metavar="<column>", help="The categories to compare.", show_default="the first"),
]
Least = Annotated[int, basics(metavar="<int>", help="Edges of at least so many prompts.", min=1)]
Between = Annotated[
    tuple[str, str] | None,
    basics(metavar="<a> <b>", help="Of `differences`: two categories.", show_default=False),
]
Like = Annotated[
    str | None,
    basics(metavar="<id>", help="Of `similar`: a prompt, by its id.", show_default=False),
]
Sql = Annotated[
    str | None,
    basics(
        metavar="<query>",
        help="A SELECT over prompts, nodes, edges and failures.",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    output(
        metavar="<int>",
        help="At most so many rows.",
        min=1,
        show_default="20; all as CSV, JSON",
    ),
]
Style = Annotated[Format, output("--format", help="How to print.")]

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
    What.traces: {"target", "category"},
    What.sites: {"target", "category"},
    What.verdicts: {"target", "category"},
    What.failures: set(),
    What.sql: {"sql"},
}
NEEDED = {What.feature: "feature", What.similar: "like", What.differences: "between"}
NEEDED |= {What.sql: "sql"}


def query(
    folder: Folder,
    what: Question = What.recurring,
    feature: Feature = None,
    source: SourceFeature = None,
    into: IntoFeature = None,
    layer: Layer = None,
    token: Token = None,
    target: Target = None,
    category: Category = None,
    sign: Sign = None,
    min_effect: MinEffect = 0.0,
    by: By = None,
    least: Least = 5,
    between: Between = None,
    like: Like = None,
    sql: Sql = None,
    limit: Limit = None,
    style: Style = Format.table,
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
        "category": category,
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
    from sae_graphs.cli.atlas_tables import SHOWN, answer, print_table

    shown = limit or (ROWS if style is Format.table else None)
    for title, table, more in answer(folder, what.value, given, shown):
        print_table(out, table, style.value, title=title, more=more, names=SHOWN.get(what.value))


def _check(what: What, given: dict[str, Any]) -> None:
    """Raise where an option is not of what is asked, or the one that it needs is missing."""
    if unfit := sorted(given.keys() - OWN[what]):
        flag = f"--{unfit[0].replace('_', '-')}"
        fits = [each.value for each, own in OWN.items() if unfit[0] in own]
        raise SaeGraphsError(f"{flag} is for {quoted(fits)}, not for {what.value}; leave it out")
    needed = NEEDED.get(what)
    if needed is not None and needed not in given:
        raise SaeGraphsError(f"{what.value} needs --{needed}; see sae-graphs atlas query --help")
