"""What a trace says: means over noise runs, notable sites, the handover. Torch-free.

Pictures draw any measure; what is claimed is claimed of log-odds, from differences within a noise
run: a cell minus the corrupted run of the same draw. Letters: `R` noise runs, `T` tokens, `L`
layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import signed_differences
from sae_graphs.tracing.handover import Handover, handover_of
from sae_graphs.tracing.records import Cells, Sweep, Trace
from sae_graphs.tracing.settings import SweepName

LEVEL = 0.05  # of all sites of a trace together
FEWEST_RUNS = 6  # with fewer, no pattern of signs is rarer than one in twenty
LEAST = 0.1  # of what the corruption takes: a site restores at least as much
OF_PEAK = 0.5  # a site reaches as far as this share of the peak of its token's row
Role = Literal["subject", "read", "other"]
Drawn = NDArray[np.float64]  # [T, L]


class Means(NamedTuple):
    """A sweep's cells in one measure, over noise runs: `[T, L]` each; no error for a single run.

    `clean` and `corrupted` are the same measure without a restoration.
    """

    mean: Drawn
    error: Drawn | None
    clean: float
    corrupted: float

    @property
    def restored(self) -> Drawn:
        """0 as the corrupted run, 1 as the clean one; below 0 what makes it worse, never clipped.

        Raises `SaeGraphsError` where the two are the same: there is nothing to restore.
        """
        lost = self.clean - self.corrupted
        if not lost:
            raise SaeGraphsError(
                "the corruption changes nothing of this measure, so nothing can be restored; "
                "corrupt more"
            )
        return (self.mean - self.corrupted) / lost


@dataclass(frozen=True)
class Site:
    """Tokens and layers whose restoration brings the answer back, or takes it further away.

    `tokens` and `layers` hold the first and the last of each; `at` is the token and layer of the
    strongest cell, `effect` what restoring that adds to the answer's log-odds, in nats: the mean
    over noise runs and an interval that holds for all cells of the trace at once. `share` is
    the effect as a share of what the corruption takes.
    """

    sweep: SweepName
    tokens: tuple[int, int]
    layers: tuple[int, int]
    at: tuple[int, int]
    effect: float
    low: float
    high: float
    share: float
    role: Role

    @property
    def is_harmful(self) -> bool:
        """Whether restoring it takes the answer further away."""
        return self.effect < 0


@dataclass(frozen=True)
class Reading:
    """What a trace says. `problem` tells why no site is claimed, where none can be.

    `lost` is what the corruption takes from the answer's log-odds, in nats; `critical` the |t| that
    a cell must exceed. Sites stand with the strongest first. `source` is the token of the subject
    that hands over: its last, or the one of the strongest site where the last has none.
    """

    lost: float
    critical: float | None
    sites: tuple[Site, ...]
    handover: Handover | None
    source: int | None = None
    problem: str | None = None

    def first(self, sweep: str, role: Role) -> Site | None:
        """The strongest helpful site of a sweep at such tokens; None where there is none."""
        found = (it for it in self.sites if it.sweep == sweep and it.role == role)
        return next((site for site in found if not site.is_harmful), None)


# -- numbers ---------------------------------------------------------------------------------------


def means(trace: Trace, sweep: str | Sweep, measure: str = "log_odds") -> Means:
    """Mean and standard error of every cell over noise runs, in one of `MEASURES`."""
    found = trace.sweep(sweep) if isinstance(sweep, str) else sweep
    cells = found.of(measure)
    corrupted = [float(getattr(score, measure)) for score in trace.corrupted]
    error = None
    if len(cells) > 1:
        error = cells.std(axis=0, ddof=1) / np.sqrt(len(cells))
    clean = float(getattr(trace.clean, measure))
    return Means(cells.mean(axis=0), error, clean, float(np.mean(corrupted)))


def differences(trace: Trace, sweep: str | Sweep) -> Cells:
    """What each restoration adds to the answer's log-odds, run by run: `[R, T, L]`, in nats."""
    found = trace.sweep(sweep) if isinstance(sweep, str) else sweep
    corrupted = np.array([score.log_odds for score in trace.corrupted])
    return found.log_odds - corrupted[:, None, None]


def restored_runs(trace: Trace, sweep: str | Sweep) -> Cells:
    """The same as a share of what the corruption takes on average, run by run: `[R, T, L]`."""
    lost = loss(trace)
    if lost <= 0:
        raise SaeGraphsError(
            "the corruption takes nothing from the answer, so nothing can be restored; corrupt more"
        )
    return differences(trace, sweep) / lost


def loss(trace: Trace) -> float:
    """What the corruption takes from the answer's log-odds, the mean over noise runs, in nats."""
    return trace.clean.log_odds - float(np.mean([score.log_odds for score in trace.corrupted]))


# -- what is claimed -------------------------------------------------------------------------------


