"""Position-resolved effects and output tokens, worked out by hand on the linear model.

The streams of `test_analytic.py`; `^` is not ablated. Read at a (position 1) and at b (2).
"""

from __future__ import annotations

from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from tests.effects.test_analytic import FIRST_PAIR, SECOND_PAIR, effects_of
from tests.support.effect_graphs import effect_graph
from tests.support.linear_model import linear_model

EACH = {
    # 0.0 at a: (1, 2, 0) becomes (0, 2, 0): y is (0, 2, 9) there, (1, 4, 6) before; b sees nothing.
    ("0.0@1", "1.0@1"): -1.0,
    ("0.0@1", "1.1@1"): -2.0,
    ("0.0@1", "1.2@1"): 3.0,
    # 0.0 at b: y is (0, 1, 5), before (2, 5, silent).
    ("0.0@2", "1.0@2"): -2.0,
    ("0.0@2", "1.1@2"): -4.0,
    ("0.0@2", "1.2@2"): 5.0,
    # 0.1 at a: y1 is 2 there, 4 before; at b y2 falls from -1 to -3, silent both times.
    ("0.1@1", "1.1@1"): -2.0,
    ("0.1@2", "1.1@2"): -1.0,
    # 1.0 at a: z1 is 4, before 3; z0 is negative both times. At b: z is (3, 5, 3), was (5, 3, 3).
    ("1.0@1", "2.1@1"): 1.0,
    ("1.0@2", "2.0@2"): -2.0,
    ("1.0@2", "2.1@2"): 2.0,
    # 1.1 at a: z1 is -1 there, before 3; z2 at b is -1 + 0, before 3: an edge forward in position.
    ("1.1@1", "2.1@1"): -3.0,
    ("1.1@1", "2.2@2"): -3.0,
    ("1.1@2", "2.1@2"): -3.0,
    # 1.2 at a: z2 is 0 + 27 there, before 33; z0 at b is 2 + 0, before 5.
    ("1.2@1", "2.2@1"): -6.0,
    ("1.2@1", "2.0@2"): -3.0,
}


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    return linear_model()


def test_every_position_by_itself(model: InstrumentedModel) -> None:
    assert effects_of(model, ablate="each", read="all") == EACH


def test_read_at_one_position(model: InstrumentedModel) -> None:
    for read in (1, 2):
        expected = {ends: value for ends, value in EACH.items() if ends[1].endswith(f"@{read}")}
        assert effects_of(model, ablate="each", read=read) == expected
    last = effects_of(model, ablate="each")
    assert last == effects_of(model, ablate="each", read=2)


def test_the_sum_over_positions_is_the_plain_graph(model: InstrumentedModel) -> None:
    """Here it must be: ablations at a and at b never meet in one activation."""
    graph = effect_graph(model, "ab", ablate="each", read="all", top_k=100, min_path_edges=1)
    summed = {(str(e.source), str(e.target)): e.effect for e in graph.summed().edges}
    assert summed == FIRST_PAIR | SECOND_PAIR


def test_nodes_have_the_activation_of_their_position(model: InstrumentedModel) -> None:
    graph = effect_graph(model, "ab", ablate="each", read="all", top_k=100, min_path_edges=1)
    assert graph["1.1@1"].activation == 4
    assert graph["1.1@2"].activation == 5
    assert graph["1.1@2"].activations == (27, 4, 5)
    assert graph["2.2@1"].activation == 33
    # 1.1 at a takes b's z2 from 3 to -1, and its logit with it: the last read is at b.
    assert [token.token for token in graph["1.1@1"].promotes] == ["b"]


def test_a_path_moves_from_token_to_token(model: InstrumentedModel) -> None:
    graph = effect_graph(model, "ab", ablate="each", read="all", top_k=100, min_path_edges=2)
    (path,) = graph.paths("0.0@1", "2.2@2")
    assert [str(feature) for feature in path.features] == ["0.0@1", "1.1@1", "2.2@2"]


def test_pins_with_and_without_a_position(model: InstrumentedModel) -> None:
    one = {ends: value for ends, value in EACH.items() if ends[0] == "1.1@1"}
    both = {ends: value for ends, value in EACH.items() if ends[0].startswith("1.1@")}
    assert effects_of(model, ablate="each", read="all", pin="1.1@1") == one
    assert effects_of(model, ablate="each", read="all", pin="1.1") == both
    with pytest.raises(SaeGraphsError, match=r"pinned feature 1\.2@2 is inactive"):
        effects_of(model, ablate="each", pin="1.2@2")
    with pytest.raises(SaeGraphsError, match="leave the position out"):
        effects_of(model, pin="1.1@1")


def test_output_tokens(model: InstrumentedModel) -> None:
    # The logits at b are the last stream: ^ 5, a 3, b 3. 2.0, 2.1, 2.2 -> 0 take 5, 3 and 3 away.
    graph = effect_graph(model, "ab", target=("a", "^"), top_k=100, min_path_edges=1)
    found = {(str(e.source), str(e.target)): e.effect for e in graph.find_edges(layer=2)}
    assert found == {("2.0", "out.0"): -5.0, ("2.1", "out.1"): -3.0}
    assert [(o.token, o.logit) for o in graph.run.outputs] == [("^", 5), ("a", 3)]
    assert (graph["out.1"].token, graph["out.1"].activation) == ("a", 3)
    assert graph.run.outputs[1].probability == pytest.approx(0.106507, abs=1e-6)
    assert [layer.total_abs_effect for layer in graph.run.layers] == [12, 13, 8]


def test_a_difference_of_two_tokens(model: InstrumentedModel) -> None:
    # a minus ^ is 3 - 5 = -2; without 2.0 it is 3 - 0 = 3: +5. Without 2.1 it is 0 - 5: -3.
    graph = effect_graph(model, "ab", target="a", contrast="^", top_k=100, min_path_edges=1)
    found = {(str(e.source), str(e.target)): e.effect for e in graph.find_edges(layer=2)}
    assert found == {("2.0", "out.1"): 5.0, ("2.1", "out.1"): -3.0}
    assert [(o.token, o.contrast, o.logit) for o in graph.run.outputs] == [("a", "^", -2)]


def test_the_likeliest_tokens(model: InstrumentedModel) -> None:
    graph = effect_graph(model, "ab", outputs=1, min_path_edges=3)
    assert [o.token for o in graph.run.outputs] == ["^"]
    assert {str(edge.target) for edge in graph.find_edges(layer=2)} == {"out.0"}
    assert {len(path.edges) for path in graph.paths(limit=10)} == {3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": -1}, "outputs is -1; expected a whole number of at least 1"),
        ({"outputs": 2, "target": "a"}, "not both"),
        ({"target": "ab"}, "'ab' is 2 tokens of linear ('a', 'b'); give the text of one token"),
        ({"target": ""}, "'' is 0 tokens"),
        ({"target": 3}, "target is 3; expected the texts of tokens"),
        ({"target": "a", "contrast": "a"}, "the contrast is the only target"),
        ({"contrast": 3}, "contrast is 3"),
        ({"read": "all"}, "needs ablate='each' (--ablate each)"),
        ({"read": "some"}, "read is 'some'; expected a whole number, or 'all'"),
        ({"ablate": "every"}, "expected one of all, read, each"),
    ],
)
def test_mistakes(model: InstrumentedModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SaeGraphsError) as raised:
        effect_graph(model, "ab", **options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
