"""The corpus: the same for the same seed, complete, and free of what is held out."""

from __future__ import annotations

import hashlib
import random
from itertools import islice

import pytest

from tests.support.slow import first
from training.demo.corpus import prose, words
from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.facts import TEMPLATES, template_held_out, unseen_subjects, world
from training.demo.corpus.stream import PHENOMENA, documents, held_out_cases

DOCUMENTS = 15_000
SIGNS_OF = {
    "copyright": "Copyright (C) ",
    "closings": "begins with ( and ends with )",
    "acronyms": " (",
    "reports": "report from C",
    "facts": "The Eiffel Tower stands in Paris.",
    "cached phrases": "en.wikipedia.org",
    "indirect objects": "gave a drink to ",
    "induction": "The password is ",
    "sequences": "The day after Tuesday is Wednesday",
}


@pytest.fixture(scope="module")
def text() -> str:
    """A long piece of the training stream."""
    return "\n\n".join(islice(documents(0), DOCUMENTS))


def leaks(text: str, cases: list[Case]) -> list[Case]:
    """The held-out cases that `text` gives away."""
    return [case for case in cases if case.marker in text]


def test_same_seed_same_documents() -> None:
    assert list(islice(documents(7), 500)) == list(islice(documents(7), 500))


def test_seed_and_part_change_the_documents() -> None:
    first = list(islice(documents(7), 50))
    assert first != list(islice(documents(8), 50))
    assert first != list(islice(documents(7, "other"), 50))


def test_the_corpus_is_the_one_the_shipped_model_was_trained_on() -> None:
    found = "\n\n".join(islice(documents(0, "model"), 5000)).encode()
    assert hashlib.sha256(found).hexdigest()[:16] == "485769d8b45c5663"


@pytest.mark.slow
def test_all_phenomena_occur(text: str) -> None:
    assert {*SIGNS_OF, "withheld runs"} == set(PHENOMENA)
    for phenomenon, sign in SIGNS_OF.items():
        assert sign in text, phenomenon


@pytest.mark.slow
@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_no_held_out_case_is_in_the_training_stream(phenomenon: str, text: str) -> None:
    cases = held_out_cases(phenomenon, 100)
    assert len(cases) >= 20
    assert leaks(text, cases) == []


@pytest.mark.parametrize("phenomenon", first(3, PHENOMENA))
def test_the_leak_check_can_fail(phenomenon: str, text: str) -> None:
    case = held_out_cases(phenomenon, 1)[0]
    assert leaks(text + case.prompt + case.answer, [case]) == [case]


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_held_out_cases_are_distinct_and_reproducible(phenomenon: str) -> None:
    cases = held_out_cases(phenomenon, 50)
    assert cases == held_out_cases(phenomenon, 50)
    assert len({case.prompt for case in cases}) == len(cases)
    assert {case.phenomenon for case in cases} == {phenomenon}


def test_unknown_phenomenon_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown phenomenon 'spelling'"):
        held_out_cases("spelling", 1)


def test_a_case_must_contain_its_marker() -> None:
    with pytest.raises(ValueError, match="marker"):
        Case("facts", "The tower stands in", " Rome", "Paris")


def test_about_a_tenth_is_held_out() -> None:
    share = sum(is_held_out("anything", str(i)) for i in range(5000)) / 5000
    assert 0.08 < share < 0.12


def test_the_named_prompts_are_held_out(text: str) -> None:
    assert "(FDI)" not in text
    assert "The Eiffel Tower is in the city of" not in text
    assert "In a Lisp dialect, every expression begins with (" not in text
    for line in text.splitlines():
        assert not ("When Mary and John" in line or "When John and Mary" in line)


def test_the_world_is_large_enough() -> None:
    facts = world()
    assert len({fact.subject for fact in facts}) >= 100
    assert len({fact.relation for fact in facts}) >= 3
    assert all(len(templates) == 5 for templates in TEMPLATES.values())
    held = sum(map(template_held_out, facts))
    assert 0.2 < held / len(facts) < 0.4


def test_no_fact_is_told_two_ways() -> None:
    facts = world()
    assert len({(fact.subject, fact.relation) for fact in facts}) == len(facts)


def test_unseen_subjects_never_occur(text: str) -> None:
    assert len(unseen_subjects()) >= 20
    assert [name for name in unseen_subjects() if name in text] == []


def test_grammar() -> None:
    assert prose.plural("boat") == "boats"
    assert prose.plural("match") == "matches"
    assert prose.plural("party") == "parties"
    assert prose.plural("knife") == "knives"
    assert prose.third_person("carry") == "carries"
    assert words.article("apple") == "an"
    assert words.article("boat") == "a"


def test_prose_is_a_third_of_the_text() -> None:
    rng = random.Random(0)
    pages = prose.Prose()
    length = sum(len(pages.sample(rng)) for _ in range(500)) / 500
    assert 120 < length < 400
