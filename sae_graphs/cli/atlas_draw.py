"""`sae-graphs atlas draw`: the pictures of an atlas.

Nothing slow is imported before the arguments have been checked.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sae_graphs.cli.console import out
from sae_graphs.cli.options import basics, output
from sae_graphs.errors import SaeGraphsError


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
    from sae_graphs.cli.atlas_tables import category_of

    atlas, place = Atlas(folder), file or folder / f"{picture.value}.svg"
    if picture is Picture.map:
        draw_map(atlas, place, by=by)
    else:
        draw_circuit(atlas, place, category=category_of(category, atlas), share=share, most=most)
    out.print(f"wrote {place}", markup=False, highlight=False, soft_wrap=True)
