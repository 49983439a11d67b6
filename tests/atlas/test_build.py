"""Atlases that are built: their rows are the graphs' own, however a build is stopped."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from tokenizers import normalizers

import sae_graphs as sg
from sae_graphs.atlas import build, measure, store
from sae_graphs.atlas.prompts import Asked, digest
from sae_graphs.atlas.rows import TABLES, Rows, rows_of
from sae_graphs.effects.build import bare_graph
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge, Node
from tests.atlas.conftest import TEXTS
from tests.support.atlases import FACTS
from tests.support.rich_graphs import record

EFFECT = GraphSettings(select="effect", min_path_edges=1, top_k=3)


def everything(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, in the order of their contents."""
    rows = sg.Atlas(folder)._database.rows
    return {table: sorted(rows(f"SELECT * FROM {table}"), key=str) for table in TABLES}


def same(found: Sequence[tuple[Any, ...]], expected: Sequence[tuple[Any, ...]]) -> bool:
    """Whether rows are equal, numbers to the rounding of float64, whatever their order."""
    order = [sorted(rows, key=lambda row: str(row[:6])) for rows in (found, expected)]
    return all(
        len(one) == len(other)
        and all(
            a == (pytest.approx(b, rel=1e-9, abs=1e-12) if isinstance(b, float) else b)
            for a, b in zip(one, other, strict=True)
        )
        for one, other in zip(*order, strict=True)
    )


def of_node(node: Node) -> tuple[Any, ...]:
    return (
        *(node.feature.layer, node.feature.index, node.feature.position, node.activation),
        *(node.effect_on_answer, node.direct_effect, node.density, node.relay),
    )


def of_edge(edge: Edge) -> tuple[Any, ...]:
    split = edge.anatomy
    parts = (
        (None,) * 4
        if split is None
        else (split.skip, split.attention, split.mlp, split.preactivation_effect)
    )
    return (
        *(edge.source.layer, edge.source.index, edge.source.position),
        *(edge.target.layer, edge.target.index, edge.target.position),
        *(edge.effect, edge.relative_effect, edge.flow, *parts),
    )


NODE = 'layer, "index", position, activation, effect_on_answer, direct_effect, density, relay'
PROMPT = (
    "prompt, tokens, nodes, edges, read_position, CASE WHEN score IS NULL THEN NULL ELSE target "
    "END, score, coverage_lost, coverage_left"
)
EDGE = (
    "source_layer, source_index, source_position, target_layer, target_index, target_position, "
    "effect, relative_effect, flow, skip, attention, mlp, preactivation_effect"
)


def test_a_difference_is_seen() -> None:
    row = ("0", 1, None, "1", 2, None, 0.5)
    assert same([row], [row])
    assert not same([row], [(*row[:6], 0.5 + 1e-8)])
    assert not same([row], [(*row[:6], None)])
    assert not same([row], [("0", 3, *row[2:])])


@pytest.mark.parametrize("settings", [GraphSettings(nodes=5), EFFECT], ids=["answer", "effect"])
def test_the_rows_are_the_graphs_own(model: Any, tmp_path: Path, settings: GraphSettings) -> None:
    """Of graphs that `causal_graph` makes with all that is drawn, and to the last digit of those
    that are without."""
    built = sg.build_atlas(model, TEXTS, tmp_path / "atlas", settings=settings)
    assert (built.measured, built.known, built.failed) == (len(TEXTS), 0, ())
    rows = sg.Atlas(tmp_path / "atlas")._database.rows
    fixed = build.plan_of(settings).settings
    for text in TEXTS:
        name = [Asked(text).id]
        nodes = rows(f"SELECT {NODE} FROM nodes WHERE prompt_id = ?", name)
        edges = rows(f"SELECT {EDGE} FROM edges WHERE prompt_id = ?", name)
        bare = bare_graph(model, text, fixed)
        assert sorted(nodes, key=str) == sorted(map(of_node, bare.nodes), key=str)
        assert sorted(edges, key=str) == sorted(map(of_edge, bare.edges), key=str)
        graph = sg.causal_graph(model, text, settings=fixed)
        assert len(graph.edges) > 3
        assert same(nodes, [*map(of_node, graph.nodes)])
        assert same(edges, [*map(of_edge, graph.edges)])
        (found,) = rows(f"SELECT {PROMPT} FROM prompts WHERE prompt_id = ?", name)
        assert same([found], [of_prompt(graph)])


