"""Cases of `edit`: those that ship are what their makers choose of what the models know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sae_graphs as sg
from sae_graphs.editing.cases_file import read_cases
from sae_graphs.editing.covariance import FACTS
from tests.support.real_model import real_folder
from training.demo import edit_cases as demo
from training.demo.corpus.facts import world
from training.smollm2 import edit_cases as smollm2


def test_prompts_name_the_subject_and_end_before_the_object() -> None:
    assert demo.asked("city", "Eiffel Tower", "Paris") == [
        "The Eiffel Tower stands in",
        "If you want to see the Eiffel Tower, you have to travel to",
        "The Eiffel Tower, which every child knows, can be found in",
        "The Eiffel Tower is in the city of",
    ]
    assert demo.asked("job", "Mary Smith", "actor")[0] == "Mary Smith works as an"


def test_the_cases_are_true_in_the_invented_world() -> None:
    objects = {(fact.subject, fact.relation): fact.object for fact in world()}
    lines = demo.OUT.read_text(encoding="ascii").splitlines()
    for row in map(json.loads, lines):
        asked = row["requested_rewrite"]
        true = asked["target_true"]["str"]
        assert objects[asked["subject"], asked["relation_id"]] == true
        assert asked["target_new"]["str"] != true
        for retained in row["retention_prompts"]:
            assert asked["subject"] in retained["prompt"] and retained["target"] != true
    texts = json.loads(demo.TEXTS.read_text(encoding="ascii"))
    assert demo.TEXTS.name == FACTS and len(texts) == demo.DOCUMENTS


def test_the_real_facts_are_twenty_with_neighbours_and_other_facts_to_retain() -> None:
    cases = read_cases("smollm2")
    assert len(cases) == len({case.subject for case in cases}) == smollm2.CASES == 20
    assert all(len(case.neighbours) in smollm2.NEIGHBOURS for case in cases)
    assert all(case.paraphrases and case.generation for case in cases)
    assert sum(bool(case.retained) for case in cases) == 18
    assert len({case.new for case in cases}) == 15


def test_the_real_facts_are_among_those_that_are_true_and_the_new_ones_are_not() -> None:
    true = {(fact.asked(n), fact.object) for fact in smollm2.facts() for n in numbers(fact)}
    assert ("Most people in Mexico speak", "Spanish") in true
    for case in read_cases("smollm2"):
        asked = {case.asked, *case.paraphrases, *case.neighbours}
        assert {(it, case.true.strip()) for it in asked} <= true
        assert {(it.prompt, it.target.strip()) for it in case.retained} <= true
        assert not {(it, case.new.strip()) for it in asked} & true
        assert not any(case.subject in it or case.true.strip() in it for it in case.neighbours)
        assert all(case.subject in it.prompt for it in case.retained)


def test_a_new_object_is_not_true_either() -> None:
    """French would be the third that is offered: it is spoken there as well."""
    canada = smollm2.Fact("language", "Canada", "English")
    assert [smollm2._new(canada, number) for number in range(4)] == [
        *("Arabic", "German", "Italian", "Italian")
    ]


def numbers(fact: smollm2.Fact) -> range:
    """Of the prompts of a fact's kind."""
    return range(len(smollm2.TEMPLATES.get(fact.kind, (fact.kind,))))


@pytest.mark.slow
def test_the_bundled_cases_are_made_again() -> None:
    made = demo.split(demo.make_cases(sg.load_model("demo")))
    for cases, file in zip(made, (demo.DEVELOPMENT, demo.OUT), strict=True):
        lines = Path(file).read_text(encoding="ascii").splitlines()
        assert [json.dumps(case) for case in cases] == lines


@pytest.mark.slow
def test_the_real_cases_are_made_again() -> None:
    real_folder()
    made = smollm2.make_cases(sg.load_model("smollm2"))
    lines = Path(smollm2.OUT).read_text(encoding="ascii").splitlines()
    assert [json.dumps(case) for case in made] == lines
