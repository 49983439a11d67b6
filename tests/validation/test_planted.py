"""Validation on models in which it is known which path matters."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
import torch
from scipy.stats import binom, kstest

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.model import joint
from sae_graphs.model.clean_run import CleanRun
from sae_graphs.significance import adjusted
from sae_graphs.validation.evidence import ValidationReport
from sae_graphs.validation.path_ablation import ablate_path
from sae_graphs.validation.settings import ValidationSettings
from sae_graphs.validation.subjects import Subject, subject
from sae_graphs.validation.validate import validate
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.planted import (
    CONTRAST,
    LOGIT,
    OTHER_PROMPTS,
    PROMPT,
    TARGET,
    WORDS,
    Planted,
    planted,
    planted_null,
)

ALPHA = 0.001
YES, NO = WORDS.index(TARGET), WORDS.index(CONTRAST)
N_NULLS = 150


@pytest.fixture(scope="module")
def alone() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def beside() -> Planted:
    return planted(side=True)


def chosen(clean: CleanRun, features: Sequence[FeatureId]) -> dict[int, joint.Selected]:
    """Some features in one copy, at all positions but the first."""
    everywhere = torch.ones(1, len(clean), 1, dtype=torch.bool)
    everywhere[:, 0] = False
    return {
        int(feature.layer): joint.Selected(torch.tensor([feature.index]), everywhere)
        for feature in features
    }


def change_of(case: Planted, features: Sequence[FeatureId]) -> float:
    """Of the target's logit less the contrast's, ablated minus clean."""
    clean = case.model.clean_run(PROMPT)
    last = len(clean) - 1
    logits, _ = joint.run_sets(case.model, clean, chosen(clean, features), 1, last)
    change = logits[0] - clean.logits[last]
    return float(change[YES] - change[NO])


# -- the model does what it says -------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [PROMPT, *OTHER_PROMPTS])
def test_planted_and_decoy_are_alike(alone: Planted, prompt: str) -> None:
    """Active alike, and as large, at every word that enough others go before."""
    clean = alone.model.clean_run(prompt)
    assert clean.logits[-1].argmax() == YES
    for name in ("planted", "decoy"):
        for layer, feature in enumerate(alone.paths[name]):
            acts = clean.activations[layer].of(torch.tensor([feature.index]))[:, 0]
            assert acts[layer:].tolist() == [2.0] * (len(clean) - layer)
            sets = chosen(clean, [feature])
            _, moved = joint.run_sets(alone.model, clean, sets, 1, len(clean) - 1)
            assert moved[0, layer, max(layer, 1) :].tolist() == [2.0] * (len(clean) - max(layer, 1))


def test_the_planted_path_alone_carries_the_target(alone: Planted) -> None:
    assert LOGIT == 4.0
    path = alone.paths["planted"]
    assert change_of(alone, path) == pytest.approx(-4.0, abs=1e-12)
    for feature in path:  # a chain: what any one of them does, all do
        assert change_of(alone, [feature]) == pytest.approx(-4.0, abs=1e-12)
    assert change_of(alone, alone.paths["decoy"]) == pytest.approx(0.0, abs=1e-12)
    for layer in alone.background:
        assert abs(change_of(alone, layer[:1])) < 0.3


def test_a_side_path_carries_half(beside: Planted) -> None:
    path, side = beside.paths["planted"], beside.paths["side"]
    assert path[0] == side[0]
    assert change_of(beside, path) == pytest.approx(-4.0, abs=1e-12)
    assert change_of(beside, path[1:]) == pytest.approx(-2.0, abs=1e-12)
    assert change_of(beside, side[2:]) == pytest.approx(-2.0, abs=1e-12)


@pytest.mark.parametrize(("side", "expected"), [(False, -4.0), (True, -2.0)])
def test_what_flows_along_the_path(side: bool, expected: float) -> None:
    """The first feature off, all others of later layers held clean but those of the path."""
    case = planted(side=side)
    clean = case.model.clean_run(PROMPT)
    sets = chosen(clean, case.paths["planted"])
    edits = {
        depth: joint.holding_others(case.model, clean, depth, some)
        for depth, some in sets.items()
        if depth > 0
    }
    edits[0] = joint.changing(case.model, clean, 0, sets[0], lambda features, acts: 0 * acts)
    ran = joint.run_edits(case.model, clean, edits, 1, len(clean) - 1)
    change = joint.logits_of(case.model, clean, ran, len(clean) - 1)[0] - clean.logits[-1]
    assert float(change[YES]) == pytest.approx(expected, abs=1e-12)


def test_there_is_much_else_to_draw_from(alone: Planted) -> None:
    clean = alone.model.clean_run(PROMPT)
    ablated = torch.arange(len(clean)) > 0
    for layer, others in enumerate(alone.background):
        active = set(clean.activations[layer].active(ablated).tolist())
        assert len(active & {feature.index for feature in others}) >= 30


def test_null_paths_are_drawn_anew(alone: Planted) -> None:
    paths = {planted_null(seed).paths["planted"] for seed in range(5)}
    assert len(paths) == 5
    assert planted_null(3).paths == planted_null(3).paths


# -- what validation finds -------------------------------------------------------------------------


def graph_of(case: Planted) -> CausalGraph:
    return effect_graph(case.model, PROMPT, top_k=40, min_path_edges=1, outputs=2)


def subject_of(case: Planted, settings: ValidationSettings) -> Subject:
    return subject(case.model, PROMPT, "discovery", effect_settings(), settings, own=True)


@pytest.mark.parametrize("prompts", [OTHER_PROMPTS, pytest.param((), marks=pytest.mark.slow)])
def test_the_planted_path_is_found_and_the_decoy_is_not(
    alone: Planted, prompts: tuple[str, ...]
) -> None:
    paths = alone.paths["planted"], alone.paths["decoy"]
    report = validate(alone.model, graph_of(alone), prompts, path=paths, quick=True, controls=199)
    assert isinstance(report, ValidationReport) and report.target == TARGET
    real, decoy = (unit.tested for unit in report.units)
    assert real is not None and decoy is not None
    assert real.p == (2 / 200 if prompts else 1 / 200)  # of two prompts, twice the mean
    assert real.n_controlled == (len(prompts) or 1)
    assert decoy.p == 1.0
    for result in report.units[0].results:
        nulls = {null.kind: null.p for null in result.nulls}
        assert nulls["matched"] == 1 / 200
        assert nulls["scaled"] == nulls["directions"] == 1 / 51
        assert result.rank_before == 1
    # a probability's last digit depends on how many rows the processor multiplies at once
    assert abs(report.units[1].of_discovery.change) <= 2 * sys.float_info.epsilon


@pytest.mark.slow
def test_shuffled_paths_are_not_found(alone: Planted) -> None:
    """The graph's nodes one a layer, but those of the planted path, tested as a path is."""
    settings = ValidationSettings(controls=199, other_controls=1)
    own, found = subject_of(alone, settings), []
    nodes = [node.feature for node in graph_of(alone).nodes if not node.feature.is_output]
    last = [node for node in nodes if node.layer == "3" and node not in alone.paths["planted"]]
    assert len(last) > 20
    for node in last:
        shuffled = (*alone.paths["decoy"][:3], node)
        null = ablate_path(own, shuffled, nodes, settings, lambda n: None).null("matched")
        assert null is not None
        found.append(null.p)
    assert min(q for q in adjusted(found) if q is not None) > 0.05


