"""The plots of a validation, each a function from its record to SVG text.

A change that lowers is drawn red and filled, one that raises blue and hollow: the sign is never
told by hue alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
)
from sae_graphs.words import counted, nats, plain, probability, signed

_LABEL = 46  # characters of a text that comes from outside


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
    """What all but each feature contribute, beside each feature's own; in nats."""
    with look():
        figure, axes = new_figure(0.95 + 0.3 * len(names))
        for row, feature in enumerate(names):
            change, single = found.without[feature], found.singles.get(feature)
            filled = change < 0
            axes.barh(
                row,
                -change,
                height=0.5,
                color=LOWERS if filled else WHITE,
                edgecolor=effect_colour(change),
                label="all but this feature ablated" if row == 0 else None,
            )
            if single is not None:
                label = "this feature alone ablated" if row == 0 else None
                axes.plot(
                    [-single],
                    [row],
                    "D",
                    color=INK,
                    markerfacecolor=WHITE,
                    markersize=5,
                    linestyle="none",
                    label=label,
                )
        told = f"all {len(found.without)} ablated: {nats(-found.joint)}"
        axes.axvline(-found.joint, color=INK, linestyle="--", linewidth=1.2, label=told)
        axes.axvline(0, color=LINE, linewidth=0.8)
        axes.set_yticks(range(len(names)), [str(feature) for feature in names])
        axes.use_sticky_edges = False
        axes.margins(x=0.04)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("contribution to the metric, nats")
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
