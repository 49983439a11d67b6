"""Position-resolved effects, and effects on output tokens, against the oracle."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_graphs.effects.ablations import Ablations, ablations_of, places_of
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.exact import measure, measure_outputs
from sae_graphs.effects.settings import GraphSettings
from tests.conftest import BridgeOf
from tests.support.against_oracle import (
    RELATIVE,
    Case,
    Record,
    case_of,
    kinds_for,
    largest_deviation,
    put,
)
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.models import ARCHITECTURES, PROMPT
from tests.support.slow import crossed, only

EACH = effect_settings(ablate="each", read="all")
N_TOKENS = 10


def by_place(blocks: list[Effects], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`[T, F, T, F']`: source position, source, target position, target."""
    dense = torch.zeros(shape, dtype=dtype)
    for block in blocks:
        ends = (block.source_positions, block.sources, block.target_positions, block.targets)
        dense[tuple(torch.from_numpy(end).long() for end in ends)] = torch.from_numpy(block.values)
    return dense


def check_each_position(case: Case, settings: GraphSettings) -> float:
    """The largest deviation over all pairs; effects outside the reads must not exist."""
    clean = case.model.clean_run(PROMPT)
    places = places_of(clean, settings)
    reads = places.reads.tolist()
    worst = 0.0
    for depth in range(len(clean.points) - 1):
        slow = torch.stack(
            [case.oracle.effects_at_each(depth, position) for position in range(len(clean))]
        )
        slow[~places.ablated] = 0.0
        unread = torch.ones(len(clean), dtype=torch.bool)
        unread[reads] = False
        slow[:, :, unread] = 0.0
        blocks = list(measure(case.model, clean, ablations_of(clean, depth, places), places))
        ours = by_place(blocks, tuple(slow.shape), slow.dtype)
        worst = max(worst, largest_deviation([ours], [slow]))
        for block in blocks:
            assert (block.source_positions <= block.target_positions).all()
    return worst


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "gpt2", "gemma3"))
def test_each_position_read_everywhere(
    bridge_of: BridgeOf, record_property: Record, architecture: str
) -> None:
    stack = "gap" if architecture in ("llama", "gemma3") else "pre"
    case = case_of(bridge_of(architecture, "float64"), stack, kinds_for(architecture), "float64")
    worst = check_each_position(case, EACH)
    record_property("deviation float64 each position", worst)
    assert worst < RELATIVE


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    only(product(["gpt2", "neox"], ["float64", "float32"]), ("gpt2", "float64")),
)
def test_each_position_read_at_one(
    bridge_of: BridgeOf, record_property: Record, architecture: str, dtype: str
) -> None:
    case = case_of(bridge_of(architecture, dtype), "post", kinds_for(architecture), dtype)
    worst = check_each_position(case, effect_settings(ablate="each", read=6, ablate_first=True))
    record_property(f"deviation {dtype} each position", worst)
    assert worst < RELATIVE


def test_each_position_adds_up_where_all_is_one_position(bridge_of: BridgeOf) -> None:
    """A feature that is active at one ablated position alone has the effects of `all`."""
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")
    clean = case.model.clean_run(PROMPT)
    together, each = (
        places_of(clean, effect_settings(ablate=ablate, read=-1)) for ablate in ("all", "each")
    )
    whole, single = ablations_of(clean, 1, together), ablations_of(clean, 1, each)
    once = whole.features[torch.bincount(whole.copies) == 1]
    assert 0 < len(once) < len(whole)

    def effects(ablations: Ablations, places: object) -> Tensor:
        kept = ablations.chosen(torch.isin(ablations.features, once))
        dense = torch.zeros(40, 40, dtype=torch.float64)
        for block in measure(case.model, clean, kept, places):  # type: ignore[arg-type]
            put(dense, block)
        return dense

    assert largest_deviation([effects(single, each)], [effects(whole, together)]) < 1e-9


@pytest.mark.parametrize(
    ("stack", "architecture"),
    only(product(["pre", "post"], ARCHITECTURES), ("pre", "gpt2"), ("post", "gemma2")),
)
def test_output_tokens(
    bridge_of: BridgeOf, record_property: Record, architecture: str, stack: str
) -> None:
    """Logits of some tokens, and differences to one, from the last layer's features."""
    case = case_of(bridge_of(architecture, "float64"), stack, kinds_for(architecture), "float64")
    clean = case.model.clean_run(PROMPT)
    tokens, contrast = torch.tensor([7, 3, 40]), 11
    for settings in (effect_settings(), effect_settings(read=5, ablate="read")):
        places = places_of(clean, settings)
        ablated = places.ablated.nonzero()[:, 0].tolist()
        for depth in (len(clean.points) - 1, 0):
            slow = case.oracle.logit_effects(depth, ablated, places.read)
            ablations = ablations_of(clean, depth, places)
            for minus in (None, contrast):
                wanted = slow if minus is None else slow - slow[:, [minus]]
                unasked = torch.ones(wanted.shape[1], dtype=torch.bool)
                unasked[tokens] = False
                dense = torch.zeros_like(wanted)
                for block in measure_outputs(case.model, clean, ablations, places, tokens, minus):
                    put(dense, block)
                worst = largest_deviation([dense], [wanted.masked_fill(unasked, 0.0)])
                record_property("deviation float64 output tokens", worst)
                assert worst < RELATIVE


