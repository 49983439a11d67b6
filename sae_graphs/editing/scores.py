"""How well edits do, from what was heard before and after: ROME's metrics, and retention.

As published (Meng et al. 2022): of each case the share of prompts of a kind in which the wanted
token is likelier than the other, and the mean difference of their probabilities. Efficacy and
paraphrases want the new object, neighbours the true one. S is the harmonic mean of the three
shares. Fluency is the entropy of n-grams in text that is written on. Torch-free.

Letters: `N` cases.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.significance import LEVEL, RESAMPLES, resampled

KINDS = ("rewrite", "paraphrase", "neighbour")
FEWEST = 3  # subjects, for an interval
NGRAMS = {2: 2 / 3, 3: 4 / 3}  # of a text, and how their entropies count
# In the order of the table, and whether more is better.
MEASURES = (
    *("S", "ES", "EM", "PS", "PM", "NS", "NM"),
    *("fluency", "retention", "perplexity"),
)


@dataclass(frozen=True)
class Asked:
    """One prompt of a case: the probabilities of the new object's first token, and the true's."""

    new: float
    true: float


@dataclass(frozen=True)
class Kept:
    """Something else that is true of the subject: its token's probability, and whether it leads."""

    probability: float
    leads: bool


@dataclass(frozen=True)
class Heard:
    """What a model says to all that a case asks.

    `fluency` in bits, None where nothing was written on; `surprisal` the mean of other text's
    tokens, in nats, None where there is none.
    """

    rewrite: tuple[Asked, ...]
    paraphrase: tuple[Asked, ...] = ()
    neighbour: tuple[Asked, ...] = ()
    retained: tuple[Kept, ...] = ()
    fluency: float | None = None
    surprisal: float | None = None

    def of(self, kind: str) -> tuple[Asked, ...]:
        """The prompts of one of `KINDS`."""
        found: tuple[Asked, ...] = getattr(self, kind)
        return found


@dataclass(frozen=True)
class Scored:
    """One case, heard before the edit and after it. `seconds` is what the edit took."""

    case_id: int
    asked: str
    new: str
    true: str
    before: Heard
    after: Heard
    seconds: float
    texts: tuple[tuple[str, str, str], ...] = ()  # prompts, how they went on before, and after
    warnings: tuple[str, ...] = field(default_factory=tuple)
    subject: str = ""  # cases of one are resampled together; without it each is its own


def measured(before: Heard, after: Heard) -> dict[str, float]:
    """The measures of one case after its edit; what cannot be told is NaN.

    `retention` is the share of what led before, of the subject's other facts, that leads still;
    `perplexity` how many times that of other text before.
    """
    found = {
        "ES": share(after.rewrite, new=True),
        "EM": difference(after.rewrite, new=True),
        "PS": share(after.paraphrase, new=True),
        "PM": difference(after.paraphrase, new=True),
        "NS": share(after.neighbour, new=False),
        "NM": difference(after.neighbour, new=False),
        "fluency": math.nan if after.fluency is None else after.fluency,
        "retention": retention(before, after),
        "perplexity": math.nan,
    }
    if before.surprisal is not None and after.surprisal is not None:
        found["perplexity"] = math.exp(after.surprisal - before.surprisal)
    return found


def share(asked: Sequence[Asked], *, new: bool) -> float:
    """The share of prompts in which the wanted object is the likelier one.

    >>> share([Asked(0.2, 0.1), Asked(0.1, 0.3)], new=True)
    0.5
    """
    return _mean([it.new > it.true if new else it.true > it.new for it in asked])


def difference(asked: Sequence[Asked], *, new: bool) -> float:
    """The mean probability of the wanted object, less that of the other.

    >>> difference([Asked(0.75, 0.25)], new=False)
    -0.5
    """
    return _mean([(it.new - it.true) * (1 if new else -1) for it in asked])


def retention(before: Heard, after: Heard) -> float:
    """Of what led before, of the subject's other facts, the share that leads after."""
    led = [
        (one, two) for one, two in zip(before.retained, after.retained, strict=True) if one.leads
    ]
    return _mean([two.leads for _, two in led])


