"""Pairs of a panel's series, each tested both ways; the lag that all of them have. Torch-free."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from sae_graphs.editing.granger.algebra import (
    Filtered,
    Found,
    Swaps,
    compared,
    filtered,
    swaps_of,
)
from sae_graphs.editing.granger.lag import criteria
from sae_graphs.editing.granger.panel import Panel, at_lags, behind, beside, lagged, trends, waves
from sae_graphs.editing.granger.partial import TOGETHER, PairsPartial
from sae_graphs.editing.granger.records import GrangerTest, Pair
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.significance import adjusted
from sae_graphs.words import counted

UNTOLD = "a series does not vary, or the other ones tell all of it"
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
    unknown = set(itertools.chain(map(str, settings.given), *pairs)) - set(panel.names)
    if unknown:
        raise SaeGraphsError(
            f"no series {quoted(sorted(unknown))} in the panel; it has {quoted(panel.names, 12)}"
        )
    tester = Tester(panel, settings, lag or settings.lag or settings.max_lag)
    others = itertools.chain.from_iterable(pairs) if settings.multivariate else ()
    also = list(dict.fromkeys((*map(str, settings.given), *others)))
    found: list[Pair] = []

    def tested(source: str, target: str) -> Pair:
        if reason := rarely(source) or rarely(target):
            return Pair(source, target, reason=reason, reason_back=reason)
        given = [it for it in also if it not in (source, target)]
        tests = tester.both(source, target, given)
        return Pair(source, target, *tests, *(UNTOLD if it is None else "" for it in tests))

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
    if not found.any():  # each pair's series tell all of each other
        return 1, ()
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
        self.panel, self.settings, self.lag = panel, settings, lag
        self._centred = panel.centred()
        self._at = {name: number for number, name in enumerate(panel.names)}
        self._trends = trends(panel, settings.detrend)
        self._held: dict[tuple[int, int | None], Filtered] = {}
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
        """Source to target, and back."""
        return self.one(source, target, given), self.one(target, source, given)

    def one(self, source: str, target: str, given: Sequence[str]) -> GrangerTest | None:
        """Whether the source's past adds to the target's, and to that of what is given.

        Raises `SaeGraphsError` where the full model has as many columns as rows.
        """
        x, y = self._at[source], self._at[target]
        others = [(it, self._first(it, y)) for it in map(self._at.__getitem__, given)]
        own = _beside([self._columns(*each) for each in [(y, 1), *others]])
        first = self._first(x, y)
        columns = self._columns(x, first)
        count = own.within[0].shape[2] + columns.within[0].shape[2] + self._trends
        rows = self.panel.n_rows(self.lag)
        if count >= rows:
            raise SaeGraphsError(
                f"{counted(count, 'parameter')} for {counted(rows, 'token')}; give more or "
                "longer texts, a smaller lag, or fewer series"
            )
        found = compared(
            self._columns(y, None),
            own,
            columns,
            self.swaps,
            trends=self._trends,
            seed=self.settings.seed,
        )
        linear, lags = self.settings.test == "linear", tuple(range(first, self.lag + 1))
        return None if found is None else _record(found, lags, linear=linear)

    def _first(self, source: int, target: int) -> int:
        """The smallest lag: 0 where the source stands in an earlier layer."""
        depths = self.panel.depths
        return 0 if self.settings.same_token and depths[source] < depths[target] else 1

    def _columns(self, series: int, first: int | None) -> Filtered:
        """A series at lags from `first` on, with its waves where the test is nonlinear; or, without
        `first`, the series itself."""
        key = series, first
        if key not in self._held:
            lags = [0] if first is None else range(first, self.lag + 1)
            parts = lagged(self.panel, series, lags, self.lag)
            if first is not None and self.settings.test == "nonlinear":
                scale, seed = self._centred.scale(series), self.settings.seed
                # a mean of the whole text would tell of what comes
                steady = tuple(
                    behind(group[series][..., None])[..., 0] for group in self.panel.groups
                )
                late = tuple(at_lags(it, lags, self.lag) for it in steady)
                parts = beside(parts, waves(late, scale=scale, seed=seed))
            self._held[key] = filtered(parts, self.settings.detrend)
        return self._held[key]


def _beside(those: Sequence[Filtered]) -> Filtered:
    return Filtered(*(beside(*each) for each in zip(*those, strict=True)))


def _record(found: Found, lags: tuple[int, ...], *, linear: bool) -> GrangerTest:
    coefficients = tuple(found.weights.tolist()) if linear else ()
    return GrangerTest(
        found.f,
        found.share,
        found.wald,
        found.p,
        found.p_parametric,
        found.p,  # until q is known, over all tests
        lags,
        coefficients,
    )
