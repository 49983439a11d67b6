"""Effects on the answer, and what carries them, against full passes with plain hooks."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sae_graphs.effects.ablations import ablations_of
from sae_graphs.effects.answer.circuit import Spot, circuit
from sae_graphs.effects.answer.coverage import scores_without
from sae_graphs.effects.answer.flows import candidates, flows_along
from sae_graphs.effects.answer.measure import (
    Asked,
    changes_after,
    direct_effects,
    effects_on_answer,
)
from sae_graphs.effects.answer.probe import Probe, Table
from sae_graphs.model.answer import Answer
from sae_graphs.model.interventions import ZERO, Intervention, mean_where_active
from tests.conftest import BridgeOf
from tests.support.against_oracle import (
    RELATIVE,
    Case,
    Record,
    case_of,
    kinds_for,
    largest_deviation,
)
from tests.support.answer_oracle import AnswerOracle
from tests.support.models import ARCHITECTURES, PROMPT
from tests.support.oracle import Change, zero
from tests.support.slow import crossed, only

READ, KEPT = 6, 8
ROUNDING = 1e-9  # nats


class Both(NamedTuple):
    """The engine and the oracle, asked for the same answer under the same intervention."""

    asked: Asked
    table: Table
    slow: AnswerOracle
    intervention: Intervention


def both(case: Case, kind: str = "mean", contrast: int | None = None) -> Both:
    """The means are random numbers, of which a feature in five has one that is 0."""
    model, clean = case.model, case.model.clean_run(PROMPT)
    generator = torch.Generator().manual_seed(3)
    means = []
    for activations in clean.activations:
        mean = torch.rand(activations.shape[1], generator=generator, dtype=torch.float64)
        means.append(torch.where(mean < 0.2, 0.0, mean).to(clean.logits.dtype))
    answer = Answer(int(clean.logits[READ].argmax()), contrast)
    asked = Asked(model, clean, answer, READ)
    used = ZERO
    if kind == "mean":
        layers = model.stack.layers
        used = mean_where_active(
            {layer.point: mean for layer, mean in zip(layers, means, strict=True)}, "mean"
        )
    ablations = tuple(
        ablations_of(clean, depth, asked.places, used) for depth in range(len(clean.points))
    )
    effects = tuple(effects_on_answer(asked, found) for found in ablations)
    dense = tuple(torch.zeros(len(found), dtype=torch.bool) for found in ablations)
    slow = AnswerOracle(case.oracle, answer.token_id, READ, zero, contrast)
    if kind == "mean":
        slow.change_of = lambda layer: _to(means[layer])
    return Both(asked, Table(ablations, effects, dense), slow, used)


def _to(mean: Tensor) -> Change:
    return lambda acts, feature: torch.where(acts != 0, mean[feature].to(acts.dtype), acts)


@pytest.mark.parametrize(("architecture", "kind"), crossed(ARCHITECTURES, ["mean", "zero"]))
def test_effects_on_the_answer(
    bridge_of: BridgeOf, record_property: Record, architecture: str, kind: str
) -> None:
    stack = "gap" if architecture == "llama" else "pre"
    case = case_of(bridge_of(architecture, "float64"), stack, kinds_for(architecture), "float64")
    _, table, slow, _ = both(case, kind)
    for depth, found in enumerate(table.ablations):
        wanted = torch.stack([slow.effects(depth, at) for at in range(READ + 1)])  # [T, F]
        wanted[0] = 0.0
        ours = torch.zeros_like(wanted)
        ours[found.positions, found.features] = table.effects[depth]
        worst = largest_deviation([ours], [wanted])
        record_property("deviation float64 effects on the answer", worst)
        assert worst < RELATIVE


@pytest.mark.parametrize("architecture", only(ARCHITECTURES, "gpt2"))
def test_a_contrast_and_single_precision(
    bridge_of: BridgeOf, record_property: Record, architecture: str
) -> None:
    """In float32 the measure is the largest effect on the answer, whatever its layer."""
    case = case_of(bridge_of(architecture, "float32"), "post", kinds_for(architecture), "float32")
    _, table, slow, _ = both(case, contrast=11)
    layers = range(len(table.ablations))
    wanted = torch.stack(
        [torch.stack([slow.effects(depth, at) for at in range(READ + 1)]) for depth in layers]
    )  # [L, T, F]
    wanted[:, 0] = 0.0
    ours = torch.zeros_like(wanted)
    for depth, found in enumerate(table.ablations):
        ours[depth, found.positions, found.features] = table.effects[depth].to(wanted.dtype)
    worst = largest_deviation([ours], [wanted])
    record_property("deviation float32 effects on the answer", worst)
    assert worst < RELATIVE


@pytest.mark.parametrize(
    ("architecture", "kind"),
    only(product(ARCHITECTURES, ["mean", "zero"]), ("gpt2", "mean"), ("gemma3", "zero")),
)
def test_edges_between_positions(
    bridge_of: BridgeOf, record_property: Record, architecture: str, kind: str
) -> None:
    case = case_of(bridge_of(architecture, "float64"), "pre", kinds_for(architecture), "float64")
    asked, table, slow, _ = both(case, kind)
    depth = 1
    found = table.ablations[depth]
    width = case.model.stack.layers[depth + 1].n_features
    ours = torch.zeros(len(found), READ + 1, width, dtype=torch.float64)
    for row, changes in enumerate(changes_after(asked, found)):
        ours[row, changes.positions, changes.features] = changes.after - changes.before
    at = [slow.at_each(depth, position)[:, : READ + 1] for position in range(READ + 1)]
    places = zip(found.features.tolist(), found.positions.tolist(), strict=True)
    wanted = torch.stack([at[position][feature] for feature, position in places])
    worst = largest_deviation([ours], [wanted])
    record_property("deviation float64 edges of the answer", worst)
    assert worst < RELATIVE


@pytest.mark.parametrize(
    ("architecture", "kind"),
    only(product(ARCHITECTURES, ["mean", "zero"]), ("llama", "mean")),
)
def test_what_carries_the_effects(
    bridge_of: BridgeOf, record_property: Record, architecture: str, kind: str
) -> None:
    """Direct effects, flows along edges and along paths, and sets ablated together."""
    case = case_of(bridge_of(architecture, "float64"), "pre", kinds_for(architecture), "float64")
    asked, table, slow, intervention = both(case, kind)
    kept = table.strongest(KEPT)
    probe = Probe(asked, table)
    shape = circuit(probe, kept, top_k=4)
    for spot in kept:
        _check(record_property, "direct effects", probe.direct[spot], slow.direct(spot))
        (alone,) = direct_effects(asked, table.of([spot])).tolist()
        assert alone == pytest.approx(probe.direct[spot], rel=1e-9, abs=ROUNDING)
    for link in shape.links[:KEPT]:
        wanted = slow.through(link.source, link.target)
        _check(record_property, "flows along edges", link.flow, wanted)
    paths = [path for path in candidates(shape) if len(path) > 1][:4]
    for path, flow in zip(paths, flows_along(asked, table, paths), strict=True):
        _check(record_property, "flows along paths", flow, slow.along(path))
    (together,) = scores_without(asked, [kept], intervention)
    _check(
        record_property, "joint effects", together - asked.score, slow.without(kept) - slow.clean
    )


def _check(record: Record, name: str, ours: float, wanted: float) -> None:
    record(f"deviation float64 {name}", abs(ours - wanted) / max(abs(wanted), 1e-3))
    assert ours == pytest.approx(wanted, rel=RELATIVE, abs=ROUNDING)


def test_the_oracle_can_tell(bridge_of: BridgeOf) -> None:
    """What is compared differs where the means or the place do."""
    case = case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")
    mean, zeroed = both(case), both(case, "zero")
    depth = 1
    wanted = mean.slow.effects(depth, READ)
    for other in (zeroed.slow.effects(depth, READ), mean.slow.effects(depth, READ - 1)):
        assert largest_deviation([other], [wanted]) > 0.1
    spot = mean.table.strongest(1)[0]
    place, later = (spot.depth, spot.feature, spot.position), Spot(*spot[:2], spot.position - 1)
    assert mean.slow.direct(place) != pytest.approx(mean.slow.direct(later), rel=1e-3)
