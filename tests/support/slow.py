"""What `make test` leaves to `make test-all`: the marker `slow`, on whole tests or some cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import settings

FULL_EXAMPLES = 100  # of the profile `full`; see conftest.py


def slow(case: Any) -> Any:
    """A case, or a tuple of arguments, that only `make test-all` runs."""
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)


def first(n: int, cases: Iterable[Any]) -> list[Any]:
    """All cases, of which the first `n` are quick."""
    return [case if number < n else slow(case) for number, case in enumerate(cases)]


def only(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """All cases, of which these are quick."""
    cases = list(cases)
    assert all(case in cases for case in quick), f"not all of {quick} are cases"
    return [case if case in quick else slow(case) for case in cases]


def covering(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """All cases, of which as many are quick as it takes to meet each value of each argument once.

    >>> [case for case in covering(product("ab", "cd")) if isinstance(case, tuple)]
    [('a', 'c'), ('b', 'd')]
    """
    cases = list(cases)
    missing = {(at, value) for case in cases for at, value in enumerate(case)}
    quick: list[tuple[Any, ...]] = []
    while missing:
        best = max(cases, key=lambda case: len(missing & set(enumerate(case))))
        quick.append(best)
        missing -= set(enumerate(best))
    return only(cases, *quick)


def crossed(*arguments: Sequence[Any]) -> list[Any]:
    """The product of all arguments, of which `covering` says what is quick."""
    return covering(product(*arguments))


def examples(n: int, *, cheap: bool = False, **options: Any) -> settings:
    """Settings of `n` examples in the profile `full`, and of a tenth of them in others.

    Of a quarter where one is `cheap`, a millisecond or so; in any case of 5.
    """
    full = settings.default is not None and settings.default.max_examples >= FULL_EXAMPLES
    quick = max(n // (4 if cheap else 10), 5)
    return settings(max_examples=n if full else quick, deadline=None, **options)
