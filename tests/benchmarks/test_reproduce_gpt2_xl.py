"""The script of GPT-2-XL's traces, on a small generated GPT-2 under its name, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.reproduce_gpt2_xl import FILE, NOT_RUN, Row, main, table_of
from sae_graphs.tracing.cases_file import read_cases
from tests.support.hub_cache import cache_in_use, snapshot_of
from tests.support.hub_models import save_model


def test_what_was_published_is_whole() -> None:
    data = json.loads(FILE.read_text(encoding="utf-8"))
    assert data["fact"]["subject"] in data["fact"]["prompt"]
    assert set(data["categories"]) <= {case.category for case in read_cases("smollm2")}
    rows = [Row("a", "1", "2", True), Row("b", "[red]", "\u202e", None)]
    assert table_of(rows).row_count == 2


@pytest.mark.slow
def test_it_runs_offline_and_says_that_it_was_not_run_on_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model("gpt2", snapshot_of(tmp_path / "home", "gpt2-xl"), n_blocks=4)
    cases = tmp_path / "cases.csv"
    cases.write_text(
        "prompt,subject,category\n"
        "xqzvkjw,z,semantic\n"  # a token each
        "qxvzjkw,v,semantic\n"
    )
    with cache_in_use(tmp_path / "home"):
        main(noise_runs=2, cases=str(cases), count=2, json_file=tmp_path / "found.json")
    told = " ".join(capsys.readouterr().out.split())
    assert " ".join(NOT_RUN.split()) in told and "4 layers" in told
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["not_run"] == NOT_RUN
    names = [row["what"] for row in found["rows"]]
    assert sum("transition" in name for name in names) == 9
    assert sum("starts" in name for name in names) == 4
    assert any(name.startswith("semantic, noise of 0.5: transition, ") for name in names)
