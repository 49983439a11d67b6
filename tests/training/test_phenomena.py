"""What the answers hang on: rates by hand-made numbers, and one prompt on the bundled model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_graphs.files import bundled_folder
from sae_graphs.pretrained.loading import load
from sae_graphs.schema import plain
from training.demo import asked as asked_of
from training.demo import null_models
from training.demo.asked import CURVE, RULES, Asked, Drawn, Ruled
from training.demo.evaluation_table import markdown
from training.demo.phenomena import (
    SEED,
    TESTED,
    Kept,
    choose,
    measure,
    nulls_of,
    prompts_of,
    read,
    to_bytes,
)
from training.demo.phenomena_table import (
    curve_rows,
    found_in,
    graph_rows,
    hit_rows,
    necessity_rows,
    null_rows,
    section,
    summary,
)
from training.demo.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = bundled_folder()
DRAWN = Drawn(
    nodes=16,
    relays=2,
    edges=24,
    at_once=5,
    stranded=0,
    paths=3,
    mediating=1,
    away=1,
    supported=1,
    lost=1.2,
    left=0.1,
)
BY_EFFECT = Ruled(
    rule="answer",
    hit=True,
    hit_of_three=True,
    without_few=-2.0,
    without=-9.0,
    controls_below=0.05,
    alone=(-3.0, -1.0, 0.5, 4.0),
    necessary=True,
    sufficient=False,
    p=(0.01, 0.1, None),
)


NULLED = null_models.Nulled(
    which="scrambled prompts",
    prompt="two (one",
    score=1.0,
    chance=0.25,
    chance_of_three=0.75,
    lost=0.5,
    random_lost=0.125,
    ruled=replace(BY_EFFECT, hit=False, without_few=2.0),
)


def asked(**changes: Any) -> Asked:
    """A prompt whose features do what they should, but for what the `changes` say."""
    own = {
        name: changes.pop(name) for name in ("hit", "without_few", "necessary") if name in changes
    }
    others = [
        replace(BY_EFFECT, rule=rule, hit=False, without_few=3.0, alone=(-3.0, -1.0))
        for rule in RULES[1:]
    ]
    found = Asked(
        prompt="one (two",
        token=" )",
        probability=0.9,
        score=2.2,
        tokens=6,
        deciding=(2,),
        chance=0.25,
        chance_of_three=0.75,
        without_any=-5.0,
        seconds=1.0,
        drawn=DRAWN,
        rules=(replace(BY_EFFECT, **own), *others),
    )
    return replace(found, **changes)


def report_of(**found: list[Asked]) -> dict[str, Any]:
    parts = [
        {
            "phenomenon": name,
            "skipped": {"below 0": 1},
            "prompts": [plain(it) for it in prompts],
            "nulls": [plain(NULLED)],
        }
        for name, prompts in found.items()
    ]
    return {"command": "it", "seed": SEED, "cases": 2, "seconds": 60.0, "phenomena": parts}


@pytest.fixture
def report() -> dict[str, Any]:
    """Two phenomena, of which one has no deciding tokens."""
    nowhere = asked(deciding=(), hit=None, chance=0.0, chance_of_three=0.0)
    return report_of(
        closings=[
            asked(),
            asked(hit=False, without_few=1.0, necessary=None, drawn=replace(DRAWN, at_once=6)),
        ],
        phrases=[nowhere],
    )


def test_hits_are_counted_where_tokens_decide(report: dict[str, Any]) -> None:
    rows = hit_rows(found_in(report))
    assert [row[0] for row in rows[1:]] == ["closings", "all"]
    assert rows[1][1:6] == ["2", "0.50", "0.25", "1.00", "0.75"]
    assert rows[1][6].startswith("0.00")  # by gradients the first stands elsewhere


def test_what_is_left_without_them(report: dict[str, Any]) -> None:
    rows = {(row[0], row[1]): row[2:] for row in necessity_rows(found_in(report))}
    assert rows["closings", "effect on the answer"] == [
        "0.50",
        "0.05",
        "1.00",
        "1 of 1",
        "1.00, 0.00, –",
        "0 of 2",
        "0.00, 0.00",
    ]
    assert rows["", "gradients"][0] == "0.00"


def test_graphs_and_curves(report: dict[str, Any]) -> None:
    graphs = {row[0]: row[1:] for row in graph_rows(found_in(report))}
    assert graphs["closings"][:4] == ["24", "2", "0.50", "0.00"]
    assert graphs["all"][2] == "0.67"
    curves = {row[0]: row[1:] for row in curve_rows(found_in(report))}
    assert curves["all"] == ["0.00", "0.00", "1.00", "1.00"] and len(CURVE) == 4


def test_null_models_stand_beside(report: dict[str, Any]) -> None:
    ((name, *cells),) = null_rows(found_in(report))[1:]
    assert (name, cells[0]) == ("scrambled prompts", "2")
    assert cells[1:] == [
        "0.00",
        "0.25",
        "1.00",
        "0.75",
        "0.00",
        "2 of 2",
        "1.00, 0.00, –",
        "0.50",
        "0.12",
    ]


@pytest.mark.slow
def test_scrambled_prompts_have_the_same_tokens() -> None:
    model, tokenizer = load("demo"), load_tokenizer(FOLDER / "model")
    (question,) = choose(model, tokenizer, "closings", 1).asked
    mixed = null_models.scrambled(model, question, SEED)
    assert mixed is not None and mixed.prompt != question.prompt
    before, after = (model.clean_run(text).token_ids for text in (question.prompt, mixed.prompt))
    assert sorted(before) == sorted(after) and (before[0], before[-1]) == (after[0], after[-1])
    ours = sorted(before[at] for at in question.deciding)
    assert sorted(after[at] for at in mixed.deciding) == ours


@pytest.mark.slow
def test_permuted_decoders_leave_the_features_as_they_are() -> None:
    model = load("demo")
    other = null_models.permuted(model, SEED)
    runs = [each.clean_run("one (two") for each in (model, other)]
    for mine, theirs in zip(*(run.activations for run in runs), strict=True):
        assert torch.equal(mine.features, theirs.features)
        torch.testing.assert_close(mine.values, theirs.values)  # up to the decoders' norms
    ours, permuted = (each.stack.layers[0].sae.W_dec for each in (model, other))
    assert not bool((ours == permuted).all())
    assert bool((ours.sum(0) - permuted.sum(0)).abs().max() < 1e-3)


def test_pages_hold_every_table(report: dict[str, Any]) -> None:
    page = section(report)
    for rows in (hit_rows, necessity_rows, graph_rows, curve_rows, null_rows):
        assert markdown(rows(found_in(report))) in page
    assert "closings 1 (below 0)" in page
    assert markdown(hit_rows(found_in(report))) in summary(report)


def test_reports_come_back(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "phenomena.json").write_bytes(to_bytes(report))
    again = read(tmp_path)
    assert again is not None
    assert [prompts_of(part) for part in again["phenomena"]] == [
        prompts_of(part) for part in report["phenomena"]
    ]
    assert read(tmp_path / "elsewhere") is None


def test_what_is_done_is_kept(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", "a")
    kept.keep("one", {"x": 1})
    assert Kept(tmp_path / "kept", "a").found == {"one": {"x": 1}}
    assert Kept(tmp_path / "kept", "b").found == {}
    kept.remove()
    assert not (tmp_path / "kept").exists()


def test_questions_are_answered_rightly() -> None:
    model, tokenizer = load("demo"), load_tokenizer(FOLDER / "model")
    found = choose(model, tokenizer, "acronyms", 6)
    assert len(found.asked) == 6
    for question in found.asked:
        logits = model.clean_run(question.prompt).logits[-1].double().softmax(-1)
        assert int(logits.argmax()) == question.token_id and logits.max() > 0.5
        assert all(0 < at < question.tokens - 1 for at in question.deciding)


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt: every rule has what it should, and an interrupted run goes on."""
    for name in ("model", "saes"):
        (tmp_path / name).symlink_to(FOLDER / name, target_is_directory=True)
    for name in ("SETTINGS", "OTHERS"):
        few = replace(getattr(asked_of, name), controls=19, paths=1)
        monkeypatch.setattr(asked_of, name, few)
    monkeypatch.setattr(null_models, "CASES", 1)
    found = measure(tmp_path, cases=1, phenomena=["acronyms"])
    assert read(tmp_path) == json.loads(json.dumps(found))
    ((one,),) = (prompts_of(part) for part in found["phenomena"])
    assert [rule.rule for rule in one.rules] == list(RULES)
    assert one.by("answer").without_few < one.score and one.by("random").hit is None
    assert one.drawn.nodes == 16 and one.without_any < one.score
    nulls = nulls_of(found["phenomena"][0])
    assert [null.which for null in nulls] == list(null_models.NULL_MODELS)
    assert nulls[0].score == one.score and nulls[0].ruled.hit == one.by("answer").hit
    assert nulls[1].score == one.score and nulls[2].score != one.score
    assert one.by("answer").hit_of_three is not None and 0 < one.chance < one.chance_of_three < 1


def test_the_shipped_report() -> None:
    """Every phenomenon was measured, and the README and the docs hold its tables."""
    report = read(FOLDER)
    assert report is not None and report["seed"] == SEED
    assert [part["phenomenon"] for part in report["phenomena"]] == list(TESTED)
    assert section(report) in (ROOT / "autoencoders/demo/README.md").read_text(encoding="utf-8")
    assert summary(report) in (ROOT / "docs/validation.md").read_text(encoding="utf-8")
