"""How edges reached their targets: against full passes with plain hooks, and by hand.

In float64 every part must agree to 1e-5 of itself, or of the edge's largest part where it is faint.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.anatomy import Anatomies, with_anatomy
from sae_graphs.effects.exact import measure
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Edge
from sae_graphs.model.block_parts import CleanWrites
from sae_graphs.model.instrument import InstrumentedModel
from tests.conftest import BridgeOf
from tests.support.against_oracle import RELATIVE, Case, Record, case_of
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.linear_model import linear_model
from tests.support.models import ARCHITECTURES, PROMPT, STACKS
from tests.support.parts_oracle import PartsOracle, encoder_by_hand
from tests.support.slow import first, only

LINEAR = ["standard", "jumprelu", "topk", "topk_rescaled"]
LAST = 9  # the prompt's last position


def stacks_of(architecture: str) -> list[str]:
    """GPT-NeoX runs attention and MLP in parallel: there is no stream between them."""
    return [s for s in STACKS if not (architecture == "neox" and s in ("mid", "mixed"))]


def anatomies_of(
    case: Case, *, heads: bool = False, kept: int = 12, settings: GraphSettings | None = None
) -> Anatomies:
    """The anatomies of each layer pair's strongest edges."""
    model, settings = case.model, settings or effect_settings()
    clean = model.clean_run(PROMPT)
    places = places_of(clean, settings)
    layers = model.stack.layers
    ablations = [ablations_of(clean, depth, places) for depth in range(len(layers) - 1)]
    edges: list[Edge] = []
    for depth, found in enumerate(ablations):
        rows = [
            (abs(float(value)), int(source), int(at), int(target), int(read), float(value))
            for block in measure(model, clean, found, places)
            for source, at, target, read, value in zip(
                block.sources,
                block.source_positions,
                block.targets,
                block.target_positions,
                block.values,
                strict=True,
            )
        ]
        strong = [row for row in sorted(rows, reverse=True)[:kept] if row[0] > 1e-9]
        for _, source, at, target, read, value in strong:
            edges.append(
                Edge(
                    FeatureId(layers[depth].label, source, at if places.each else None),
                    FeatureId(layers[depth + 1].label, target, read if places.each else None),
                    value,
                )
            )
    writes = CleanWrites(model, clean, places.reads, heads=heads)
    return with_anatomy(writes, edges, ablations, places)


def largest_deviation(case: Case, edges: list[Edge]) -> float:
    """Of any part of any edge from the oracle's, relative to itself (see the module's words)."""
    oracle, parts = case.oracle, PartsOracle(case.oracle)
    depths = case.model.stack.depths
    worst = 0.0
    for edge in edges:
        layer = depths[edge.source.layer]
        at = edge.source.position
        read = LAST if edge.target.position is None else edge.target.position
        ablated = parts.ablated(layer, edge.source.index, range(1, 10) if at is None else [at])
        assert ablated is not None and edge.anatomy is not None
        start, stop = oracle.hooks[layer], oracle.hooks[layer + 1]
        sae = oracle.saes[layer + 1]

        def encoded(
            change: Tensor, row: int = read, sae: Any = sae, j: int = edge.target.index
        ) -> float:
            return float(encoder_by_hand(sae, change[row])[j])

        changed, clean = (parts.parts(x, start, stop) for x in (ablated, parts.clean))
        expected = {("skip", -1): encoded(ablated[start] - oracle.streams[layer])}
        for part in changed:
            expected[part] = encoded(changed[part] - clean[part])
        found = {("skip", -1): edge.anatomy.skip}
        for block in edge.anatomy.blocks:
            found["attention", block.block] = block.attention
            found["mlp", block.block] = block.mlp
        top = max(abs(value) for value in expected.values())
        assert top > 1e-6
        for key, value in found.items():
            wanted = expected.pop(key, 0.0)
            worst = max(worst, abs(value - wanted) / max(abs(wanted), 1e-6 * top))
        assert not expected, f"{edge}: parts {sorted(expected)} are missing"
        whole = encoded(ablated[stop] - parts.clean[stop])
        assert edge.anatomy.preactivation_effect == pytest.approx(whole, rel=1e-6, abs=1e-9 * top)
    return worst


