"""`sae-graphs graph` with a title, a caption and annotations, and whatever draws a run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae_graphs.cli.outputs import annotations_of, rewrite_graph, write_run, write_validation
from sae_graphs.errors import GraphFileError
from sae_graphs.graph.annotations import NO_ANNOTATIONS, Annotations, Group, load, save
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.runs import recorded_files
from tests.support import evidence
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT
from tests.support.graphs import example
from tests.support.models import save_model_folder, save_sae_folder

F = FeatureId.parse
TOLD = Annotations(
    title="From the file",
    caption="A caption from the file",
    pins=(F("0.1"),),
    groups=(Group("a pair", (F("1.1"), F("1.2")), folded=True),),
    labels={F("3.5"): "the end of it"},
    notes={F("0.1"): "where it starts"},
    note="on all of it",
)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options for a tiny model and its SAEs."""
    root = tmp_path_factory.mktemp("annotated")
    model, saes = save_model_folder(root / "model"), save_sae_folder(root / "saes")
    return "--model", str(model), "--saes", str(saes), "--min-path-edges", "1"


def saved(folder: Path, annotations: Annotations = NO_ANNOTATIONS) -> Path:
    graph = example()
    write_run(folder, graph, formats=("svg", "dot"), seconds=1.0, annotations=annotations)
    return folder


def picture(folder: Path, name: str = "graph.svg") -> str:
    return (folder / name).read_text().replace("\xa0", " ")


def files_of(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "run.json").read_text())["files"]
    return found


# -- with a model ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_title_and_a_caption_are_drawn_and_kept(
    run: Commands, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    words = ("--title", "Our <title>", "--caption", "As seen in our paper")
    run("graph", "the cat", *EFFECT, *tiny, *words, "--formats", "svg", "--out", "here")
    folder = tmp_path / "here"
    assert "Our &lt;title&gt;" in picture(folder) and "As seen in our paper" in picture(folder)
    assert "annotations.json" in files_of(folder)
    assert load(folder) == Annotations(title="Our <title>", caption="As seen in our paper")
    run(
        "graph", "the cat", *EFFECT, *tiny, "--formats", "svg", "--out", "here"
    )  # nothing said is lost
    assert load(folder).caption == "As seen in our paper"
    assert "Our &lt;title&gt;" in picture(folder)
    answer = run("graph", "the dog", *EFFECT, *tiny, "--formats", "svg", "--out", "here")
    assert answer.code == 2 and "what was said of a run of another prompt" in oneline(answer.err)
    assert load(folder).caption == "As seen in our paper"