def of_prompt(graph: sg.CausalGraph) -> tuple[Any, ...]:
    answer = graph.run.answer
    coverage = None if answer is None else answer.coverage
    return (
        *(graph.prompt, list(graph.tokens), len(graph.nodes), len(graph.edges)),
        *(graph.run.read_position, None if answer is None else graph.run.outputs[0].token),
        None if answer is None else answer.score,
        *((None, None) if coverage is None else (coverage.lost, coverage.left)),
    )


def test_what_is_there_is_not_measured_again(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    own = measure.bare_graph

    def counted(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        measured.append(prompt)
        return own(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", counted)
    rows = [{"prompt": text, "kind": text[4:7]} for text in TEXTS]
    sg.build_atlas(model, [*rows[:2], rows[0]], tmp_path / "a", settings=EFFECT)
    assert measured == list(TEXTS[:2])
    again = sg.build_atlas(model, rows, tmp_path / "a", settings=EFFECT)
    assert measured == list(TEXTS)
    assert (again.measured, again.known) == (2, 2)
    assert len(list((tmp_path / "a" / "parts").iterdir())) == 1  # of all
    whole = sg.build_atlas(model, rows, tmp_path / "b", settings=EFFECT)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert whole.per_minute > 0
    assert sg.Atlas(tmp_path / "a").categories == ("kind",)


def test_other_rows_are_refused(model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    sg.build_atlas(model, TEXTS[:1], folder, settings=EFFECT)
    before = everything(folder)
    other = GraphSettings(select="effect", min_path_edges=1, top_k=4)
    with pytest.raises(SaeGraphsError, match="an atlas with top_k 3, and this build has 4"):
        sg.build_atlas(model, TEXTS, folder, settings=other)
    weights = next(model.model.parameters())
    held = weights.detach().clone()
    try:
        weights.data += 0.01
        with pytest.raises(SaeGraphsError, match="is an atlas with digest"):
            sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    finally:
        weights.data.copy_(held)
    assert everything(folder) == before


TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
NUMBER = st.floats(-1e6, 1e6)
PLACE = st.integers(0, 3)


@st.composite
def graphs(draw: st.DrawFn) -> Any:
    """What `rows_of` reads of a graph: nodes at tokens, and edges from one layer to the next."""
    tokens = tuple(draw(st.lists(TEXT, min_size=4, max_size=4)))
    spots = draw(st.lists(st.tuples(st.sampled_from("012"), PLACE, PLACE), unique=True, max_size=9))
    nodes = [
        Node(
            FeatureId(layer, index, position),
            activation=draw(NUMBER),
            effect_on_answer=draw(st.none() | NUMBER),
            density=draw(st.none() | st.floats(0, 1)),
            relay=draw(st.booleans()),
        )
        for layer, index, position in spots
    ]
    pairs = [
        (one.feature, other.feature)
        for one in nodes
        for other in nodes
        if int(other.feature.layer) == int(one.feature.layer) + 1
    ]
    edges = [
        Edge(source, target, effect=draw(NUMBER), flow=draw(st.none() | NUMBER))
        for source, target in (draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])
    ]
    return SimpleNamespace(run=record(tokens), nodes=nodes, edges=edges)


@hypothesis.settings(max_examples=20, deadline=None, phases=[hypothesis.Phase.generate])
@hypothesis.given(
    st.dictionaries(TEXT.filter(bool), st.tuples(graphs(), TEXT), min_size=1, max_size=3)
)
def test_the_rows_are_those_of_any_graphs(held: dict[str, tuple[Any, str]]) -> None:
    """Written to parts, made one and read again: to the last digit, whatever the texts say."""
    asked = {text: Asked(text, None, {"kind": kind}) for text, (_, kind) in held.items()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "atlas"
        with store.writing(folder, store.Manifest(FACTS, ("kind",))) as made:
            measured = [rows_of(graph, asked[text]) for text, (graph, _) in held.items()]
            made.add(measured[:1])
            for each in measured[1:]:
                made.note(each)
            made.recover()
            made.compact()
        rows = sg.Atlas(folder)._database.rows
        for text, (graph, kind) in held.items():
            name = [asked[text].id]
            found = rows("SELECT prompt, kind, tokens FROM prompts WHERE prompt_id = ?", name)
            assert found == [(text, kind, list(graph.run.tokens))]
            nodes = rows(f"SELECT {NODE} FROM nodes WHERE prompt_id = ?", name)
            edges = rows(f"SELECT {EDGE} FROM edges WHERE prompt_id = ?", name)
            assert sorted(nodes, key=str) == sorted(map(of_node, graph.nodes), key=str)
            assert sorted(edges, key=str) == sorted(map(of_edge, graph.edges), key=str)


@pytest.mark.parametrize(
    "change",
    [
        *("a density", "a mean", "the SAE's settings", "the tokenizer", "what is resampled"),
        "a mean of effects",
    ],
)
def test_what_determines_the_rows_is_in_the_digest(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = tmp_path / "other.txt"
    file.write_text("the dog sat")
    intervention = f"resample:{file}" if "resampled" in change else None
    settings = EFFECT if "resampled" in change or "effects" in change else GraphSettings(nodes=5)
    if "effects" in change:
        intervention = "mean"

    def facts() -> Any:
        return measure.Here(model, build.plan_of(settings, intervention)).facts()

    before = facts()
    assert facts() == before
    if "density" in change or "mean" in change:
        own = measure.references_of

        def other(*given: Any) -> Any:
            first, *rest = own(*given)
            name = "density" if "density" in change else "mean"
            return [replace(first, **{name: getattr(first, name) * 0.5}), *rest]

        monkeypatch.setattr(measure, "references_of", other)
    elif "settings" in change:
        cfg = model.stack.layers[0].cfg
        held = {**cfg.to_dict(), "normalize_activations": "something else"}
        monkeypatch.setattr(type(cfg), "to_dict", lambda self: held)
    elif "tokenizer" in change:
        fast = model.model.tokenizer.backend_tokenizer
        fast.enable_truncation(3)  # of a call, not of the tokenizer
        assert facts() == before
        fast.no_truncation()
        monkeypatch.setattr(fast, "normalizer", normalizers.Lowercase())
    else:
        file.write_text("the cat sat")
    assert facts() != before
    if "resampled" in change:
        assert facts()["intervention"] != before["intervention"]
        file.rename(tmp_path / "moved.txt")
        intervention = f"resample:{tmp_path / 'moved.txt'}"
        (tmp_path / "moved.txt").write_text("the dog sat")
        assert facts() == before, "a file's name says nothing"


def test_a_bad_prompt_is_listed_and_ends_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = measure.bare_graph

    def failing(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        if prompt == TEXTS[1]:
            raise MemoryError("too much")
        return own(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", failing)
    rows = [{"prompt": TEXTS[0]}, {"prompt": TEXTS[1]}, {"prompt": "the cat " * 40}]
    rows += [{"prompt": TEXTS[2], "target": "no such token at all"}]
    settings = GraphSettings(nodes=5)
    built = sg.build_atlas(model, rows, tmp_path / "atlas", settings=settings)
    assert built.measured == 1
    reasons = dict(built.failed)
    assert reasons[TEXTS[1]] == "MemoryError: too much"
    assert len(reasons) == 3 and all("\n" not in reason for reason in reasons.values())
    held = sg.Atlas(tmp_path / "atlas").sql("FROM failures")
    assert dict(zip(held["prompt"], held["reason"], strict=True)) == reasons
    monkeypatch.setattr(measure, "bare_graph", own)
    again = sg.build_atlas(model, rows, tmp_path / "atlas", settings=settings)
    assert (again.measured, again.known, len(again.failed)) == (1, 1, 2)
    assert len(sg.Atlas(tmp_path / "atlas").sql("FROM failures")) == 2


def test_nothing_but_failures_is_an_error(model: Any, tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match="not one of 1 prompts could be measured; the first"):
        sg.build_atlas(model, ["the cat " * 40], tmp_path / "atlas", settings=EFFECT)


def test_another_column_is_added(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a"
    rows = [{"prompt": text, "kind": text[4:7]} for text in TEXTS]
    sg.build_atlas(model, rows[:2], folder, settings=EFFECT)
    assert not caplog.records
    more = [{"prompt": TEXTS[2], "size": "s"}, {"prompt": TEXTS[0], "kind": "new", "size": "l"}]
    sg.build_atlas(model, [*more, {**more[0], "size": "m"}], folder, settings=EFFECT)
    said = [record.getMessage() for record in caplog.records]
    assert "1 prompt given twice with different categories; the first ones are kept" in said[0]
    assert "1 prompt measured before with other categories, which are kept" in said[1]
    atlas = sg.Atlas(folder)
    assert atlas.categories == ("kind", "size")
    held = atlas.prompts().set_index("prompt")[["kind", "size"]].astype(object)
    assert held.where(held.notna(), None).loc[list(TEXTS[:3])].values.tolist() == [
        *([TEXTS[0][4:7], None], [TEXTS[1][4:7], None], [None, "s"])
    ]
    for found in (atlas.features(), atlas.edges()):
        assert {"kind", "size"} <= set(found) and len(found)
    assert {"kind", "size"} <= set(atlas.similar(Asked(TEXTS[0]).id))
    with pytest.raises(SaeGraphsError, match="two differ in case alone"):
        sg.build_atlas(model, [{"prompt": TEXTS[3], "Kind": "x"}], folder, settings=EFFECT)
    assert sg.Atlas(folder).categories == ("kind", "size")


def test_a_column_that_no_part_has_yet(model: Any, tmp_path: Path) -> None:
    """The build was killed when the manifest had the name, and nothing was measured."""
    folder = tmp_path / "a"
    sg.build_atlas(model, TEXTS[:2], folder, settings=EFFECT)
    with store.writing(folder, store.Manifest(store.Manifest.read(folder).facts, ("size",))):
        pass
    (folder / ".atlas.json.0123").write_text("half")
    atlas = sg.Atlas(folder)
    for found in (atlas.features(), atlas.edges(), atlas.prompts()):
        assert found["size"].isna().all() and len(found)
    sg.build_atlas(model, TEXTS[:2], folder, settings=EFFECT)
    assert not list(folder.glob(".atlas.json.*"))


def test_what_a_killed_build_left_is_no_other_program_s(model: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".atlas.json.0123").write_text("half")
    assert sg.build_atlas(model, TEXTS[:1], tmp_path / "a", settings=EFFECT).measured == 1


def test_half_characters_are_told_or_replaced(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in (
        {"prompt": "a\ud800"},
        {"prompt": "a", "kind": "\udfff"},
        {"prompt": "a", "\ud800": "b"},
    ):
        with pytest.raises(SaeGraphsError, match=r"prompt 2: .* half a character"):
            sg.build_atlas(model, [TEXTS[0], row], tmp_path / "a", settings=EFFECT)

    def failing(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        if prompt == TEXTS[1]:
            raise ValueError("bad \ud800 byte")
        return bare_graph(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", failing)
    built = sg.build_atlas(model, TEXTS[:3], tmp_path / "a", settings=EFFECT)
    assert built.measured == 2
    assert [reason for _, reason in built.failed] == ["ValueError: bad ? byte"]


def test_the_last_reason_stands(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a prompt fails, in parts of their own and when all are made one."""
    reasons = iter(["zebra", "apple", "mango"])

    def failing(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        if prompt == TEXTS[1]:
            raise ValueError(next(reasons))
        return bare_graph(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", failing)
    for reason in ("zebra", "apple", "mango"):
        sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
        held = sg.Atlas(tmp_path / "a").sql("FROM failures")
        assert held["reason"].tolist() == [f"ValueError: {reason}"]


# -- faults ----------------------------------------------------------------------------------------


def stopping(after: int) -> Callable[..., Iterator[Rows]]:
    """Measuring that is stopped by Ctrl-C after so many prompts."""

    def rows(self: Any, asked: Sequence[Asked]) -> Iterator[Rows]:
        for number, each in enumerate(asked):
            if number == after:
                raise KeyboardInterrupt
            yield self.measured(each)

    return rows


def test_an_interrupted_build_goes_on(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(measure.Here, "rows", stopping(2))
        with pytest.raises(KeyboardInterrupt):
            sg.build_atlas(model, TEXTS, tmp_path / "a", settings=EFFECT)
    assert len(sg.Atlas(tmp_path / "a").prompts()) == 2, "what is measured can be asked"
    found = sg.build_atlas(model, TEXTS, tmp_path / "a", settings=EFFECT)
    assert (found.known, found.measured) == (2, 2)
    sg.build_atlas(model, TEXTS, tmp_path / "b", settings=EFFECT)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_what_a_killed_build_noted_is_there(model: Any, tmp_path: Path) -> None:
    """Two prompts are noted, one of them is in a part as well, and of a third a piece of a line."""
    folder, here = tmp_path / "a", measure.Here(model, build.plan_of(EFFECT))
    manifest = store.Manifest(here.facts(), ("kind",))
    asked = [Asked(text, None, {"kind": text[4:7]}) for text in TEXTS]
    rows = list(here.rows(asked[:2]))
    with store.writing(folder, manifest) as held:
        held.add(rows[:1])
        for each in rows:
            held.note(each)
        journal = folder / store.JOURNAL
        journal.write_text(journal.read_text() + '["half a li')
    found = sg.build_atlas(
        model, [{"prompt": text, "kind": text[4:7]} for text in TEXTS], folder, settings=EFFECT
    )
    assert (found.known, found.measured) == (2, 2)
    assert not journal.exists()
    sg.build_atlas(
        model,
        [{"prompt": text, "kind": text[4:7]} for text in TEXTS],
        tmp_path / "b",
        settings=EFFECT,
    )
    assert everything(folder) == everything(tmp_path / "b")


def test_a_large_part_is_not_written_again(model: Any, tmp_path: Path) -> None:
    """Parts become one with those of their size: few of them, whatever is added."""
    folder = tmp_path / "a"
    here = measure.Here(model, build.plan_of(EFFECT))
    manifest = store.Manifest(here.facts())
    (rows,) = here.rows([Asked(TEXTS[0])])
    with store.writing(folder, manifest) as held:
        held.add([rows._replace(tables=_often(rows.tables, 400))])
        held.compact()
        (large,) = held.parts()
        for number in range(1, 4):
            held.add([_called(rows, f"{number}")])
            held.compact()
            assert large in held.parts() and len(held.parts()) == 2
        held.compact()
        assert len(held.parts()) == 2
        held.add([rows._replace(tables=_often(rows.tables, 200))])
        held.compact()
        assert len(held.parts()) == 1


def _called(rows: Rows, name: str) -> Rows:
    """The rows as those of another prompt."""
    tables = {
        table: [{**row, "prompt_id": name} for row in held] for table, held in rows.tables.items()
    }
    return Rows(name, tables)


def _often(tables: Any, times: int) -> Any:
    """The rows of so many prompts."""
    return {
        table: [{**row, "prompt_id": digest([number])} for number in range(times) for row in held]
        for table, held in tables.items()
    }


def test_a_full_disk_leaves_no_half_part(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, written = pq.write_table, []

    def full(table: Any, place: Path, **options: Any) -> None:
        written.append(place)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        own(table, place, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(SaeGraphsError, match="No space left on device; what is measured is"):
            sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
    assert not list((tmp_path / "a" / "parts").iterdir())
    again = sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
    assert (again.known, again.measured) == (2, 0), "what was noted before the disk was full"


def test_a_build_killed_while_tidying_doubles_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part of all is in place, and those that it stands for are not gone yet."""
    folder = tmp_path / "a"
    sg.build_atlas(model, TEXTS[:2], folder, settings=EFFECT)
    kept = tmp_path / "kept"
    shutil.copytree(folder / "parts", kept)
    sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    before = everything(folder)
    for part in kept.iterdir():
        shutil.copytree(part, folder / "parts" / part.name)
    assert len(list((folder / "parts").iterdir())) == 2
    assert everything(folder) == before
    (folder / ".drafts" / "half").mkdir(parents=True)
    sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert everything(folder) == before
    assert len(list((folder / "parts").iterdir())) == 1 and not (folder / ".drafts").exists()


@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_could_not_be_taken_away_stays_gone(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A build is killed when it has taken away so many parts; others go on from there."""
    folder = tmp_path / "a"
    own, moved = Path.rename, []

    def rename(self: Path, target: Path) -> Any:
        if self.parent.name == store.PARTS:
            moved.append(self)
            if len(moved) >= at:
                raise OSError(13, "Permission denied")
        return own(self, target)

    monkeypatch.setattr(build, "MOST", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        sg.build_atlas(model, TEXTS[:3], folder, settings=EFFECT)
    assert len(list((folder / "parts").iterdir())) > 1
    before = everything(folder)
    # The part of all is made part of another; what it stood for must not come back.
    kept = [path for path in (folder / "parts").iterdir() if not path.name.startswith("all-")]
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "rename",
            lambda self, target: own(self, target) if self not in kept else _refused(),
        )
        sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert {path.name for path in kept} < {path.name for path in (folder / "parts").iterdir()}
    assert len(everything(folder)["prompts"]) == len(TEXTS) == len(before["prompts"]) + 1
    sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert len(list((folder / "parts").iterdir())) == 1
    sg.build_atlas(model, TEXTS, tmp_path / "b", settings=EFFECT)
    assert everything(folder) == everything(tmp_path / "b")


def _refused() -> None:
    raise OSError(13, "Permission denied")


def test_a_second_build_beside_the_first_is_refused(model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    sg.build_atlas(model, TEXTS[:1], folder, settings=EFFECT)
    with (
        store.writing(folder, store.Manifest.read(folder)),
        pytest.raises(SaeGraphsError, match="another build is writing into"),
    ):
        sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert sg.build_atlas(model, TEXTS, folder, settings=EFFECT).known == 1


def test_many_small_parts_become_one_on_the_way(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "MOST", 1)
    monkeypatch.setattr(build, "SMALL", 2)
    made: list[int] = []
    own = store.Store.compact

    def compact(self: Any) -> None:
        made.append(len(self.parts()))
        own(self)

    monkeypatch.setattr(store.Store, "compact", compact)
    sg.build_atlas(model, TEXTS, tmp_path / "a", settings=EFFECT)
    assert made == [2, 3, 1]
    monkeypatch.undo()
    sg.build_atlas(model, TEXTS, tmp_path / "b", settings=EFFECT)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_other_programs_read_the_views(model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import duckdb

    sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
    (tmp_path / "a").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    database = duckdb.connect("atlas.duckdb", read_only=True)
    assert database.execute("SELECT count(*) FROM prompts").fetchall() == [(2,)]
    database.close()
    facts = json.loads(Path("atlas.json").read_text())
    assert facts["schema"] == "sae_graphs/atlas/1" and facts["made_with"]["sae_graphs"]
    assert facts["facts"]["settings"]["top_k"] == 3


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "atlas.json").write_text("{"), "atlas.json is not JSON"),
        (lambda folder: (folder / "atlas.json").write_text("{}"), "is not of the schema"),
        (lambda folder: (folder / "atlas.json").unlink(), "is no atlas"),
        (
            lambda folder: next(folder.glob("parts/*/edges.parquet")).write_bytes(b"nothing"),
            "cannot read",
        ),
        (lambda folder: shutil.rmtree(folder / "parts"), "holds no prompts yet"),
    ],
)
def test_damage_is_told_in_a_line(
    model: Any, tmp_path: Path, damage: Callable[[Path], Any], words: str
) -> None:
    sg.build_atlas(model, TEXTS[:1], tmp_path / "a", settings=EFFECT)
    damage(tmp_path / "a")
    with pytest.raises(SaeGraphsError, match=words) as told:
        sg.Atlas(tmp_path / "a")
    assert "\n" not in str(told.value)


def test_mistakes_are_told_before_anything_is_measured(model: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    tries: dict[Callable[[], Any], str] = {
        lambda: sg.build_atlas(model, [], tmp_path / "a"): "there are no prompts",
        lambda: sg.build_atlas(model, "text", tmp_path / "a"): "expected several prompts",
        lambda: sg.build_atlas(model, TEXTS, tmp_path / "other"): "holds notes.txt",
        lambda: sg.build_atlas(None, TEXTS, tmp_path / "a"): "no model with SAEs",  # type: ignore[arg-type]
        lambda: sg.build_atlas(
            model, TEXTS, tmp_path / "a", ray="local"
        ): "give its name or folder",
        lambda: sg.build_atlas(model, [{"prompt": "a", "layer": "1"}], tmp_path / "a"): (
            "has the name of one that every atlas has"
        ),
        lambda: sg.build_atlas(model, TEXTS, tmp_path / "a", rays="x"): "did you mean ray",  # type: ignore[call-arg]
    }
    for tried, words in tries.items():
        with pytest.raises(SaeGraphsError, match=words):
            tried()
    for name in ("answer", "x", "Y", "shared_edges", "similarity", "tried"):
        with pytest.raises(SaeGraphsError, match="has the name of one that every atlas has"):
            sg.build_atlas(model, [{"prompt": "a", name: "1"}], tmp_path / "a")
    assert not (tmp_path / "a").exists()
