"""Saved answer graphs: other nodes and edges as in a new run, what is not known said, no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import sae_graphs as sg
from sae_graphs.effects.answer import saving
from sae_graphs.effects.answer.saved import SavedAnswer
from sae_graphs.effects.replot import replot
from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.runs import EFFECTS
from tests.support.commands import Commands
from tests.support.damage import change, with_first
from tests.support.effect_graphs import effect_graph
from tests.support.measured_answers import graph_of, measured_of, references
from tests.support.models import OTHER_PROMPT, PROMPT
from tests.support.slow import only

Saved = tuple[CausalGraph, Path]
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "dense": {"dense": True, "nodes": 5},
    "pinned": {"pin": ("1.18", "0.20@2"), "nodes": 3},
    "contrast": {"target": (" cat",), "contrast": " dog"},
    "layers": {"layers": ("1", "3")},
    "read": {"read": 5, "top_k": 1},
    "gradient": {"method": "gradient"},
    "budget": {"budget": 60},
    "many": {"nodes": 80},
}


def saved_run(model: InstrumentedModel, folder: Path, **options: Any) -> CausalGraph:
    graph = graph_of(model, effects=folder / EFFECTS, **options)
    graph.save(folder)
    return graph


@pytest.fixture(scope="module")
def made(tiny: InstrumentedModel, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("made") / "run"
    return saved_run(tiny, folder), folder


@pytest.fixture
def saved(made: Saved, tmp_path: Path) -> Saved:
    """A run and a copy of its folder."""
    return made[0], Path(shutil.copytree(made[1], tmp_path / "run"))


def assert_drawn_alike(one: CausalGraph, two: CausalGraph, rounding: float = 1e-9) -> None:
    """The same nodes and edges, their numbers but for rounding, the same record."""
    assert [node.feature for node in one.nodes] == [node.feature for node in two.nodes]
    for mine, other in zip(one.nodes, two.nodes, strict=True):
        for name in ("activation", "activations", "component", "relay", "token", "density"):
            assert getattr(mine, name) == getattr(other, name), (mine.feature, name)
        for name in ("effect_on_answer", "direct_effect"):
            values = (getattr(mine, name) or 0.0, getattr(other, name) or 0.0)
            assert values[0] == pytest.approx(values[1], rel=rounding, abs=rounding), (
                mine.feature,
                name,
            )
        assert [token.token for token in mine.promotes] == [token.token for token in other.promotes]
    ends = [{(edge.source, edge.target): edge for edge in graph.edges} for graph in (one, two)]
    assert ends[0].keys() == ends[1].keys()
    for place, edge in ends[0].items():
        other_edge = ends[1][place]
        for name in ("effect", "relative_effect", "flow"):
            values = getattr(edge, name) or 0.0, getattr(other_edge, name) or 0.0
            assert values[0] == pytest.approx(values[1], rel=rounding, abs=rounding), (place, name)
    assert one.run.settings == two.run.settings
    assert one.run.answer is not None and two.run.answer is not None
    for name in ("score", "measured", "exact", "dense", "stranded", "missed"):
        assert getattr(one.run.answer, name) == getattr(two.run.answer, name), name
    for layer, theirs in zip(one.run.layers, two.run.layers, strict=True):
        mine_kept, theirs_kept = layer.kept_abs_effect, theirs.kept_abs_effect
        assert mine_kept == pytest.approx(theirs_kept)
        assert replace(layer, no_anatomy=None, kept_abs_effect=None) == replace(
            theirs, no_anatomy=None, kept_abs_effect=None
        )


# -- drawn again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", only(CASES, "plain"))
def test_the_same_settings_give_the_same_graph(
    tiny: InstrumentedModel, tmp_path: Path, name: str
) -> None:
    options = CASES[name]
    graph = saved_run(tiny, tmp_path, **options)
    assert graph.edges and graph == graph_of(tiny, **options)
    assert replot(tmp_path) == graph
    assert replot(tmp_path / "graph.json") == graph
    assert {path.name for path in tmp_path.iterdir()} == {EFFECTS, "graph.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", only(CASES, "plain"))
def test_other_settings_give_the_graph_of_a_new_run(
    tiny: InstrumentedModel, tmp_path: Path, name: str
) -> None:
    options = CASES[name]
    saved_run(tiny, tmp_path, **options)
    choices: tuple[dict[str, Any], ...] = (
        {"nodes": 1},
        {"nodes": 8, "dense": True},
        {"nodes": 24, "top_k": 1},
        {"nodes": 64, "top_k": 9, "dense": False},
        {"nodes": 64, "top_k": 2, "dense": True},
    )
    for chosen in choices:
        assert_drawn_alike(replot(tmp_path, **chosen), graph_of(tiny, **{**options, **chosen}))


@pytest.mark.slow
def test_on_the_bundled_model(tmp_path: Path) -> None:
    demo, prompt = sg.load("demo"), "Copyright (C"
    graph = sg.causal_graph(demo, prompt, effects=tmp_path / EFFECTS)
    graph.save(tmp_path)
    assert replot(tmp_path) == graph
    choices: tuple[dict[str, Any], ...] = (
        {"nodes": 6},
        {"nodes": 40, "top_k": 2},
        {"nodes": 12, "dense": True},
    )
    for chosen in choices:
        again, fresh = replot(tmp_path, **chosen), sg.causal_graph(demo, prompt, **chosen)
        assert_drawn_alike(again, fresh, rounding=1e-4)  # float32, of scores of some 10 nats
        for node in again.nodes:
            assert node.contexts == fresh[node.feature].contexts


@pytest.mark.slow
def test_coverage_and_paths_are_those_of_the_same_nodes(saved: Saved) -> None:
    graph, folder = saved
    answer = graph.run.answer
    assert answer is not None and answer.paths
    others = replot(folder, nodes=9)
    assert others.run.answer is not None
    assert others.run.answer.coverage is None and not others.run.answer.paths
    assert any("not known" in words for words in others.run.warnings)
    edges = replot(folder, top_k=1)
    assert edges.run.answer is not None
    assert edges.run.answer.coverage == answer.coverage and not edges.run.answer.paths
    others.save(folder)  # the effects are those of the same run
    again = replot(folder, nodes=16).run
    assert (again.answer, again.warnings) == (answer, graph.run.warnings)


@pytest.mark.slow
def test_saving_changes_nothing(tiny: InstrumentedModel, made: Saved) -> None:
    assert made[0] == graph_of(tiny)


def test_every_effect_on_the_answer_is_saved(tiny: InstrumentedModel, made: Saved) -> None:
    graph, folder = made
    held = SavedAnswer(folder, graph.run)
    found = measured_of(tiny)
    saved_ones = {
        (depth, int(feature), int(position)): float(value)
        for depth in range(4)
        for block in held.blocks([depth])
        for feature, position, value in zip(
            block.sources, block.source_positions, block.values, strict=True
        )
    }
    wanted = {
        found.table.spot(depth, row): float(effect)
        for depth, effects in enumerate(found.table.effects)
        for row, effect in enumerate(effects)
        if effect
    }
    assert saved_ones == wanted and len(wanted) > 200
    tensors = load_file(folder / EFFECTS)
    clean = tiny.clean_run(PROMPT)
    for depth, layer in enumerate(held.layers):
        dense = clean.activations[depth].dense()
        assert list(layer.of(3, len(clean))) == dense[:, 3].tolist()
        density = references(tiny)[depth].density[torch.from_numpy(layer.ablated).long()]
        assert tensors[f"{depth}.density"].tolist() == density.tolist()
        assert tensors[f"{depth}.dense"].tolist() == (density >= 0.3).int().tolist()
    assert all(node.density is not None for node in held.described.values())


# -- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 65}, "nodes .--nodes. is 65"),
        ({"nodes": 0}, "nodes is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"per": "layer"}, "per .--per. is 'layer'"),
        ({"min_path_edges": 2}, "min_path_edges .--min-path-edges. is 2"),
        ({"layers": ("0", "2")}, "layers"),
        ({"pin": "1.3"}, "pin"),
    ],
)
def test_settings_that_do_not_fit(saved: Saved, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SaeGraphsError, match=message) as caught:
        replot(saved[1], **options)
    assert "\n" not in str(caught.value)


def test_nodes_are_for_answer_graphs(tiny: InstrumentedModel, tmp_path: Path) -> None:
    effect_graph(tiny, PROMPT, effects=tmp_path / EFFECTS).save(tmp_path)
    for options in ({"nodes": 4}, {"dense": True}):
        with pytest.raises(SaeGraphsError, match="select='effect'"):
            replot(tmp_path, **options)


def test_without_saved_effects_or_with_those_of_another(
    tiny: InstrumentedModel, tiny_graph: CausalGraph, saved: Saved, tmp_path: Path
) -> None:
    graph_of(tiny).save(tmp_path / "bare")
    with pytest.raises(GraphFileError, match="--save-effects"):
        replot(tmp_path / "bare")
    for graph in (
        graph_of(tiny, OTHER_PROMPT),
        graph_of(tiny, contrast=" dog"),
        graph_of(tiny, read=6),
    ):
        graph.save(saved[1])
        with pytest.raises(GraphFileError, match="another run"):
            replot(saved[1])
    tiny_graph.save(saved[1])
    with pytest.raises(GraphFileError, match="schema"):
        replot(saved[1])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "spot outside": change("spots", with_first(9)),
    "relay outside": change("relays", with_first(10**6)),
    "edge outside": change("edges", with_first(-1)),
    "direct effect NaN": change("direct_effects", with_first(float("nan"))),
    "flows too short": change("edges.flow", lambda column: column[:-1]),
    "spots of two columns": change("spots", lambda column: column[:, :2].copy()),
    "edges of three": change("edges", lambda column: np.repeat(column, 2, axis=1)),
    "nodes cut": change("described", lambda text: text[:-5]),
    "nodes missing": change("described", lambda text: np.frombuffer(b"[]", np.uint8)),
    "known cut": change("known", lambda text: text[:-5]),
    "known of another kind": change("known", lambda text: np.frombuffer(b"[5]", np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_effects_are_one_line(saved: Saved, damage: Callable[[Path], object]) -> None:
    damage(saved[1] / EFFECTS)
    with pytest.raises(GraphFileError) as caught:
        replot(saved[1], nodes=40)
    assert "\n" not in str(caught.value) and EFFECTS in str(caught.value)


def test_where_nothing_can_be_written(tiny: InstrumentedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaeGraphsError, match="cannot write"):
        graph_of(tiny, effects=tmp_path / "file" / EFFECTS)


def test_relays_of_relays_are_saved(
    tiny: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one feature saved, its whole chain is there, and no more."""
    monkeypatch.setattr(saving, "CHOSEN", 1)
    graph = saved_run(tiny, tmp_path, nodes=1)
    facts = SavedAnswer(tmp_path, graph.run)
    (spot,) = facts.kept(1, dense=False)
    chain = [str(FeatureId(facts.labels[spot.depth], spot.feature, spot.position))]
    while (relay := facts.relay(spot)) is not None:
        assert relay.depth == spot.depth + 1
        spot = relay
        chain.append(str(FeatureId(facts.labels[spot.depth], spot.feature, spot.position)))
    assert set(chain) <= {str(feature) for feature in facts.described}


