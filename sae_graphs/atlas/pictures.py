"""Two pictures of an atlas: the edges that recur, as a circuit, and the prompts as a map.

Torch-free. A recurrent circuit has each edge that a share of the prompts has, wider the more of
them; red promotes, blue suppresses, by the mean over these prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.database import Categories
from sae_graphs.atlas.prompts import SUBJECT
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.files import write_atomically
from sae_graphs.graph.feature_id import ANSWER_LAYER
from sae_graphs.render.picture.markup import in_label
from sae_graphs.render.style import FAINT, INK, LINE, PANEL, SANS, SOFT, effect_colour
from sae_graphs.text import shortened, visible
from sae_graphs.words import counted, percent, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("svg", "png", "pdf")
TOKENS = 3  # of a feature that are named, those at which it stands most often
NAME = 14  # characters of a token


def draw_circuit(
    atlas: Atlas,
    file: str | Path,
    *,
    category: Categories = None,
    share: float = 0.2,
    most: int = 40,
) -> Path:
    """The edges that at least a `share` of the prompts (of a category) have, at most so many.

    An SVG, PNG or PDF by the file's ending. Raises `SaeGraphsError` where no edge is so common.
    """
    from sae_graphs.render.picture.engine import draw

    place, kind = _kind_of(file)
    source = circuit_source(atlas, category=category, share=share, most=most)
    return _written(place, draw(source, [kind])[kind])


def circuit_source(
    atlas: Atlas, *, category: Categories = None, share: float = 0.2, most: int = 40
) -> str:
    """The same as DOT source."""
    if not 0 < share <= 1:
        raise SaeGraphsError(f"share is {share!r:.40}; expected more than 0, and at most 1")
    total = atlas.count(category)
    least = max(math.ceil(share * total), 1)
    edges = atlas.recurring_edges(category=category, least=least, limit=most)
    if not len(edges):
        raise SaeGraphsError(
            f"no edge is in {percent(share)} of {counted(total, 'prompt')}; give a smaller share"
        )
    ends = sorted({*edges["source"], *edges["target"]})
    tokens = _tokens(atlas, ends, category)
    layers: dict[str, list[str]] = {}
    for end in ends:
        layers.setdefault(end.partition(".")[0], []).append(end)
    what = "all prompts" if category is None else _words(category)
    title = f"Edges in at least {percent(share)} of {counted(total, 'prompt')}: {what}"
    lines = [
        "digraph {",
        f'rankdir=BT; ranksep=0.6; nodesep=0.25; fontname="{SANS}"; fontsize=12;',
        f'label={_quoted(title)}; labelloc=t; labeljust=l; fontcolor="{INK}";',
        f'node [shape=box style="rounded,filled" fillcolor="{PANEL}" color="{LINE}" '
        f'fontname="{SANS}" fontsize=10 fontcolor="{INK}"];',
        f'edge [fontname="{SANS}" fontsize=8 fontcolor="{SOFT}"];',
    ]
    for held in layers.values():
        lines.append("{ rank=same; " + " ".join(f"{_quoted(end)};" for end in held) + " }")
    for end in ends:
        name = "the answer" if end == ANSWER_LAYER else end
        seen = tokens.get(end, "")
        lines.append(f"{_quoted(end)} [label={_quoted(f'{name}{seen}')}];")
    for number, row in enumerate(edges.itertuples()):
        head = "normal" if row.mean_effect < 0 else "tee"
        said = f"{row.source} to {row.target}: {counted(row.prompts, 'prompt')}"
        said += f", mean effect {signed(row.mean_effect)}"
        lines.append(
            f"{_quoted(row.source)} -> {_quoted(row.target)} "
            f'[id="edge-{number}" color="{effect_colour(row.mean_effect)}" arrowhead={head} '
            f"penwidth={0.6 + 3.4 * row.share:.2f} label={_quoted(percent(row.share))} "
            f"tooltip={_quoted(said)}];"
        )
    return "\n".join([*lines, "}"])


def draw_map(atlas: Atlas, file: str | Path, *, by: str | None = None) -> Path:
    """The prompts by the two largest principal components of their edges, coloured by category.

    An SVG, PNG or PDF by the file's ending.
    """
    import io

    place, kind = _kind_of(file)
    held = io.BytesIO()
    map_figure(atlas, by=by).savefig(held, format=kind)
    return _written(place, held.getvalue())


def map_figure(atlas: Atlas, *, by: str | None = None) -> Figure:
    """The same as a figure of matplotlib's."""
    from matplotlib import colormaps

    from sae_graphs.render.document.plot import bare_figure, look

    points = atlas.map()
    columns = [name for name in atlas.categories if name != SUBJECT] if by is None else [by]
    if by is not None and by not in atlas.categories:
        raise SaeGraphsError(f"no category {by!r:.40}; the atlas has {quoted(atlas.categories)}")
    with look():
        figure = bare_figure(4.6, width=7.0)
        axes = figure.subplots()
        if columns:
            kinds = points.groupby(columns[0])
            name = "tab10" if len(kinds) <= 10 else "tab20"
            hues = colormaps[name].colors  # type: ignore[attr-defined]
            for at, (kind, some) in enumerate(kinds):
                axes.scatter(
                    some["x"],
                    some["y"],
                    s=10,
                    color=hues[at % len(hues)],
                    marker="os^v"[at // len(hues) % 4],
                    alpha=0.7,
                    linewidths=0,
                    label=_in_legend(str(kind)),
                )
            figure.legend(loc="outside right upper", frameon=False, fontsize=7)
        else:
            axes.scatter(points["x"], points["y"], s=10, color=FAINT)
        axes.set_xlabel("first principal component of the edges")
        axes.set_ylabel("second")
        return figure


# -- inside ----------------------------------------------------------------------------------------


def _kind_of(file: str | Path) -> tuple[Path, str]:
    place = Path(file)
    kind = place.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise SaeGraphsError(f"cannot draw {file}; expected a file that ends in .svg, .png or .pdf")
    return place, kind


def _written(place: Path, data: bytes) -> Path:
    try:
        write_atomically(place, data)
    except OSError as problem:
        raise SaeGraphsError(f"cannot write {place}: {problem.strerror}") from problem
    return place


def _tokens(atlas: Atlas, features: Sequence[str], category: Categories) -> dict[str, str]:
    """The tokens at which each stands most often in such prompts, quoted, in one line."""
    found: dict[str, list[str]] = {}
    for row in _rows(atlas.tokens_of(features, category=category)):
        shown = found.setdefault(row["feature"], [])
        if len(shown) < TOKENS:
            shown.append(f'"{shortened(visible(row["token"], space=" "), NAME)}"')
    return {feature: "\n" + " ".join(shown) for feature, shown in found.items()}


def _rows(table: Any) -> list[dict[str, Any]]:
    return list(table.to_dict("records"))


def _words(category: str | Mapping[str, str]) -> str:
    values = [category] if isinstance(category, str) else list(category.values())
    return visible(", ".join(values), space=" ")


def _in_legend(text: str) -> str:
    """A text in matplotlib's legend, which leaves out what begins with `_`, and reads `$`."""
    shown = shortened(visible(text, space=" "), 24).replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _quoted(text: str) -> str:
    """A text within DOT source; a newline starts a line of a label."""
    return '"' + "\\n".join(map(in_label, text.split("\n"))) + '"'
