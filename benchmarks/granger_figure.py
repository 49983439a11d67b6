"""What came of the comparison of prediction and intervention: ROC, precision, reasons; its figure.

A pair is right where ablating its source changes its target by at least a twentieth. Scores rank
pairs; a verdict, q at most 0.05, is one point of each curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import FuncFormatter

from benchmarks.granger import ACTS, IDLE, Compared, Numbers, share, significant
from sae_graphs.render.document.plot import bare_figure, look, written
from sae_graphs.render.style import FAINT, INK, LINE, SOFT
from sae_graphs.significance import rank_correlation, resampled
from sae_graphs.words import NONE, amount, percent

SCORES: dict[str, Callable[[Compared], float]] = {
    "partial R²": lambda it: share(it.alone),
    "nonlinear": lambda it: it.bent,
    "given three rivals": lambda it: share(it.rivals),
    "without the same token": lambda it: share(it.later),
    "Wald statistic": lambda it: 0.0 if it.alone.forward is None else it.alone.forward.wald,
    "correlation": lambda it: abs(it.correlation),
    "weights": lambda it: abs(it.weights),
}
COLOURS = {
    "partial R²": "#1f6f8b",
    "nonlinear": "#7a4a9e",
    "given three rivals": "#2c9658",
    "without the same token": "#b4631c",
    "Wald statistic": "#0f9fb8",
    "correlation": "#64748b",
    "weights": "#d8473f",
}
LEVELS = (0.01, ACTS, 0.2)  # effects that count as one, in the table
DRAWS = 500
TINY = 1e-5  # shares and effects below are drawn there


class Curve(NamedTuple):
    """A score's ROC and precision curves, threshold by threshold, and the areas below them."""

    false: Numbers
    recall: Numbers
    precision: Numbers
    auc: float
    average: float


