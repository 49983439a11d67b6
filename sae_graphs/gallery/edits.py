"""Edits of facts, one or many, in the gallery: card, page and small picture."""

from __future__ import annotations

from sae_graphs.editing import record
from sae_graphs.editing.record import Edit
from sae_graphs.editing.report import STEM, edit_files
from sae_graphs.gallery.runs import Run, Summary, record_in
from sae_graphs.gallery.small import HEIGHT, MARGIN, WIDTH, picture
from sae_graphs.runs import EDIT
from sae_graphs.words import probability, said


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


def bars(edit: Edit) -> str:
    """A small picture of what the edit did to the target's probability."""
    high = (HEIGHT - 3 * MARGIN) / 2
    drawn = [
        f'<rect class="{kind}" x="{MARGIN:.0f}" y="{MARGIN + place * (high + MARGIN):.1f}" '
        f'height="{high:.1f}" width="{max((WIDTH - 2 * MARGIN) * answer.probability, 2):.1f}"/>'
        for place, (kind, answer) in enumerate((("harms", edit.before), ("feature", edit.after)))
    ]
    return picture("".join(drawn))


def _edit(run: Run) -> Edit:
    return record_in(run, EDIT, record.load)
