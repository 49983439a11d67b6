"""The plots of a validation, each a function from its record to SVG text.

A change that lowers is drawn red and filled, one that raises blue and hollow: the sign is never
told by hue alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.render.document.plot import look, new_figure, svg_of
from sae_graphs.render.style import (
    BAND,
    BAR,
    FAINT,
    INK,
    LINE,
    LOWERS,
    RAISES,
    SOFT,
    WHITE,
    effect_colour,
)
from sae_graphs.text import shortened, visible
from sae_graphs.validation.evidence import (
    Curve,
    KeepOnly,
    Kept,
    Mediation,
    Noise,
    NullKind,
    UnitReport,
)
from sae_graphs.validation.judging import control_sizes, deciding, pooled
from sae_graphs.words import counted, nats, norm, p_value, plain, probability, score_size, signed

NULL_NAMES: dict[NullKind, str] = {
    "matched": "matched controls",
    "scaled": "controls scaled to its norm",
    "directions": "random directions",
    "shuffles": "other nodes of the graph",
}
_BINS = 72  # columns of dots across a null's row
_LABEL = 46  # characters of a text that comes from outside


def nulls_plot(unit: UnitReport, *, in_nats: bool) -> str | None:
    """Every control as a dot at its |change|, a row a kind of null, and the unit's own as a line.

    Over several prompts the dots are those of all, and the line is the mean. None where no null has
    been drawn.
    """
    rows = [kind for kind in NULL_NAMES if control_sizes(unit, kind)]
    if not rows:
        return None
    factor = 1.0 if in_nats else 100.0
    changes = [result.change for result in deciding(unit)]
    signed_change, own = fmean(changes), fmean(map(abs, changes)) * factor
    sizes = {kind: [factor * size for size in control_sizes(unit, kind)] for kind in rows}
    right = 1.08 * max(own, *(max(values) for values in sizes.values())) or 1.0
    with look():
        figure, axes = new_figure(0.75 + 0.72 * len(rows))
        for row, kind in enumerate(rows):
            dots(axes, sizes[kind], row, right)
        axes.axvline(own, color=effect_colour(signed_change), linewidth=2)
        side = "right" if own > right / 2 else "left"
        lowers = f"{'lowered' if signed_change < 0 else 'raised'} by"
        if len({change > 0 for change in changes}) > 1:
            lowers = "mean |change|"
        gap = -0.01 * right if side == "right" else 0.01 * right
        told = f"{unit.kind}: {lowers} {score_size(own / factor, in_nats=in_nats)}"
        axes.text(own + gap, -0.72, told, color=INK, ha=side, va="center", fontweight="bold")
        axes.set(xlim=(0, right), ylim=(len(rows) - 0.45, -0.95), yticks=range(len(rows)))
        axes.set_yticklabels([_null_words(unit, kind) for kind in rows])
        axes.set_xlabel(f"|change| of the target, {'nats' if in_nats else 'percentage points'}")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        return svg_of(figure)


def dots(axes: Any, values: Sequence[float], row: int, right: float, left: float = 0.0) -> None:
    """One dot a control, stacked where several fall together, on an axis from left to right."""
    width = right - left
    columns = [min(int((value - left) / width * _BINS), _BINS - 1) for value in values]
    step = min(0.1, 0.62 / max(Counter(columns).values()))
    height: Counter[int] = Counter()
    xs, ys = [], []
    for column in sorted(columns):
        xs.append(left + (column + 0.5) / _BINS * width)
        ys.append(row + 0.3 - step * height[column])
        height[column] += 1
    axes.axhline(row + 0.36, color=LINE, linewidth=0.5)
    axes.scatter(xs, ys, s=14, color=BAR, edgecolors=WHITE, linewidths=0.3, clip_on=False)


def _null_words(unit: UnitReport, kind: NullKind) -> str:
    found = pooled(unit, kind)
    if found is None:
        return f"{NULL_NAMES[kind]}\nrefused"
    match = "" if found.match is None else f", {norm(found.match)} of its norm"
    several = f" in each of {found.n_prompts}" if found.n_prompts > 1 else " of them"
    return f"{NULL_NAMES[kind]}: p = {p_value(found.p)}\n{found.n}{several}{match}"


def curve_plot(curve: Curve, clean: float | None) -> str:
    """The response to a cause that is scaled, and the tangent at the clean point, dashed.

    `clean` is the response at coefficient 1; where it is not known there is no tangent either.
    """
    with look():
        figure, axes = new_figure(2.7, width=WIDE_CURVE)
        points = dict(zip(curve.coefficients, curve.responses, strict=True))
        points |= {} if clean is None else {1.0: clean}
        xs, ys = zip(*sorted(points.items()), strict=True)
        bottom, top = _limits(ys)
        if clean is not None and math.isfinite(clean + curve.gradient):
            axes.plot(
                (xs[0], xs[-1]),
                [clean + curve.gradient * (x - 1) for x in (xs[0], xs[-1])],
                color=FAINT,
                linestyle=(0, (4, 3)),
                linewidth=1.2,
                label="tangent at the clean point",
            )
        axes.plot(xs, ys, color=RAISES, linewidth=1.6, marker="o", markersize=3, label="measured")
        if clean is not None:
            axes.plot([1], [clean], "D", color=INK, markersize=6, label="clean", linestyle="none")
        if xs[0] < 0:
            axes.axvline(0, color=LINE, linewidth=0.8)
        axes.set_ylim(bottom, top)
        axes.set_title(_outside(curve.effect))
        axes.set_xlabel(f"{_outside(curve.cause)}, multiplied by")
        axes.set_ylabel(_outside(curve.unit))
        axes.grid()
        axes.legend(frameon=False, fontsize=8, loc="best")
        return svg_of(figure)


WIDE_CURVE = 4.6  # inches; two of them stand side by side


def _limits(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    room = 0.1 * (high - low) or 1.0
    return low - room, high + room


def keep_only_plot(found: KeepOnly) -> str:
    """The metric where only these features stay, between its two reference points.

    A bar runs from where nothing is kept, the dashed line, to what is left; where it reaches the
    solid line everything is.
    """
    whole = found.none, found.clean
    bare = found.none_bare, found.all_bare
    kept = [("only these features", found.kept), ("all but these features", found.complement)]
    groups = [("with the SAEs' errors", whole, kept)]
    groups.append(("without the errors", bare, [("only these features", found.kept_bare)]))
    metrics = [each.metric for _, ends, bars in groups for each in (*ends, *(b[1] for b in bars))]
    low, high = min(metrics), max(metrics)
    room = (high - low) or 1.0
    right = high + 0.75 * room  # room for the words beside the lines
    with look():
        figure, axes = new_figure(2.7)
        row = 0
        labels: list[str] = []
        for title, (none, clean), bars in groups:
            labels += [title, *(f"  {label} kept" for label, _ in bars)]
            for line, drawn in ((none, (0, (3, 2))), (clean, "-")):
                bottom = row + len(bars) + 0.4
                axes.plot([line.metric] * 2, [row + 0.4, bottom], color=INK, linestyle=drawn)
                name = "nothing" if line is none else "everything"
                side = "right" if line.metric < max(none.metric, clean.metric) else "left"
                told = f" {name}: {_kept_words(line)} "
                axes.text(line.metric, row + 0.25, told, ha=side, fontsize=8, color=SOFT)
            for place, (_, each) in enumerate(bars, start=row + 1):
                width = each.metric - none.metric
                axes.barh(place, width, left=none.metric, height=0.5, color=BAR)
                axes.text(right, place, _kept_words(each), ha="right", va="center", fontsize=8)
            row += len(bars) + 1
        axes.set(ylim=(row - 0.5, -0.5), xlim=(low - 0.75 * room, right))
        axes.set_yticks(range(row), labels, ha="left")
        for tick in axes.get_yticklabels():
            tick.set_fontweight("normal" if tick.get_text().startswith(" ") else "bold")
        axes.tick_params(axis="y", length=0, pad=140)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("metric, nats (target's probability)")
        return svg_of(figure)


def _kept_words(kept: Kept) -> str:
    return f"{signed(kept.metric)} ({probability(kept.probability)})"


def leave_one_out_plot(found: Mediation, names: Sequence[FeatureId]) -> str:
    """The joint change with each feature left in place, beside each feature's own; in nats."""
    with look():
        figure, axes = new_figure(0.95 + 0.3 * len(names))
        for row, feature in enumerate(names):
            change, single = found.without[feature], found.singles.get(feature)
            filled = change < 0
            axes.barh(
                row,
                change,
                height=0.5,
                color=LOWERS if filled else WHITE,
                edgecolor=effect_colour(change),
                label="all but this feature ablated" if row == 0 else None,
            )
            if single is not None:
                label = "this feature alone ablated" if row == 0 else None
                axes.plot(
                    [single],
                    [row],
                    "D",
                    color=INK,
                    markerfacecolor=WHITE,
                    markersize=5,
                    linestyle="none",
                    label=label,
                )
        told = f"all {len(found.without)} ablated: {nats(found.joint)}"
        axes.axvline(found.joint, color=INK, linestyle="--", linewidth=1.2, label=told)
        axes.axvline(0, color=LINE, linewidth=0.8)
        axes.set_yticks(range(len(names)), [str(feature) for feature in names])
        axes.use_sticky_edges = False
        axes.margins(x=0.04)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("change of the metric, ablated − clean, nats")
        axes.grid(axis="x")
        figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=3)
        return svg_of(figure)


