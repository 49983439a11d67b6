"""`sae-graphs export`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae_graphs.cli.outputs import write_run
from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.annotations import save as save_annotations
from sae_graphs.graph.export.attribution_rules import broken_rules
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.runs import RECORD
from tests.support.commands import Commands
from tests.support.rich_graphs import graph_of, record, two_edges

ALL = [
    "graph.attribution.json",
    "graph.csv",
    "graph.gexf",
    "graph.graphml",
    "graph.nodes.csv",
    "graph.nodes.parquet",
    "graph.parquet",
    "run.json",
]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A run's folder."""
    folder = tmp_path / "run"
    write_run(folder, two_edges(), formats=("dot",), seconds=1.0)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pinned(file: Path) -> list[str]:
    data = json.loads(file.read_text())
    ids: list[str] = data["qParams"]["pinnedIds"]
    return ids


def test_all_formats_lie_in_the_runs_folder_and_record(run: Commands, saved: Path) -> None:
    done = run("export", "run")
    assert (done.code, done.err) == (0, "")
    assert "wrote run/exports/" in done.out and "graph.nodes.parquet" in done.out
    assert names_in(saved / "exports") == ALL
    held = json.loads((saved / RECORD).read_text())
    assert held["files"] == ["graph.json", "graph.dot", "run.json", "exports"]
    record = json.loads((saved / "exports" / RECORD).read_text())
    assert sorted(record["files"]) == ALL and record["prompt"] == "<bos>Copyright (C"
    data = (saved / "exports" / "graph.attribution.json").read_bytes()
    assert broken_rules(json.loads(data), size=len(data)) == ()


def test_a_second_time_replaces_the_first(run: Commands, saved: Path) -> None:
    run("export", "run")
    (saved / "exports" / "notes.txt").write_text("mine")
    assert run("export", "run", "--formats", " GEXF,gexf").code == 0
    assert names_in(saved / "exports") == ["graph.gexf", "notes.txt", "run.json"]
    assert json.loads((saved / RECORD).read_text())["files"].count("exports") == 1


def test_a_new_graph_takes_the_old_ones_exports_away(run: Commands, saved: Path) -> None:
    run("export", "run")
    write_run(saved, graph_of(("0.1", "1.2", -1.0)), formats=(), seconds=1.0)
    assert not (saved / "exports").exists()


def test_another_folder_and_a_graph_under_another_name(
    run: Commands, saved: Path, tmp_path: Path
) -> None:
    assert run("export", "run/graph.json", "--out", "mine", "--formats", "csv").code == 0
    assert names_in(tmp_path / "mine") == ["graph.csv", "graph.nodes.csv", "run.json"]
    assert "mine" not in json.loads((saved / RECORD).read_text())["files"]
    two_edges().save(tmp_path / "other.json")
    assert run("export", "other.json", "--formats", "csv").code == 0
    assert "graph.csv" in names_in(tmp_path / "other-exports")
    assert run("export", "run/graph.json", "--formats", "csv").code == 0
    assert (saved / "exports" / "graph.csv").is_file()


def test_annotations_are_the_runs_own_or_given(run: Commands, saved: Path, tmp_path: Path) -> None:
    attribution = saved / "exports" / "graph.attribution.json"
    save_annotations(Annotations(pins=(FeatureId("0", 1),)), saved)
    assert run("export", "run").err == ""
    assert pinned(attribution) == ["0_1_3"]
    save_annotations(Annotations(pins=(FeatureId("1", 2), FeatureId("9", 9))), tmp_path / "a.json")
    done = run("export", "run", "--annotations", "a.json")
    assert done.err.count("\n") == 1 and "left out: 9.9" in done.err  # said once, not per format
    assert pinned(attribution) == ["1_2_3"]


def test_own_annotations_that_do_not_fit_are_left_out(run: Commands, saved: Path) -> None:
    (saved / "annotations.json").write_text("{")
    done = run("export", "run", "--formats", "attribution")
    assert done.code == 0 and "annotations.json is left out" in done.err
    assert pinned(saved / "exports" / "graph.attribution.json") == []


def test_a_format_that_cannot_be_is_left_out_unless_asked_for(
    run: Commands, tmp_path: Path
) -> None:
    one_token = graph_of(("0.1", "1.2", -1.0), run=record(("C",)), activations=(1.0,))
    write_run(tmp_path / "one", one_token, formats=(), seconds=1.0)
    done = run("export", "one", "--formats", "csv,attribution")
    assert done.code == 2 and "the prompt is one token" in done.err
    assert not (tmp_path / "one" / "exports").exists()
    done = run("export", "one")
    assert done.code == 0 and "warning: no attribution: the prompt is one token" in done.err
    assert names_in(tmp_path / "one" / "exports") == ALL[1:]


@pytest.mark.parametrize("record", ['{"files": ["validation.json", "run.json"]}', "{", "[]"])
def test_what_another_command_wrote_is_not_replaced(
    run: Commands, saved: Path, record: str
) -> None:
    folder = saved / "validation"
    folder.mkdir()
    (folder / "validation.json").write_text("hours of work")
    (folder / RECORD).write_text(record)
    done = run("export", "run", "--formats", "csv", "--out", "run/validation")
    assert done.code == 2 and done.err.count("\n") == 1
    assert "run/validation holds what another command wrote" in done.err
    assert names_in(folder) == [RECORD, "validation.json"]
    assert (folder / "validation.json").read_text() == "hours of work"


def test_notes_beside_exports_outlive_a_new_graph(run: Commands, saved: Path) -> None:
    run("export", "run")
    (saved / "exports" / "notes.txt").write_text("mine")
    write_run(saved, graph_of(("0.1", "1.2", -1.0)), formats=(), seconds=1.0)
    assert names_in(saved / "exports") == ["notes.txt", "run.json"]
    assert run("export", "run", "--formats", "csv").code == 0
    assert (saved / "exports" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--formats", "png"), "expected some of graphml, gexf, csv, parquet, attribution"),
        (("run", "--formats", ","), "expected some of graphml"),
        (("nowhere",), "cannot read nowhere"),
        (("run", "--out", "run"), "run holds a graph, which the exports would replace"),
        (("run", "--out", "full"), "full holds files that no run wrote"),
        (("run", "--out", "."), "is the folder you are in"),
        (("run", "--annotations", "none.json"), "cannot read none.json"),
        (("run", "--annotations", "run/graph.json"), "expected 'sae_graphs/annotations/1'"),
        ((), "Missing argument"),
    ],
)
def test_mistakes_are_one_line(
    run: Commands, saved: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    before = names_in(saved)
    done = run("export", *arguments)
    assert done.code == 2
    assert said in done.err and done.err.count("\n") == 1
    assert names_in(saved) == before


def test_help_has_an_example(run: Commands) -> None:
    done = run("export", "--help")
    assert done.code == 0
    assert "sae-graphs export outputs/copyright-c --formats" in done.out
    words = " ".join(done.out.replace("│", " ").split())
    assert 'read_csv(file, dtype={"source": str, "target": str, "feature": str})' in words


def test_a_full_disk_leaves_the_old_exports(
    run: Commands, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("export", "run", "--formats", "csv")

    def full(*_: object, **__: object) -> dict[str, bytes]:
        raise OSError(28, "No space left on device")

    before = CausalGraph.load(saved)
    monkeypatch.setattr("sae_graphs.files.Path.write_bytes", full)
    done = run("export", "run", "--formats", "gexf")
    assert done.code == 2 and "No space left" in done.err
    assert names_in(saved / "exports") == ["graph.csv", "graph.nodes.csv", "run.json"]
    assert CausalGraph.load(saved) == before
