"""`Trace`: a causal trace as data. Torch-free.

Letters: `R` noise runs, `T` tokens, `L` layers (blocks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_graphs.errors import SaeGraphsError
from sae_graphs.late import view
from sae_graphs.tracing.settings import SweepName, TraceSettings

SCHEMA = "sae_graphs.trace/1"
Cells = NDArray[np.float64]  # [R, T, L]
MEASURES = ("log_odds", "probability", "kl")


@dataclass(frozen=True)
class Score:
    """How the model answers at the read token.

    `log_odds` in nats, of the target, or of a group of targets together, against all others;
    `probability` 0 to 1; `kl` the divergence of the clean distribution from this one, in nats.
    """

    log_odds: float
    probability: float
    kl: float

    def __post_init__(self) -> None:
        known = math.isfinite(self.log_odds) and math.isfinite(self.kl)
        if not known or not 0 <= self.probability <= 1:
            raise SaeGraphsError(f"no score: {self!r:.80}")


@dataclass(frozen=True, eq=False)
class Sweep:
    """What restoring does, cell by cell: `[R, T, L]`, values with that state restored.

    Layer `l` of `state` is the input of block `l`; of `mlp` and `attention` the middle of a window
    of `window` blocks, cut at the model's ends. Tokens that were not asked for are NaN throughout.
    """

    name: SweepName
    window: int
    log_odds: Cells
    probability: Cells
    kl: Cells

    def __post_init__(self) -> None:
        if self.log_odds.ndim != 3 or not (
            self.log_odds.shape == self.probability.shape == self.kl.shape
        ):
            raise SaeGraphsError(f"sweep {self.name} has arrays of different shapes")
        for measure in MEASURES:
            cells = self.of(measure)
            measured = ~np.isnan(cells).all(axis=(0, 2))  # tokens; of others nothing was asked
            if not np.isfinite(cells[:, measured]).all():
                raise SaeGraphsError(
                    f"{measure} of {self.name} holds what is no number; restore and measure again"
                )

    def of(self, measure: str) -> Cells:
        """Its cells of one of `MEASURES`."""
        if measure not in MEASURES:
            raise SaeGraphsError(f"measure {measure!r:.40}: expected one of {', '.join(MEASURES)}")
        cells: Cells = getattr(self, measure)
        return cells


@dataclass(frozen=True, eq=False)
class Trace:
    """A causal trace of one prompt.

    `tokens` are the prompt's, BOS included; `subject` the positions that were corrupted; `read` the
    position whose next token is the answer. `targets` are the tokens asked about, one or a group.
    `noise` is the standard deviation that was used, absolute, None without noise; `embedding_std`
    that of the model's token embeddings. `corrupted` has one score a noise run, in the order of the
    sweeps' first axis.
    """

    settings: TraceSettings
    model: str
    prompt: str
    tokens: tuple[str, ...]
    subject: tuple[int, ...]
    read: int
    targets: tuple[str, ...]
    target_ids: tuple[int, ...]
    n_layers: int
    noise: float | None
    embedding_std: float
    clean: Score
    corrupted: tuple[Score, ...]
    sweeps: tuple[Sweep, ...]
    next_tokens: tuple[tuple[str, float], ...] = ()
    corrupted_next_tokens: tuple[tuple[str, float], ...] = ()
    warnings: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)  # seconds, versions, digests

    def __post_init__(self) -> None:
        shape = (len(self.corrupted), len(self.tokens), self.n_layers)
        for sweep in self.sweeps:
            if sweep.log_odds.shape != shape:
                raise SaeGraphsError(
                    f"sweep {sweep.name} has shape {sweep.log_odds.shape}, expected {shape}"
                )
        if not self.corrupted or not 0 <= self.read < len(self.tokens):
            raise SaeGraphsError(
                f"a trace has corrupted runs, read at one of its {len(self.tokens)} tokens; got "
                f"{len(self.corrupted)}, read at {self.read}"
            )
        if not self.subject or not all(0 <= at <= self.read for at in self.subject):
            raise SaeGraphsError(f"the subject stands at {self.subject}, the answer at {self.read}")

    def __repr__(self) -> str:
        made = ", ".join(sweep.name for sweep in self.sweeps)
        size = f"{len(self.tokens)} tokens, {self.n_layers} layers, {len(self.corrupted)} runs"
        return f"<Trace of {self.prompt!r:.60} by {self.model!r:.40}: {size}; {made}>"

    def _repr_html_(self) -> str:
        return str(view("trace_html")(self))

    def save(self, path: str | Path) -> Path:
        """Write the trace as `trace.json` into a folder, or to a file; returns the file."""
        written: Path = view("save_trace")(self, path)
        return written

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace from its file or its run's folder; raises `GraphFileError`."""
        found: Trace = view("load_trace")(path)
        return found

    def sweep(self, name: str) -> Sweep:
        """One of its sweeps; raises `SaeGraphsError` where it was not made."""
        for found in self.sweeps:
            if found.name == name:
                return found
        made = ", ".join(found.name for found in self.sweeps)
        raise SaeGraphsError(f"no sweep {name!r:.40} was made; there are {made}")
