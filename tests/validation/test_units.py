"""What is tested of a graph, and the settings that say so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.validation.settings import ValidationSettings, parse_curve, parse_path
from sae_graphs.validation.subjects import Unit, units_of
from tests.support.graphs import example, graph_of, resolved, with_outputs
from tests.support.stacks import one_line


def names(unit: Unit) -> list[str]:
    return [str(feature) for feature in unit.features]


def settings(**options: Any) -> ValidationSettings:
    return ValidationSettings(**options)


# -- units -----------------------------------------------------------------------------------------


def test_components_and_their_strongest_paths() -> None:
    found = units_of(example(), settings(paths=1))
    assert [(unit.name, unit.kind, unit.component) for unit in found] == [
        ("Graph 1", "component", 1),
        ("Graph 1, path 1", "path", 1),
        ("Graph 2", "component", 2),  # it is one path, and tested once
    ]
    assert names(found[0]) == ["0.1", "1.1", "1.2", "2.10600", "3.5"]
    assert names(found[1]) == ["0.1", "1.1", "2.10600", "3.5"]
    assert [edge.effect for edge in found[1].edges] == [-4.0, -2.0, -1.5]
    assert len(found[0].edges) == 5


def test_how_many_paths() -> None:
    assert len(units_of(example(), settings(paths=0))) == 2
    assert len(units_of(example(), settings(paths=9))) == 4  # there are no more


def test_given_paths_alone() -> None:
    (found,) = units_of(example(), settings(path=("1.2 > 2.10600",)))
    assert (found.name, found.kind, found.component) == ("1.2 > 2.10600", "path", 1)
    assert [edge.effect for edge in found.edges] == [3.0]
    (single,) = units_of(example(), settings(path=("1.2",)))
    assert names(single) == ["1.2"] and single.edges == ()


def test_a_path_that_is_given_twice_is_tested_once() -> None:
    given = ("1.2 > 2.10600", "0.1 > 1.1", "1.2 -> 2.10600")
    assert [unit.name for unit in units_of(example(), settings(path=given))] == [
        "1.2 > 2.10600",
        "0.1 > 1.1",
    ]


def test_paths_with_positions_and_outputs() -> None:
    (placed,) = units_of(resolved(), settings(path=("1.2@3 > 2.4@3 > out.340@3",)))
    assert names(placed) == ["1.2@3", "2.4@3", "out.340@3"]
    (output,) = units_of(with_outputs(), settings(path=("2.5 > 3.6 > out.7",)))
    assert names(output)[-1] == "out.7"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("0.1 > 9.9", "no SAE layer '9'"),
        ("0.7 > 1.1", "0.7"),
        ("0.1 > 1.9", "0.1 > 1.9 is no edge of this graph; 0.1 has edges to 1.1, 1.2"),
        ("1.1 > 0.1", "1.1 > 0.1 is no edge"),
        ("3.5 > 0.1", "has edges to nothing"),
        ("0.1 > 2.10600", "0.1 > 2.10600 is no edge"),
        ("0.1@2 > 1.1", "no token positions"),
    ],
)
def test_paths_that_are_not_in_the_graph(path: str, message: str) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        units_of(example(), settings(path=(path,)))
    assert message in one_line(caught)


def test_what_cannot_be_ablated() -> None:
    with pytest.raises(SaeGraphsError, match="output token"):
        units_of(with_outputs(), settings(path=("out.340",)))
    with pytest.raises(SaeGraphsError, match="no edges"):
        units_of(graph_of({}), settings())


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"controls": 0}, "controls is 0"),
        ({"controls": -1}, "controls is -1"),
        ({"controls": 2.5}, "controls is 2.5"),
        ({"controls": True}, "controls is True"),
        ({"controls": "20"}, "controls is '20'"),
        ({"other_controls": 0}, "other controls is 0"),
        ({"paths": -1}, "paths is -1"),
        ({"snippets": -1}, "snippets is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "expected 0 to"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"seed": None}, "seed is None"),
        ({"target": 5}, "target is 5"),
        ({"contrast": b"x"}, "contrast is b'x'"),
        ({"target": " )", "contrast": " )"}, "give two tokens"),
        ({"path": ("",)}, "path"),
        ({"path": ("five",)}, "not a feature: 'five'"),
        ({"path": 5}, "paths 5"),
        ({"path": ([],)}, "path"),
        ({"path": (3.5,)}, "path 3.5"),
        ({"path": ("0.-1",)}, "0.-1"),
        ({"curve": ("0.1",)}, "expected a cause and an effect"),
        ({"curve": ("0.1 > ",)}, "expected a cause and an effect"),
        ({"curve": ("> 1.1",)}, "expected a cause and an effect"),
        ({"curve": (") > 0.1",)}, "not a feature"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        ValidationSettings(**options)
    assert message in one_line(caught)


@pytest.mark.parametrize(
    "text", ["0.1 > 1.2", "0.1->1.2", "0.1 → 1.2", "0.1,1.2", " 0.1   1.2 ", ["0.1", "1.2"]]
)
def test_ways_to_write_a_path(text: object) -> None:
    assert parse_path(text) == (FeatureId("0", 1), FeatureId("1", 2))


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("0.1 > 1.2", FeatureId("1", 2)),
        ("0.1->1.2", FeatureId("1", 2)),
        ("0.1 → 1.2", FeatureId("1", 2)),
        ("0.1,1.2", FeatureId("1", 2)),
        ("0.1 > )", ")"),
        ("0.1 -> )", ")"),
        ("0.1 >  Paris", " Paris"),  # one space is not the token's
        ("0.1 > ->", "->"),  # the first sign is the one
        ("0.1 > >", ">"),
        ("0.1 > ,", ","),
        (("0.1", " Paris"), " Paris"),
    ],
)
def test_ways_to_write_a_curve(text: object, effect: object) -> None:
    assert parse_curve(text) == (FeatureId("0", 1), effect)
    assert settings(curve=[text]).curve == ((FeatureId("0", 1), effect),)


def test_ways_to_give_paths() -> None:
    pair = (FeatureId("0", 1), FeatureId("1", 2))
    for paths in ("0.1 > 1.2", ("0.1 > 1.2",), [pair], pair, [["0.1", "1.2"]]):
        assert settings(path=paths).path == (pair,)
    assert settings(curve="0.1 > 1.2").curve == (pair,)


@given(
    st.lists(
        st.builds(
            FeatureId,
            st.sampled_from(["0", "12", "e", "3-mid"]),
            st.integers(0, 99999),
            st.none() | st.integers(0, 50),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_paths_come_back_from_their_text(path: list[FeatureId]) -> None:
    assert parse_path(" > ".join(map(str, path))) == tuple(path)
    held = settings(path=[tuple(path)]).to_json()
    assert settings(path=held["path"]).path == (tuple(path),)
