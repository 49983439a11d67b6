"""The engine against the oracle: every effect, on several architectures and SAE kinds."""

from __future__ import annotations

from io import StringIO
from itertools import product
from typing import Any

import pytest
import torch

from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.describe import token_effects
from sae_graphs.effects.settings import Per
from sae_graphs.features.reference import mean_intervention, references_of
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import mean_over, resample, scale
from tests.conftest import BridgeOf
from tests.support.against_oracle import (
    FAINT,
    RELATIVE,
    Case,
    Record,
    case_of,
    check_against_oracle,
    engine_effects,
    kinds_for,
    largest_deviation,
    oracle_effects,
)
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.models import (
    ARCHITECTURES,
    KINDS,
    OTHER_PROMPT,
    PROMPT,
    STACKS,
    in_dtype,
    random_stack,
    tokenizer,
)
from tests.support.oracle import Oracle, replaced, scaled
from tests.support.slow import covering, crossed, first, only


def stacks_of(architecture: str) -> list[str]:
    """GPT-NeoX runs attention and MLP in parallel: there is no stream between them."""
    parallel = architecture == "neox"
    return [stack for stack in STACKS if not (parallel and stack in ("mid", "mixed"))]


@pytest.mark.parametrize(
    ("architecture", "stack", "dtype"),
    [
        *covering(
            (architecture, stack, "float64")
            for architecture in ARCHITECTURES
            for stack in stacks_of(architecture)
        ),
        *first(
            1,
            [
                (architecture, stack, "float32")
                for architecture in ARCHITECTURES
                for stack in stacks_of(architecture)
            ],
        ),
    ],
)
def test_architectures_and_stacks(
    bridge_of: BridgeOf, record_property: Record, architecture: str, stack: str, dtype: str
) -> None:
    case = case_of(bridge_of(architecture, dtype), stack, kinds_for(architecture), dtype)
    check_against_oracle(case, effect_settings(), record_property, architecture)


@pytest.mark.parametrize(
    ("dtype", "kind"), only(product(("float64", "float32"), KINDS), *product(("float64",), KINDS))
)
def test_sae_kinds(bridge_of: BridgeOf, record_property: Record, kind: str, dtype: str) -> None:
    case = case_of(bridge_of("llama", dtype), "pre", [kind], dtype)
    check_against_oracle(case, effect_settings(ablate_first=True), record_property, f"SAE {kind}")


SETTINGS = {
    "read last": effect_settings(ablate="read"),
    "read middle": effect_settings(read=5),
    "read middle, ablate there": effect_settings(read=-4, ablate="read"),
    "first included": effect_settings(ablate_first=True),
    "no BOS": effect_settings(prepend_bos=False),
    "no BOS, first included": effect_settings(prepend_bos=False, ablate_first=True, read=3),
}


@pytest.mark.parametrize(("architecture", "name"), crossed(ARCHITECTURES, [*SETTINGS]))
def test_settings(
    bridge_of: BridgeOf, record_property: Record, architecture: str, name: str
) -> None:
    settings = SETTINGS[name]
    case = case_of(
        bridge_of(architecture, "float64"),
        "pre",
        kinds_for(architecture),
        "float64",
        bos=settings.prepend_bos is not False,
    )
    check_against_oracle(case, settings, record_property, architecture)


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "gpt2", "gemma3"))
def test_features_active_at_one_some_and_all_positions(
    bridge_of: BridgeOf, record_property: Record, architecture: str
) -> None:
    """Packs hold copies with one changed row, with some, and with all of them."""
    bridge = bridge_of(architecture, "float64")
    saes = random_stack(bridge, STACKS["post"], ["standard"])
    for sae in saes:
        sae.b_enc[:2] += 20.0  # two features fire wherever they can
    ids = [0, *tokenizer()(PROMPT, add_special_tokens=False)["input_ids"]]
    oracle = Oracle(bridge, in_dtype(saes, "float64"), ids)
    case = Case(InstrumentedModel(bridge, saes), oracle)
    clean = case.model.clean_run(PROMPT)
    for settings in (effect_settings(), effect_settings(read=5)):
        ablations = ablations_of(clean, 0, places_of(clean, settings))
        changed = set(torch.bincount(ablations.copies).tolist())
        last = len(clean) - 1 if settings.read == -1 else 5
        assert {1, last} < changed
        check_against_oracle(case, settings, record_property, architecture)


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "neox", "gemma2"))
def test_one_token_prompt(bridge_of: BridgeOf, record_property: Record, architecture: str) -> None:
    case = case_of(
        bridge_of(architecture, "float64"),
        "pre",
        kinds_for(architecture),
        "float64",
        "a",
        bos=False,
    )
    settings = effect_settings(prepend_bos=False)
    assert case.oracle.ids.shape == (1, 1)
    engine = engine_effects(case, settings, "a")
    expected = [case.oracle.effects(pair, [0], 0) for pair in range(3)]
    worst = largest_deviation(engine, expected)
    record_property(f"deviation float64 {architecture}", worst)
    assert worst < RELATIVE


