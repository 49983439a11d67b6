"""`sae-graphs atlas build` and `query`, as a user types them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.atlas import measure
from sae_graphs.atlas.prompts import Asked
from sae_graphs.cli.console import out
from tests.atlas.test_asking import GRAPHS
from tests.atlas.test_evidence import written
from tests.support.answers import answer_report, graph_unit, path_unit
from tests.support.atlases import atlas_by_hand
from tests.support.commands import Commands
from tests.support.models import save_model_folder, save_sae_folder
from tests.support.slow import first
from tests.support.traces import planted

SETTINGS = ("--model", "model", "--saes", "saes", "--select", "effect", "--top-k", "2")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return atlas_by_hand(tmp_path_factory.mktemp("atlas") / "made", GRAPHS)


@pytest.fixture
def made(kept: Path, tmp_path: Path) -> Path:
    """Where commands are run."""
    shutil.copytree(kept, tmp_path / "made")
    return tmp_path / "made"


def test_an_atlas_is_built_and_asked(commands: Commands, tmp_path: Path) -> None:
    save_model_folder(tmp_path / "model")
    save_sae_folder(tmp_path / "saes")
    (tmp_path / "p.csv").write_text(
        "prompt,kind\nthe cat sat on,a\nthe old dog ran,b\n" + "the cat " * 40 + ",a\n"
    )
    built = commands("atlas", "build", "--prompts", "p.csv", "--out", "held", *SETTINGS)
    assert built.code == 0, built.err
    assert "wrote held: 2 prompts measured, " in built.out
    assert "0 already there, 1 prompt failed" in built.out
    assert "failed: the cat the cat" in built.err
    again = commands("atlas", "build", "--prompts", "p.csv", "--out", "held", *SETTINGS)
    assert "wrote held: 0 prompts measured, 2 already there" in again.out
    answer = commands("atlas", "query", "held", "prompts", "--format", "json")
    assert [row["kind"] for row in json.loads(answer.out)] in (["a", "b"], ["b", "a"])
    failures = commands("atlas", "query", "held", "failures")
    assert "reason" in failures.out
    other = commands("atlas", "build", "--prompts", "p.csv", "--out", "held", *SETTINGS[:-1], "3")
    assert other.code == 2
    assert "held is an atlas with top_k 2, and this build has 3; give the same" in other.err


def test_traces_and_verdicts_are_kept_on_request(
    commands: Commands, tmp_path: Path, logged: io.StringIO
) -> None:
    save_model_folder(tmp_path / "model")
    save_sae_folder(tmp_path / "saes")
    row = {"prompt": "the cat sat on", "kind": "a", "size": "s", "subject": "cat"}
    other = {"prompt": "the old dog ran", "kind": "b"}  # without a subject
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
    more = ("--category", "kind", "--trace", "--validate")
    built = commands("atlas", "build", "--prompts", "p.jsonl", "--out", "held", *SETTINGS, *more)
    assert built.code == 0, built.err
    assert "2 of 2 prompts could not be traced; the first: under noise of" in logged.getvalue()
    assert "2 of 2 prompts could not be validated; the first: the graph has no" in logged.getvalue()
    found = commands(
        *("atlas", "query", "held", "--format", "json", "--sql"),
        "SELECT subject, reason FROM traces JOIN prompts USING (prompt_id) ORDER BY prompt",
    )
    traced, failed = json.loads(found.out)
    assert traced["subject"] == "cat" and "there is no subject" in failed["reason"]
    rows = json.loads(commands("atlas", "query", "held", "verdicts", "--format", "json").out)
    assert {row["kind"] for row in rows} == {"a", "b"} and "size" not in rows[0]
    assert all(row["verdict"] == "cannot be said" and row["reason"] for row in rows)
    shown = commands("atlas", "query", "held", "sites", "--category", "b")
    assert shown.out == "nothing fits\n"


def test_questions(commands: Commands, made: Path) -> None:
    shown = commands("atlas", "query", "made")
    assert shown.code == 0 and "0.1" in shown.out and "left" in shown.out
    listed = commands("atlas", "query", "made", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(listed.out)))
    assert [row["prompts"] for row in rows] == ["12", "6", "6"]
    edges = commands("atlas", "query", "made", "edges", "--source", "0.3", "--format", "json")
    assert len(json.loads(edges.out)) == 6
    some = commands("atlas", "query", "made", "edges", "--category", "kind=left", "--limit", "3")
    assert "15 rows more" in some.out
    use = commands("atlas", "query", "made", "feature", "--feature", "1.2")
    assert [line for line in use.out.splitlines() if line.startswith("sources of 1.2")]
    differ = commands("atlas", "query", "made", "differences", "--between", "left", "right")
    assert "share a" in differ.out
    apart = commands("atlas", "query", "made", "separation")
    assert "by chance" in apart.out and "by category" in apart.out
    counted = commands(
        *("atlas", "query", "made", "--format", "json", "--sql"),
        "SELECT kind, count(*) AS n FROM prompts GROUP BY kind ORDER BY kind",
    )
    assert json.loads(counted.out) == [{"kind": "left", "n": 6}, {"kind": "right", "n": 6}]
    like = json.loads(commands("atlas", "query", "made", "prompts", "--format", "json").out)
    near = commands("atlas", "query", "made", "similar", "--like", like[0]["prompt_id"])
    assert "similarity" in near.out
    none = commands("atlas", "query", "made", "features", "--token", "nowhere")
    assert none.out == "nothing fits\n"


def test_what_is_missing_is_nothing(commands: Commands, made: Path) -> None:
    """Whole numbers, truths and days come as pandas' own where some are missing."""
    rows = "(VALUES (1, true, DATE '2020-02-01', 'a'), (NULL, NULL, NULL, NULL)) AS t(n, yes, d, s)"
    asked = "atlas", "query", "made", "--sql", f"SELECT * FROM {rows}", "--format"
    assert json.loads(commands(*asked, "json").out)[1] == dict.fromkeys(("n", "yes", "d", "s"))
    assert commands(*asked, "csv").out.splitlines()[2] == ",,,"
    shown = commands(*asked, "table").out
    assert "<NA>" not in shown and "NaT" not in shown and shown.count("–") == 4


