"""Edits of facts, one, many, or everywhere, in the gallery: card, page and small picture."""

from __future__ import annotations

import numpy as np

from sae_graphs.editing import many, places, record
from sae_graphs.editing.many import Edits
from sae_graphs.editing.places import Places
from sae_graphs.editing.record import Edit
from sae_graphs.editing.report import STEM, edit_files
from sae_graphs.editing.scores import summarised
from sae_graphs.gallery.runs import Run, Summary, record_in
from sae_graphs.gallery.small import HEIGHT, WIDTH, picture, shares_as_bars
from sae_graphs.runs import EDIT, EDITS, PLACES
from sae_graphs.words import counted, probability, said

SHARES = ("S", "ES", "PS", "NS", "retention")  # in the small picture of many facts


def edit_summary(run: Run) -> Summary:
    """The fact, and the target's probability before and after."""
    edit = _edit(run)
    before, after = (probability(it.probability) for it in (edit.before, edit.after))
    found = f"{said(edit.target)} {before} before, {after} after, in block {edit.layer}"
    return Summary(edit.asked, edit.model, found, warnings=edit.warnings)


def edit_page(run: Run) -> str:
    """The report, drawn from its record; what the model went on with is not kept there."""
    return edit_files(_edit(run), ())[f"{STEM}.html"].decode()


def edit_picture(run: Run) -> str:
    """Two bars: the target's probability before, and after."""
    return bars(_edit(run))


def edits_summary(run: Run) -> Summary:
    """How many facts, by which method, and the metrics."""
    edits = _edits(run)
    told = f"{counted(len(edits.scored), 'fact')} of {edits.cases}, by {edits.method}"
    means = _means(edits)
    found = [f"{name} {means[name]:.3f}" for name in SHARES if np.isfinite(means.get(name, np.nan))]
    return Summary(told, edits.model, " · ".join(found) or "no fact was written")


def edits_page(run: Run) -> str:
    """The report, drawn from its record."""
    from sae_graphs.editing import many_report

    return many_report.edits_files(_edits(run))[f"{many_report.STEM}.html"].decode()


def edits_picture(run: Run) -> str:
    """A bar a metric."""
    means = _means(_edits(run))
    return shares_as_bars([("feature", means.get(name, np.nan)) for name in SHARES])


def places_summary(run: Run) -> Summary:
    """How many facts were written everywhere, and where best."""
    found = _places(run)
    told = f"{counted(len(found.placed), 'fact')} of {found.cases}, everywhere"
    return Summary(told, found.model, places.sentences(found)[0])


def places_page(run: Run) -> str:
    """The report, drawn from its record."""
    from sae_graphs.editing import places_report  # matplotlib

    files = places_report.places_files(_places(run), ("html",))
    return files[f"{places_report.STEM}.html"].decode()


def places_picture(run: Run) -> str:
    """A small heat map of S, tokens by layers."""
    mean = _places(run).s
    wide, high = WIDTH / mean.shape[1], HEIGHT / mean.shape[0]
    drawn = "".join(
        f'<rect class="feature" x="{layer * wide:.1f}" y="{row * high:.1f}" width="{wide:.1f}" '
        f'height="{high:.1f}" opacity="{share:.2f}"/>'
        for (row, layer), share in np.ndenumerate(mean)
        if share >= 0.01
    )
    return picture(drawn)


def bars(edit: Edit) -> str:
    """A small picture of what the edit did to the target's probability."""
    return shares_as_bars([("harms", edit.before.probability), ("feature", edit.after.probability)])


# -- inside ----------------------------------------------------------------------------------------


def _means(edits: Edits) -> dict[str, float]:
    found = summarised(edits.scored, edits.seed) if edits.scored else {}
    return {name: it.mean for name, it in found.items()}


def _edits(run: Run) -> Edits:
    return record_in(run, EDITS, many.load)


def _places(run: Run) -> Places:
    return record_in(run, PLACES, places.load)


def _edit(run: Run) -> Edit:
    return record_in(run, EDIT, record.load)
