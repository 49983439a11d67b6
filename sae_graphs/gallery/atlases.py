"""Atlases in the gallery: card, page and small picture; which fits a run; a feature's page of one.

As of runs, nothing outside of an atlas's folder is opened: one with a link in it is not read.
"""

from __future__ import annotations

from pathlib import Path

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.pages import atlas_page as page_of_atlas
from sae_graphs.atlas.pages import feature_page
from sae_graphs.atlas.store import MANIFEST, Manifest
from sae_graphs.atlas.views import identifier
from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.runs import Run, Summary, plain_file, runs_in
from sae_graphs.gallery.skeleton import PARTS, READ_ONLY, Page, quoted_name, sheet, with_bar
from sae_graphs.gallery.small import shares_as_bars
from sae_graphs.graph.records import RunRecord
from sae_graphs.render.document.templates import macros, ours
from sae_graphs.words import counted

BARS = 10  # edges in the small picture
VALUES = 12  # of a category: where there are more, a card says how many
PICTURES = {  # as `atlas draw` calls them
    "circuit.svg": "edges that recur, from layer to layer",
    "map.svg": "the prompts by the two largest principal components of their edges",
}


def atlas_summary(run: Run) -> Summary:
    """How many prompts, and of which categories."""
    atlas = _atlas(run)
    prompts, edges = (
        int(atlas.sql(f"SELECT count(*) AS n FROM {table}")["n"][0])
        for table in ("prompts", "edges")
    )
    told = [counted(edges, "edge"), *(_values(atlas, name) for name in atlas.categories)]
    return Summary(counted(prompts, "prompt"), str(atlas.facts["model"]), " · ".join(told))


def atlas_page(run: Run) -> str:
    """What recurs in it, and its features, each of which leads to its page."""
    drawn = {
        name: words for name, words in PICTURES.items() if plain_file(run, (name,)) is not None
    }
    return page_of_atlas(_atlas(run), features=_features(run.name), drawn=drawn)


def atlas_picture(run: Run) -> str:
    """A bar an edge: the share of the prompts that have it, of those that most have."""
    shares = _atlas(run).recurring_edges(least=1, limit=BARS)["share"]
    return shares_as_bars([("feature", float(share)) for share in shares])


def atlases_in(folder: Path) -> dict[str, Path]:
    """The atlases among the runs of a folder, by name."""
    try:
        runs = runs_in(folder)
    except SaeGraphsError:
        return {}
    return {name: run.folder for name, run in runs.items() if _is_atlas(run.folder)}


def fitting(folder: Path, run: RunRecord) -> str | None:
    """The first of these atlases that is of a run's model and SAEs; its features' address."""
    for name, place in atlases_in(folder).items():
        try:
            facts = Manifest.read(place).facts
        except SaeGraphsError:  # damaged: its own page says so
            continue
        if (facts.get("model"), facts.get("saes")) == (run.model, run.saes):
            return _features(name)
    return None


def page_of(folder: Path, name: str, feature: str) -> Page | None:
    """The page of a feature; None where no atlas is called so.

    Raises `SaeGraphsError` where the atlas cannot be read, or has no such feature.
    """
    place = atlases_in(folder).get(name)
    if place is None:
        return None
    html = feature_page(Atlas(place), feature)
    bar = macros(PARTS).bar(name, ours(sheet("bar")), "", [], [])
    return Page(with_bar(html, bar), READ_ONLY)


# -- inside ----------------------------------------------------------------------------------------


def _atlas(run: Run) -> Atlas:
    if not _is_atlas(run.folder):
        raise SaeGraphsError(f"{run.name} holds a link, and links are not followed")
    try:
        return Atlas(run.folder)
    except SaeGraphsError as problem:
        raise SaeGraphsError(str(problem).replace(str(run.folder), run.name)) from problem


def _is_atlas(folder: Path) -> bool:
    if folder.is_symlink() or not (folder / MANIFEST).is_file():
        return False
    return not any(path.is_symlink() for path in folder.rglob("*"))


def _features(name: str) -> str:
    """What stands before a feature's name in the address of its page."""
    return f"/atlas/{quoted_name(name)}/"


def _values(atlas: Atlas, column: str) -> str:
    asked = f"SELECT DISTINCT {identifier(column)} AS value FROM prompts ORDER BY value"
    found = [value for value in atlas.sql(asked)["value"] if isinstance(value, str)]
    return f"{column}: {', '.join(found) if len(found) <= VALUES else f'{len(found)} values'}"
