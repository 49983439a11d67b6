"""The benchmark of validation: it tests what it says, and its results join those of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sae_graphs as sg
from benchmarks.__main__ import Only, main
from benchmarks.alone import merge, merged_page
from benchmarks.plan import FULL, SMALLEST
from benchmarks.table import Sheet
from benchmarks.validation import (
    PlainPasses,
    Prepared,
    copies_of,
    prepared,
    seconds_by_mode,
    settings_of,
    time_validation,
)

SHEET = Sheet("Validation: a machine", ("prompt", "quick"), [("4 tokens", "1 s")])


@pytest.fixture(scope="module")
def case() -> Prepared:
    """The first prompt of the full plan."""
    return prepared(FULL.validated.prompts[0], FULL.validated.units)


@pytest.mark.slow
def test_plain_passes_do_what_validation_does(case: Prepared) -> None:
    passes, features = PlainPasses(case), case.paths[0]
    target = int(passes.logits(()).argmax())
    report = sg.validate(
        case.model, case.graph, path=[features], quick=True, controls=19, other_controls=1
    )
    assert isinstance(report, sg.ValidationReport)
    found = report.units[0].of_discovery.target
    assert found.token_id == target
    probabilities = passes.logits(features).double().softmax(-1)
    assert found.after == pytest.approx(float(probabilities[target]), rel=1e-4)
    assert abs(found.after - found.before) > 1e-3


@pytest.mark.slow
def test_the_full_plan_is_what_was_asked_for(case: Prepared) -> None:
    plan = FULL.validated
    assert (plan.units, plan.controls, plan.threads) == (100, 200, (1, 2))
    assert copies_of(case, plan) == 100 * (2 + 200 + 3 * 50)
    assert settings_of(plan, quick=True).paths == 99
    for prompt, tokens in zip(plan.prompts, (4, 13), strict=True):
        graph = prepared(prompt, plan.units).graph
        assert len(graph.run.tokens) == tokens
    with pytest.raises(ValueError, match="not 100000"):
        prepared(plan.prompts[0], 100_000)


@pytest.mark.slow
def test_a_small_measurement() -> None:
    threads = torch.get_num_threads()
    found = time_validation("Copyright (C", SMALLEST.validated)
    assert torch.get_num_threads() == threads
    assert (found["tokens"], found["copies"]) == (4, 2 * (2 + 5 + 3 * 5))
    for number in SMALLEST.validated.threads:
        seconds = seconds_by_mode(found, number)
        assert min(seconds.values()) > 0
        one_pass = found["seconds"][f"pass, {number}"]["median"]
        assert seconds["naive"] == pytest.approx(found["copies"] * one_pass)


def test_a_part_is_put_into_a_page_and_replaced_there() -> None:
    others = [Sheet("Time", ("a",), [("1",)]), Sheet("Targets", ("b",), [("2",)], "Caption.")]
    page = "\n".join(sheet.markdown() for sheet in others)
    once = merged_page(page, SHEET)
    assert once == "\n".join(sheet.markdown() for sheet in (*others, SHEET))
    newer = SHEET._replace(title="Validation: another", rows=[("4 tokens", "2 s")])
    assert merged_page(once, newer) == "\n".join(sheet.markdown() for sheet in (*others, newer))


def test_a_part_is_put_into_results_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run everything first"):
        merge(tmp_path, "results", "validation", {}, SHEET)
    (tmp_path / "results.json").write_text('{"cells": [1], "validation": {"prompts": []}}')
    (tmp_path / "results.md").write_text("**Time**\n\n| a |\n")
    merge(tmp_path, "results", "validation", {"prompts": [2]}, SHEET)
    merged = json.loads((tmp_path / "results.json").read_text())
    assert merged == {"cells": [1], "validation": {"prompts": [2]}}
    page = (tmp_path / "results.md").read_text()
    assert page.startswith("**Time**") and "| 4 tokens | 1 s |" in page


@pytest.mark.slow
def test_only_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results-tiny.json").write_text('{"cells": []}')
    (tmp_path / "results-tiny.md").write_text("**Time**\n")
    main(tiny=True, resume=False, only=Only.VALIDATION, out=tmp_path)
    results = json.loads((tmp_path / "results-tiny.json").read_text())
    assert results["cells"] == []
    assert [one["units"] for one in results["validation"]["prompts"]] == [2]
    assert "(f)/quick" in (tmp_path / "results-tiny.md").read_text()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
