"""What of a trace is drawn: one measure of its cells, with its ends and its name. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sae_graphs.text import shortened, token, visible
from sae_graphs.tracing.reading import means
from sae_graphs.tracing.records import Sweep, Trace
from sae_graphs.words import probability, said

Measure = Literal["probability", "normalised", "log", "log-odds", "kl", "share"]
MEASURES: dict[Measure, str] = {
    "probability": "probability of {target}",
    "normalised": "probability, 0 corrupted, 1 clean",
    "log": "probability of {target}, log scale",
    "log-odds": "log-odds of {target}, nats",
    "kl": "divergence from clean, nats",
    "share": "log-odds, 0 corrupted, 1 clean",
}
_HELD: dict[Measure, str] = {"log-odds": "log_odds", "share": "log_odds", "kl": "kl"}
NAMES = {
    "state": "State",
    "mlp": "MLP",
    "attention": "Attention",
    "state-mlp-severed": "State, MLPs severed",
    "state-attention-severed": "State, attention severed",
}
LEAST = 1e-12  # of a probability, where its logarithm is drawn


@dataclass(frozen=True, eq=False)
class Values:
    """What is drawn of one sweep: `[T, L]`, its standard errors, and the two ends.

    `sign` is -1 where less is better, as of a divergence.
    """

    mean: NDArray[np.float64]
    error: NDArray[np.float64] | None
    clean: float
    corrupted: float
    sign: float = 1.0

    @property
    def helps(self) -> NDArray[np.float64]:
        """Above 0 where restoring helps, below where it harms, in the measure's own unit."""
        return self.sign * (self.mean - self.corrupted)


def values(trace: Trace, sweep: str | Sweep, measure: Measure) -> Values:
    """One measure of a sweep's cells, means over noise runs."""
    found = means(trace, sweep, _HELD.get(measure, "probability"))
    if measure in ("normalised", "share"):
        lost = found.clean - found.corrupted
        error = None if found.error is None else found.error / abs(lost)
        return Values(found.restored, error, 1.0, 0.0)
    if measure == "log":
        mean = np.maximum(found.mean, LEAST)
        error = None if found.error is None else found.error / (mean * np.log(10))
        ends = (float(np.log10(max(end, LEAST))) for end in (found.clean, found.corrupted))
        return Values(np.log10(mean), error, *ends)
    sign = -1.0 if measure == "kl" else 1.0
    return Values(found.mean, found.error, found.clean, found.corrupted, sign)


# -- words that pictures and pages share -----------------------------------------------------------


def measure_words(trace: Trace, measure: Measure) -> str:
    """What is drawn, in words, with the answer's text."""
    return MEASURES[measure].format(target=target_words(trace))


def target_words(trace: Trace, limit: int = 24) -> str:
    """The answer, or the group of tokens asked about, as pictures show it."""
    return shortened(" or ".join(map(said, trace.targets)), limit)


def category_words(category: str, limit: int = 34) -> str:
    """A category's name as figures have it, in so many characters at most."""
    return shortened(visible(category, space=" "), limit)


def token_words(trace: Trace, position: int, limit: int = 18) -> str:
    """A token as rows name it, with a star where it was corrupted."""
    text = shortened(token(trace.tokens[position]), limit)
    return f"{text} *" if position in trace.subject else text


def sweep_words(sweep: Sweep) -> str:
    """What a panel shows: `MLP, windows of 2 layers`."""
    name = NAMES[sweep.name]
    return name if sweep.window == 1 else f"{name}, windows of {sweep.window} layers"


def ends_words(trace: Trace) -> str:
    """The answer's probability, clean and corrupted."""
    corrupted = float(np.mean([score.probability for score in trace.corrupted]))
    return f"clean {probability(trace.clean.probability)}, corrupted {probability(corrupted)}"


def corruption_words(trace: Trace) -> str:
    """How the starred tokens were corrupted: `noise of 0.3 (3 standard deviations), 10 runs`."""
    settings = trace.settings
    if trace.noise is not None:
        size = f"{trace.noise:.3g}"
        if trace.embedding_std:
            size += f" ({trace.noise / trace.embedding_std:.2g} standard deviations)"
        runs = len(trace.corrupted)
        return f"noise of {size}, {runs} run{'' if runs == 1 else 's'}"
    if settings.corruption == "interchange":
        return "those of another prompt"
    near = "nearest" if settings.rank == 1 else f"{settings.rank}-th nearest"
    told = {
        "nearest": f"those of the {near} token",
        "blend": f"{settings.strength} of the way to the {near} token",
        "norm": f"norm times {settings.strength}",
    }
    return told.get(settings.corruption, settings.corruption)
