"""The kinds of runs that are no graphs: how each one's card, page and small picture are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sae_graphs.gallery import atlases, edits, granger, traces
from sae_graphs.gallery.runs import Run, Summary
from sae_graphs.runs import ATLAS, EDIT, EDITS, GRANGER, PLACES, TRACE, TRACES


class RunKind(NamedTuple):
    """A kind of run; `words` are what it is called, in the plural where it is of many prompts.

    All three raise `SaeGraphsError` where the run cannot be read.
    """

    words: str
    meaning: str
    summary: Callable[[Run], Summary]
    page: Callable[[Run], str]  # HTML, without scripts
    small: Callable[[Run], str]  # SVG


# By the file that makes a folder a run of the kind.
_RESTORES = "which states bring the corrupted answer back"
KINDS = {
    TRACE: RunKind(
        "causal trace",
        _RESTORES,
        traces.trace_summary,
        traces.trace_page,
        traces.trace_picture,
    ),
    TRACES: RunKind(
        "causal traces",
        _RESTORES,
        traces.traces_summary,
        traces.traces_page,
        traces.traces_picture,
    ),
    EDIT: RunKind(
        "edit",
        "a fact written into one MLP",
        edits.edit_summary,
        edits.edit_page,
        edits.edit_picture,
    ),
    EDITS: RunKind(
        "edits",
        "many facts, each written alone into one MLP",
        edits.edits_summary,
        edits.edits_page,
        edits.edits_picture,
    ),
    PLACES: RunKind(
        "edits everywhere",
        "facts written at every token and layer",
        edits.places_summary,
        edits.places_page,
        edits.places_picture,
    ),
    GRANGER: RunKind(
        "Granger tests",
        "which series predict which: observed, nothing was ablated",
        granger.granger_summary,
        granger.granger_page,
        granger.granger_picture,
    ),
    ATLAS: RunKind(
        "atlas",
        "the graphs of many prompts: which edges recur, where features matter",
        atlases.atlas_summary,
        atlases.atlas_page,
        atlases.atlas_picture,
    ),
}


def kind_of(run: Run) -> RunKind:
    """The kind of a run that is no graph."""
    return KINDS[run.file]