def test_a_table_in_80_columns(
    commands: Commands, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "_width", 80)
    shown = commands("atlas", "query", "made").out.splitlines()
    assert max(map(len, shown)) <= 80 and not [line for line in shown if "…" in line]


@pytest.mark.parametrize("what", first(1, ["verdicts", "sites", "traces"]))
def test_what_is_beside_graphs_in_80_columns(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    asked = [Asked("one two three", None, {"kind": "a"}), Asked("two", None, {"kind": "b"})]
    report = answer_report(graph_unit(), path_unit(along=-0.1))
    written(tmp_path / "seen", asked, [planted(), "no such subject"], [report, "no features"])
    monkeypatch.setattr(out, "_width", 80)
    shown = commands("atlas", "query", "seen", what).out
    assert max(map(len, shown.splitlines())) <= 80
    rows = json.loads(commands("atlas", "query", "seen", what, "--format", "json").out)
    whole = {"traces": ["handover_block"], "sites": ["sweep", "role"], "verdicts": ["verdict"]}
    words = {word for row in rows for name in whole[what] for word in str(row[name]).split()}
    words |= {row["prompt_id"] for row in rows}
    assert len(words) > 3 and words - {"None"} <= {*shown.split()}
    assert len(rows[0]) > 12, "programs have all columns"


def test_pictures(commands: Commands, made: Path) -> None:
    drawn = commands("atlas", "draw", "made", "--category", "left", "--share", "0.9")
    assert drawn.out == "wrote made/circuit.svg\n", drawn.err
    drawn = commands("atlas", "draw", "made", "map", "--out", "map.png")
    assert drawn.code == 0 and (made.parent / "map.png").stat().st_size > 10_000


def test_hostile_text_is_shown_safely(commands: Commands, tmp_path: Path) -> None:
    atlas_by_hand(tmp_path / "bad", {"[red]\x1b[31mred\u202e x": ("left", [])})
    shown = commands("atlas", "query", "bad", "prompts")
    assert shown.code == 0
    assert "\x1b" not in shown.out and "\u202e" not in shown.out and "[red]" in shown.out
    listed = commands("atlas", "query", "bad", "prompts", "--format", "csv")
    assert "\x1b" not in listed.out and "\u202e" not in listed.out
    (row,) = csv.DictReader(io.StringIO(listed.out))
    assert row["prompt"] == r"[red]\x1b[31mred\u202e x"
    assert json.loads(row["tokens"])[1] == "x"  # as JSON has lists


def test_a_reason_is_shown_safely(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model_folder(tmp_path / "model")
    save_sae_folder(tmp_path / "saes")
    (tmp_path / "p.csv").write_text("prompt\nthe cat sat on\nthe old dog ran\n")
    own = measure.bare_graph

    def failing(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        if prompt.startswith("the old"):
            raise ValueError("\x1b[31mred")
        return own(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", failing)
    built = commands("atlas", "build", "--prompts", "p.csv", "--out", "held", *SETTINGS)
    assert built.code == 0 and r"ValueError: \x1b[31mred" in built.err


def test_a_category_may_hold_an_equals_sign(commands: Commands, tmp_path: Path) -> None:
    atlas_by_hand(tmp_path / "held", {"a x": ("b=c", []), "b x": (" d", [])})
    for given in ("b=c", "kind=b=c", "kind= d", " d"):
        found = commands(
            *("atlas", "query", "held", "prompts", "--category", given, "--format", "json")
        )
        assert len(json.loads(found.out)) == 1, found.err
    wrong = commands("atlas", "query", "held", "prompts", "--category", "sort=b")
    assert wrong.code == 2 and "no prompt has kind 'sort=b'; there are" in wrong.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build",), "give the prompts, as --prompts FILE or as --dataset NAME"),
        (("build", "--prompts", "none.csv"), "cannot read prompts from none.csv: No such file"),
        (("build", "--prompts", "empty.txt"), "empty.txt holds no prompts"),
        (("build", "--prompts", "p.csv", "--column", "text"), "has no column 'text'; it has"),
        (("build", "--prompts", "p.csv", "--category", "sort"), "has no column 'sort'"),
        (("build", "--prompts", "p.csv", "--workers", "2"), "--workers is for --ray"),
        (("build", "--prompts", "p.csv", "--nodes", "0"), "nodes is 0; expected a whole number"),
        (("build", "--prompts", "p.csv", "--split", "test"), "are for --dataset"),
        (("build", "--dataset", "d", "--category", "x"), "--category is for --prompts"),
        (("build", "--prompts", "p.csv", "--out", "p.csv"), "p.csv is a file"),
        (("query", "nowhere"), "nowhere is no atlas: it has no atlas.json"),
        (("query", "made", "features", "--by", "kind"), "--by is for recurring, differences"),
        (("query", "made", "feature"), "feature needs --feature"),
        (("build", "--prompts", "p.csv", "--trace"), "no prompt names a subject, which a trace"),
        (("build", "--prompts", "blank.csv", "--trace"), "no prompt names a subject, which a"),
        (
            ("build", "--prompts", "own.csv", "--validate", "--saes", "nowhere"),
            "the column 'verdict' has the name of one that this atlas has itself; call it",
        ),
        (
            ("build", "--dataset", "d", "--trace"),
            "--trace is for --prompts with a column",
        ),
        (("query", "made", "sites"), "has no sites: it was built without; build one with --trace"),
        (("query", "made", "sql"), "sql needs --sql"),
        (("query", "made", "--sql", "DROP VIEW edges"), "is not one SELECT"),
        (("query", "made", "--sql", "SELECT x FROM edges"), "cannot be answered"),
        (("query", "made", "features", "--sign", "good"), "expected supports or opposes"),
        (("query", "made", "everything"), "everything"),
        (("draw", "made", "--share", "2"), "share is 2.0; expected more than 0"),
        (("draw", "made", "map", "--category", "left"), "--category is for circuit"),
        (("draw", "made", "--by", "kind"), "--by is for map"),
        (("draw", "made", "--out", "a.bmp"), "cannot draw a.bmp; expected a file that ends in"),
    ],
)
def test_mistakes_are_one_line(
    commands: Commands, made: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "p.csv").write_text("prompt,kind\nthe cat,a\n")
    (tmp_path / "blank.csv").write_text("prompt,subject\nthe cat,\n")
    (tmp_path / "own.csv").write_text("prompt,verdict\nthe cat,a\n")
    answer = commands("atlas", *arguments)
    assert answer.code == 2
    assert answer.err.startswith("error: ") and answer.err.count("\n") == 1
    assert words in answer.err
