"""Joint edits against nested hooks in full forward passes: logits, streams, what is moved."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_graphs.model import joint, replay
from tests.conftest import BridgeOf
from tests.effects.test_oracle import stacks_of
from tests.support.against_joint_oracle import (
    N_COPIES,
    assert_as_oracle,
    both,
    found_by,
    random_masks,
    selected,
)
from tests.support.against_oracle import (
    RELATIVE,
    Case,
    Record,
    case_of,
    kinds_for,
    largest_deviation,
)
from tests.support.joint_oracle import JointOracle
from tests.support.models import ARCHITECTURES, KINDS, PROMPT, STACKS
from tests.support.slow import covering, crossed, only

WAYS = ("zero", "scale", "mean", "resample", "holding", "silencing", "keeping", "bare", "adding")
WAYS_OF_KINDS = [  # two quick ones each
    (kind, WAYS[(number + more) % len(WAYS)])
    for number, kind in enumerate(KINDS)
    for more in (0, 4)
]


# -- engine and oracle -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "stack"),
    covering(
        (architecture, stack) for architecture in ARCHITECTURES for stack in stacks_of(architecture)
    ),
)
def test_architectures_and_stacks(
    bridge_of: BridgeOf, record_property: Record, architecture: str, stack: str
) -> None:
    case = case_of(bridge_of(architecture, "float64"), stack, kinds_for(architecture), "float64")
    seed = 10 * ARCHITECTURES.index(architecture) + list(STACKS).index(stack)
    for way in ("zero", "holding", "keeping"):
        assert_as_oracle(case, record_property, way, seed=seed)


@pytest.mark.parametrize(("kind", "way"), only(product(KINDS, WAYS), *WAYS_OF_KINDS))
def test_sae_kinds_and_ways(
    bridge_of: BridgeOf, record_property: Record, kind: str, way: str
) -> None:
    case = case_of(bridge_of("llama", "float64"), "pre", [kind], "float64")
    assert_as_oracle(case, record_property, way, seed=100 + WAYS.index(way))


@pytest.mark.parametrize(
    ("architecture", "positions"),
    only(product(ARCHITECTURES, ["read", "each"]), ("gemma3", "read"), ("llama", "each")),
)
def test_positions(
    bridge_of: BridgeOf, record_property: Record, architecture: str, positions: str
) -> None:
    case = case_of(bridge_of(architecture, "float64"), "post", kinds_for(architecture), "float64")
    for way in ("zero", "holding"):
        assert_as_oracle(case, record_property, way, seed=201, positions=positions)


def test_reading_in_the_middle(bridge_of: BridgeOf, record_property: Record) -> None:
    """Also where rows after the one that is read are edited, which cannot reach it."""
    case = case_of(bridge_of("gemma2", "float64"), "mixed", kinds_for("gemma2"), "float64")
    for way in ("zero", "holding", "keeping"):
        assert_as_oracle(case, record_property, way, seed=300, read=5)


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "neox", "gemma2"))
def test_one_token_prompt(bridge_of: BridgeOf, record_property: Record, architecture: str) -> None:
    bridge = bridge_of(architecture, "float64")
    case = case_of(bridge, "pre", kinds_for(architecture), "float64", "a", bos=False)
    case.model.clean_run(PROMPT)  # the checks of a model want more than one token
    clean = case.model.clean_run("a", prepend_bos=False)
    masks = random_masks(clean, 400)
    for way in ("zero", "holding", "bare"):
        found = found_by(case, clean, both(case, clean, masks, way))
        record_property("deviation float64 joint", found.worst)
        assert found.worst < RELATIVE


@pytest.mark.parametrize("architecture", ["gpt_neo", "bloom"])
def test_architectures_that_need_all_rows(
    bridge_of: BridgeOf, record_property: Record, architecture: str
) -> None:
    """In float32, to which GPT-Neo's attention rounds whatever the model's precision."""
    case = case_of(bridge_of(architecture, "float32"), "pre", ["standard", "topk"], "float32")
    for way in ("zero", "holding", "keeping"):
        assert_as_oracle(case, record_property, way, seed=500)
    assert not case.model.replay.rows_alone


def test_hooked_transformer(hooked: Any, record_property: Record) -> None:
    for stack in ("pre", "mixed"):
        case = case_of(hooked, stack, ["standard", "topk"], "float64")
        for way in ("zero", "holding", "keeping"):
            assert_as_oracle(case, record_property, way, seed=600)


@pytest.mark.parametrize(
    ("architecture", "most"),
    only(product(ARCHITECTURES, (0.0, 2.0)), ("qwen3", 0.0), ("gpt2", 2.0)),
)
def test_some_rows_and_whole_copies(
    bridge_of: BridgeOf,
    record_property: Record,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    most: float,
) -> None:
    monkeypatch.setattr(replay, "MOST", most)
    case = case_of(bridge_of(architecture, "float64"), "post", kinds_for(architecture), "float64")
    for way, positions in (("zero", "all"), ("holding", "each"), ("keeping", "read")):
        assert_as_oracle(case, record_property, way, seed=700, positions=positions)


def test_silent_features_that_wake_are_silenced(gpt2: Case, record_property: Record) -> None:
    """A feature that only an upstream change wakes is taken out there; else this proves nothing."""
    found = assert_as_oracle(gpt2, record_property, "zero", seed=800)
    clean = gpt2.model.clean_run(PROMPT)
    masks, woken = random_masks(clean, 800), 0
    for depth, streams in found.passed.streams.items():
        acts = gpt2.oracle.saes[depth].encode(streams)
        silent = gpt2.oracle.activations[depth] == 0
        woken += int(((acts != 0) & silent & masks[depth]).sum())
    assert woken > 10


@pytest.fixture(scope="module")
def gpt2(bridge_of: BridgeOf) -> Case:
    kinds = ["standard", "layer_norm", "topk_rescaled", "jumprelu"]
    return case_of(bridge_of("gpt2", "float64"), "pre", kinds, "float64")


# -- sets ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")  # an SAE that is asked about no rows warns
@pytest.mark.parametrize("at_once", [1, 25, 10_000])
def test_packs_do_not_matter(
    gpt2: Case, monkeypatch: pytest.MonkeyPatch, record_property: Record, at_once: int
) -> None:
    clean = gpt2.model.clean_run(PROMPT)
    masks, slow = random_masks(clean, 900), JointOracle(gpt2.oracle, N_COPIES)
    monkeypatch.setattr(joint, "ROWS_AT_ONCE", at_once)
    done: list[int] = []
    logits, moved = joint.run_sets(
        gpt2.model,
        clean,
        {depth: selected(mask) for depth, mask in masks.items()},
        N_COPIES,
        len(clean) - 1,
        progress=done.append,
    )
    assert done == {1: [1, 1, 1, 1], 25: [2, 2], 10_000: [4]}[at_once]
    passed = slow.run(both(gpt2, clean, masks, "zero").oracle)
    expected = passed.logits[:, -1] - slow.clean.logits[:, -1]
    worst = largest_deviation([logits - clean.logits[-1]], [expected])
    record_property("deviation float64 joint", worst)
    assert worst < RELATIVE
    norms = torch.stack([passed.moved[depth] for depth in sorted(passed.moved)], dim=1)
    assert torch.allclose(moved, norms, rtol=1e-9, atol=1e-12)


def test_no_sets_are_the_clean_run(gpt2: Case) -> None:
    clean = gpt2.model.clean_run(PROMPT)
    logits, moved = joint.run_sets(gpt2.model, clean, {}, 2, 9)
    assert torch.equal(logits, clean.logits[9].repeat(2, 1))
    assert not moved.any()


@pytest.mark.parametrize("kind", only(KINDS, "standard", "topk_rescaled", "layer_norm"))
def test_coefficient_one_is_the_clean_run(bridge_of: BridgeOf, kind: str) -> None:
    case = case_of(bridge_of("llama", "float64"), "pre", [kind], "float64")
    clean = case.model.clean_run(PROMPT)
    edits = {
        depth: joint.changing(
            case.model, clean, depth, selected(mask), joint.scaled_by(torch.ones(N_COPIES))
        )
        for depth, mask in random_masks(clean, 1).items()
    }
    ran = joint.run_edits(case.model, clean, edits, N_COPIES, 9)
    assert not ran.changed.any() and not ran.moved.any()
    logits = joint.logits_of(case.model, clean, ran, 9)
    assert torch.equal(logits, clean.logits[9].repeat(N_COPIES, 1))


# -- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "most"), crossed(["gpt2", "neox", "hooked"], [0.0, 2.0]))
def test_gradients_are_finite_differences(
    bridge_of: BridgeOf,
    hooked: Any,
    record_property: Record,
    monkeypatch: pytest.MonkeyPatch,
    architecture: str,
    most: float,
) -> None:
    """By each copy's coefficient; also at 1, where nothing is changed.

    Not on models that round their norms to float32 whatever their precision.
    """
    monkeypatch.setattr(replay, "MOST", most)
    model = hooked if architecture == "hooked" else bridge_of(architecture, "float64")
    kinds = ["standard", "layer_norm", "topk_rescaled", "jumprelu"]
    case = case_of(model, "pre", kinds, "float64")
    clean = case.model.clean_run(PROMPT)
    masks = random_masks(clean, 1000)
    masks = {depth: mask[-1:].expand(N_COPIES, -1, -1) for depth, mask in masks.items()}

    def logits(coefficients: Tensor) -> Tensor:
        edits = {
            depth: joint.changing(
                case.model, clean, depth, selected(mask), joint.scaled_by(coefficients)
            )
            for depth, mask in masks.items()
        }
        ran = joint.run_edits(case.model, clean, edits, N_COPIES, 9)
        return joint.logits_of(case.model, clean, ran, 9)

    at, step = torch.tensor([0.0, 0.4, 1.0, 1.7], dtype=torch.float64), 1e-5
    slope = (logits(at + step) - logits(at - step)) / (2 * step)  # [B, V]
    with torch.enable_grad():
        coefficients = at.clone().requires_grad_()
        out = logits(coefficients)
        for token in range(3):
            (found,) = torch.autograd.grad(out[:, token].sum(), coefficients, retain_graph=True)
            worst = float((found - slope[:, token]).abs().max() / slope.abs().max())
            record_property("deviation float64 joint, gradients", worst)
            assert worst < 1e-7
    assert bool((slope.abs().amax(1) > 0.01).all())


@pytest.mark.parametrize("way", ["holding", "keeping"])
def test_gradients_go_through_other_edits(gpt2: Case, way: str) -> None:
    """From the stream at the first layer through edits further up."""
    clean = gpt2.model.clean_run(PROMPT)
    edits = both(gpt2, clean, random_masks(clean, 1001), way).engine
    generator = torch.Generator().manual_seed(0)
    towards = torch.randn(N_COPIES, *clean.streams[0].shape, generator=generator).double()
    towards[:, 0] = 0

    def logits(size: Tensor) -> Tensor:
        first = joint.adding(towards * size[:, None, None])
        ran = joint.run_edits(gpt2.model, clean, {**edits, 0: first}, N_COPIES, 9)
        return joint.logits_of(gpt2.model, clean, ran, 9)

    at, step = torch.full((N_COPIES,), 0.1, dtype=torch.float64), 1e-5
    slope = ((logits(at + step) - logits(at - step)) / (2 * step))[:, 7]
    with torch.enable_grad():
        sizes = at.clone().requires_grad_()
        (found,) = torch.autograd.grad(logits(sizes)[:, 7].sum(), sizes)
    assert float(slope.abs().max()) > 1e-3
    assert torch.allclose(found, slope, rtol=1e-6, atol=1e-8)


# -- the comparison itself can fail ----------------------------------------------------------------


def test_encoding_the_clean_stream_is_noticed(gpt2: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nesting, what an upstream change made of a feature would be taken out wrongly."""
    clean = gpt2.model.clean_run(PROMPT)
    edits = both(gpt2, clean, random_masks(clean, 2), "zero")
    assert found_by(gpt2, clean, edits).worst < RELATIVE
    as_now = joint.activations_of

    def as_clean(layer: Any, features: Tensor, streams: Tensor) -> Tensor:
        depth = gpt2.model.stack.layers.index(layer)
        nearest = torch.cdist(streams, clean.streams[depth]).argmin(1)
        return as_now(layer, features, clean.streams[depth][nearest])

    monkeypatch.setattr(joint, "activations_of", as_clean)
    assert found_by(gpt2, clean, edits).worst > 0.01


def test_ablating_one_layer_only_is_noticed(gpt2: Case) -> None:
    clean = gpt2.model.clean_run(PROMPT)
    edits = both(gpt2, clean, random_masks(clean, 3), "zero")
    del edits.engine[2]
    assert found_by(gpt2, clean, edits).worst > 0.01
