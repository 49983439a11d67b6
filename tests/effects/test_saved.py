"""Saved effects: every number as measured, other choices of edges as in a new run, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import sae_graphs as sg
from sae_graphs.effects import saving
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.replot import replot
from sae_graphs.effects.saved import SavedEffects, digest_of
from sae_graphs.effects.tensors import layer_tensors, merge_tensors, read_layer, write_tensors
from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import scale
from sae_graphs.runs import EFFECTS
from tests.support.damage import change, with_first
from tests.support.effect_graphs import effect_graph
from tests.support.models import PROMPT
from tests.support.saved_effects import Saved, measured, saved_run
from tests.support.slow import examples, first, only

CASES: dict[str, dict[str, Any]] = {
    "all": {},
    "read": {"ablate": "read"},
    "each": {"ablate": "each"},
    "source": {"per": "source", "top_k": 2},
    "graph": {"per": "graph", "top_k": 20, "min_path_edges": 2},
    "outputs": {"outputs": 4},
    "each with outputs": {"ablate": "each", "outputs": 3, "top_k": 20},
    "contrast": {"target": (" cat",), "contrast": " dog"},
    "layers": {"layers": ("1", "3"), "min_path_edges": 1},
    "half": {"intervention": scale(0.5), "min_path_edges": 1},
    "gradient": {"method": "gradient", "min_path_edges": 1},
}


@pytest.fixture(scope="module")
def demo() -> InstrumentedModel:
    model: InstrumentedModel = sg.load("demo")
    return model


# -- one layer -------------------------------------------------------------------------------------

INDEX = st.integers(0, 99)
PLACE = st.integers(0, 9)
VALUE = st.floats(-(2.0**99), 2.0**99, width=32).filter(bool)


@st.composite
def blocks_of_a_layer(draw: st.DrawFn) -> list[Effects]:
    resolved, kind = draw(st.booleans()), draw(st.sampled_from([np.float32, np.float64]))
    rows = st.tuples(INDEX, PLACE if resolved else st.just(-1), INDEX, PLACE, VALUE)
    found = []
    for entries in draw(st.lists(st.lists(rows, max_size=4), max_size=4)):
        sources, at, targets, read, values = zip(*entries, strict=True) if entries else [()] * 5
        indices: list[Any] = [
            np.array(column, dtype=np.int32) for column in (sources, at, targets, read)
        ]
        if not resolved:
            indices[3] = np.full_like(indices[3], -1)
        numbers = np.array(values, dtype=kind)
        found.append(Effects(2, indices[0], indices[1], indices[2], indices[3], numbers))
    return found


@examples(60)
@given(blocks=blocks_of_a_layer())
def test_a_layer_is_read_in_the_blocks_it_was_measured_in(
    blocks: list[Effects], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("layer") / "layer.safetensors"
    write_tensors(file, layer_tensors(2, blocks), {"schema": "x"})
    again = list(read_layer(file, 2, (100, 100)))
    assert [len(block) for block in again] == [len(block) for block in blocks]
    for one, two in zip(blocks, again, strict=True):
        assert one.depth == two.depth
        for name, column in one.arrays.items():
            assert column.dtype == two.arrays[name].dtype
            assert column.tolist() == two.arrays[name].tolist()


def test_merged_files_hold_every_tensor(tmp_path: Path) -> None:
    parts = []
    whole = {}
    for number, kind in enumerate((np.float64, np.int32, np.uint8)):
        tensors = {f"{number}.a": np.arange(5, dtype=kind), f"{number}.b": np.zeros(0, dtype=kind)}
        parts.append(tmp_path / f"{number}.safetensors")
        write_tensors(parts[-1], tensors, {"part": str(number)})
        whole.update(tensors)
    merge_tensors(tmp_path / "all.safetensors", parts, {"schema": "x"})
    again = load_file(tmp_path / "all.safetensors")
    assert again.keys() == whole.keys()
    assert all((again[name] == whole[name]).all() for name in whole)
    assert len(list(tmp_path.iterdir())) == 4


# -- what is saved ---------------------------------------------------------------------------------


def test_every_effect_is_saved_as_it_was_measured(
    tiny: InstrumentedModel, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, folder = saved
    tensors = load_file(folder / EFFECTS)
    everything = effect_graph(tiny, PROMPT, top_k=10**6, min_path_edges=1)
    held = {
        (f"{depth}.{source}", f"{depth + 1}.{target}", value)
        for depth in range(3)
        for source, target, value in zip(
            *(tensors[f"{depth}.{name}"].tolist() for name in ("sources", "targets", "values")),
            strict=True,
        )
    }
    assert held == {(str(e.source), str(e.target), e.effect) for e in everything.edges}
    clean = tiny.clean_run(PROMPT)
    for depth, layer in enumerate(SavedEffects(folder, graph.run).layers):
        dense = clean.activations[depth].dense()
        for index in range(0, layer.width, 7):
            assert list(layer.of(index, len(clean))) == dense[:, index].tolist()


def test_nothing_else_is_left_beside_the_file(saved: Saved) -> None:
    assert {path.name for path in saved[1].iterdir()} == {EFFECTS, "graph.json"}


def test_saving_changes_nothing(tiny_graph: CausalGraph, saved: Saved) -> None:
    assert saved[0] == tiny_graph


# -- drawn again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", only(CASES, "each with outputs", "contrast", "gradient"))
def test_the_same_settings_give_the_same_graph(
    tiny: InstrumentedModel, tmp_path: Path, name: str
) -> None:
    graph = saved_run(tiny, PROMPT, tmp_path, **CASES[name])
    assert graph.edges
    assert replot(tmp_path) == graph
    assert replot(tmp_path / "graph.json") == graph


def assert_drawn_alike(one: CausalGraph, two: CausalGraph) -> None:
    """The same edges, effects and record, but for warnings, and for why there is no anatomy."""
    assert measured(one) == measured(two)
    assert [node.feature for node in one.nodes] == [node.feature for node in two.nodes]
    for mine, other in zip(one.nodes, two.nodes, strict=True):
        assert (mine.activation, mine.activations) == (other.activation, other.activations)
        assert (mine.component, mine.neuronpedia) == (other.component, other.neuronpedia)
    for name in vars(two.run):
        if name not in ("warnings", "depths", "layers"):
            assert getattr(one.run, name) == getattr(two.run, name), name
    for layer, theirs in zip(one.run.layers, two.run.layers, strict=True):
        assert replace(layer, no_anatomy=None) == replace(theirs, no_anatomy=None)


CHOICES = ((1, 1), (5, 2), (40, 1), (10**6, 2))  # top-k, shortest path
PER = ("layer", "source", "graph")


@pytest.mark.parametrize("name", only(CASES, "all"))
def test_other_settings_give_the_graph_of_a_new_run(
    tiny: InstrumentedModel, tmp_path: Path, name: str
) -> None:
    options, turn = CASES[name], [*CASES].index(name)
    saved_run(tiny, PROMPT, tmp_path, **options)
    for number, (top_k, shortest) in enumerate(CHOICES):
        per = PER[(number + turn) % len(PER)]  # over all cases, each choice with each
        chosen: dict[str, Any] = {"top_k": top_k, "per": per, "min_path_edges": shortest}
        assert_drawn_alike(
            replot(tmp_path, **chosen), effect_graph(tiny, PROMPT, **{**options, **chosen})
        )


@pytest.mark.parametrize(
    "options", first(0, [{}, {"ablate": "each", "outputs": 5}]), ids=["all", "each"]
)
def test_on_the_bundled_model(
    demo: InstrumentedModel, tmp_path: Path, options: dict[str, Any]
) -> None:
    graph = saved_run(demo, "Copyright (C", tmp_path, **options)
    assert replot(tmp_path) == graph
    for top_k in (3, 12):
        fresh = effect_graph(demo, "Copyright (C", top_k=top_k, **options)
        again = replot(tmp_path, top_k=top_k)
        assert_drawn_alike(again, fresh)
        for node in again.nodes:
            other = fresh[node.feature]
            assert node.contexts == other.contexts
            assert [share.share for share in node.written_by] == pytest.approx(
                [share.share for share in other.written_by], abs=1e-4
            )


def test_a_range_of_the_layers(tiny: InstrumentedModel, saved: Saved) -> None:
    for layers in (("0", "2"), ("1", "3"), ("1", "2")):
        fresh = effect_graph(tiny, PROMPT, layers=layers, min_path_edges=1)
        assert_drawn_alike(replot(saved[1], layers=layers, min_path_edges=1), fresh)


def test_layers_before_the_output_tokens_leave_them_out(
    tiny: InstrumentedModel, tmp_path: Path
) -> None:
    saved_run(tiny, PROMPT, tmp_path, outputs=3)
    part = replot(tmp_path, layers=("0", "2"))
    assert part.run.outputs == () and not any(node.feature.is_output for node in part.nodes)
    assert measured(part) == measured(effect_graph(tiny, PROMPT, layers=("0", "2")))
    assert replot(tmp_path, layers=("2", "3")).run.outputs


@pytest.mark.parametrize("ablate", only(["all", "each"], "each"))
def test_pinned_features(tiny: InstrumentedModel, tmp_path: Path, ablate: Any) -> None:
    graph = saved_run(tiny, PROMPT, tmp_path, ablate=ablate)
    first = graph.edges[0].source
    pins = [str(first), first.layer + "." + str(first.index)]
    for pin in pins:
        fresh = effect_graph(tiny, PROMPT, ablate=ablate, pin=(pin,), top_k=20)
        again = replot(tmp_path, pin=pin, top_k=20)
        assert [(e.source, e.target) for e in again.edges] == [
            (e.source, e.target) for e in fresh.edges
        ]
        assert [e.effect for e in again.edges] == pytest.approx([e.effect for e in fresh.edges])
        assert again.run.settings == fresh.run.settings
        measured = [layer.measured_features for layer in fresh.run.layers]
        assert [layer.measured_features for layer in again.run.layers] == measured


def test_boxes_that_were_not_described(
    tiny: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "MOST_DESCRIBED", 2)
    graph = saved_run(tiny, PROMPT, tmp_path)
    wide = replot(tmp_path, top_k=60, min_path_edges=1)
    plain = [n for n in wide.nodes if n.feature not in {m.feature for m in graph.nodes}]
    bare = [n for n in plain if not (n.contexts or n.promotes or n.suppresses)]
    assert len(bare) >= len(plain) - 2
    (said,) = [w for w in wide.run.warnings if "boxes have no contexts" in w]
    assert said.startswith(f"{len(plain) - 2} of {len(wide.nodes)} boxes")
    assert "boxes" not in " ".join(replot(tmp_path).run.warnings)


def test_an_empty_choice_says_why_and_a_full_one_no_longer(
    tiny: InstrumentedModel, tiny_graph: CausalGraph, tmp_path: Path
) -> None:
    graph = saved_run(tiny, PROMPT, tmp_path, top_k=1, per="graph")
    assert not graph.edges and any("no path" in warning for warning in graph.run.warnings)
    full = replot(tmp_path, top_k=8, per="layer")
    assert full.edges and not any("no path" in warning for warning in full.run.warnings)
    assert measured(full) == measured(tiny_graph)


# -- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"per": "row"}, "per is 'row'"),
        ({"min_path_edges": 9}, "allow paths of at most 3"),
        ({"layers": ("0", "9")}, "no SAE layer '9'"),
        ({"layers": ("2", "1")}, "lower one first"),
        ({"layers": "2"}, "first:last"),
        ({"pin": "five"}, "not a feature"),
        ({"pin": "9.1"}, "9.1 was not ablated"),
        ({"pin": "3.1"}, "3.1 was not ablated"),
        ({"pin": "1.999"}, "1.999 was not ablated"),
        ({"pin": "1.1@2"}, "resolves no positions"),
    ],
)
def test_settings_that_do_not_fit(saved: Saved, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SaeGraphsError, match=message) as caught:
        replot(saved[1], **options)
    assert "\n" not in str(caught.value)


def test_without_saved_effects(tiny_graph: CausalGraph, tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match="cannot read"):
        replot(tmp_path / "nowhere")
    tiny_graph.save(tmp_path)
    with pytest.raises(GraphFileError, match="--save-effects"):
        replot(tmp_path)


def test_effects_of_another_run(tiny: InstrumentedModel, saved: Saved, tmp_path: Path) -> None:
    for options in ({"ablate": "read"}, {"seed": 3}, {"intervention": scale(0.5)}):
        effect_graph(tiny, PROMPT, **options).save(saved[1])
        with pytest.raises(GraphFileError, match="another run"):
            replot(saved[1])
    effect_graph(tiny, PROMPT, top_k=3).save(saved[1])  # another choice of the same effects
    assert measured(replot(saved[1], top_k=8)) == measured(saved[0])


def test_effects_from_before_graphs_had_answers(saved: Saved) -> None:
    graph, folder = saved
    before = digest_of(graph.run, before_answers=True)
    assert before != digest_of(graph.run)
    with safe_open(folder / EFFECTS, "numpy") as held:
        about = {**held.metadata(), "run": before}
    save_file(load_file(folder / EFFECTS), folder / EFFECTS, about)
    assert measured(replot(folder)) == measured(graph)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "text": lambda file: file.write_text("not a file of effects"),
    "huge header": lambda file: file.write_bytes(b"\xff" * 64),
    "NaN": change("1.values", with_first(float("nan"))),
    "source outside": change("1.sources", with_first(40)),
    "negative target": change("0.targets", with_first(-1)),
    "column too short": change("0.targets", lambda column: column[:-1]),
    "column of floats": change("0.targets", lambda column: column.astype(np.float32)),
    "blocks too many": change("0.blocks", lambda column: column + 1),
    "activation NaN": change("0.activations", with_first(float("nan"))),
    "activation outside": change("0.active_features", with_first(999)),
    "nodes cut": change("described", lambda text: text[:-5]),
    "nodes of another kind": change("described", lambda text: np.frombuffer(b"[5]", np.uint8)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_effects_are_one_line(saved: Saved, damage: Callable[[Path], object]) -> None:
    damage(saved[1] / EFFECTS)
    with pytest.raises(GraphFileError) as caught:
        replot(saved[1], top_k=10**6, min_path_edges=1)
        _ = SavedEffects(saved[1], saved[0].run).layers
    assert "\n" not in str(caught.value) and EFFECTS in str(caught.value)


def test_effects_of_another_schema(saved: Saved) -> None:
    file = saved[1] / EFFECTS
    save_file(load_file(file), file, metadata={"schema": "old"})
    with pytest.raises(GraphFileError, match="schema is 'old'"):
        replot(saved[1])
