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


def test_the_real_facts_are_twenty_and_each_has_a_neighbour() -> None:
    cases = read_cases("smollm2")
    assert len(cases) == 20
    assert all(case.neighbours and case.paraphrases and case.generation for case in cases)


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