def noise_plot(found: Sequence[Noise]) -> str | None:
    """How the divergence grows with the number of random features ablated in snippets."""
    known = [
        (noise.n_features, noise.kl.mean, noise.kl.low, noise.kl.high)
        for noise in found
        if noise.kl.mean is not None
    ]
    if not known:
        return None
    xs = [count for count, *_ in known]
    means = [mean for _, mean, _, _ in known]
    lows = [mean if low is None else low for _, mean, low, _ in known]
    highs = [mean if high is None else high for _, mean, _, high in known]
    with look():
        figure, axes = new_figure(2.7)
        axes.fill_between(xs, lows, highs, color=BAND, linewidth=0, label="95 % interval")
        axes.plot(xs, means, color=BAR, marker="o", markersize=4, label="mean over snippets")
        if min(xs) > 0 and max(xs) > min(xs):
            axes.set_xscale("log", base=2)
        axes.set_xticks(xs, [plain(count) if count > 999 else str(count) for count in xs])
        axes.minorticks_off()
        axes.set_xlabel("random features ablated")
        axes.set_ylabel("divergence from clean, nats")
        axes.set_title(f"Random ablations in {counted(found[0].kl.n, 'snippet')}")
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        return svg_of(figure)


def _outside(text: str) -> str:
    return shortened(visible(text, space=" "), _LABEL)