def read(trace: Trace) -> Reading:
    """Notable sites, and the handover from the subject to the read token.

    A cell counts where its difference to the corrupted run, over noise runs, stands out from all
    cells of all sweeps together: signs of whole noise runs are turned, in all ways or in many, and
    the largest |t| of each way gives the critical one (max-T; Nichols and Holmes, "Nonparametric
    permutation tests for functional neuroimaging", 2002). So a trace without any site yields
    one in at most 5 % of cases. A site is a connected group of such cells that restore a tenth or
    more of what was lost, and half or more of their token's best.
    """
    lost = loss(trace)
    if problem := _problem(trace, lost):
        return Reading(lost, None, (), None, problem=problem)
    runs = [differences(trace, sweep) for sweep in trace.sweeps]
    flat = np.concatenate([each.reshape(len(each), -1) for each in runs], axis=1)
    found = signed_differences(flat, seed=trace.settings.seed, level=LEVEL)
    sites: list[Site] = []
    start = 0
    for sweep, each in zip(trace.sweeps, runs, strict=True):
        shape, size = each.shape[1:], each[0].size
        stands = np.abs(found.t[start : start + size]).reshape(shape) > found.critical
        half = (found.critical * found.error[start : start + size]).reshape(shape)
        sites += _sites(trace, sweep.name, each.mean(axis=0), half, stands)
        start += size
    sites.sort(key=lambda site: -abs(site.effect))
    reading = Reading(lost, found.critical, tuple(sites), None)
    return Reading(lost, found.critical, tuple(sites), *_handover(trace, reading))


def _problem(trace: Trace, lost: float) -> str | None:
    runs = len(trace.corrupted)
    if lost <= 0:
        return (
            "the corruption takes nothing from the answer's log-odds, so there is nothing to "
            "restore: another answer, or a stronger corruption, may say more"
        )
    if runs < FEWEST_RUNS:
        told = "one run" if runs == 1 else f"{runs} runs"
        return (
            f"{told} of the corruption cannot tell what chance does, so no site is claimed; noise "
            f"with {FEWEST_RUNS} runs or more can"
        )
    return None


def _sites(
    trace: Trace, name: SweepName, effect: Drawn, half: Drawn, stands: NDArray[np.bool_]
) -> list[Site]:
    """The groups of connected cells of one sweep, helpful ones and harmful ones apart."""
    sites, lost = [], loss(trace)
    for sign in (1.0, -1.0):
        size = sign * effect
        peaks = np.where(stands, size, 0.0).max(axis=1, keepdims=True)
        inside = stands & (size >= LEAST * lost) & (size >= OF_PEAK * peaks)
        for tokens, layers in _groups(trace, inside):
            best = int(size[tokens, layers].argmax())
            at = int(tokens[best]), int(layers[best])
            sites.append(
                Site(
                    name,
                    (int(tokens.min()), int(tokens.max())),
                    (int(layers.min()), int(layers.max())),
                    at,
                    float(effect[at]),
                    float(effect[at] - half[at]),
                    float(effect[at] + half[at]),
                    float(effect[at] / lost),
                    _role(trace, at[0]),
                )
            )
    return sites


def _groups(
    trace: Trace, inside: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The tokens and layers of each group of connected cells; those of the subject, of the read
    token and of others apart, also where they stand side by side."""
    from scipy.ndimage import label

    roles = np.array([_role(trace, token) for token in range(len(inside))])
    for role in ("subject", "read", "other"):
        groups, count = label(inside & (roles == role)[:, None])
        for number in range(1, count + 1):
            tokens, layers = np.nonzero(groups == number)
            yield tokens, layers


def _role(trace: Trace, token: int) -> Role:
    if token == trace.read:
        return "read"
    return "subject" if token in trace.subject else "other"


def _handover(trace: Trace, reading: Reading) -> tuple[Handover | None, int | None]:
    """The handover, and the token that hands over: where there is a site at a token of the subject,
    its last one before others, and one at the read token."""
    late = reading.first("state", "read") if _has_states(trace) else None
    helpful = [it for it in reading.sites if it.sweep == "state" and not it.is_harmful]
    last = trace.subject[-1]
    sources = [it.at[0] for it in helpful if it.role == "subject"]
    if any(it.tokens[0] <= last <= it.tokens[1] for it in helpful):
        sources = [last, *sources]
    if late is None or not sources or sources[0] == trace.read:
        return None, None
    shares = restored_runs(trace, "state")
    found = handover_of(shares[:, sources[0]], shares[:, trace.read], seed=trace.settings.seed)
    return found, sources[0]


def _has_states(trace: Trace) -> bool:
    return any(sweep.name == "state" for sweep in trace.sweeps)


def tokens_of(site: Site) -> Sequence[int]:
    """The positions of a site's tokens."""
    return range(site.tokens[0], site.tokens[1] + 1)