def test_hooked_transformer(hooked: Any, record_property: Record, logged: StringIO) -> None:
    """The deprecated class works where a user still has one."""
    for stack in ("pre", "mixed"):
        case = case_of(hooked, stack, ["standard", "topk"], "float64")
        check_against_oracle(case, effect_settings(), record_property, "HookedTransformer")
    assert "all rows are run, which is slower" in logged.getvalue()


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("gpt_neo", "cannot be run on some rows alone"),
        ("bloom", "takes one copy of a prompt at a time"),
    ],
)
def test_architectures_that_need_all_rows_say_so(
    bridge_of: BridgeOf,
    record_property: Record,
    logged: StringIO,
    architecture: str,
    said: str,
) -> None:
    """Slower, as exact, and loud; found out although the prompt is shorter than any window.

    In float32, to which GPT-Neo's attention rounds whatever the model's precision.
    """
    case = case_of(bridge_of(architecture, "float32"), "pre", ["standard", "topk"], "float32")
    new = InstrumentedModel(case.model.model, case.model.stack)  # a model says so once
    check_against_oracle(case._replace(model=new), effect_settings(), record_property, architecture)
    assert not new.replay.rows_alone
    assert said in logged.getvalue()


# -- other interventions, token effects ------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(bridge_of: BridgeOf) -> Case:
    kinds = ["standard", "layer_norm", "topk_rescaled", "jumprelu"]
    return case_of(bridge_of("gpt2", "float64"), "pre", kinds, "float64")


@pytest.mark.parametrize("coefficient", [2.0, 0.5, -1.0])
def test_scale(gpt2: Case, record_property: Record, coefficient: float) -> None:
    settings = effect_settings()
    engine = engine_effects(gpt2, settings, intervention=scale(coefficient))
    worst = largest_deviation(engine, oracle_effects(gpt2, settings, scaled(coefficient)))
    record_property("deviation float64 scale", worst)
    assert worst < RELATIVE


def test_mean(gpt2: Case, record_property: Record) -> None:
    prompts = [OTHER_PROMPT, "the dog sat"]
    oracle = gpt2.oracle
    others = [
        Oracle(oracle.model, oracle.saes, [0, *tokenizer()(p, add_special_tokens=False).input_ids])
        for p in prompts
    ]
    expected = []
    for pair in range(3):
        mean = torch.cat([other.activations[pair][1:] for other in others]).mean(0)
        values = mean.repeat(oracle.ids.shape[1], 1)
        expected.append(oracle.effects(pair, list(range(1, 10)), 9, replaced(values)))
    engine = engine_effects(gpt2, effect_settings(), intervention=mean_over(gpt2.model, prompts))
    worst = largest_deviation(engine, expected)
    record_property("deviation float64 mean", worst)
    assert worst < RELATIVE


