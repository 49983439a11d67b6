"""What the reproduction prints: tables, reasons, verdicts; and the script from end to end."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import reproduction_reasons as reasons
from benchmarks import reproduction_verdicts as verdicts
from benchmarks.published import read_published
from benchmarks.reproduce_gpt2_small import main
from benchmarks.reproduction_tables import parts, reproduces
from sae_graphs.errors import SaeGraphsError
from tests.benchmarks.conftest import BARE, OURS, TEXTS, Measured
from tests.support.hub_cache import cache_in_use


@pytest.mark.slow
def test_the_verdicts_of_our_own_numbers_agree(measured: Measured) -> None:
    """What we find, taken for the published: then all must agree; and not once it is changed."""
    found = copy.deepcopy(measured.found)
    assert verdicts.of_clean(found[BARE]["clean"]).answer == "agrees"
    assert "yes" in reproduces(found)
    found[BARE]["clean"][0]["rows"][0][1] += 0.2
    assert verdicts.of_clean(found[BARE]["clean"]).answer == "differs"
    assert "no (by up to 0.2 points" in reproduces(found)
    one = found[OURS]["ablations"][0]
    for row in one["rows"]:
        row[1] = row[2]
    assert verdicts.of_ablation(one).answer == "agrees"
    one["rows"][0][1] += 1.1
    assert verdicts.of_ablation(one).answer == "differs"
    for row in found["activations"]["rows"]:
        row["published"] = row["formula"]
    assert verdicts.of_activations(found["activations"]).answer == "agrees"
    for row in found["activations"]["rows"]:
        row["published"] = row["formula_late"]
    late = verdicts.of_activations(found["activations"])
    assert late.answer == "agrees" and late.why.startswith("a block late")
    for row in found["activations"]["rows"]:
        row["published"] = [value + 0.1 for value in row["ours"]]
    assert verdicts.of_activations(found["activations"]).answer == "differs"


@pytest.mark.slow
def test_tables_hold_hostile_tokens(measured: Measured) -> None:
    found = copy.deepcopy(measured.found)
    found[BARE]["clean"][0]["rows"][0][0] = found[OURS]["clean"][0]["rows"][0][0] = "[/b]|<b>\n\x1b"
    tables = parts(found, measured.published)
    console = Console(width=120, record=True, file=io.StringIO())
    for table in tables:
        console.print(table.rich())
        rows = [line for line in table.markdown().splitlines() if line.startswith("|")]
        bars = {line.replace("\\|", "").count("|") for line in rows}
        assert bars == ({len(table.heads) + 1} if table.rows else set())
        assert table.expected and table.verdicts
    text = console.export_text()
    assert "[/b]|<b>\\n\\x1b" in text and "\x1b" not in text
    assert tables[0].title == "Clean next tokens"


@pytest.mark.slow
def test_on_other_weights_no_verdict_counts(measured: Measured) -> None:
    found = copy.deepcopy(measured.found)
    first, *rest = parts(found, measured.published)
    assert "other weights" not in str([first.verdicts, *(part.verdicts for part in rest)])
    found[BARE]["clean"][0]["rows"][0][1] += 0.2
    first, *rest = parts(found, measured.published)
    assert reproduces(found).endswith("so nothing below says anything about the source")
    assert dict(first.verdicts)[BARE].answer == "differs"
    answers = {verdict.answer for part in rest for _, verdict in part.verdicts}
    assert answers == {"not comparable (other weights)"}


def test_each_figure_has_its_own_reasons() -> None:
    published = read_published()
    first, *rest = (reasons.of_ablation(figure, published) for figure in published.figures)
    assert "without the BOS" in first and "BOS of its own" not in first
    for words in rest:
        assert "without the BOS" not in words and "has a BOS of its own" in words
    assert "layers 3 to 10" in rest[0] and "published controls span 3 to 9" in rest[0]
    assert all("also ablates at the first token" in words for words in (first, *rest))
    assert "first token is left alone in both variants" in reasons.EXPECTED["graph"]
    assert "32 or more" in reasons.EXPECTED["graph"].format_map(published.graph)


def test_only_inactive_features_cannot_change_anything() -> None:
    idle, acting = ({"zero": {"active": active}} for active in (0, 2))
    assert "cannot change anything" in reasons.of_zero([idle, {"refused": "none"}])
    assert "cannot change anything" not in reasons.of_zero([acting])
    both = reasons.of_zero([idle, acting])
    assert "In 1 of 2 rows none of them is active" in both and "In 1 of 2 rows some" in both


@pytest.mark.slow
def test_nothing_is_shown_twice_or_empty(measured: Measured) -> None:
    found = copy.deepcopy(measured.found)
    why = "the graph's nodes make only 0 other sets"
    for name in (OURS, BARE):
        found[name]["corpus"] = []
        for case in found[name]["ablations"]:
            case["nulls"] = [{"kind": "shuffles", "p": None, "refused": why}]
    tables = {table.title: table for table in parts(found, measured.published)}
    console = Console(width=120, record=True, file=io.StringIO())
    for title in ("Matched controls", "Paths ablated in other text"):
        table = tables[title]
        console.print(table.rich())
        assert not table.rows and "|" not in table.markdown() and "No rows." in table.markdown()
        assert all(verdict.answer == "not comparable" for _, verdict in table.verdicts)
    assert tables["Matched controls"].notes == (f"none (shuffles 4 of 4): {why}",)
    text = console.export_text()
    assert text.count(why) == 1 and "─" not in text and "snippets  " not in text


@pytest.mark.slow
def test_the_script(home: Path, measured: Measured, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    data = tmp_path / "data.json"
    data.write_text(json.dumps(measured.data))
    text = tmp_path / "text.txt"
    text.write_text(TEXTS[0])
    options = ["--data", str(data), "--controls", "5", "--snippets", "2", "--text", str(text)]
    options += ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    with cache_in_use(home, "gpt2-small"):
        answer = CliRunner().invoke(app, options, catch_exceptions=False)
    assert answer.exit_code == 0
    assert answer.stdout.startswith("reproduces the published clean distribution: yes (within 0.1")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["schema"] == "sae_graphs/reproduction/1"
    assert record["found"][OURS]["clean"] == measured.found[OURS]["clean"]
    answers = {
        verdict["answer"] for table in record["tables"] for verdict in table["verdicts"].values()
    }
    assert {"agrees", "differs"} <= answers
    page = (tmp_path / "out.md").read_text()
    assert page.count("\n## ") == len(record["tables"]) == 13
    assert max(map(len, answer.stdout.splitlines())) <= 120
    for wrong in (["--text", "nowhere/x"], ["--data", "nowhere.json"], ["--controls", "0"]):
        refused = CliRunner().invoke(app, wrong)
        assert isinstance(refused.exception, SaeGraphsError)  # before anything is loaded
