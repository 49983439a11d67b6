"""Many prompts: each traced, one that fails told, averages by category. Torch-free.

Averages are those of prompts' mean rows, as shares of what the corruption takes from the answer's
log-odds; intervals are bootstraps over prompts. Letters: `N` prompts, `L` layers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_graphs.checkpoint import Checkpoint
from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.schema import plain, read_json, read_record, rebuilt
from sae_graphs.significance import resampled
from sae_graphs.tracing.cases_file import Case, Looked, kind_of, refusal
from sae_graphs.tracing.handover import RESAMPLES, Handover, handover_of, layers_of
from sae_graphs.tracing.last_token import FirstToken, LastToken
from sae_graphs.tracing.reading import loss, restored_runs
from sae_graphs.tracing.records import Trace
from sae_graphs.words import probability

SCHEMA = "sae_graphs.traces/1"
FILE_NAME = "traces.json"
FEWEST = 3  # prompts of a category, for an interval
LEFT = 0.5  # of its clean probability: an answer that keeps more does not hang on the subject
_REMEDY = "run the same command again"


@dataclass(frozen=True)
class TwoRows:
    """What restoring one sweep brings back at the corrupted token and at the read one, by layer."""

    subject: tuple[float, ...]
    read: tuple[float, ...]


@dataclass(frozen=True)
class TracedCase:
    """One case's trace, as far as averages need it. Log-odds in nats.

    `others` has the rows of states at other strengths of the noise, where these take something;
    `last_token` is None where the model does not show its attention.
    """

    case: Case
    top: str
    tokens: int
    at: int
    read: int
    clean: float
    corrupted: float
    clean_log_odds: float
    lost: float
    noise: float | None
    rows: Mapping[str, TwoRows]
    others: Mapping[str, TwoRows] = field(default_factory=dict)
    last_token: LastToken | None = None

    @property
    def distance(self) -> int:
        """Tokens from the corrupted one to the one that is read."""
        return self.read - self.at


@dataclass(frozen=True)
class LeftOut:
    """A case that was not traced, or whose trace says nothing, and why."""

    case: Case
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Traces:
    """The traces of many prompts of one model. `settings` as they were asked for.

    `first_token` is of the prompts as one text; None where the model does not show its attention.
    """

    model: str
    n_layers: int
    traced: tuple[TracedCase, ...]
    left_out: tuple[LeftOut, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    first_token: FirstToken | None = None
    schema: str = SCHEMA

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of all cases, in the file's order."""
        cases = [*(it.case for it in self.traced), *(it.case for it in self.left_out)]
        return tuple(dict.fromkeys(case.category for case in cases))

    def of(self, category: str) -> tuple[TracedCase, ...]:
        """The traced cases of one."""
        return tuple(it for it in self.traced if it.case.category == category)

    def reasons(self, category: str) -> dict[str, int]:
        """How many cases of one were left out, by why."""
        found = [it for it in self.left_out if it.case.category == category]
        counts = Counter("failed" if it.failed else kind_of(it.reason) for it in found)
        return dict(counts.most_common())

    @property
    def sweeps(self) -> tuple[str, ...]:
        """What was restored."""
        return tuple(self.traced[0].rows) if self.traced else ()


def load(path: str | Path) -> Traces:
    """From its file or folder; raises `GraphFileError` where it is damaged."""
    return read_record(Traces, path, FILE_NAME, holds="traces of many prompts", remedy=_REMEDY)


# -- one after another -----------------------------------------------------------------------------