# -- the commands ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_draws_without_torch_and_beside(commands: Commands, tmp_path: Path) -> None:
    answer = commands("graph", "Copyright (C", "--save-effects", "--formats", "dot")
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / "copyright-c"
    assert EFFECTS in json.loads((folder / "run.json").read_text())["files"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code = (
        "import sys\nfrom sae_graphs import cli\n"
        "sys.argv = 'sae-graphs graph --from outputs/copyright-c --nodes 8'.split()\n"
        "try:\n    cli.main()\nfinally:\n    assert 'torch' not in sys.modules, 'slow'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    again = tmp_path / "outputs" / "copyright-c-nodes-8"
    assert CausalGraph.load(again).run.settings["nodes"] == 8
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    answer = commands("graph", "--from", str(again), "--nodes", "16", "--out", "back")
    assert answer.code == 0, answer.err
    first, back = CausalGraph.load(folder), CausalGraph.load("back")
    assert (back.run.answer, back.nodes) == (first.run.answer, first.nodes)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (("--nodes", "4"), "run-nodes-4"),
        (("--top-k", "2", "--dense"), "run-dense-top-k-2"),
    ],
)
def test_from_names_the_folder(
    commands: Commands, saved: Saved, words: tuple[str, ...], folder: str
) -> None:
    answer = commands("graph", "--from", str(saved[1]), *words, "--formats", "dot")
    assert answer.code == 0, answer.err
    assert (saved[1].with_name(folder) / EFFECTS).is_file()


@pytest.mark.parametrize(
    "words", [("--nodes", "65"), ("--per", "layer"), ("--min-path-edges", "1"), ("--budget", "9")]
)
def test_from_says_in_one_line_what_it_cannot(
    commands: Commands, saved: Saved, words: tuple[str, ...]
) -> None:
    answer = commands("graph", "--from", str(saved[1]), *words, "--formats", "dot")
    assert answer.code == 2 and len(answer.err.strip().splitlines()) == 1
    assert words[0] in answer.err


def test_effects_on_the_answer_without_dense_features(saved: Saved) -> None:
    facts = SavedAnswer(saved[1], saved[0].run)
    left_out = 0
    for depth, label in enumerate(facts.labels):
        (every,), (rare,) = (facts.on_answer(depth, dense=dense) for dense in (True, False))
        held = load_file(facts.file)
        dense = held[f"{depth}.ablated"][held[f"{depth}.dense"].astype(bool)]
        assert len(every) - len(rare) == int(np.isin(every.sources, dense).sum()), label
        assert not np.isin(rare.sources, dense).any()
        left_out += len(every) - len(rare)
    assert left_out > 0