def curve(scores: Sequence[float], right: Sequence[bool]) -> Curve:
    """Of scores, the largest first; equal ones pass a threshold together.

    The areas are no numbers where all pairs are right, or none.

    >>> found = curve([3.0, 2.0, 2.0, 1.0], [True, True, False, False])
    >>> found.auc, round(found.average, 4)
    (0.875, 0.8333)
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    values, truth = np.asarray(scores)[order], np.asarray(right, dtype=bool)[order]
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits, all_of = np.cumsum(truth)[ends], ends + 1
    recall = np.concatenate([[0.0], hits / max(truth.sum(), 1)])
    false = np.concatenate([[0.0], (all_of - hits) / max((~truth).sum(), 1)])
    precision, mixed = hits / all_of, 0 < truth.sum() < len(truth)
    return Curve(
        false,
        recall,
        np.concatenate([precision[:1], precision]),
        float(np.trapezoid(recall, false)) if mixed else np.nan,
        float((np.diff(recall) * precision).sum()) if mixed else np.nan,
    )


def interval(scores: Sequence[float], right: Sequence[bool], targets: Sequence[str]) -> str:
    """The ROC area's 95 % bootstrap interval: whole targets are drawn, as their pairs hang
    together."""
    names = list(dict.fromkeys(targets))
    at = np.array([names.index(name) for name in targets])
    groups = [np.flatnonzero(at == number) for number in range(len(names))]
    counts = np.rint(resampled(len(names), 0, DRAWS) * len(names)).astype(int)
    values, truth = np.asarray(scores), np.asarray(right)
    found = []
    for drawn in counts:
        rows = np.concatenate([np.tile(groups[n], times) for n, times in enumerate(drawn) if times])
        if 0 < truth[rows].sum() < len(rows):
            found.append(curve(values[rows].tolist(), truth[rows].tolist()).auc)
    if not found:
        return NONE
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"


# -- where they disagree ---------------------------------------------------------------------------


class Reasons(NamedTuple):
    """Pairs by verdict and effect. Of those that predict and do next to nothing: what is left of
    the share once the features that act on the target most are given, else whether half of it or
    more is there without the same token. Of those that act: whether they predict, or do so once
    the others that act are given."""

    right: list[Compared]  # predicts, and acts
    shared: list[Compared]  # does nothing; given the drivers, half of its share or more is gone
    earlier: list[Compared]  # does nothing; earlier tokens alone explain half of it or more
    left: list[Compared]  # does nothing; neither
    masked: list[Compared]  # acts, predicts only given the drivers
    unseen: list[Compared]  # acts, does not predict either way
    rare: list[Compared]  # acts, and could not be tested


def reasons(found: Sequence[Compared]) -> Reasons:
    """Every pair that acts, and every one that predicts and does next to nothing."""
    groups = Reasons([], [], [], [], [], [], [])
    for it in found:
        predicts = significant(it.alone.forward)
        if it.acts and it.alone.forward is None:
            groups.rare.append(it)
        elif it.acts and predicts:
            groups.right.append(it)
        elif it.acts:
            (groups.masked if significant(it.drivers.forward) else groups.unseen).append(it)
        elif predicts and it.size < IDLE:
            half = share(it.alone) / 2
            if share(it.drivers) <= half:
                groups.shared.append(it)
            else:
                (groups.earlier if share(it.later) >= half else groups.left).append(it)
    return groups


# -- tables ----------------------------------------------------------------------------------------


def table(found: Sequence[Compared]) -> Iterator[str]:
    """Areas by score, the verdict's precision and recall, reasons, the strongest of each group."""
    tested = [it for it in found if it.alone.forward is not None]
    yield f"{len(found)} pairs, {len(tested)} tested"
    heads = [f"ROC area, ≥ {level:.0%}" for level in LEVELS]
    yield "| score | " + " | ".join(heads) + f" | interval | average precision, ≥ {ACTS:.0%} |"
    yield "|---|" + "---|" * (len(LEVELS) + 2)
    targets = [it.target for it in tested]
    for name, score in SCORES.items():
        values = [score(it) for it in tested]
        areas = [curve(values, [it.size >= level for it in tested]) for level in LEVELS]
        at = areas[LEVELS.index(ACTS)]
        told = interval(values, [it.acts for it in tested], targets)
        cells = [
            *(NONE if np.isnan(it.auc) else f"{it.auc:.3f}" for it in areas),
            told,
            f"{at.average:.3f}",
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"
    for level in LEVELS:
        right = sum(it.size >= level for it in tested)
        yield f"effects of {level:.0%} or more: {right} ({percent(right / len(tested))})"
    yield from _verdicts(tested)
    yield from _signs(tested)
    yield from _reasons(found)


def _verdicts(tested: Sequence[Compared]) -> Iterator[str]:
    for name in ("alone", "later", "rivals", "drivers"):
        said = [it for it in tested if significant(getattr(it, name).forward)]
        hits = sum(it.acts for it in said)
        total = sum(it.acts for it in tested)
        yield (
            f"verdict {name}: {len(said)} predict, of which {hits} act: precision "
            f"{percent(hits / max(len(said), 1))}, recall {percent(hits / max(total, 1))}"
        )
    back = [it for it in tested if significant(it.alone.backward)]
    yield f"the way back, where nothing can act: {len(back)} predict"
    told = rank_correlation([share(it.alone) for it in tested], [it.size for it in tested])
    yield f"rank correlation of share and effect: {NONE if told is None else amount(told)}"
    strongest = sorted(tested, key=lambda it: -share(it.alone))
    for least in (0.2, 0.1, 0.05, 0.02, 0.01, 0.001):
        those = [it.acts for it in tested if share(it.alone) >= least]
        yield f"shares of {least:.1%} or more: {len(those)}, of which {sum(those)} act"
    for count in (20, 50, 100, 200):
        hits = sum(it.acts for it in strongest[:count])
        yield f"of the {count} largest shares {hits} act"


def _signs(tested: Sequence[Compared]) -> Iterator[str]:
    same = [
        np.sign(it.alone.forward.coefficients[0]) == -np.sign(it.effect)
        for it in tested
        if it.acts and it.alone.forward is not None and significant(it.alone.forward)
    ]
    yield f"of {len(same)} that predict and act, {sum(same)} with the sign of the effect"


def _reasons(found: Sequence[Compared]) -> Iterator[str]:
    groups = reasons(found)
    for name, those in groups._asdict().items():
        yield f"{name}: {len(those)}"
        for it in sorted(those, key=lambda it: -max(share(it.alone), it.size))[:4]:
            yield (
                f"  {it.source} → {it.target}: share {share(it.alone):.4f}, given drivers "
                f"{share(it.drivers):.4f}, later {share(it.later):.4f}, effect "
                f"{it.effect:+.4f}, size {it.size:.4f}, correlation {it.correlation:+.2f}"
            )


# -- the figure ------------------------------------------------------------------------------------


def drawn(found: Sequence[Compared]) -> bytes:
    """Shares beside effects, ROC, precision, and what becomes of those that disagree: a PNG."""
    tested = [it for it in found if it.alone.forward is not None]
    with look():
        figure = bare_figure(7.4, width=8.8)
        axes = figure.subplots(2, 2)
        _scatter(axes[0, 0], tested)
        _groups(axes[0, 1], found)
        _curves(axes[1, 0], axes[1, 1], tested)
        for each in axes.flat:
            each.tick_params(labelsize=8, length=3, width=0.5)
        return written(figure, "png")


def _scatter(axes: Any, tested: Sequence[Compared]) -> None:
    for said, colour, name in ((True, "#1f6f8b", "predicts"), (False, "#c2670f", "does not")):
        those = [it for it in tested if significant(it.alone.forward) == said]
        x, y = ([max(value(it), TINY) for it in those] for value in (lambda it: it.size, _share))
        axes.plot(x, y, "o", markersize=2.4, color=colour, alpha=0.45, markeredgewidth=0)
        axes.plot([], [], "o", markersize=5, color=colour, label=f"{name} ({len(those):,})")
    axes.axvline(ACTS, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.set_xlabel("what ablating the source does to the target", fontsize=8)
    axes.set_ylabel("partial R² of the source's past", fontsize=8)
    axes.set_title("Prediction beside intervention, pair by pair", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left", handletextpad=0.2)


def _share(it: Compared) -> float:
    return share(it.alone)


NAMES = {
    "right": "predict, and act",
    "shared": "predict, do nothing:\nexplained by what does act",
    "earlier": "predict, do nothing:\nearlier tokens alone",
    "left": "predict, do nothing:\nneither explains it",
    "masked": "act, predict only\ngiven what else acts",
    "unseen": "act, do not predict",
    "rare": "act, too rarely on",
}


def _groups(axes: Any, found: Sequence[Compared]) -> None:
    counts = {name: len(those) for name, those in reasons(found)._asdict().items()}
    colours = ("#1f6f8b", *["#c2670f"] * 3, *["#7a4a9e"] * 2, "#94a3b8")
    places = range(len(counts))
    axes.barh(places, list(counts.values()), color=colours, height=0.62)
    for place, count in zip(places, counts.values(), strict=True):
        axes.text(count, place, f" {count:,}", va="center", fontsize=8, color=SOFT)
    axes.set_yticks(list(places), [NAMES[name] for name in counts])
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlim(0, 1.15 * max(counts.values()))
    axes.set_xlabel("pairs", fontsize=8)
    axes.set_title("Where they agree, and where not", fontsize=9)


def _curves(roc: Any, precise: Any, tested: Sequence[Compared]) -> None:
    right = [it.acts for it in tested]
    for name, score in SCORES.items():
        found = curve([score(it) for it in tested], right)
        style: dict[str, Any] = {"color": COLOURS[name], "linewidth": 1.4}
        roc.plot(found.false, found.recall, label=f"{name} {found.auc:.2f}", **style)
        precise.plot(found.recall, found.precision, label=f"{name} {found.average:.2f}", **style)
    roc.plot([0, 1], [0, 1], color=LINE, linewidth=0.8)
    precise.axhline(sum(right) / len(right), color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
    said = [significant(it.alone.forward) for it in tested]
    hits = sum(a and b for a, b in zip(said, right, strict=True))
    recall = hits / max(sum(right), 1)
    false = (sum(said) - hits) / max(len(right) - sum(right), 1)
    for axes, x, y in ((roc, false, recall), (precise, recall, hits / max(sum(said), 1))):
        axes.plot([x], [y], "o", color=COLOURS["partial R²"], markersize=6, markeredgecolor="white")
    roc.set_title("ROC, and the verdict (dot)", fontsize=9)
    precise.set_title("Precision and recall", fontsize=9)
    for axes, across, up in (
        (roc, "pairs without an effect that pass", "pairs with one that pass"),
        (precise, "recall", "precision"),
    ):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.set_xlabel(across, fontsize=8)
        axes.set_ylabel(up, fontsize=8)
    roc.legend(fontsize=7.5, frameon=False, loc="lower right", labelspacing=0.25)
    precise.legend(fontsize=7.5, frameon=False, loc="upper right", labelspacing=0.25)
