"""The deciding tokens are what each phenomenon's definition says, and chance is exact."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from itertools import accumulate, pairwise, permutations
from typing import Any

import pytest

from sae_graphs.files import bundled_folder
from sae_graphs.pretrained.loading import load
from tests.support.slow import only
from training.demo.corpus.brackets import PAIRS
from training.demo.corpus.case import Case
from training.demo.corpus.facts import world
from training.demo.corpus.stream import PHENOMENA, held_out_cases
from training.demo.corpus.templates import filled
from training.demo.evaluation import encode_case
from training.demo.phenomena import SEED
from training.demo.tokenizer import load_tokenizer
from training.demo.truth import chance, deciding_positions, source_hit

SEEDS = (0, 1, SEED)
CASES = 200
NESTED = "([{<"
SENTENCES = {fact.sentence(4): fact.subject for fact in world()}


@cache
def cases_of(phenomenon: str) -> tuple[Case, ...]:
    """Held-out cases of several seeds."""
    return tuple(case for seed in SEEDS for case in held_out_cases(phenomenon, CASES, seed))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The bundled tokenizer."""
    return load_tokenizer(bundled_folder() / "model")


# -- what the definitions ask, found in the text alone ---------------------------------------------


def receiver(case: Case) -> list[tuple[int, int]]:
    """The first mention of the name that is asked."""
    name = case.answer.strip(" .")
    found = re.search(rf"\b{name}\b", case.prompt)
    assert found is not None
    return [found.span()]


def subject(case: Case) -> list[tuple[int, int]]:
    """The subject of the fact."""
    name = SENTENCES[case.prompt + case.answer]
    (found,) = re.finditer(rf"\b{name}\b", case.prompt)
    return [found.span()]


def initial(case: Case) -> list[tuple[int, int]]:
    """The initial of the word whose letter comes next, or the bracket."""
    before, said = case.prompt.rsplit("(", 1)
    letters = case.marker.strip("()")
    assert said + case.answer == letters + ")"
    if said == letters:
        start = len(before)
    else:
        # The title stands right before the bracket, and what is no capital in it has no letter.
        words = list(re.finditer(r"\b[A-Z][a-z]*", before))[-len(letters) :]
        assert "".join(word[0][0] for word in words) == letters
        start = words[len(said)].start()
        assert case.prompt[start] == case.answer[0]
    return [(start, start + 1)]


def opening(case: Case) -> list[tuple[int, int]]:
    """The sign that the next one closes, by reading the prompt with a stack."""
    closer = case.answer.strip()[0]
    if closer not in ")]}>":
        (start,) = (at for at, sign in enumerate(case.prompt) if sign == closer)
        return [(start, start + 1)]
    stack: list[int] = []
    for at, sign in enumerate(case.prompt):
        if sign in NESTED:
            stack.append(at)
        elif sign in ")]}>":
            assert PAIRS[case.prompt[stack.pop()]] == sign
    assert PAIRS[case.prompt[stack[-1]]] == closer
    return [(stack[-1], stack[-1] + 1)]


def said_before(case: Case) -> list[tuple[int, int]]:
    """The first letter or sign of the piece that is asked, where it was said after the same two."""
    text = case.prompt + case.answer
    pieces = list(re.finditer(r"[A-Z](?![a-z])|[A-Za-z]+|\d\d|-", text))
    asked = next(i for i, piece in enumerate(pieces) if piece.start() >= len(case.prompt))
    assert text[len(case.prompt) : pieces[asked].start()].strip() == ""

    def in_context(number: int) -> str:
        return text[pieces[number - 2].start() : pieces[number].end()]

    same = [i for i in range(2, asked) if in_context(i) == in_context(asked)]
    assert same
    return [(pieces[i].start(), pieces[i].start() + 1) for i in same]


DEFINITIONS: dict[str, Callable[[Case], list[tuple[int, int]]]] = {
    "indirect objects": receiver,
    "facts": subject,
    "acronyms": initial,
    "closings": opening,
    "induction": said_before,
}


@pytest.mark.parametrize(
    "phenomenon", only(PHENOMENA, *(name for name in PHENOMENA if name != "withheld runs"))
)
def test_what_decides_is_what_the_definition_says(phenomenon: str) -> None:
    for case in cases_of(phenomenon):
        definition = DEFINITIONS.get(phenomenon)
        assert list(case.deciding) == ([] if definition is None else definition(case)), case


def test_hand_made_prompts() -> None:
    """The definitions themselves, on prompts whose deciding characters are counted by hand."""
    cases = [
        (receiver, "Then Maria and Mary met. Maria gave a key to", " Mary.", "Mary met", (15, 19)),
        (initial, "The Bank of Data (B", "D)", "(BD)", (12, 13)),
        (initial, "The Bank of Data (BD", ")", "(BD)", (17, 18)),
        (opening, "([x]", ")", "([x", (0, 1)),
        (opening, "say (' and", " '", "say", (5, 6)),
        (said_before, "a b c d | a b", " c d", "a b c d", (4, 5)),
    ]
    for definition, prompt, answer, marker, span in cases:
        assert definition(Case("any", prompt, answer, marker)) == [span]


def test_every_case_of_theirs_has_something_that_decides() -> None:
    for name in DEFINITIONS:
        assert all(case.deciding for case in cases_of(name)), name


def test_all_occurrences_decide_where_there_are_several() -> None:
    prompt = "Your code: ba do ka ba do ka fe so\nEnter the code: ba do ka ba do"
    (case,) = (case for case in held_out_cases("induction", CASES, 24) if case.prompt == prompt)
    assert case.deciding == ((17, 18), (26, 27), (57, 58))  # one of them in the second saying
    assert list(case.deciding) == said_before(case)