def trace_cases(
    cases: Sequence[Case],
    look: Callable[[Case], Looked],
    trace: Callable[[Case], Trace],
    *,
    more: Callable[[TracedCase], TracedCase] = lambda it: it,
    partial: CasesPartial | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[TracedCase | LeftOut]:
    """Every case looked at, filtered and traced; one that fails is told, and the others go on.

    `more` adds to a traced case what is not in its trace.
    """
    found: list[TracedCase | LeftOut] = []
    for number, case in enumerate(cases):
        held = None if partial is None else partial.read(number)
        if held is None:
            held = _traced(case, look, trace, more)
            failed = isinstance(held, LeftOut) and held.failed  # to be tried again
            if partial is not None and not failed:
                partial.write(number, held)
        found.append(held)
        if progress is not None:
            progress(number + 1, len(cases))
    return found


def _traced(
    case: Case,
    look: Callable[[Case], Looked],
    trace: Callable[[Case], Trace],
    more: Callable[[TracedCase], TracedCase],
) -> TracedCase | LeftOut:
    try:
        looked = look(case)
        reason = refusal(case, looked)
        if reason is not None:
            return LeftOut(case, reason)
        return more(traced_case(case, looked, trace(case)))
    except SaeGraphsError as problem:
        return LeftOut(case, " ".join(str(problem).split()))
    except Exception as problem:  # whatever it is, the other cases are not to blame
        return LeftOut(case, f"{type(problem).__name__}: {' '.join(str(problem).split())}", True)


def traced_case(case: Case, looked: Looked, trace: Trace) -> TracedCase:
    """What averages need of a trace.

    Raises `SaeGraphsError` where the corruption leaves the answer more than half of its clean
    probability: shares of so little would outweigh all others.
    """
    corrupted = check_taken(trace)
    return TracedCase(
        case,
        looked.top,
        len(trace.tokens),
        trace.subject[-1],
        trace.read,
        trace.clean.probability,
        corrupted,
        trace.clean.log_odds,
        loss(trace),
        trace.noise,
        {sweep.name: two_rows(trace, sweep.name) for sweep in trace.sweeps},
    )


def check_taken(trace: Trace) -> float:
    """The corrupted answer's probability; raises `SaeGraphsError` where that is over half."""
    corrupted = float(np.mean([score.probability for score in trace.corrupted]))
    if corrupted > LEFT * trace.clean.probability:
        raise SaeGraphsError(
            f"corrupted, the answer still has {probability(corrupted)} of "
            f"{probability(trace.clean.probability)}: it does not hang on this subject"
        )
    return corrupted


def two_rows(trace: Trace, sweep: str) -> TwoRows:
    """The rows of the subject's last token and of the read one, means over noise runs."""
    mean = restored_runs(trace, sweep).mean(axis=0)
    return TwoRows(*(tuple(map(float, mean[at])) for at in (trace.subject[-1], trace.read)))


def gathered(
    found: Sequence[TracedCase | LeftOut],
    *,
    model: str,
    n_layers: int,
    settings: Mapping[str, Any],
    seed: int,
    first_token: FirstToken | None = None,
) -> Traces:
    """All of it as one record."""
    traced = tuple(it for it in found if isinstance(it, TracedCase))
    left_out = tuple(it for it in found if isinstance(it, LeftOut))
    return Traces(model, n_layers, traced, left_out, dict(settings), seed, first_token)


class CasesPartial(Checkpoint[int, "TracedCase | LeftOut"]):
    """The cases that are done, a file each."""

    pattern = "*case-*.json*"

    def file(self, name: int) -> Path:
        """Where a case lies, or would."""
        return self.folder / f"case-{name:04d}.json"

    def key_in(self, name: int) -> str | None:
        """The key that its file carries."""
        held = read_json(self.file(name), give="a case", remedy=_REMEDY)
        key = held.get("key") if isinstance(held, dict) else None
        return key if isinstance(key, str) else None

    def load(self, name: int) -> TracedCase | LeftOut:
        """A case from its file."""
        held = read_json(self.file(name), give="a case", remedy=_REMEDY)
        part = held.get("part") if isinstance(held, dict) else None
        kind = TracedCase if isinstance(part, dict) and "rows" in part else LeftOut
        found: TracedCase | LeftOut = rebuilt(kind, part, "a case", remedy=_REMEDY)
        return found

    def save(self, name: int, part: TracedCase | LeftOut, key: str) -> None:
        """Write a case's file in one step."""
        data = json.dumps({"key": key, "part": plain(part)}).encode("ascii")
        write_atomically(self.file(name), data)


# -- by category -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Averaged:
    """A category's mean rows of one sweep, with 95 % bootstrap intervals over prompts.

    `subject` and `read` are `[3, L]`: low, mean, high; low and high are the mean's where there are
    too few prompts.
    """

    category: str
    sweep: str
    n: int
    subject: NDArray[np.float64]
    read: NDArray[np.float64]
    handover: Handover | None


def averaged(traces: Traces, category: str, sweep: str = "state") -> Averaged | None:
    """The averages of one category; None where no case of it is left."""
    cases = traces.of(category)
    if not cases:
        return None
    subject = np.array([it.rows[sweep].subject for it in cases])
    read = np.array([it.rows[sweep].read for it in cases])
    found = None
    if sweep == "state" and len(cases) >= FEWEST:
        found = handover_of(subject, read, seed=traces.seed)
    one, other = (band(rows, traces.seed) for rows in (subject, read))
    return Averaged(category, sweep, len(cases), one, other, found)


def band(rows: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Low, mean and high `[3, L]` of prompts' rows `[N, L]`: 95 % bootstrap over prompts."""
    mean = rows.mean(axis=0)
    if len(rows) < FEWEST:
        return np.stack([mean, mean, mean])
    low, high = np.quantile(resampled(len(rows), seed, RESAMPLES) @ rows, (0.025, 0.975), axis=0)
    return np.stack([low, mean, high])


def last_tokens(traces: Traces) -> dict[str, list[LastToken]]:
    """What the read token looks at and how it moves, by category, where the model shows it."""
    held = {
        name: [it.last_token for it in traces.of(name) if it.last_token is not None]
        for name in traces.categories
    }
    return {name: those for name, those in held.items() if those}


def crossings(traces: Traces) -> NDArray[np.float64]:
    """Where the read token overtakes the corrupted one, prompt by prompt: `[N]`, NaN for never."""
    return crossings_of([it.rows["state"] for it in traces.traced])


def crossings_of(rows: Sequence[TwoRows]) -> NDArray[np.float64]:
    """The same of pairs of rows."""
    if not rows:
        return np.empty(0)
    both = (np.array([getattr(it, name) for it in rows]) for name in ("subject", "read"))
    found: NDArray[np.float64] = layers_of(*both)[:, 1]
    return found