@pytest.mark.parametrize(
    ("architecture", "stack"),
    only(
        (
            (architecture, stack)
            for architecture in ARCHITECTURES
            for stack in stacks_of(architecture)
        ),
        *[("gpt2", "pre"), ("llama", "mixed"), ("neox", "gap"), ("gemma3", "mid")],
    ),
)
def test_against_full_passes(
    bridge_of: BridgeOf, record_property: Record, architecture: str, stack: str
) -> None:
    turn = ARCHITECTURES.index(architecture) % 4
    kinds = LINEAR[turn:] + LINEAR[:turn]
    case = case_of(bridge_of(architecture, "float64"), stack, kinds, "float64")
    found = anatomies_of(case)
    assert found.reasons == {}
    assert len(found.edges) >= 12
    worst = largest_deviation(case, found.edges)
    record_property(f"deviation float64 anatomy {architecture}", worst)
    assert worst < RELATIVE


@pytest.mark.parametrize("architecture", only(["gpt2", "neox", "gemma3"], "gpt2"))
def test_at_each_position(bridge_of: BridgeOf, record_property: Record, architecture: str) -> None:
    """Sources at their own positions, targets at theirs: also rows that the change only reaches."""
    case = case_of(bridge_of(architecture, "float64"), "gap", LINEAR, "float64")
    found = anatomies_of(case, kept=60, settings=effect_settings(ablate="each", read="all"))
    assert len({edge.target.position for edge in found.edges}) > 1
    worst = largest_deviation(case, found.edges)
    record_property(f"deviation float64 anatomy {architecture}", worst)
    assert worst < RELATIVE


def test_the_parts_are_the_effect_of_an_active_target(bridge_of: BridgeOf) -> None:
    """A ReLU that is open before and after passes the whole change on; so does TopK's choice."""
    seen = 0
    for kind in LINEAR:
        case = case_of(bridge_of("llama", "float64"), "pre", [kind], "float64")
        clean = case.model.clean_run(PROMPT)
        depths = case.model.stack.depths
        for edge in anatomies_of(case, kept=40).edges:
            before = float(
                clean.activations[depths[edge.target.layer]].rows(torch.tensor([LAST]))[
                    0, edge.target.index
                ]
            )
            if before != 0 and before + edge.effect > 1e-9:
                assert edge.anatomy is not None
                assert edge.anatomy.preactivation_effect == pytest.approx(edge.effect, rel=1e-5)
                seen += 1
    assert seen > 50


REASONS = {
    "gated": "two pre-activations",
    "layer_norm": r"its norm \(layer_norm\)",
    "constant_norm": r"its norm \(constant_norm_rescale\)",
}


@pytest.mark.parametrize("kind", REASONS)
def test_encoders_that_are_not_linear_say_so(bridge_of: BridgeOf, kind: str) -> None:
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["standard", kind], "float64")
    found = anatomies_of(case)
    assert found.reasons.keys() == {"0", "2"}  # layers 1 and 3 are of this kind
    for reason in found.reasons.values():
        assert re.search(REASONS[kind], reason)
    for edge in found.edges:
        assert (edge.anatomy is None) == (edge.source.layer in found.reasons)