@pytest.mark.parametrize(
    "deciding",
    [((0, 0),), ((3, 2),), ((-1, 2),), ((0, 22),), ((4, 7), (0, 3)), ((0, 4), (3, 7))],
)
def test_wrong_spans_are_refused(deciding: tuple[tuple[int, int], ...]) -> None:
    assert len("The tower stands here") == 21
    with pytest.raises(ValueError, match=r"deciding spans must be in the prompt \(0 to 21\)"):
        Case("facts", "The tower stands here", " Rome", "Rome", deciding)


def test_spans_may_touch_each_other_and_the_ends() -> None:
    case = Case("facts", "The tower stands here", " Rome", "Rome", ((0, 3), (3, 9), (17, 21)))
    assert case.deciding[-1] == (17, 21)


def test_the_cases_are_those_that_were_asked_before_they_had_deciding_tokens() -> None:
    found = hashlib.sha256()
    for name in PHENOMENA:
        for case in held_out_cases(name, 128, SEED):
            found.update("\x1f".join((name, case.prompt, case.answer, case.marker)).encode())
    assert found.hexdigest()[:16] == "b65305d266f260d6"


def test_a_template_says_where_its_values_stand() -> None:
    text, places = filled("{{a}} {a} and {b}{a}", a="and", b="x{a}")
    assert text == "{{a}} {a} and {b}{a}".format(a="and", b="x{a}") == "{a} and and x{a}and"
    assert places == {"a": (4, 7), "b": (12, 16)}


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phenomenon", DEFINITIONS)
def test_positions_are_those_of_the_tokens_that_hold_the_spans(
    tokenizer: Any, phenomenon: str
) -> None:
    for case in cases_of(phenomenon):
        tokens = [
            tokenizer.decode([token]) for token in tokenizer.encode(case.prompt).ids
        ]  # the text in pieces: all of it is ASCII
        assert "".join(tokens) == case.prompt
        ends = [len("".join(tokens[: number + 1])) for number in range(len(tokens))]
        expected = {
            1 + next(number for number, end in enumerate(ends) if end > at)
            for start, stop in case.deciding
            for at in range(start, stop)
        }
        found = deciding_positions(tokenizer, case)
        assert set(found) == expected
        assert list(found) == sorted(expected)
        assert expected
        assert len(tokens) not in expected  # the read token decides nothing


def test_in_induction_the_deciding_token_is_the_one_that_is_asked(tokenizer: Any) -> None:
    for case in cases_of("induction"):
        encoded = encode_case(tokenizer, case.prompt, case.answer)
        if encoded is None:
            continue
        ids, right = encoded
        assert {ids[position] for position in deciding_positions(tokenizer, case)} == {right}, case


def test_the_read_token_is_left_out(tokenizer: Any) -> None:
    assert tokenizer.encode("The old day").tokens == ["The", "Ġold", "Ġday"]
    last = Case("facts", "The old day", " ends", "day", ((8, 11),))
    everything = Case("facts", "The old day", " ends", "day", ((0, 11),))
    assert deciding_positions(tokenizer, last) == ()
    assert deciding_positions(tokenizer, everything) == (1, 2)


def test_positions_are_those_of_the_clean_run(tokenizer: Any) -> None:
    model = load(str(bundled_folder() / "model"), saes=bundled_folder() / "saes")
    for phenomenon in DEFINITIONS:
        case = held_out_cases(phenomenon, 1, SEED)[0]
        tokens = model.clean_run(case.prompt).tokens
        assert "".join(tokens[1:]) == case.prompt
        places = list(accumulate(tokens[1:], lambda at, token: at + len(token), initial=0))
        expected = [
            position
            for position, (start, end) in enumerate(pairwise(places), 1)
            if set(range(start, end)) & {at for span in case.deciding for at in range(*span)}
        ]
        assert expected
        assert list(deciding_positions(tokenizer, case)) == expected


# -- hits and chance -------------------------------------------------------------------------------


def test_a_hit_is_the_strongest_or_one_of_the_strongest() -> None:
    assert source_hit([3, 5, 5], {3})
    assert not source_hit([5, 3, 7, 2], {3, 2})
    assert source_hit([5, 3, 7, 2], {3}, first=3)
    assert not source_hit([5, 3, 7, 2], {2}, first=3)
    assert not source_hit([], {2}, first=3)
    assert not source_hit([5], (), first=3)
    with pytest.raises(ValueError, match="got 0"):
        source_hit([5], {5}, first=0)


def test_chance_by_hand() -> None:
    assert chance({2}, 12) == pytest.approx(0.1)
    assert chance({2}, 12, first=3) == pytest.approx(0.3)
    assert chance({2, 4}, 6, first=3) == 1.0  # the two beside them cannot fill three
    assert chance((), 12, first=3) == 0.0
    assert chance((), 2) == 0.0


@pytest.mark.parametrize("tokens", [3, 4, 6, 8])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_chance_is_the_share_of_all_orders_that_hit(tokens: int, first: int) -> None:
    eligible = range(1, tokens - 1)
    for count in range(len(eligible) + 1):
        deciding = set(eligible[:count])
        orders = [source_hit(order, deciding, first=first) for order in permutations(eligible)]
        assert chance(deciding, tokens, first=first) == pytest.approx(sum(orders) / len(orders))


@pytest.mark.parametrize("position", [0, 5, 6, -1])
def test_what_is_not_eligible_cannot_decide(position: int) -> None:
    with pytest.raises(ValueError, match=r"must be eligible \(1 to 4\)"):
        chance({position}, 6)


def test_chance_needs_a_draw() -> None:
    with pytest.raises(ValueError, match="got 0"):
        chance({1}, 6, first=0)
