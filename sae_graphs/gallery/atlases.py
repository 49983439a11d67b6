"""The atlases beside the runs of a folder: which fits a run, and a feature's page of one.

As of runs, nothing outside of an atlas's folder is opened: one with a link in it is not seen.
"""

from __future__ import annotations

from pathlib import Path

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.feature_page import feature_page
from sae_graphs.atlas.store import MANIFEST, Manifest
from sae_graphs.errors import SaeGraphsError
from sae_graphs.gallery.skeleton import PARTS, READ_ONLY, Page, quoted_name, sheet, with_bar
from sae_graphs.graph.records import RunRecord
from sae_graphs.render.document.templates import macros, ours


def atlases_in(folder: Path) -> dict[str, Path]:
    """The atlases right in a folder, by name."""
    try:
        children = sorted(child for child in folder.resolve().iterdir())
    except OSError:
        return {}
    return {child.name: child for child in children if _is_atlas(child)}


def fitting(folder: Path, run: RunRecord) -> str | None:
    """The first of these atlases that is of a run's model and SAEs; its features' address."""
    for name, place in atlases_in(folder).items():
        try:
            facts = Manifest.read(place).facts
        except SaeGraphsError:  # damaged: its own page says so
            continue
        if (facts.get("model"), facts.get("saes")) == (run.model, run.saes):
            return f"/atlas/{quoted_name(name)}/"
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


def _is_atlas(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.is_symlink() or not (folder / MANIFEST).is_file():
        return False
    return not any(path.is_symlink() for path in folder.rglob("*"))