@pytest.mark.slow
def test_in_float32(bridge_of: BridgeOf) -> None:
    """Checks that hold in float64 must not refuse a model that rounds."""
    for architecture in ARCHITECTURES:
        found, exact = (
            anatomies_of(case_of(bridge_of(architecture, dtype), "pre", ["standard"], dtype))
            for dtype in ("float32", "float64")
        )
        assert found.reasons == {}
        known = {(edge.source, edge.target): edge.anatomy for edge in exact.edges}
        compared = 0
        for edge in found.edges:
            other = known.get((edge.source, edge.target))
            if other is None or edge.anatomy is None:
                continue
            compared += 1
            for name in ("skip", "attention", "mlp"):
                size = max(abs(other.preactivation_effect), 1e-2)
                assert getattr(edge.anatomy, name) == pytest.approx(
                    getattr(other, name), abs=1e-4 * size
                )
        assert compared > 20


# -- heads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", first(2, ["gpt2", "llama", "neox", "qwen3"]))
def test_heads(bridge_of: BridgeOf, record_property: Record, architecture: str) -> None:
    """Each head's part is what its output adds through its rows of the projection's weights."""
    bridge = bridge_of(architecture, "float64")
    case = case_of(bridge, "pre", LINEAR, "float64")
    found = anatomies_of(case, heads=True)
    assert found.warnings == ()
    oracle, depths = case.oracle, case.model.stack.depths
    clean = _head_outputs(case, [])
    worst = 0.0
    for edge in found.edges:
        layer = depths[edge.source.layer]
        stream = oracle.changed_stream(layer, edge.source.index, range(1, 10))
        assert stream is not None and edge.anatomy is not None
        changed = _head_outputs(case, oracle.writing_hooks(layer, stream[None]))
        (block,) = edge.anatomy.blocks
        weights = bridge.blocks[block.block].attn.o.original_component.weight
        weights = weights if architecture == "gpt2" else weights.T  # [H * d, D]
        moved = (changed[block.block] - clean[block.block])[LAST].reshape(4, 4)
        by_head = torch.einsum("hd,hdm->hm", moved, weights.reshape(4, 4, -1))
        expected = encoder_by_hand(oracle.saes[layer + 1], by_head)[:, edge.target.index]
        assert len(block.heads) == 4
        assert sum(block.heads) == pytest.approx(block.attention, abs=1e-9)
        difference = (torch.tensor(block.heads, dtype=torch.float64) - expected).abs().max()
        worst = max(worst, float(difference / expected.abs().max().clamp(min=1e-6)))
    record_property(f"deviation float64 anatomy {architecture}", worst)
    assert worst < RELATIVE


def _head_outputs(case: Case, hooks: list[Any]) -> list[Tensor]:
    """What the heads of every block give, `[T, H * d]`, in a full pass."""
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, name: str) -> None:
        seen[name] = value[0].flatten(1).clone()

    names = [f"blocks.{block}.attn.hook_z" for block in range(3)]
    hooks = [*hooks, *((name, lambda value, hook, n=name: keep(value, n)) for name in names)]
    case.oracle.model.run_with_hooks(case.oracle.ids, fwd_hooks=hooks)
    return [seen[name] for name in names]


@pytest.mark.parametrize("architecture", only(["gemma2", "gemma3"], "gemma2"))
def test_heads_are_left_out_where_a_norm_follows(bridge_of: BridgeOf, architecture: str) -> None:
    case = case_of(bridge_of(architecture, "float64"), "pre", LINEAR, "float64")
    found = anatomies_of(case, heads=True)
    assert found.reasons == {}
    assert "a norm follows" in found.warnings[0]
    assert all(edge.anatomy and not edge.anatomy.blocks[0].heads for edge in found.edges)


def test_heads_are_left_out_unless_asked_for(tiny: InstrumentedModel) -> None:
    plain, by_head = (effect_graph(tiny, PROMPT, heads=heads) for heads in (False, True))
    for edge, other in zip(plain.edges, by_head.edges, strict=True):
        assert edge.anatomy is not None and other.anatomy is not None
        assert {len(block.heads) for block in edge.anatomy.blocks} == {0}
        assert {len(block.heads) for block in other.anatomy.blocks} == {4}


# -- other models ----------------------------------------------------------------------------------


