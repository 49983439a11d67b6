"""Pairs of a panel's series, each tested both ways; the lag that all of them have. Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from sae_graphs.editing.granger.algebra import Found, Swaps, compared, criteria, follows, swaps_of
from sae_graphs.editing.granger.panel import (
    Panel,
    Parts,
    at_lags,
    beside,
    detrended,
    lagged,
    trends,
    waves,
)
from sae_graphs.editing.granger.partial import TOGETHER, PairsPartial
from sae_graphs.editing.granger.records import GrangerTest, Pair
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import adjusted
from sae_graphs.words import counted

UNTOLD = "a series does not vary, or the other ones tell all of it"
DRIVEN = 0.05  # p at which a target is taken to drive its source
Ends = tuple[str, str]  # the names of a pair's source and target


def granger_pairs(
    panel: Panel,
    pairs: Sequence[Ends],
    settings: GrangerSettings,
    *,
    lag: int | None = None,
    rarely: Callable[[str], str] = lambda name: "",
    progress: Callable[[int, int], None] | None = None,
    partial: PairsPartial | None = None,
) -> list[Pair]:
    """Every pair tested both ways, with q over all of them.

    The `lag` is that of the settings unless given. `rarely` says why a series cannot be tested, ""
    where it can. Pairs that `partial` holds are read, others kept there. Raises `SaeGraphsError`
    where a model has more columns than rows.
    """
    tester = Tester(panel, settings, lag or settings.lag or settings.max_lag)
    others = itertools.chain.from_iterable(pairs) if settings.multivariate else ()
    also = list(dict.fromkeys((*map(str, settings.given), *others)))
    found: list[Pair] = []

    def tested(source: str, target: str) -> Pair:
        if reason := rarely(source) or rarely(target):
            return Pair(source, target, reason=reason)
        given = [it for it in also if it not in (source, target)]
        tests = tester.both(source, target, given)
        return Pair(source, target, *tests, UNTOLD if tests == (None, None) else "")

    for number, start in enumerate(range(0, len(pairs), TOGETHER)):
        held = None if partial is None else partial.read(number)
        if held is None:
            part = []
            for ends in pairs[start : start + TOGETHER]:
                part.append(tested(*ends))
                if progress is not None:
                    progress(start + len(part), len(pairs))
            held = tuple(part)
            if partial is not None:
                partial.write(number, held)
        found += held
        if progress is not None:
            progress(len(found), len(pairs))
    return with_q(found)


def chosen_lag(
    panel: Panel, pairs: Iterable[Ends], settings: GrangerSettings
) -> tuple[int, tuple[float, ...]]:
    """The lag, and BIC at each one from 1 on, summed over the pairs; the given one without any."""
    if settings.lag is not None:
        return settings.lag, ()
    at = {name: number for number, name in enumerate(panel.names)}
    ends = [(at[source], at[target]) for source, target in pairs]
    if not ends:
        return 1, ()
    found = criteria(panel, ends, max_lag=settings.max_lag, detrend=settings.detrend)
    return int(found.argmin()) + 1, tuple(found.tolist())


def with_q(pairs: Sequence[Pair]) -> list[Pair]:
    """Benjamini and Hochberg's q over all tests of all pairs, both ways."""
    tests = [test for pair in pairs for test in (pair.forward, pair.backward)]
    values = adjusted([None if it is None else it.p for it in tests])
    known = iter(
        [
            None if test is None or q is None else replace(test, q=q)
            for test, q in zip(tests, values, strict=True)
        ]
    )
    return [replace(pair, forward=next(known), backward=next(known)) for pair in pairs]


