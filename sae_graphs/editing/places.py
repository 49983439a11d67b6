"""Where a fact is best written, beside where tracing finds it: maps of tokens and layers.

Torch-free. Letters: `N` facts, `P` tokens (`TOKENS`), `L` layers.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sae_graphs.editing.many import LeftOut
from sae_graphs.editing.scores import harmonic
from sae_graphs.editing.settings import TOKENS
from sae_graphs.runs import PLACES
from sae_graphs.schema import read_record
from sae_graphs.significance import p_value, rank_correlation, unit_ranks
from sae_graphs.tracing.settings import SweepName
from sae_graphs.words import p_value as p_words

SCHEMA = "sae_graphs.places/1"
FILE_NAME = PLACES
SHUFFLES = 2000
SWEEPS: tuple[SweepName, ...] = ("state", "mlp")  # what tracing restores
SHARES = ("ES", "PS", "NS")
SIZES = ("EM", "PM", "NM")
Map = NDArray[np.float64]  # [P, L]
_REMEDY = "run the same command again"


@dataclass(frozen=True)
class Everywhere:
    """One fact, written everywhere: each measure `[P][L]`; and what tracing restores there.

    `restored` are shares of what corrupting the subject takes from the true object's log-odds, by
    sweep.
    """

    case_id: int
    asked: str
    measures: Mapping[str, tuple[tuple[float, ...], ...]]
    restored: Mapping[str, tuple[tuple[float, ...], ...]]


@dataclass(frozen=True)
class Places:
    """Facts written at every token and layer of a model. `settings` as they were asked for."""

    model: str
    cases: str
    n_layers: int
    placed: tuple[Everywhere, ...]
    left_out: tuple[LeftOut, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    schema: str = SCHEMA

    def measure(self, name: str) -> NDArray[np.float64]:
        """A measure of each fact, `[N, P, L]`."""
        return np.array([it.measures[name] for it in self.placed], dtype=float)

    def restored(self, sweep: str) -> NDArray[np.float64]:
        """What tracing restores of each fact, `[N, P, L]`."""
        return np.array([it.restored[sweep] for it in self.placed], dtype=float)

    @property
    def s(self) -> Map:
        """S of the means over facts."""
        return harmonic(*(np.nanmean(self.measure(name), axis=0) for name in SHARES))

    @property
    def best(self) -> tuple[str, int]:
        """The token and the layer with the largest S."""
        row, layer = np.unravel_index(int(np.nanargmax(self.s)), self.s.shape)
        return TOKENS[int(row)], int(layer)


class Agreement(NamedTuple):
    """How one map follows another: Spearman's correlation, and its p from a permutation null."""

    rank: float | None
    p: float | None
    n: int


def over_places(places: Places, sweep: str) -> Agreement:
    """Does tracing tell where editing works? S against what is restored, over tokens and layers.

    One-sided, for a positive correlation. Null: rows of the restored map in other orders, their
    layers turned around, all ways or `SHUFFLES` drawn ones: neighbouring layers are alike, so cells
    are never shuffled one by one.
    """
    edited, traced = places.s, places.restored(sweep).mean(axis=0)
    observed = rank_correlation(edited.ravel(), traced.ravel())
    if observed is None:
        return Agreement(None, None, edited.size)
    drawn = np.stack(
        [
            np.roll(traced[list(order)], turn, axis=1).ravel()
            for order, turn in _ways(places.n_layers, places.seed)
        ]
    )
    return Agreement(
        observed, p_value(observed, unit_ranks(drawn) @ unit_ranks(edited.ravel())), edited.size
    )


def _ways(n_layers: int, seed: int) -> list[tuple[tuple[int, ...], int]]:
    """Orders of the rows and turns of the layers, the map as it is left out."""
    orders = itertools.permutations(range(len(TOKENS)))
    ways = list(itertools.product(orders, range(n_layers)))[1:]
    return ways if len(ways) < SHUFFLES else random.Random(seed).sample(ways, SHUFFLES)


def over_facts(places: Places, sweep: str) -> Agreement:
    """Is a fact better written where *its own* trace restores more? At each cell, over facts.

    Of each cell the correlation, over facts, of what is restored with the mean of EM, PM and NM;
    the mean over cells. One-sided. Null: traces dealt to other facts, whole.
    """
    sizes = np.nanmean([places.measure(name) for name in SIZES], axis=0)  # [N, P, L]
    both = (sizes, places.restored(sweep))
    one, other = (unit_ranks(each.reshape(len(each), -1).T).T for each in both)  # [N, P L]
    varies = (one.any(axis=0) & other.any(axis=0)).sum()
    if len(sizes) < 3 or not varies:
        return Agreement(None, None, len(sizes))
    beside = one @ other.T / varies  # [N, N]: what a fact adds to the mean, given another's trace
    rng, facts = np.random.default_rng(places.seed), np.arange(len(sizes))
    drawn = [beside[facts, rng.permutation(len(facts))].sum() for _ in range(SHUFFLES)]
    observed = float(np.trace(beside))
    return Agreement(observed, p_value(observed, drawn), len(facts))


def sentences(places: Places) -> list[str]:
    """What is found, in words."""
    token, layer = places.best
    found = [
        f"S is largest at the {token.replace('-', ' ')} token in layer {layer}: "
        f"{float(np.nanmax(places.s)):.3f}."
    ]
    for sweep, what in zip(SWEEPS, ("layers' inputs", "MLPs"), strict=True):
        cells, facts = over_places(places, sweep), over_facts(places, sweep)
        found.append(
            f"Tracing by restoring {what}: over tokens and layers its rank correlation with S is "
            f"{_rank(cells)}; over facts, at the same token and layer, {_rank(facts)}."
        )
    return found


def _rank(found: Agreement) -> str:
    if found.rank is None or found.p is None:
        return "undefined"
    return f"{found.rank:.2f} (one-sided p {p_words(found.p)})"


def load(path: str | Path) -> Places:
    """From its file or folder; raises `GraphFileError` where it is damaged."""
    return read_record(Places, path, FILE_NAME, holds="edits at all places", remedy=_REMEDY)


def rows_of(values: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Nested lists as tuples; what is no number is NaN."""
    return tuple(tuple(math.nan if it is None else float(it) for it in row) for row in values)
