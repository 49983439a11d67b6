"""A graph or a path beside its controls, as SVG text: every control a dot at its score."""

from __future__ import annotations

from sae_graphs.render.document.plot import look, new_figure, svg_of
from sae_graphs.render.style import FAINT, INK, LOWERS, RAISES
from sae_graphs.validation.answer.outcomes import NULL_NAMES
from sae_graphs.validation.answer.records import AnswerUnit, Null
from sae_graphs.validation.report.plots import dots
from sae_graphs.words import amount, counted, norm, p_value


def scores_plot(unit: AnswerUnit, clean: float) -> str | None:
    """The answer's score after each control, a row a kind of null, and the unit's own as a line.

    The last row is of sets that are kept alone, with the graph's own as a diamond; the dashed line
    is the clean score. None where no null was drawn.
    """
    rows = [(null, unit.ablated.nats) for null in unit.nulls if null.scores]
    n_ablated = len(rows)
    if unit.keep_only is not None and unit.keep_only.null.scores:
        rows.append((unit.keep_only.null, unit.keep_only.score.nats))
    if not rows:
        return None
    ends = [clean, *(own for _, own in rows), *(s for null, _ in rows for s in null.scores)]
    margin = 0.04 * (max(ends) - min(ends)) or 1.0
    left, right = min(ends) - margin, max(ends) + margin
    with look():
        figure, axes = new_figure(0.85 + 0.72 * len(rows))
        for row, (null, own) in enumerate(rows):
            dots(axes, null.scores, row, right, left)
            colour = LOWERS if own < clean else RAISES
            axes.plot([own], [row], "D", color=colour, markersize=7, zorder=3)
        axes.axvline(clean, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        side = "right" if clean > (left + right) / 2 else "left"
        axes.text(clean, -0.72, f" clean: {amount(clean)} ", color=INK, ha=side, va="center")
        axes.set(xlim=(left, right), ylim=(len(rows) - 0.45, -0.95), yticks=range(len(rows)))
        axes.set_yticklabels(
            [_row_words(null, kept=row >= n_ablated) for row, (null, _) in enumerate(rows)]
        )
        axes.set_xlabel("the answer's score, nats")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        return svg_of(figure)


def _row_words(null: Null, *, kept: bool) -> str:
    name = "kept alone: matched sets" if kept else NULL_NAMES[null.kind]
    match = "" if null.match is None else f", {norm(null.match.middle)} of its norm"
    return f"{name}: p = {p_value(null.p)}\n{counted(len(null.scores), 'control')}{match}"