@pytest.mark.parametrize(("side", "expected"), [(False, 1.0), (True, 0.5)])
def test_mediated_fraction(side: bool, expected: float) -> None:
    case = planted(side=side)
    report = validate(
        case.model,
        graph_of(case),
        path=(case.paths["planted"],),
        contrast=CONTRAST,
        controls=19,
        snippets=0,
    )
    assert isinstance(report, ValidationReport)
    mediation = report.units[0].mediation
    assert mediation is not None
    assert mediation.total == pytest.approx(-4.0, abs=1e-12)
    assert mediation.fraction == pytest.approx(expected, abs=1e-12)
    assert mediation.joint == pytest.approx(-4.0, abs=1e-12)


# -- p-values mean what they say -------------------------------------------------------------------


@pytest.fixture(scope="module")
def null_p_values() -> dict[str, list[float]]:
    """Of paths that are as good as their controls: by change of the score, by divergence.

    Nine features of ten are active at a word, so few are active elsewhere alone: where there is no
    other one, a path has no controls.
    """
    settings = ValidationSettings(controls=99, other_controls=1)
    found: dict[str, list[float]] = {"change": [], "divergence": []}
    for seed in range(N_NULLS):
        case = planted_null(seed)
        result = ablate_path(
            subject_of(case, settings), case.paths["planted"], (), settings, lambda n: None
        )
        null = result.null("matched")
        assert null is not None
        if null.refused is not None:
            assert "active at other ablated tokens alone" in null.refused
            continue
        assert null.p is not None and null.p_kl is not None
        found["change"].append(null.p)
        found["divergence"].append(null.p_kl)
    return found


def calibrated(p_values: Sequence[float]) -> bool:
    """Whether they could be uniform: all of them, and the small ones that get called findings."""
    chances = [kstest(p_values, "uniform").pvalue]
    for level in (0.01, 0.02, 0.05):
        few = sum(p <= level for p in p_values)
        chances.append(float(binom.sf(few - 1, len(p_values), level)))  # of at least so many
    return min(chances) > ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("of", ["change", "divergence"])
def test_p_values_of_nothing_are_uniform(null_p_values: dict[str, list[float]], of: str) -> None:
    assert len(null_p_values[of]) >= N_NULLS - 5  # hardly any are refused
    assert calibrated(null_p_values[of])


def test_biased_p_values_are_noticed() -> None:
    fair = [(number + 0.5) / N_NULLS for number in range(N_NULLS)]
    assert calibrated(fair)
    assert not calibrated([p**1.5 for p in fair])
    assert not calibrated([p / 10 if p < 0.08 else p for p in fair])  # in the tail alone
    assert not calibrated([p / 4 if p < 0.16 else p for p in fair])
    assert not calibrated([p / 20 if p < 0.05 else p for p in fair])
