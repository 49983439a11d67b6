"""`causal_graph`: options, errors, what the record says, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import sae_graphs as sg
from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.exact import measure
from sae_graphs.effects.preflight import stack_warnings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import resample, scale
from sae_graphs.model.stream import StreamPoint
from tests.conftest import BridgeOf
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.models import OTHER_PROMPT, PROMPT, STACKS, in_dtype, random_stack

# -- the graph -------------------------------------------------------------------------------------


def test_the_record(tiny: InstrumentedModel) -> None:
    graph = effect_graph(tiny, PROMPT, top_k=5, read=-2, layers=("1", "3"), min_path_edges=1)
    run = graph.run
    assert (run.model, run.saes, run.prompt, run.read_position) == ("tiny", "custom", PROMPT, 8)
    assert run.settings["top_k"] == 5
    assert run.settings["layers"] == ["1", "3"]
    assert run.settings["min_path_edges"] == 1
    assert run.settings["intervention"] == "zero"
    assert [layer.label for layer in run.layers] == ["1", "2", "3"]
    assert [layer.hook_point for layer in run.layers] == list(STACKS["pre"][1:])
    assert sum(p for _, p in run.next_tokens) <= 1 + 1e-6
    clean = tiny.clean_run(PROMPT)
    probabilities = clean.logits[8].softmax(-1)
    assert run.next_tokens[0][1] == pytest.approx(float(probabilities.max()), rel=1e-5)
    totals = [layer.total_abs_effect for layer in run.layers]
    assert totals[-1] is None
    assert sum(t for t in totals if t is not None) == pytest.approx(run.total_abs_effect)
    kept = [layer.kept_abs_effect or 0.0 for layer in run.layers]
    assert sum(kept) == pytest.approx(run.kept_abs_effect)
    for node in graph.nodes:
        depth = tiny.stack.depths[node.feature.layer]
        column = clean.activations[depth].of(torch.tensor([node.feature.index]))[:, 0]
        assert node.activations == pytest.approx(column.tolist())
        assert node.activation == node.activations[8]


def test_edges_go_one_layer_forward_on_long_paths(tiny_graph: CausalGraph) -> None:
    graph = tiny_graph
    assert graph.edges
    for edge in graph.edges:
        assert graph.depths[edge.target.layer] == graph.depths[edge.source.layer] + 1
    assert {len(path.edges) for path in graph.paths(limit=100)} == {3}


def test_a_layer_range_measures_the_same_effects(tiny: InstrumentedModel) -> None:
    whole = effect_graph(tiny, PROMPT, min_path_edges=1)
    part = effect_graph(tiny, PROMPT, min_path_edges=1, layers=("1", "2"))
    assert part.edges
    bare = [replace(edge, anatomy=None) for edge in part.edges]  # these agree to rounding only
    assert bare == [replace(edge, anatomy=None) for edge in whole.find_edges(layer=1)]


def test_a_layer_range_keeps_to_the_memory(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    model = InstrumentedModel(bridge, random_stack(bridge, STACKS["pre"], ["standard"]), name="m")
    model.working_memory = 12345
    assert model.between("1", "2").working_memory == 12345


def test_pinned_features(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    active = (clean.activations[1].dense()[1:] != 0).any(0)
    index, silent = int(active.nonzero()[3]), int((~active).nonzero()[0])
    graph = effect_graph(tiny, PROMPT, pin=(f"1.{index}",), top_k=100)
    assert {str(e.source) for e in graph.edges} == {f"1.{index}"}
    whole = effect_graph(tiny, PROMPT, top_k=10**6, min_path_edges=1)
    expected = {e.target: e.effect for e in whole.find_edges(source=f"1.{index}")}
    assert {e.target: e.effect for e in graph.edges} == pytest.approx(expected)
    with pytest.raises(SaeGraphsError, match="inactive at every ablated position"):
        effect_graph(tiny, PROMPT, pin=(f"1.{silent}",))


def test_pins_in_two_runs_join(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    sources = ablations_of(clean, 1, places_of(clean, effect_settings())).features.tolist()
    both = effect_graph(tiny, PROMPT, pin=(f"1.{sources[0]}", f"1.{sources[1]}"), top_k=1000)
    left, right = (effect_graph(tiny, PROMPT, pin=(f"1.{i}",), top_k=1000) for i in sources[:2])
    joined = sg.union(left, right)
    assert [str(e) for e in joined.edges] == [str(e) for e in both.edges]
    assert joined.run.total_abs_effect == pytest.approx(both.run.total_abs_effect)
    assert joined.run.settings == both.run.settings


def test_nothing_left_is_no_error(tiny: InstrumentedModel, tmp_path: Path) -> None:
    graph = effect_graph(tiny, PROMPT, top_k=1, per="graph")
    assert (graph.edges, graph.nodes) == ((), ())
    assert graph.run.total_abs_effect > 0
    assert any("min_path_edges" in warning for warning in graph.run.warnings)
    assert CausalGraph.load(graph.save(tmp_path)) == graph
    nothing = effect_graph(tiny, PROMPT, intervention=scale(1))
    assert nothing.run.total_abs_effect == 0
    assert any("no ablation changed" in warning for warning in nothing.run.warnings)


def test_two_runs_are_equal(tiny: InstrumentedModel, tiny_graph: CausalGraph) -> None:
    assert effect_graph(tiny, PROMPT) == tiny_graph
    assert effect_graph(tiny, PROMPT, seed=3).edges == tiny_graph.edges


def test_progress(tiny: InstrumentedModel) -> None:
    told: list[tuple[int, int]] = []
    effect_graph(tiny, PROMPT, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 30
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def tensors_of(clean: CleanRun) -> list[torch.Tensor]:
    values = [activations.values for activations in clean.activations]
    return [*clean.streams, *values, *clean.inputs, clean.logits]


def test_nothing_is_changed_by_measuring(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    before = [t.clone() for t in tensors_of(clean)]
    weights = [p.clone() for p in tiny.model.parameters()]
    sae_weights = [p.clone() for layer in tiny.stack.layers for p in layer.sae.parameters()]
    places = places_of(clean, effect_settings())
    for depth in range(3):
        ablations = ablations_of(clean, depth, places)
        kept = [column.clone() for column in ablations[1:]]
        list(measure(tiny, clean, ablations, places))
        assert all(torch.equal(a, b) for a, b in zip(ablations[1:], kept, strict=True))
    effect_graph(tiny, PROMPT)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors_of(clean), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights, tiny.model.parameters(), strict=True))
    held = [p for layer in tiny.stack.layers for p in layer.sae.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(sae_weights, held, strict=True))


def test_an_inactive_feature_changes_nothing_exactly(tiny: InstrumentedModel) -> None:
    clean = tiny.clean_run(PROMPT)
    places = places_of(clean, effect_settings())
    for depth in range(3):
        active = set(ablations_of(clean, depth, places).features.tolist())
        silent = torch.tensor(sorted(set(range(40)) - active))
        assert len(silent) > 0
        assert len(ablations_of(clean, depth, places, features=silent)) == 0


def test_features_after_the_read_position_are_no_sources(tiny: InstrumentedModel) -> None:
    """The future cannot act on the past: no rounding may look as if it did."""
    clean = tiny.clean_run(PROMPT)
    active = clean.activations[1].dense() != 0
    late = active[4:].any(0) & ~active[1:4].any(0)
    assert late.any()
    graph = effect_graph(tiny, PROMPT, read=3, top_k=10**6, min_path_edges=1)
    sources = {edge.source.index for edge in graph.find_edges(layer=1)}
    assert sources
    assert not sources & set(late.nonzero()[:, 0].tolist())
    assert min(abs(edge.effect) for edge in graph.edges) > 1e-12


def test_interventions_check_their_input(tiny: InstrumentedModel) -> None:
    from sae_graphs.model.interventions import mean_over

    with pytest.raises(SaeGraphsError, match="no reference prompts"):
        mean_over(tiny, [])
    with pytest.raises(SaeGraphsError, match="3 tokens, this one 10"):
        resample(tiny, "the cat", n_tokens=10)
    graph = effect_graph(tiny, PROMPT, intervention=resample(tiny, OTHER_PROMPT, n_tokens=10))
    assert str(graph.run.settings["intervention"]).startswith("resample (")


def test_a_mean_belongs_to_its_layer_where_only_some_are_measured(tiny: InstrumentedModel) -> None:
    from sae_graphs.model.interventions import mean_over

    mean = mean_over(tiny, [OTHER_PROMPT])
    options: dict[str, Any] = {"top_k": 500, "min_path_edges": 1, "intervention": mean}
    whole = effect_graph(tiny, PROMPT, **options)
    part = effect_graph(tiny, PROMPT, layers=("1", "3"), **options)
    expected = {(e.source, e.target): e.effect for e in whole.edges if e.source.layer in ("1", "2")}
    assert {(e.source, e.target): e.effect for e in part.edges} == pytest.approx(expected)


def test_graphs_of_other_reference_prompts_do_not_join(tiny: InstrumentedModel) -> None:
    from sae_graphs.graph.combine import union
    from sae_graphs.model.interventions import mean_over

    pins = [str(edge.source) for edge in effect_graph(tiny, PROMPT, min_path_edges=1).edges]
    first, second = sorted(set(pins))[:2]
    graphs = [
        effect_graph(tiny, PROMPT, pin=(pin,), intervention=mean_over(tiny, [text]))
        for pin, text in ((first, OTHER_PROMPT), (second, PROMPT))
    ]
    with pytest.raises(SaeGraphsError, match="intervention"):
        union(*graphs)


def test_settings_and_options_are_not_both_taken(tiny: InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match="not both"):
        effect_graph(tiny, PROMPT, settings=effect_settings(), top_k=1)


def test_reading_where_nothing_is_ablated_is_a_mistake(tiny: InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match="--ablate-first"):
        effect_graph(tiny, PROMPT, read=0)
    assert effect_graph(tiny, PROMPT, read=0, ablate="read", min_path_edges=1).edges


def test_pinned_features_alone_are_counted_as_measured(tiny: InstrumentedModel) -> None:
    pin = str(effect_graph(tiny, PROMPT, min_path_edges=1).edges[0].source)
    layers = effect_graph(tiny, PROMPT, pin=(pin,)).run.layers
    assert sum(layer.measured_features or 0 for layer in layers) == 1
    assert sum(layer.active_features for layer in layers) > 1


def test_a_layer_that_is_passed_over_is_said_to_be(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    gapped = InstrumentedModel(bridge, random_stack(bridge, STACKS["gap"], ["standard"]))
    warnings = effect_graph(gapped, PROMPT, min_path_edges=1).run.warnings
    assert any("no SAE stands between" in warning for warning in warnings)


def test_many_layers_that_are_passed_over_are_told_as_one() -> None:
    points = [StreamPoint.parse(f"blocks.{block}.hook_resid_post") for block in (2, 5, 8, 14)]
    stack = SimpleNamespace(layers=[SimpleNamespace(point=point) for point in points])
    gapped = SimpleNamespace(stack=stack, compared=None, model=torch.nn.Linear(1, 1))
    (told,) = stack_warnings(cast(InstrumentedModel, gapped))
    assert told == "SAEs stand up to 6 blocks apart: edges span several blocks"


def test_saes_that_mix_tokens_are_refused(bridge_of: BridgeOf) -> None:
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    bridge = bridge_of("gpt2", "float32")
    saes = []
    for hook in STACKS["pre"][:2]:
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=16, d_sae=40, k=4))
        sae.cfg.metadata.hook_name = hook
        saes.append(sae)
    with pytest.raises(SaeGraphsError, match="mixes tokens"):
        effect_graph(InstrumentedModel(bridge, saes), PROMPT, min_path_edges=1)


# -- preflight -------------------------------------------------------------------------------------


def fitted(bridge: Any, hooks: tuple[str, ...], said: tuple[str, ...]) -> InstrumentedModel:
    """SAEs that rebuild the streams at `hooks` exactly, but claim to belong to `said`.

    Their features are plus and minus the stream's principal axes, about its mean: 9 positions
    span 8 of the 16 dimensions, so that another stream does not fit.
    """
    from tests.support.models import random_sae, tokenizer

    ids = torch.tensor([[0, *tokenizer()(PROMPT, add_special_tokens=False).input_ids]])
    _, cache = bridge.run_with_cache(ids)
    saes = []
    for hook, claim in zip(hooks, said, strict=True):
        stream = cache[hook][0, 1:]
        axes = torch.linalg.svd(stream - stream.mean(0)).Vh[:8]
        both = torch.cat([axes, -axes])
        sae = random_sae("standard", claim, size=1.0, seed=0, n_features=16)
        sae.W_dec.data.copy_(both)
        sae.W_enc.data.copy_(both.T)
        sae.b_enc.data.zero_()
        sae.b_dec.data.copy_(stream.mean(0))
        saes.append(sae)
    return InstrumentedModel(bridge, saes)


def test_a_stack_one_hook_away_is_warned_about(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    right = ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre")
    wrong = ("blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.2.hook_resid_post")
    good = effect_graph(fitted(bridge, right, right), PROMPT)
    assert all(layer.fvu < 1e-6 for layer in good.run.layers)
    assert good.run.warnings == ()
    bad = effect_graph(fitted(bridge, right, wrong), PROMPT)
    assert max(layer.fvu for layer in bad.run.layers) > 0.5
    assert any("fit this prompt badly" in warning for warning in bad.run.warnings)


def test_one_token_repeated_has_a_finite_fit(bridge_of: BridgeOf, tmp_path: Path) -> None:
    """With rotary positions such a prompt's first stream does not vary at all."""
    bridge = bridge_of("llama")
    model = InstrumentedModel(
        bridge, random_stack(bridge, STACKS["pre"], ["standard"], dtype="float32")
    )
    graph = effect_graph(model, "((((")
    assert all(0 <= layer.fvu < 100 for layer in graph.run.layers)
    assert CausalGraph.load(graph.save(tmp_path)) == graph


