"""Which tokens of two prompts are one place: by position, by roles, or summed over."""

from __future__ import annotations

import doctest
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph import across
from sae_graphs.graph.across import FEW, alignment, check_roles
from sae_graphs.graph.combine import common
from sae_graphs.graph.difference import difference
from sae_graphs.graph.feature_id import ANSWER, FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.positions import at_places
from tests.support.answer_graphs import answer_graph
from tests.support.rich_graphs import HOSTILE, two_edges
from tests.support.stacks import one_line

OWN = ("<bos>", "Copyright", " (", "C")
ALIKE = ("<bos>", "Protected", " (", "C")  # a quarter of the tokens is another
OTHER = ("<bos>", "Protected", " [", "C")  # half of them
LONGER = ("<bos>", " All", " Copyright", " (", "C")


def longer() -> CausalGraph:
    """The same features, at the same positions of a longer prompt."""
    return answer_graph(LONGER)


def test_the_examples() -> None:
    assert doctest.testmod(across).failed == 0


# -- the rule --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "kind", "words"),
    [
        (OWN, "position", "by position: the prompts have the same tokens"),
        (
            ALIKE,
            "position",
            "by position: the prompts differ in 1 of 4 tokens, Copyright and Protected at 1",
        ),
        (
            OTHER,
            "summed",
            "summed over tokens: the prompts differ in 2 of 4 tokens, Copyright and Protected at "
            "1, ␣( and ␣[ at 2",
        ),
        (LONGER, "summed", "summed over tokens: the prompts have 4 and 5 tokens"),
    ],
)
def test_by_position_where_few_tokens_differ(right: Any, kind: str, words: str) -> None:
    found = alignment(OWN, right)
    assert (found.kind, found.words) == (kind, words)
    assert found.holds(2, 2) == (kind == "position") and not found.holds(2, 1)
    assert found.holds(None, 2) == (kind == "summed")
    feature = FeatureId("1", 2, 3)
    assert found.place_of(feature).position == (3 if kind == "position" else None)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=12))
def test_any_tokens(pairs: list[tuple[str, str]]) -> None:
    left, right = zip(*pairs, strict=True)
    found, back = alignment(left, right), alignment(right, left)
    differing = sum(a != b for a, b in pairs)
    assert found.kind == ("position" if differing <= FEW * len(pairs) else "summed") == back.kind
    assert found.words.isprintable()


def test_roles() -> None:
    roles = [{"work": "right (", "mark": "C"}, {"work": " (", "mark": " All"}]
    # "right (" stands at two tokens; the first "C" of the text is in the first of these
    with pytest.raises(SaeGraphsError, match="share the token at 1"):
        alignment(OWN, LONGER, roles)
    roles[0] = {"work": "right (", "mark": "<bos>"}
    with pytest.raises(SaeGraphsError, match="is '<bos>', which is not in the prompt"):
        alignment(OWN, LONGER, roles)
    tokens = ("<bos>", "Copy", "right", " (", "C")
    roles = [{"work": "right (", "mark": "Copy"}, {"work": " (", "mark": " All Copyright"}]
    found = alignment(tokens, LONGER, roles)
    assert found.left == {2: 3, 3: 3, 1: 1} and found.right == {3: 3, 1: 1, 2: 1}
    assert found.words == (
        "by roles: work right␣( and ␣( at 3 and 3, mark Copy and ␣All␣Copyright at 1 and 2; all "
        "other tokens are summed over"
    )
    assert [found.holds(1, at) for at in range(5)] == [False, True, True, False, False]
    assert [found.holds(None, at) for at in range(5)] == [True, False, False, False, True]
    assert found.place_of(FeatureId("1", 2, 2)) == FeatureId("1", 2, 3)
    assert found.place_of(FeatureId("1", 2, 4)) == FeatureId("1", 2)


