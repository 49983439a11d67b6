"""What counts as evidence, by hand-made numbers, and a small run on the bundled model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.files import bundled_folder
from sae_graphs.pretrained.loading import load
from training.demo import phenomena
from training.demo.evaluation_table import markdown
from training.demo.phenomena import (
    CASES,
    SEED,
    TESTED,
    Kept,
    choose,
    measure,
    prompts_of,
    read,
    to_bytes,
)
from training.demo.phenomena_table import (
    failing_rows,
    own_rows,
    pair_rows,
    section,
    summary_rows,
    tallies,
)
from training.demo.phenomena_verdicts import Asked, Component, Trial, counts, pairs
from training.demo.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = bundled_folder()
PASSES = Trial(
    before=0.9,
    after=0.3,
    active=4,
    p=1 / 201,
    control_median=0.1,
    norm=0.5,
    p_scaled=1 / 51,
    p_directions=2 / 51,
)
MISSES = replace(PASSES, after=0.5)
NO_CONTROLS = replace(PASSES, p=None, control_median=None, norm=None, refused="too few others")


def asked(name: str, *components: Component) -> Asked:
    """A prompt with these components."""
    return Asked(f"prompt {name}", " yes", " yes", 0.9, 3, 1.0, components)


def component(own: Trial, others: dict[int, Trial]) -> Component:
    """A component of two features."""
    return Component(("0.1", "1.2"), own, others)


@pytest.fixture
def prompts() -> tuple[Asked, ...]:
    """Three prompts: the first passes and so in the second; the second passes alone; the third
    does not."""
    return (
        asked("a", component(MISSES, {}), component(PASSES, {1: PASSES, 2: MISSES})),
        asked("b", component(PASSES, {0: NO_CONTROLS, 2: replace(MISSES, p=0.5)})),
        asked("c", component(replace(MISSES, p=0.5), {}), component(MISSES, {})),
    )


@pytest.mark.parametrize(
    ("changed", "failures"),
    [
        ({}, ()),
        ({"after": 0.45}, ()),  # half is enough
        ({"after": 0.46}, ("not halved",)),
        ({"after": 1.0}, ("not halved", "median >= 1/3")),  # it rises by 0.1
        ({"p": 2 / 201}, ()),
        ({"p": 0.01}, ("p >= 0.01",)),
        ({"control_median": 0.19}, ()),  # a third of 0.6 is 0.2
        ({"control_median": 0.21}, ("median >= 1/3",)),
        ({"after": 0.8, "p": 0.3}, ("not halved", "p >= 0.01", "median >= 1/3")),
        ({"p": None, "control_median": None}, ("no controls",)),
        ({"after": 0.9, "p": None, "control_median": None}, ("not halved", "no controls")),
    ],
)
def test_criteria(changed: dict[str, Any], failures: tuple[str, ...]) -> None:
    trial = replace(PASSES, **changed)
    assert trial.failures == failures
    assert trial.passes == (failures == ())


def test_controls_of_equal_norm() -> None:
    assert PASSES.beats_equal_norm()
    assert not replace(PASSES, p_scaled=3 / 51).beats_equal_norm()
    assert not replace(PASSES, p_directions=None).beats_equal_norm()


def test_the_best_component_meets_most_criteria(prompts: tuple[Asked, ...]) -> None:
    first, _, third = prompts
    assert first.best is first.components[1]
    assert third.best is third.components[1]
    assert asked("d", component(NO_CONTROLS, {}), component(MISSES, {})).best.own == MISSES


def test_pairs_are_ordered_and_need_a_pass_in_the_first(prompts: tuple[Asked, ...]) -> None:
    found = [(pair.first.prompt[-1] + pair.second.prompt[-1], pair) for pair in pairs(prompts)]
    assert [name for name, _ in found] == ["ab", "ac", "ba", "bc", "ca", "cb"]
    assert [name for name, pair in found if pair.passes] == ["ab"]
    assert [name for name, pair in found if pair.trial is None] == ["ca", "cb"]


def test_failures_are_counted(prompts: tuple[Asked, ...]) -> None:
    trials = [pair.trial for pair in pairs(prompts) if pair.trial is not None]
    assert counts(trials) == {
        "not halved": 2,
        "p >= 0.01": 1,
        "median >= 1/3": 0,
        "no controls": 1,
    }


def test_tables(prompts: tuple[Asked, ...]) -> None:
    plain = [json.loads(json.dumps(prompt.to_json())) for prompt in prompts]
    part = {"phenomenon": "tests", "skipped": {}, "prompts": plain}
    found = tallies({"phenomena": [part]})
    assert found[0].prompts == list(prompts)
    assert own_rows(found)[1] == ["tests", "3", "2", "1", "0", "0", "0", "0.50", "2"]
    assert pair_rows(found)[1] == ["tests", "6", "1", "2", "2", "1", "0", "1", "1"]
    first, second = summary_rows(found)[1:]
    assert first[:4] == ["tests", "2 of 3", "1 of 6", "`prompt a` → ` yes`"]
    assert first[4:] == ["90.0 % → 30.0 %", "0.00498", "10.0; 0.50"]
    assert second[:4] == ["", "", "", "`prompt b` → ` yes`"]
    assert [row[-1] for row in failing_rows(found)[1:]] == ["not halved"]
    lines = {**plain[0], "prompt": "a\n`b`", "token": "\n"}
    assert summary_rows(tallies({"phenomena": [{**part, "prompts": [lines]}]}))[1][3] == (
        "`` a↵`b` `` → `↵`"
    )
    alone, none = summary_rows(tallies({"phenomena": [{**part, "prompts": plain[2:]}]}))[1:]
    assert alone[1:3] == ["0 of 1", "0 of 0"]
    assert none == ["", "", "", "no second prompt", "–", "–", "–"]


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder with the bundled model, where a run may write."""
    for part in ("model", "saes"):
        (tmp_path / part).symlink_to(FOLDER / part)
    yield tmp_path