# -- precision, files ------------------------------------------------------------------------------


def test_precisions_agree(bridge_of: BridgeOf) -> None:
    """The same graph in float32 as in float64."""
    double = bridge_of("gpt2", "float64")
    saes = random_stack(double, STACKS["pre"], ["jumprelu"])
    one = effect_graph(InstrumentedModel(double, saes), PROMPT)
    single = bridge_of("gpt2", "float32")
    two = effect_graph(InstrumentedModel(single, in_dtype(saes, "float32")), PROMPT)
    assert [(e.source, e.target) for e in one.edges] == [(e.source, e.target) for e in two.edges]
    assert [e.effect for e in one.edges] == pytest.approx([e.effect for e in two.edges], rel=1e-3)


def test_load_from_folders(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """`load` and `InstrumentedModel` over the same files give the same graph."""
    from tests.support.models import load_bridge, save_saes

    folder = model_folder("gpt2")
    bridge = load_bridge(folder, torch.float32)
    saes = random_stack(bridge, STACKS["pre"], ["topk", "standard"], dtype="float32")
    loaded = sg.load(folder, saes=save_saes(saes, tmp_path / "saes"))
    graph = effect_graph(loaded, PROMPT)
    assert graph.edges == effect_graph(InstrumentedModel(bridge, saes), PROMPT).edges
    assert graph.run.saes == str(tmp_path / "saes")
