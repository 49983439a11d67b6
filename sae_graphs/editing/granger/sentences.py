"""What is said of Granger tests, on the terminal and on a page: prediction, and no more."""

from __future__ import annotations

from collections.abc import Sequence

from sae_graphs.editing.granger.records import GrangerReport, GrangerTest, Pair, Verdict
from sae_graphs.text import visible
from sae_graphs.words import NONE, amount, counted, listed, p_value, percent

VERDICTS: dict[Verdict, str] = {
    "forward": "source to target",
    "backward": "target to source",
    "both": "both",
    "none": "none",
    "untestable": "untestable",
}
_COUNTED: dict[Verdict, str] = {
    "forward": "in {} the source predicts the target",
    "backward": "in {} the target predicts the source",
    "both": "in {} each predicts the other",
    "none": "in {} neither does",
    "untestable": "{} could not be tested",
}
HEAD = ("Source", "Target", "Verdict", "There", "q", "Back", "q")
CAUTION = (
    "What predicts need not act: two series that a third one drives predict each other, and a "
    "series that never varies by itself predicts nothing. Only an ablation tells: "
    "sae-graphs graph, sae-graphs ablate."
)


def question(report: GrangerReport) -> str:
    """What was asked, and of what."""
    lags = f"lag 1 to {report.lag}" if report.lag > 1 else "lag 1"
    same = (
        ", and at the same token where its layer is earlier" if report.settings.same_token else ""
    )
    how = " by nonlinear regression" if report.settings.test == "nonlinear" else ""
    given = " and all the other series" if report.settings.multivariate else ""
    return (
        f"Does one series over tokens help to predict another{how}, beyond that one's own past"
        f"{given}? {counted(len(report.pairs), 'pair')} ({visible(report.about, space=' ')}) over "
        f"{visible(report.texts, space=' ')}: {counted(report.n_texts, 'text')}, "
        f"{report.n_tokens:,} tokens; {lags}{same}."
    )


def findings(report: GrangerReport) -> list[str]:
    """How many pairs got each verdict."""
    told = [_COUNTED[name].format(count) for name, count in report.counts.items() if count]
    level = f"{report.settings.level:g}"
    found = [f"Of {counted(len(report.pairs), 'pair')}, {listed(told)} (q at most {level})."]
    return found if told else ["There was nothing to test."]


def untested(report: GrangerReport) -> list[str]:
    """Why ways could not be tested: each reason once, with the first two series that it is of."""
    found: dict[str, str] = {}
    for pair in report.pairs:
        ends = (pair.source, pair.target)
        for (one, other), why in ((ends, pair.reason), (ends[::-1], pair.reason_back)):
            if why:
                found.setdefault(why, visible(f"{one} to {other}: {why}", space=" "))
    return list(found.values())


def lag_words(report: GrangerReport) -> str:
    """Where the lag comes from."""
    if not report.criteria:
        given = report.settings.lag is not None
        return f"the lag, {report.lag}, was given" if given else "the lag, 1: no pair tells another"
    most = len(report.criteria)
    told = f"the lag, {report.lag} of at most {most}, is where BIC, summed over pairs, is least"
    if report.settings.multivariate or report.settings.given or report.settings.test != "linear":
        told += ", of linear autoregressions of each pair alone"
    return f"{told}; a larger one might be better still" if report.lag == most > 1 else told


def row(pair: Pair, level: float) -> tuple[str, ...]:
    """A pair as cells under `HEAD`."""
    verdict = VERDICTS[pair.verdict(level)]
    return (
        *(visible(name, space=" ") for name in (pair.source, pair.target)),
        verdict,
        *_cells(pair.forward),
        *_cells(pair.backward),
    )


def _cells(test: GrangerTest | None) -> tuple[str, str]:
    return (NONE, NONE) if test is None else (percent(test.share), p_value(test.q))


def meaning_rows(report: GrangerReport) -> list[tuple[str, str, str, str]]:
    """Each series: its name, what it peaks on, tokens and texts at which it is on."""
    return [
        (it.name, it.meaning or NONE, f"{it.tokens:,}", f"{it.texts:,}") for it in report.series
    ]


def detail(test: GrangerTest | None) -> Sequence[str]:
    """One direction in full: F, partial R squared, Wald, its p, that of F, coefficients."""
    if test is None:
        return (NONE,) * 6
    weights = zip(test.lags, test.coefficients, strict=False)
    told = ", ".join(f"{lag}: {amount(value)}" for lag, value in weights) or NONE
    return (
        amount(test.f),
        percent(test.share),
        amount(test.wald),
        p_value(test.p),
        p_value(test.p_parametric),
        told,
    )