class Tester:
    """A panel at one lag: columns that many pairs share are made once."""

    def __init__(self, panel: Panel, settings: GrangerSettings, lag: int) -> None:
        self.panel, self.settings, self.lag = panel.centred(), settings, lag
        self._at = {name: number for number, name in enumerate(panel.names)}
        self._trends = trends(panel, settings.detrend)
        self._held: dict[tuple[int, int, bool], Parts] = {}
        self._swaps: Swaps | None = None

    @property
    def swaps(self) -> Swaps:
        """The same for all pairs."""
        if self._swaps is None:
            sizes = [group.shape[1] for group in self.panel.groups]
            count, seed = self.settings.permutations, self.settings.seed
            self._swaps = swaps_of(sizes, count=count, seed=seed)
        return self._swaps

    def both(
        self, source: str, target: str, given: Sequence[str]
    ) -> tuple[GrangerTest | None, GrangerTest | None]:
        """Source to target, and back; each once more where the other way is found at `DRIVEN`."""
        ways = (source, target), (target, source)
        there, back = (self.one(*ends, given) for ends in ways)
        return (
            self.one(*ways[0], given, driven=True) if back and back.p <= DRIVEN else there,
            self.one(*ways[1], given, driven=True) if there and there.p <= DRIVEN else back,
        )

    def one(
        self, source: str, target: str, given: Sequence[str], *, driven: bool = False
    ) -> GrangerTest | None:
        """Whether the source's past adds to the target's, and to that of what is given.

        Where the target may have `driven` the source, what the source has from it is not swapped.
        """
        x, y = self._at[source], self._at[target]
        nonlinear = self.settings.test == "nonlinear"
        own = [self._columns(y, 0, now=True), self._columns(y, 1, nonlinear=nonlinear)]
        own += [self._columns(it, self._first(it, y)) for it in map(self._at.__getitem__, given)]
        first = self._first(x, y)
        side = beside(*own)
        columns, rows = side[0].shape[2] + self._trends, self.panel.n_rows(self.lag)
        if columns >= rows:
            raise SaeGraphsError(
                f"{counted(columns, 'parameter')} for {counted(rows, 'token')}; give more or "
                "longer texts, a smaller lag, or fewer series"
            )
        lags = tuple(range(first, self.lag + 1))
        fixed, moved = self._source(x, y, lags, nonlinear=nonlinear, driven=driven)
        found = compared(side, fixed, moved, self.swaps, trends=self._trends)
        return None if found is None else _record(found, lags, linear=not nonlinear)

    def _source(
        self, source: int, target: int, lags: Sequence[int], *, nonlinear: bool, driven: bool
    ) -> tuple[Parts, Parts]:
        """A source's columns: of what follows the target, linearly, and of the rest, which is
        swapped."""
        kind, values = self.settings.detrend, tuple(group[source] for group in self.panel.groups)
        had = tuple(map(np.zeros_like, values))
        if driven:
            past = beside(self._columns(source, 0, now=True), self._columns(source, 1))
            had = follows(past, self._columns(target, self._first(target, source)), kind)
        rest = tuple(all_of - part for all_of, part in zip(values, had, strict=True))
        fixed = tuple(at_lags(part, lags, self.lag) for part in had)
        moved = tuple(at_lags(part, lags, self.lag) for part in rest)
        if nonlinear:
            scale = float(np.concatenate([part.ravel() for part in rest]).std()) or 1.0
            bent = waves(moved, scale=scale, seed=self.settings.seed)
            fixed, moved = beside(fixed, tuple(map(np.zeros_like, bent))), beside(moved, bent)
        return detrended(fixed, kind), detrended(moved, kind)

    def _first(self, source: int, target: int) -> int:
        """The smallest lag: 0 where the source stands in an earlier layer."""
        depths = self.panel.depths
        return 0 if self.settings.same_token and depths[source] < depths[target] else 1

    def _columns(
        self, series: int, first: int, *, now: bool = False, nonlinear: bool = False
    ) -> Parts:
        """A series at lags from `first` on, or `now` alone, detrended; with its waves."""
        key = series, -1 if now else first, nonlinear
        if key not in self._held:
            lags = [0] if now else range(first, self.lag + 1)
            parts = lagged(self.panel, series, lags, self.lag)
            if nonlinear:
                scale, seed = self.panel.scale(series), self.settings.seed
                parts = beside(parts, waves(parts, scale=scale, seed=seed))
            self._held[key] = detrended(parts, self.settings.detrend)
        return self._held[key]


def _record(found: Found, lags: tuple[int, ...], *, linear: bool) -> GrangerTest:
    coefficients = tuple(found.weights.tolist()) if linear else ()
    return GrangerTest(
        found.f, found.share, found.p, found.p_parametric, found.p, lags, coefficients
    )