def test_reference_mean(gpt2: Case, record_property: Record) -> None:
    references = references_of(gpt2.model, texts=[OTHER_PROMPT, "the dog sat"])
    oracle = gpt2.oracle
    expected = []
    for pair in range(3):
        acts = oracle.activations[pair]
        values = torch.where(acts != 0, references[pair].mean.to(acts.dtype), acts)
        expected.append(oracle.effects(pair, list(range(1, 10)), 9, replaced(values)))
    kind = mean_intervention(gpt2.model, references)
    worst = largest_deviation(engine_effects(gpt2, effect_settings(), intervention=kind), expected)
    record_property("deviation float64 reference mean", worst)
    assert worst < RELATIVE


def test_resample(gpt2: Case, record_property: Record) -> None:
    oracle = gpt2.oracle
    ids = [0, *tokenizer()(OTHER_PROMPT, add_special_tokens=False)["input_ids"]]
    other = Oracle(oracle.model, oracle.saes, ids)
    expected = [
        oracle.effects(pair, list(range(1, 10)), 9, replaced(other.activations[pair]))
        for pair in range(3)
    ]
    intervention = resample(gpt2.model, OTHER_PROMPT, n_tokens=10)
    worst = largest_deviation(
        engine_effects(gpt2, effect_settings(), intervention=intervention), expected
    )
    record_property("deviation float64 resample", worst)
    assert worst < RELATIVE


@pytest.mark.parametrize(("depth", "architecture"), crossed([0, 1, 3], ["gpt2", "gemma2"]))
def test_token_effects(
    bridge_of: BridgeOf, record_property: Record, architecture: str, depth: int
) -> None:
    """Log-probability changes, in nats, as the model's own full pass gives them."""
    bridge = bridge_of(architecture, "float64")
    case = case_of(bridge, "pre", kinds_for(architecture), "float64")
    clean = case.model.clean_run(PROMPT)
    places = places_of(clean, effect_settings())
    ablations = ablations_of(clean, depth, places)
    label = case.model.stack.layers[depth].label
    features = [FeatureId(label, index) for index in ablations.features.tolist()]
    expected = case.oracle.token_effects(depth, list(range(1, 10)), 9)
    probability = case.oracle.logits[9].softmax(-1)
    found = token_effects(case.model, clean, ablations, features, places, limit=100)
    worst, compared = 0.0, 0
    for feature, effects in zip(features, found, strict=True):
        row = expected[feature.index]
        larger = torch.maximum(probability, probability * row.exp())
        wanted = (larger >= 1e-5) & (row.abs() >= 0.01)
        weight = (row * larger).abs()
        for listed, sign in ((effects.promotes, -1), (effects.suppresses, 1)):
            order = ((row * sign > 0) & wanted).nonzero()[:, 0]
            order = order[weight[order].argsort(descending=True, stable=True)][:100]
            strings = [case.model.token_string(token) for token in order.tolist()]
            assert [effect.token for effect in listed] == strings
            nats = row.new_tensor([effect.effect_nats for effect in listed])
            torch.testing.assert_close(nats, row[order], rtol=0, atol=1e-5)
            worst = max([worst, *(nats - row[order]).abs().tolist()])
            before = row.new_tensor([effect.probability for effect in listed])
            torch.testing.assert_close(before, probability[order], rtol=1e-5, atol=1e-12)
            compared += len(order)
    assert compared > 50
    record_property("deviation float64 token effects, in nats", worst)
    assert worst < 1e-5