def test_graphs_end_in_words(bridge_of: BridgeOf) -> None:
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")
    graph = effect_graph(case.model, PROMPT, outputs=3, min_path_edges=1)
    top = case.oracle.logits[-1].softmax(-1).topk(3)
    assert [output.token_id for output in graph.run.outputs] == top.indices.tolist()
    assert [o.probability for o in graph.run.outputs] == pytest.approx(top.values.tolist(), 1e-5)
    slow = case.oracle.logit_effects(3, list(range(1, N_TOKENS)), N_TOKENS - 1)
    ends = graph.find_edges(layer=3)
    assert ends
    for edge in ends:
        expected = float(slow[edge.source.index, edge.target.index])
        assert edge.target.layer == "out"
        assert edge.effect == pytest.approx(expected, rel=RELATIVE)
        node = graph[edge.target]
        assert node.token == case.model.token_string(edge.target.index)
        assert node.activation == pytest.approx(float(case.oracle.logits[-1, edge.target.index]))


def test_a_difference_of_two_tokens(bridge_of: BridgeOf) -> None:
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")
    graph = effect_graph(case.model, PROMPT, target=" cat", contrast=" dog", min_path_edges=1)
    (output,) = graph.run.outputs
    assert (output.token, output.contrast) == (" cat", " dog")
    cat, dog = (case.model.tokenizer.encode(t, add_special_tokens=False) for t in (" cat", " dog"))
    slow = case.oracle.logit_effects(3, list(range(1, N_TOKENS)), N_TOKENS - 1)
    difference = slow[:, cat[0]] - slow[:, dog[0]]
    for edge in graph.find_edges(layer=3):
        assert edge.effect == pytest.approx(float(difference[edge.source.index]), rel=RELATIVE)
    logits = case.oracle.logits[-1]
    assert output.logit == pytest.approx(float(logits[cat[0]] - logits[dog[0]]))


def test_the_text_of_a_contrast_need_not_be_the_token_shown(
    bridge_of: BridgeOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")
    options: dict[str, Any] = {"target": " cat", "contrast": " dog", "min_path_edges": 1}
    plain = effect_graph(case.model, PROMPT, **options)
    shown = type(case.model).token_string
    monkeypatch.setattr(
        type(case.model), "token_string", lambda model, i: shown(model, i).replace(" ", "\u2581")
    )
    graph = effect_graph(case.model, PROMPT, **options)
    (output,) = graph.run.outputs
    assert (output.token, output.contrast) == ("\u2581cat", "\u2581dog")
    assert [(str(e.source), str(e.target), e.effect) for e in graph.edges] == [
        (str(e.source), str(e.target), e.effect) for e in plain.edges
    ]


@pytest.mark.parametrize(("read", "method"), crossed(["all", 6], ["exact", "gradient"]))
def test_position_resolved_outputs(bridge_of: BridgeOf, read: Any, method: Any) -> None:
    """They are read at the last position alone, wherever else features are read."""
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")
    last = N_TOKENS - 1 if read == "all" else read
    options: dict[str, Any] = {"ablate": "each", "read": read, "layers": "0:2", "method": method}
    options |= {"target": " cat", "min_path_edges": 1, "top_k": 50}
    graph = effect_graph(case.model, PROMPT, **options)
    ends = graph.find_edges(layer="2")
    assert {edge.target.position for edge in ends} == {last}
    assert len({edge.source.position for edge in ends}) > 1
    slow = {  # by source position: [F, V]
        at: case.oracle.logit_effects(2, [at], last)
        for at in {edge.source.position for edge in ends}
        if at is not None
    }
    for edge in ends:
        assert edge.source.position is not None
        logits = case.oracle.logits[last]
        assert graph[edge.target].activation == pytest.approx(float(logits[edge.target.index]))
        expected = float(slow[edge.source.position][edge.source.index, edge.target.index])
        if method == "exact":
            assert edge.effect == pytest.approx(expected, rel=RELATIVE)
