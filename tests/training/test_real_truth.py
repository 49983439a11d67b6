"""Prompts of a real model, marked by hand: what is asked of them, and the table beside the
bundled model's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sae_graphs.errors import SaeGraphsError
from sae_graphs.pretrained.loading import load
from sae_graphs.pretrained.smollm2 import NAME, shipped_saes
from sae_graphs.schema import plain
from tests.training.test_phenomena import asked, report_of
from training.smollm2.plan import PLAN
from training.smollm2.truth import (
    LEAST,
    Seen,
    digest,
    in_turn,
    marked,
    measure,
    prompts_of,
    question_of,
    unmarked,
)
from training.smollm2.truth_table import by_category, lowered_rows, section, tables


def test_marks_are_taken_out() -> None:
    found = unmarked("x", "«When» a «b c» d", " e")
    assert found.prompt == "When a b c d" and found.deciding == ((0, 4), (7, 10))
    assert unmarked("x", "plain", "").deciding == ()


def test_the_prompts_are_of_several_kinds_and_marked() -> None:
    prompts = marked()
    assert len({each.prompt for each in prompts}) == len(prompts)
    assert len({each.category for each in prompts}) >= 5
    assert all(each.deciding and each.answer for each in prompts)
    assert not any(mark in each.prompt + each.answer for each in prompts for mark in "«»")


def test_what_is_asked_is_what_the_model_answers() -> None:
    model = load("demo")
    found, why = question_of(model, unmarked("bracket", "Copyright «(»C", ")"))
    assert found is not None and not why
    assert [
        model.token_string(model.clean_run(found.prompt).token_ids[at]) for at in found.deciding
    ]
    strings = [model.token_string(at) for at in model.clean_run(found.prompt).token_ids]
    assert [strings[at].strip() for at in found.deciding] == ["("]
    assert found.tokens == len(strings) and model.token_string(found.token_id) == ")"
    longer, _ = question_of(model, unmarked("bracket", "Copyright «(»C", ") 1998"))
    assert longer is not None and longer.token_id == found.token_id, "its first token counts"
    other, why = question_of(model, unmarked("bracket", "Copyright «(»C", " no"))
    assert other is None and why == "another token is likelier"


def test_categories_take_turns() -> None:
    prompts = [unmarked(name, text, "") for name, text in ("a1", "a2", "b1", "c1", "b2")]
    assert [it.category + it.prompt for it in in_turn(prompts)] == ["a1", "b1", "c1", "a2", "b2"]


@pytest.mark.slow
def test_a_run_is_kept_and_goes_on(tmp_path: Path) -> None:
    model = load("demo")
    prompts = [unmarked("bracket", "Copyright «(»C", ")"), unmarked("none", "Copyright (C", " no")]
    told: list[tuple[int, int]] = []
    report = measure(model, prompts, tmp_path / "w", tmp_path, lambda *at: told.append(at))
    assert told == [(0, 1), (1, 1)] and report["skipped"] == {"another token is likelier": 1}
    assert json.loads((tmp_path / "truth.json").read_text()) == report
    assert report["saes"] == digest([layer.sae.W_dec for layer in model.stack.layers])
    (only,) = report["prompts"]
    assert only["asked"]["rules"][0]["hit"] is True
    assert only["asked"]["probability"] >= LEAST and only["controls_lower"] <= 0.1


def test_prompts_of_which_none_can_be_asked_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match=r"1 prompts were given.*none of them as asked"):
        measure(load("demo"), [unmarked("x", "Copyright (C", " no")], tmp_path, tmp_path)
    assert not (tmp_path / "truth.json").exists()


def test_what_ships_is_of_the_saes_that_ship() -> None:
    """The table was made with these SAEs, of every prompt that could be asked."""
    folder = shipped_saes(NAME)
    if folder is None:
        pytest.skip("this copy has no SAEs of SmolLM2")
    report = json.loads((folder.parent / "truth.json").read_text())
    weights = [folder / name / "sae_weights.safetensors" for name in PLAN.hook_names]
    assert report["saes"] == digest([load_file(file)["W_dec"] for file in weights])
    assert report["left"] == 0 and len(report["prompts"]) >= 60
    known = {each.prompt for each in marked()}
    assert all(each.asked.prompt in known for each in prompts_of(report))
    assert section(report) in (folder.parent / "README.md").read_text()


def seen(**changes: Any) -> list[Seen]:
    """Two prompts: of one the answer falls by 4 nats without the strongest, of the other by 2."""
    first = asked()
    (answer, *others) = first.rules
    falls = [
        replace(first, rules=(replace(answer, without=first.score - by), *others)) for by in (4, 2)
    ]
    return [Seen("fact", falls[0], 0.1), Seen("list", falls[1], None)]


def test_how_often_the_answer_falls() -> None:
    rows = lowered_rows(seen())
    assert [row[:4] for row in rows[1:]] == [
        ["fact", "1", "1.00", "0.10"],
        ["list", "1", "0.00", "–"],
        ["all", "2", "0.50", "0.10"],
    ]


def test_the_bundled_model_stands_beside(tmp_path: Path) -> None:
    (tmp_path / "phenomena.json").write_text(json.dumps(report_of(closings=[asked()])))
    report = {"skipped": {"below 0.3": 2}, "left": 3, "prompts": [plain(each) for each in seen()]}
    _, *beside = tables(report, tmp_path)
    for _, rows in beside:
        assert [row[0] for row in rows[1:]] == ["fact", "list", "all", "bundled model, all"]
        assert len({len(row) for row in rows}) == 1
    assert len(by_category(seen())) == 2
    assert section(report).endswith("not asked: 2 (below 0.3). 3 more are still to be asked.")