# -- whole graphs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "per"), crossed(ARCHITECTURES, ["layer", "source", "graph"])
)
def test_graph_holds_the_oracles_strongest_edges(
    bridge_of: BridgeOf, architecture: str, per: Per
) -> None:
    case = case_of(bridge_of(architecture, "float64"), "post", kinds_for(architecture), "float64")
    graph = effect_graph(case.model, PROMPT, top_k=6, per=per, min_path_edges=1)
    effects = oracle_effects(case, effect_settings())
    all_edges = [
        (abs(value), pair, source, target)
        for pair, dense in enumerate(effects)
        for source, row in enumerate(dense.tolist())
        for target, value in enumerate(row)
        if value != 0.0
    ]
    sets: dict[object, list[tuple[float, int, int, int]]] = {}
    for edge in sorted(all_edges, key=lambda e: (-e[0], *e[1:])):
        group = {"layer": edge[1], "source": edge[1:3], "graph": None}[per]
        sets.setdefault(group, []).append(edge)
    wanted = {edge[1:] for group in sets.values() for edge in group[:6] if edge[0] > 1e-9}
    found = {
        (graph.depths[e.source.layer], e.source.index, e.target.index)
        for e in graph.edges
        if abs(e.effect) > 1e-9
    }
    assert found == wanted
    for kept in graph.edges:
        dense = effects[graph.depths[kept.source.layer]]
        expected = float(dense[kept.source.index, kept.target.index])
        assert kept.effect == pytest.approx(expected, rel=RELATIVE, abs=1e-12)
    total = sum(edge[0] for edge in all_edges)
    assert graph.run.total_abs_effect == pytest.approx(total, rel=1e-9)
    drawn = sum(abs(kept.effect) for kept in graph.edges)
    assert graph.run.kept_abs_effect == pytest.approx(drawn, rel=1e-12)
    assert graph.run.next_tokens[0][1] == pytest.approx(
        float(case.oracle.logits[-1].softmax(-1).max()), rel=1e-5
    )


@pytest.mark.parametrize("rows", only([1, 7, 10_000], 7))
def test_packs_do_not_matter(gpt2: Case, rows: int) -> None:
    whole = engine_effects(gpt2, effect_settings())
    split = engine_effects(gpt2, effect_settings(), rows=rows)
    assert largest_deviation(split, whole) < 1e-9


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "gpt2", "gemma3"))
def test_the_oracle_says_the_same_with_a_pass_for_each_feature(
    bridge_of: BridgeOf, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    case = case_of(bridge_of(architecture, "float64"), "pre", ["standard"], "float64")
    ablated = range(1, case.oracle.ids.shape[1])
    together = case.oracle.effects(1, ablated, -1)
    monkeypatch.setattr("tests.support.oracle.COPIES", 1)
    alone = case.oracle.effects(1, ablated, -1)
    assert alone.abs().max() > 0
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


# -- the comparison itself can fail ----------------------------------------------------------------


def test_a_wrong_sign_is_noticed(gpt2: Case) -> None:
    settings = effect_settings()
    engine = engine_effects(gpt2, settings)
    assert largest_deviation(engine, [-rows for rows in oracle_effects(gpt2, settings)]) > 1.0


def test_one_wrong_edge_is_noticed(gpt2: Case) -> None:
    settings = effect_settings()
    engine, oracle = engine_effects(gpt2, settings), oracle_effects(gpt2, settings)
    sizes = oracle[1].abs()
    least = sizes.masked_fill(sizes <= FAINT * sizes.max(), torch.inf).argmin()
    oracle[1].view(-1)[least] *= 1 + 1e-4
    assert largest_deviation(engine, oracle) > RELATIVE


def test_an_sae_one_hook_away_is_noticed(bridge_of: BridgeOf) -> None:
    bridge = bridge_of("gpt2", "float64")
    case = case_of(bridge, "post", ["standard"], "float64")
    moved = in_dtype(case.oracle.saes, "float64")
    moved[1].cfg.metadata.hook_name = "blocks.1.hook_resid_pre"
    wrong = case._replace(oracle=Oracle(bridge, moved, case.oracle.ids[0].tolist()))
    settings = effect_settings()
    engine = engine_effects(case, settings)
    assert largest_deviation(engine, oracle_effects(wrong, settings)) > 0.01


def test_reencoding_a_topk_sae_would_be_noticed(bridge_of: BridgeOf) -> None:
    """The mask goes on after selection: selecting again would let other features in."""
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["topk"], "float64")
    sae, stream = case.oracle.saes[1], case.oracle.streams[1]
    acts = sae.encode(stream)
    feature = int(acts[-1].argmax())
    masked = acts.clone()
    masked[:, feature] = 0
    again = sae.encode(stream - (sae.decode(acts) - sae.decode(masked)))
    assert not torch.equal(again != 0, masked != 0)
    check_against_oracle(case, effect_settings(), lambda name, value: None)