def test_hooked_transformer(hooked: Any, record_property: Record) -> None:
    for stack in ("pre", "mixed"):
        case = case_of(hooked, stack, LINEAR, "float64")
        found = anatomies_of(case, heads=True)
        assert (found.reasons, found.warnings) == ({}, ())
        for edge in found.edges:
            for block in edge.anatomy.blocks if edge.anatomy else ():
                assert len(block.heads) == 4
                assert sum(block.heads) == pytest.approx(block.attention, abs=1e-9)
        worst = largest_deviation(case, found.edges)
        record_property("deviation float64 anatomy HookedTransformer", worst)
        assert worst < RELATIVE


def test_a_model_without_the_hooks_says_so() -> None:
    model = linear_model()
    del model.model.hook_dict["blocks.1.hook_mlp_out"]
    graph = effect_graph(model, "ab", min_path_edges=1, top_k=100)
    first, second, last = graph.run.layers
    assert (first.no_anatomy, last.no_anatomy) == (None, None)
    assert "linear has no hook point blocks.1.hook_mlp_out" in str(second.no_anatomy)
    for edge in graph.edges:
        assert (edge.anatomy is None) == (edge.source.layer == "1")


def test_parts_at_a_wrong_hook_are_noticed() -> None:
    model = linear_model()
    hooks = model.model.hook_dict
    hooks["blocks.1.hook_mlp_out"] = hooks["blocks.1.hook_attn_out"]
    graph = effect_graph(model, "ab", min_path_edges=1, top_k=100)
    assert "attention and MLP of block 1 of linear do not add up" in str(
        graph.run.layers[1].no_anatomy
    )
    assert all(edge.anatomy is None for edge in graph.find_edges(layer=1))


def test_edges_to_output_tokens_have_none() -> None:
    graph = effect_graph(linear_model(), "ab", min_path_edges=1, top_k=100, outputs=2)
    to_tokens = graph.find_edges(layer=2)
    assert to_tokens and all(edge.anatomy is None for edge in to_tokens)
    assert graph.run.layers[2].no_anatomy == "the norm before the logits is not linear"


# -- by hand ---------------------------------------------------------------------------------------

# skip, attention, MLP; the equations are in `linear_model.py`, the streams in `test_analytic.py`.
# 0.0 is 2 at b and 1 at a: y1 and y2 lose 2 (2) and -3 (2) through the MLP. 0.1 is 1 at b.
# 1.0 is 2 at b: z1 = y1 - y0. 1.1 is 5 at b, 4 at a: z1 loses 5 on the skip connection, of which
# ReLU passes 3; z2 = y2 + (y1 before) loses 4. 1.2 is 6 at a: z0 = y0 + 1/2 (y2 before).
BY_HAND = {
    ("0.0", "1.0"): (-2.0, 0.0, 0.0),
    ("0.0", "1.1"): (0.0, 0.0, -4.0),
    ("0.0", "1.2"): (0.0, 0.0, 6.0),
    ("0.1", "1.1"): (-1.0, 0.0, 0.0),
    ("1.0", "2.0"): (-2.0, 0.0, 0.0),
    ("1.0", "2.1"): (0.0, 0.0, 2.0),
    ("1.1", "2.1"): (-5.0, 0.0, 0.0),
    ("1.1", "2.2"): (0.0, -4.0, 0.0),
    ("1.2", "2.0"): (0.0, -3.0, 0.0),
}


def test_by_hand() -> None:
    graph = effect_graph(linear_model(), "ab", min_path_edges=1, top_k=100)
    found = {}
    for edge in graph.edges:
        assert edge.anatomy is not None
        (block,) = edge.anatomy.blocks
        assert block.block == int(edge.source.layer)
        parts = (edge.anatomy.skip, block.attention, block.mlp)
        found[str(edge.source), str(edge.target)] = parts
    assert found == BY_HAND
    assert [layer.no_anatomy for layer in graph.run.layers] == [None, None, None]