def oneline(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
def test_a_file_is_drawn_and_words_on_the_line_take_its_place(
    run: Commands, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    run("graph", "the cat", *EFFECT, *tiny, "--formats", "dot", "--out", "first")
    graph = CausalGraph.load(tmp_path / "first")
    known = graph.nodes[0].feature
    unknown = F(f"{known.layer}.987654321")
    save(Annotations("Old", "Kept", pins=(known, unknown)), tmp_path / "mine.json")
    told = ("--annotations", "mine.json", "--title", "New")
    answer = run("graph", "the cat", *EFFECT, *tiny, *told, "--formats", "svg", "--out", "here")
    assert "annotated, but not in this graph, and left out" in " ".join(answer.err.split())
    assert load(tmp_path / "here") == Annotations("New", "Kept", pins=(known, unknown))
    assert "★" in picture(tmp_path / "here") and "Kept" in picture(tmp_path / "here")


@pytest.mark.slow
def test_a_long_run_is_not_lost_to_foreign_annotations(
    run: Commands, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    save(Annotations(title="Mine", pins=(F("99.1"),)), tmp_path / "mine.json")
    told = ("--annotations", "mine.json", "--formats", "svg", "--out", "here")
    answer = run("graph", "the cat", *EFFECT, *tiny, *told)
    assert answer.code == 0
    assert "none of the annotated features is in this graph" in " ".join(answer.err.split())
    assert load(tmp_path / "here") == load(tmp_path / "mine.json")
    assert "Mine" in picture(tmp_path / "here")


def test_a_bad_file_is_refused_before_the_model_is_loaded(run: Commands, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("[]")
    for name, words in (("bad.json", "schema is None"), ("none.json", "cannot read")):
        answer = run("graph", "the cat", *EFFECT, "--model", "nowhere", "--annotations", name)
        assert answer.code == 2 and words in answer.err
    answer = run("graph", "the cat", *EFFECT, "--model", "nowhere", "--title", "x" * 3000)
    assert answer.code == 2 and "at most 2,000 characters" in " ".join(answer.err.split())


# -- a saved graph, drawn again --------------------------------------------------------------------


@pytest.mark.slow
def test_any_saved_graph_is_drawn_again_with_annotations(run: Commands, tmp_path: Path) -> None:
    folder = saved(tmp_path / "plain")
    save(TOLD, tmp_path / "mine.json")
    answer = run("graph", "--from", "plain", "--annotations", "mine.json", "--formats", "svg,pdf")
    assert answer.code == 0, answer.err
    made = tmp_path / "plain-annotated"
    for words in ("From the file", "A caption from the file", "a pair", "the end of it", "★"):
        assert words in picture(made), words
    assert CausalGraph.load(made) == CausalGraph.load(folder)
    assert load(made) == TOLD
    assert recorded_files(made) >= {"annotations.json", "graph.pdf"}
    assert "From the file" not in picture(folder) and not (folder / "annotations.json").exists()


@pytest.mark.slow
def test_what_was_said_of_a_drawing_stays_when_it_is_drawn_again(
    run: Commands, tmp_path: Path
) -> None:
    saved(tmp_path / "plain")
    save(TOLD, tmp_path / "mine.json")
    again = ("graph", "--from", "plain", "--formats", "svg", "--out", "made")
    assert run(*again, "--annotations", "mine.json").code == 0
    assert run(*again).code == 0
    assert load(tmp_path / "made") == TOLD and "From the file" in picture(tmp_path / "made")


def test_a_file_takes_the_place_of_one_that_cannot_be_read(run: Commands, tmp_path: Path) -> None:
    folder = saved(tmp_path / "plain")
    (folder / "annotations.json").write_text("{broken")
    save(TOLD, tmp_path / "mine.json")
    told = ("--annotations", "mine.json", "--formats", "svg")
    assert run("graph", "--from", "plain", *told).code == 0
    assert load(tmp_path / "plain-annotated") == TOLD


@pytest.mark.slow
def test_what_is_kept_is_drawn_again(run: Commands, tmp_path: Path) -> None:
    saved(tmp_path / "told", TOLD)
    again = ("graph", "--from", "told", "--formats", "svg")
    assert run(*again, "--title", "Another", "--out", "one").code == 0
    assert "Another" in picture(tmp_path / "one") and "the end of it" in picture(tmp_path / "one")
    assert run(*again, "--out", "two").code == 0
    assert load(tmp_path / "two") == TOLD
    save(Annotations(labels={F("0.1"): "instead"}), tmp_path / "other.json")
    assert run(*again, "--annotations", "other.json", "--out", "three").code == 0
    assert "the end of it" not in picture(tmp_path / "three")


def test_without_effects_nothing_else_can_be_chosen(run: Commands, tmp_path: Path) -> None:
    saved(tmp_path / "told", TOLD)
    save(TOLD, tmp_path / "mine.json")
    for more in ((), ("--top-k", "3"), ("--top-k", "3", "--annotations", "mine.json")):
        answer = run("graph", "--from", "told", *more)
        assert answer.code == 2 and "no effects.safetensors" in " ".join(answer.err.split())


def test_annotations_of_another_graph_are_refused(run: Commands, tmp_path: Path) -> None:
    saved(tmp_path / "plain")
    save(Annotations(pins=(F("99.1"),)), tmp_path / "mine.json")
    answer = run("graph", "--from", "plain", "--annotations", "mine.json")
    assert answer.code == 2
    assert "none of the annotated features is in this graph: 99.1" in " ".join(answer.err.split())
    assert not (tmp_path / "plain-annotated").exists()


@pytest.mark.slow
def test_effects_chosen_anew_keep_annotations(
    run: Commands, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    told = ("--save-effects", "--title", "Kept title", "--formats", "dot", "--out", "here")
    run("graph", "the cat", *EFFECT, *tiny, *told)
    answer = run("graph", "--from", "here", "--top-k", "2", "--formats", "svg", "--out", "two")
    assert answer.code == 0, answer.err
    assert "Kept title" in picture(tmp_path / "two")
    answer = run("graph", "--from", "here", "--caption", "below", "--formats", "svg")
    assert "below" in picture(tmp_path / "here-annotated")
    assert (tmp_path / "here-annotated" / "effects.safetensors").exists()


# -- other commands that draw ----------------------------------------------------------------------


def test_a_rewritten_graph_keeps_its_annotations(tmp_path: Path) -> None:
    folder = saved(tmp_path / "told", TOLD)
    before = (folder / "annotations.json").read_bytes()
    (folder / "graph.svg").write_text("old")
    graph = CausalGraph.load(folder)
    rewrite_graph(folder, graph, loaded=graph)
    assert "the end of it" in picture(folder) and "From the file" in picture(folder)
    assert (folder / "annotations.json").read_bytes() == before
    assert "annotations.json" in files_of(folder)


@pytest.mark.slow
def test_the_pictures_of_a_validation_are_annotated(tmp_path: Path) -> None:
    folder = saved(tmp_path / "told", TOLD)
    write_validation(folder / "validation", evidence.report(), example(), seconds=1.0)
    assert "the end of it" in picture(folder / "validation", "graph-validated.svg")
    assert "From the file" in picture(folder / "validation", "graph-validated.svg")
    assert "the end of it" in picture(folder / "validation", "validation.html")


def test_a_file_that_a_user_put_there_may_be_of_another_graph(tmp_path: Path) -> None:
    folder = saved(tmp_path / "plain")
    graph = CausalGraph.load(folder)
    assert annotations_of(folder, graph) == NO_ANNOTATIONS
    save(Annotations(title="Here", pins=(F("99.1"),)), folder)
    assert annotations_of(folder, graph) == Annotations(title="Here")
    (folder / "annotations.json").write_text("{")
    with pytest.raises(GraphFileError, match="is not JSON"):
        rewrite_graph(folder, graph, loaded=graph)