@pytest.mark.slow
def test_a_small_run_is_saved_and_goes_on(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    ask = phenomena.ask
    one_by_one = {"left": 1}

    def interrupted(*given: Any) -> Asked:
        if not one_by_one["left"]:
            raise KeyboardInterrupt
        one_by_one["left"] -= 1
        return ask(*given)

    monkeypatch.setattr(phenomena, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(out, cases=2, phenomena=["acronyms"])
    one_by_one["left"] = 1
    report = measure(out, cases=2, phenomena=["acronyms"], told=lambda *step: told.append(step))
    assert told == [("acronyms", 0, 2), ("acronyms", 1, 2), ("done", 2, 2)]
    assert read(out) == report
    assert not (out / ".progress").exists()
    (part,) = report["phenomena"]
    first, second = prompts_of(part)
    for prompt in (first, second):
        assert prompt.best.own.before == pytest.approx(prompt.probability, abs=1e-5)
        assert prompt.probability >= 0.5
    assert first.passing and set(first.passing[0].others) == {1}
    assert first.passing[0].others[1].before == pytest.approx(second.probability, abs=1e-5)
    assert first.passing[0].own.p == pytest.approx(1 / 201, abs=1e-6)


def test_what_is_asked_is_answered() -> None:
    model, tokenizer = load("demo"), load_tokenizer(FOLDER / "model")
    found = choose(model, tokenizer, "facts", 3)
    assert len(found.asked) == 3
    assert found == choose(model, tokenizer, "facts", 3)
    for question in found.asked:
        logits = model.clean_run(question.prompt).logits[-1]
        assert int(logits.argmax()) == question.token_id
        assert question.answer.startswith(model.token_string(question.token_id))


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    Kept(tmp_path / "kept", "one").keep("facts 0", {"others": {1: 2}})
    assert Kept(tmp_path / "kept", "one").found == {"facts 0": {"others": {"1": 2}}}
    assert Kept(tmp_path / "kept", "two").found == {}


def test_the_report_is_one_line_a_prompt() -> None:
    report = {
        "schema": "x",
        "phenomena": [{"phenomenon": "a", "skipped": {}, "prompts": [{"prompt": "é"}, {}]}],
    }
    assert json.loads(to_bytes(report)) == report
    assert len(to_bytes(report).splitlines()) == 8


def test_the_shipped_report_is_shown_as_it_is() -> None:
    report = read(FOLDER)
    assert report is not None
    assert (report["seed"], report["cases"]) == (SEED, CASES)
    assert tuple(part["phenomenon"] for part in report["phenomena"]) == TESTED
    assert all(len(part["prompts"]) == CASES for part in report["phenomena"])
    assert report["validation"]["controls"] == 200
    assert section(report) in (FOLDER / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert markdown(summary_rows(tallies(report))) in page