ROLES = {
    "one mapping": ([{"a": "C"}], "expected 2 mappings"),
    "a mapping": ({"a": "C"}, "expected 2 mappings"),
    "a text": ("ab", "expected 2 mappings"),
    "texts": (["a", "b"], "expected 2 mappings"),
    "other names": ([{"a": "C"}, {"b": "C"}], "the roles are 'a' in one prompt and 'b' in another"),
    "none": ([{}, {}], "the roles are none in one prompt"),
    "no text": ([{"a": "C"}, {"a": ""}], "role 'a' is ''"),
    "a number": ([{"a": "C"}, {"a": 3}], "role 'a' is 3"),
    "not there": ([{"a": "C"}, {"a": "Z"}], "the role 'a' is 'Z', which is not in the prompt"),
    "twice": ([{"a": "C", "b": "C"}, {"a": "C", "b": "("}], "share the token"),
}


@pytest.mark.parametrize("name", ROLES)
def test_roles_that_do_not_fit(name: str) -> None:
    roles, words = ROLES[name]
    with pytest.raises(SaeGraphsError) as caught:
        alignment(OWN, LONGER, roles)  # type: ignore[arg-type]
    assert words in one_line(caught)


def test_roles_of_several_prompts() -> None:
    check_roles([{"a": "x"}] * 3, 3)
    with pytest.raises(SaeGraphsError, match="expected 3 mappings of role to text, one for each"):
        check_roles([{"a": "x"}] * 2, 3)


# -- graphs at places ------------------------------------------------------------------------------


def test_a_graph_at_the_places_of_roles() -> None:
    graph = answer_graph()
    _, nodes, edges = at_places(graph.parts, {1: 2, 2: 2})
    found = {str(node.feature): node for node in nodes}
    assert set(found) == {"0.1@2", "0.7@2", "1.2@2", "1.4", "1.9@2", "2.3", "answer"}
    assert found["1.2@2"].effect_on_answer == -2.5 and found["1.2@2"].activation == 1.0
    assert {(str(e.source), str(e.target)): e.effect for e in edges} == {
        ("0.1@2", "1.2@2"): -2.0,
        ("0.7@2", "1.4"): 0.25,
        ("1.2@2", "2.3"): -1.5,
        ("1.4", "2.3"): -0.5,
        ("2.3", "answer"): -2.0,
        ("1.2@2", "answer"): 0.5,
    }
    assert at_places(graph.parts, dict(enumerate(range(4)))) == graph.parts  # all stay
    plain = graph.summed()
    assert {n.feature for n in at_places(graph.parts, {}).nodes} == {n.feature for n in plain.nodes}


def test_what_stands_at_one_place_is_added_up() -> None:
    graph = answer_graph()
    other = next(node for node in graph.nodes if str(node.feature) == "0.1@1")
    twice = [*graph.nodes, _moved(other, 2)]
    parts = graph.parts._replace(nodes=tuple(twice))
    found = {str(node.feature): node for node in at_places(parts, {1: 2, 2: 2}).nodes}
    assert found["0.1@2"].effect_on_answer == -6.0 and found["0.1@2"].direct_effect == -1.5


def _moved(node: Any, position: int) -> Any:
    return replace(node, feature=replace(node.feature, position=position))


# -- differences -----------------------------------------------------------------------------------


def test_a_difference_by_position() -> None:
    found = difference(answer_graph(), answer_graph(ALIKE))
    assert found.aligned == alignment(OWN, ALIKE).words and found.warnings == ()
    assert len(found.shared) == 8 and not found.lost and not found.new
    assert found.words.endswith(
        "Across prompts by position: the prompts differ in 1 of 4 tokens, Copyright and "
        "Protected at 1."
    )
    assert "by position" in found._repr_html_()


@pytest.mark.parametrize("right", [OTHER, LONGER])
def test_a_difference_over_tokens(right: Any) -> None:
    found = difference(answer_graph(), answer_graph(right))
    assert found.aligned is not None and found.aligned.startswith("summed over tokens")
    assert not found.warnings and not found.lost and not found.new
    named = {(str(edge.source), str(edge.target)) for edge in found.shared}
    assert ("0.1", "1.2") in named and not any("token" in source for source, _ in named)
    plain = difference(answer_graph().summed(), answer_graph(right).summed())
    assert plain.shared == found.shared and plain.aligned == "summed over tokens, as the graph is"


