"""The line that says what a feature stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sae_graphs.graph.meaning import Meaning, meaning_of, of_contexts
from sae_graphs.graph.records import Context
from tests.support.answer_graphs import answer_graph
from tests.support.rich_graphs import HOSTILE


def context(*tokens: str) -> Context:
    """A stretch of text that peaks on the token in brackets."""
    bare = tuple(text.strip("[]") for text in tokens)
    return Context(bare, tuple(float(text.startswith("[")) for text in tokens))


@pytest.mark.parametrize(
    ("contexts", "words"),
    [
        ([], ""),
        ([("When", "[ Victor]", " and")], "[Victor]"),  # one text shows no surroundings
        (
            [(" When", "[ Victor]", " and"), ("When", "[ Laura]", " and"), ("x", "[ Max]", " who")],
            "When [Victor, Laura, Max] and",
        ),
        ([("a", "[ to]", " b"), ("c", "[ to]", " d")], "[to]"),
        ([("[ (]",), ("[ (]",)], "[(]"),  # nothing before, nothing after
        ([(".", "[ Paul]", " x"), (".", "[ Paul]", " y"), (",", "[ Ida]", " z")], ". [Paul, Ida]"),
        ([("a", "[ ]", "b"), ("a", "[\n]", "c")], "a [␣, ↵]"),
    ],
)
def test_contexts_in_one_line(contexts: list[tuple[str, ...]], words: str) -> None:
    assert of_contexts([context(*tokens) for tokens in contexts]).words == words


def test_the_commonest_peaks_come_first_and_at_most_three_are_named() -> None:
    texts = ["[ a]", "[ b]", "[ b]", "[ c]", "[ d]", "[ e]"]
    assert of_contexts([context(text) for text in texts]).peaks == ("b", "a", "c")


def test_who_says_it_best_is_believed() -> None:
    node = answer_graph()["0.1@1"]
    assert node.contexts and meaning_of(node).peaks
    assert meaning_of(node, "mine") == Meaning("mine")
    assert meaning_of(replace(node, contexts=())) == Meaning("")
    assert meaning_of(answer_graph()["token@1"]) == Meaning("Copyright")


def test_hostile_text_is_one_visible_line() -> None:
    for text in HOSTILE:
        words = of_contexts([context(f"[{text.strip('[]')}")]).words
        assert "\n" not in words and "\x1b" not in words