def fluency_of(texts: Sequence[Sequence[int]]) -> float | None:
    """Mean over texts of the weighted mean entropy of their bigrams and trigrams, in bits.

    Of tokens, two thirds of the bigrams' and four thirds of the trigrams' halved, as in ROME.
    A text that says one thing over and over has little. None without a text of three tokens.

    >>> round(fluency_of([[1, 2, 3, 4]]), 4), fluency_of([[1, 1, 1, 1]])
    (1.1950, 0.0)
    """
    whole = [text for text in texts if len(text) >= max(NGRAMS)]
    if not whole:
        return None
    return _mean(
        [_mean([weight * entropy(text, n) for n, weight in NGRAMS.items()]) for text in whole]
    )


def entropy(text: Sequence[int], n: int) -> float:
    """That of a text's n-grams, in bits."""
    counts = Counter(tuple(text[at : at + n]) for at in range(len(text) - n + 1))
    total = sum(counts.values())
    return abs(-math.fsum(c / total * math.log2(c / total) for c in counts.values()))


class Interval(NamedTuple):
    """A mean over `n` cases, and its 95 % percentile bootstrap interval over their subjects.

    None for fewer than three subjects. The `n` of S is the fewest of its three shares'.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


def summarised(cases: Sequence[Scored], seed: int = 0) -> dict[str, Interval]:
    """Each of `MEASURES` over cases after their edits, and S of the means."""
    rows = [measured(case.before, case.after) for case in cases]
    return _table(rows, _subjects(cases), seed)


def unedited(cases: Sequence[Scored], seed: int = 0) -> dict[str, Interval]:
    """The same of the model as it was: what to compare with."""
    rows = [measured(case.before, case.before) for case in cases]
    return _table(rows, _subjects(cases), seed)


def _subjects(cases: Sequence[Scored]) -> NDArray[np.intp]:
    """The number of each case's subject, `[N]`."""
    numbers: dict[object, int] = {}
    found = [numbers.setdefault(it.subject or it.case_id, len(numbers)) for it in cases]
    return np.array(found, dtype=np.intp)


def _table(
    rows: Sequence[Mapping[str, float]], subjects: NDArray[np.intp], seed: int
) -> dict[str, Interval]:
    names = [name for name in MEASURES if name != "S"]
    values = {name: np.array([row[name] for row in rows], dtype=float) for name in names}
    weights = resampled(int(subjects.max()) + 1, seed, RESAMPLES)[:, subjects]  # [R, N]
    means = {name: _over(weights, column) for name, column in values.items()}
    one = np.full((1, len(rows)), 1 / len(rows))
    plain = {name: _over(one, column) for name, column in values.items()}
    for found in (means, plain):
        found["S"] = harmonic(found["ES"], found["PS"], found["NS"])
    there = {name: ~np.isnan(column) for name, column in values.items()}
    there["S"] = min((there[name] for name in ("ES", "PS", "NS")), key=lambda it: int(it.sum()))
    return {
        name: _interval(float(plain[name][0]), means[name], subjects[there[name]])
        for name in MEASURES
    }


def harmonic(*means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The harmonic mean of arrays, element by element: 0 where one of them is.

    >>> harmonic(np.array([1.0]), np.array([0.5]))
    array([0.66666667])
    """
    stacked = np.stack(means)
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = len(means) / (1 / stacked).sum(0)
    return found


def _over(weights: NDArray[np.float64], column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted means `[R]` of a column `[N]`, what is not there left out."""
    there = ~np.isnan(column)
    if not there.any():
        return np.full(len(weights), math.nan)
    kept = weights[:, there]
    total = kept.sum(1)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (kept @ column[there]) / total
    return found


def _interval(mean: float, means: NDArray[np.float64], subjects: NDArray[np.intp]) -> Interval:
    known, n = means[~np.isnan(means)], len(subjects)
    if len(np.unique(subjects)) < FEWEST or not len(known):
        return Interval(mean, None, None, n)
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(mean, float(low), float(high), n)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
