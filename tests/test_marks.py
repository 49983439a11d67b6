"""What `make test` keeps of crossed cases; and each model, SAE kind and stack meets the oracle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from tests.effects import test_oracle as oracle
from tests.model import test_joint as joint
from tests.support.models import ARCHITECTURES, KINDS, STACKS
from tests.support.slow import covering, crossed, first, only


def quick(cases: list[Any]) -> list[Any]:
    """The cases without the marker."""
    return [case for case in cases if not getattr(case, "marks", ())]


def quick_values(test: Callable[..., None], argument: str) -> set[Any]:
    """The values of an argument in a test's quick cases."""
    for mark in test.pytestmark:  # type: ignore[attr-defined]
        names = mark.args[0]
        names = (names,) if isinstance(names, str) else names
        if mark.name == "parametrize" and argument in names:
            at = names.index(argument)
            return {case[at] if len(names) > 1 else case for case in quick(mark.args[1])}
    raise AssertionError(f"no cases of {argument}")


def test_the_cover_is_small_and_whole() -> None:
    cases = [*product("abcdef", "xyz", (1, 2))]
    found = quick(covering(cases))
    assert len(found) == 6
    for at in range(3):
        assert {case[at] for case in found} == {case[at] for case in cases}
    assert quick(crossed("ab", "xy")) == [("a", "x"), ("b", "y")]


def test_no_case_is_lost() -> None:
    cases = [*product("ab", "xy")]
    for marked in (covering(cases), first(1, cases), only(cases, ("b", "x"))):
        assert [getattr(case, "values", case) for case in marked] == cases
    assert quick(first(2, "abc")) == ["a", "b"]
    assert quick(only("abc", "c")) == ["c"]
    assert [case.values for case in first(0, "ab")] == [("a",), ("b",)]


@pytest.mark.parametrize(
    "test",
    [
        oracle.test_settings,
        oracle.test_graph_holds_the_oracles_strongest_edges,
        joint.test_architectures_and_stacks,
    ],
)
def test_every_architecture_meets_the_oracle(test: Callable[..., None]) -> None:
    assert quick_values(test, "architecture") == set(ARCHITECTURES)


def test_every_sae_kind_and_every_stack_meets_the_oracle() -> None:
    assert quick_values(oracle.test_sae_kinds, "kind") == set(KINDS)
    assert quick_values(joint.test_sae_kinds_and_ways, "kind") == set(KINDS)
    assert quick_values(joint.test_sae_kinds_and_ways, "way") == set(joint.WAYS)
    for test in (oracle.test_architectures_and_stacks, joint.test_architectures_and_stacks):
        assert quick_values(test, "stack") == set(STACKS)