def test_a_difference_by_roles() -> None:
    roles = [{"mark": "Copyright", "sign": "("}, {"mark": " All", "sign": "("}]
    found = difference(answer_graph(), longer(), roles)
    assert found.aligned is not None and found.aligned.startswith("by roles: mark Copyright and")
    shared = {str(each.feature) for each in found.shared_features}
    assert shared == {"0.1@1", "1.2@1", "answer"}
    # the sign stands at 2, and in the longer prompt at 3: there it is named after the first
    assert {str(node.feature) for node in found.lost_features} == {"0.7@2", "1.9@2", "1.4", "2.3"}
    assert {str(node.feature) for node in found.new_features} == {"0.7", "1.9", "1.4@2", "2.3@2"}
    frame = found.to_pandas()
    assert {"0.7@2", "0.7"} <= set(frame["source"])


@pytest.mark.parametrize(
    "both",
    [
        lambda: (two_edges(), two_edges()),
        lambda: (answer_graph().summed(), answer_graph().summed()),
    ],
    ids=["effects", "summed"],
)
def test_roles_need_answer_graphs_with_positions(both: Any) -> None:
    left, right = both()
    with pytest.raises(SaeGraphsError, match="roles are for answer graphs with token positions"):
        difference(left, right, [{"a": "C"}, {"a": "C"}])
    assert difference(left, right).shared


def test_hostile_tokens_stay_on_one_line() -> None:
    left, right = answer_graph(HOSTILE), answer_graph((HOSTILE[0], "\n", *HOSTILE[2:]))
    words = difference(left, right).aligned
    assert words is not None and "\n" not in words


# -- what several have in common -------------------------------------------------------------------


def names(graph: CausalGraph) -> set[str]:
    return {str(node.feature) for node in graph.nodes}


def test_common_by_position() -> None:
    found = common([answer_graph(), answer_graph(ALIKE), _other_effects()])
    assert names(found) == names(answer_graph()) and ANSWER in found
    assert found["0.1@1"].effect_on_answer == pytest.approx((-3.0 - 3.0 - 1.0) / 3)
    assert found["1.4@3"].relay and not found["0.1@1"].relay
    assert found.edge("0.1@1", "1.2@1").flow == -2.0
    assert found.run.settings["common_to"] == 3
    assert found.run.settings["aligned"] == (
        "by position: the prompts have 4 tokens each, of which 1 at most differ from the first's"
    )
    answer = found.run.answer
    assert answer is not None and answer.paths == () and answer.coverage is None
    assert answer.stranded == ("1.9@2",)


def _other_effects() -> CausalGraph:
    """Of the first feature another effect, and one node less."""
    graph = answer_graph()
    nodes = [
        replace(node, effect_on_answer=-1.0) if str(node.feature) == "0.1@1" else node
        for node in graph.nodes
        if str(node.feature) != "1.9@2"
    ]
    return CausalGraph(graph.run, tuple(nodes), graph.edges)


def test_common_over_tokens() -> None:
    found = common([answer_graph(), answer_graph(OTHER), longer()])
    plain = answer_graph().summed()
    assert names(found) == names(plain) and found.run.summed_at == "all"
    assert found.edges == plain.edges
    words = str(found.run.settings["aligned"])
    assert words.startswith("summed over tokens: the prompts differ in 2 of 4 tokens")
    again = common([plain, longer()])
    assert again.run.settings["aligned"] == "summed over tokens, as the graph is"
    assert CausalGraph(*found.parts) == found


def test_relays_that_lead_nowhere_are_left_out() -> None:
    graph = answer_graph()
    cut = [edge for edge in graph.edges if str(edge.source) != "1.4@3"]
    found = common([graph, CausalGraph(graph.run, graph.nodes, tuple(cut))], share=1.0)
    assert "1.4@3" not in found and "0.7@2" in found
    assert found.run.answer is not None and "0.7@2" in found.run.answer.stranded


def test_nothing_in_common() -> None:
    graph = answer_graph()
    none = [node for node in graph.nodes if not node.feature.is_feature]
    bare = CausalGraph(graph.run, tuple(none), ())
    with pytest.raises(SaeGraphsError, match="no feature in common that 2 of them keep") as caught:
        common([graph, bare], share=1.0)
    one_line(caught)
    with pytest.raises(SaeGraphsError, match="some of these are answer graphs and some") as caught:
        common([graph, two_edges()])
    one_line(caught)
