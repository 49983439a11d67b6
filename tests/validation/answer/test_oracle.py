"""Scores of a unit and of its controls, against full passes with plain hooks."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.flows import selected
from sae_graphs.effects.answer.measure import effects_on_answer
from sae_graphs.model.joint import run_sets
from sae_graphs.validation.answer.bench import Bench
from sae_graphs.validation.answer.controls import Drawn, directions, matched, sets_of
from sae_graphs.validation.answer.records import Null
from sae_graphs.validation.answer.subject import Prepared, Unit
from sae_graphs.validation.settings import ValidationSettings
from tests.conftest import BridgeOf
from tests.support.against_oracle import RELATIVE, Record, case_of, kinds_for
from tests.support.answer_oracle import AnswerOracle, log_odds
from tests.support.answers import measured, ready
from tests.support.joint_oracle import Edit
from tests.support.models import ARCHITECTURES, PROMPT
from tests.support.oracle import Change, zero
from tests.support.slow import only

MEAN, CONTROLS, CHECKED = 0.3, 19, 3
CASES = only(product(ARCHITECTURES, ["mean", "zero"]), ("gpt2", "mean"), ("llama", "zero"))


def mean(acts: Tensor, feature: int) -> Tensor:
    return torch.where(acts != 0, torch.full_like(acts, torch.tensor(MEAN).item()), acts)


@pytest.mark.parametrize(("architecture", "kind"), CASES)
def test_scores(bridge_of: BridgeOf, record_property: Record, architecture: str, kind: str) -> None:
    stack = case_of(bridge_of(architecture, "float64"), "pre", kinds_for(architecture), "float64")
    found = ready(stack.model, PROMPT, mean=MEAN if kind == "mean" else None)
    asked = found.asked
    change: Change = mean if kind == "mean" else zero
    slow = AnswerOracle(stack.oracle, asked.answer.token_id, asked.read, change)
    spots = chain(found)
    unit = measured(found, spots, controls=CONTROLS)
    every = found.table.rare()

    def check(name: str, ours: float, wanted: float) -> None:
        record_property(f"deviation float64 {name}", abs(ours - wanted) / abs(wanted))
        assert ours == pytest.approx(wanted, rel=RELATIVE)

    check("the unit ablated", unit.ablated.nats, slow.without(spots))
    assert unit.keep_only is not None
    check("kept alone", unit.keep_only.score.nats, slow.without([*(every - set(spots))]))

    drawn, norms = drawn_for(found, spots)
    sets = as_spots(drawn)
    scores = {null.kind: null.scores for null in unit.nulls}
    for number in range(CHECKED):
        own = sets[number]
        check("matched sets", scores["matched"][number], slow.without(own))
        kept = unit.keep_only.null.scores[number]
        check("matched sets kept alone", kept, slow.without([*(every - set(own))]))
        wanted = scaled(slow, own, norms)
        check("scaled sets", scores["scaled"][number], wanted)
    towards = directions(asked, norms, CONTROLS, Bench.generator(bench(found), *key(spots)))
    for number in range(CHECKED):
        edits: dict[int, Edit] = {
            depth: slow.joint.added(deltas[number]) for depth, deltas in towards.items()
        }
        check("directions", scores["directions"][number], score(slow, edits))


def chain(found: Prepared) -> list[Spot]:
    """The strongest feature of each layer but the last, and two of the first, where others are."""
    spots = []
    for ablations in found.table.ablations[:-1]:
        effects = effects_on_answer(found.asked, ablations).abs()
        alike = (ablations.positions[:, None] == ablations.positions).sum(1)
        effects[alike < 6] = 0.0
        rows = effects.topk(2 if ablations.depth == 0 else 1).indices.tolist()
        spots += [found.table.spot(ablations.depth, row) for row in rows]
    return sorted(spots)


def bench(found: Prepared) -> Any:
    return Bench(found, ValidationSettings(quick=True, controls=CONTROLS), lambda n: None)


def key(spots: list[Spot], kind: str = "directions") -> tuple[str, Unit]:
    return kind, Unit("unit", "graph", (), tuple(spots))


def drawn_for(found: Prepared, spots: list[Spot]) -> tuple[Drawn, Tensor]:
    """The matched sets that were drawn, and the norms `[L, T]` that the unit takes."""
    asked = found.asked
    own = selected([spots], len(asked.clean), asked.clean.logits.device)
    _, moved = run_sets(
        asked.model, asked.clean, own, 1, asked.read, intervention=found.intervention
    )
    generator = bench(found).generator(*key(spots, "matched"))
    return matched(asked, found.table, spots, moved[0], CONTROLS, generator), moved[0]


def as_spots(drawn: Drawn) -> list[list[Spot]]:
    found: list[list[Spot]] = [[] for _ in range(drawn.n)]
    for depth, (features, chosen) in sets_of(drawn, 64).items():
        for copy, position, column in chosen.nonzero().tolist():
            found[copy].append(Spot(depth, int(features[column]), position))
    return found


def scaled(slow: AnswerOracle, spots: list[Spot], norms: Tensor) -> float:
    """The score where what ablation takes at each place is scaled to the unit's norm there."""
    edits: dict[int, Edit] = {}
    for layer in {spot.depth for spot in spots}:
        chosen = torch.zeros_like(slow.joint.activations[layer], dtype=torch.bool)
        for spot in spots:
            chosen[:, spot.position, spot.feature] |= spot.depth == layer
        plain = slow.joint.changed(layer, chosen, slow._become(layer))
        clean = slow.joint.clean.streams[layer]
        at_clean = clean - plain(clean)

        def edit(
            stream: Tensor,
            plain: Edit = plain,
            at_clean: Tensor = at_clean,
            wanted: Tensor = norms[layer],
            touched: Tensor = chosen.any(-1),
        ) -> Tensor:
            took = stream - plain(stream)
            silent = took.norm(dim=-1, keepdim=True) < 1e-12
            took = torch.where(silent, at_clean, took)
            length = took.norm(dim=-1, keepdim=True).clamp(min=1e-30)
            return torch.where(touched[..., None], stream - took / length * wanted[:, None], stream)

        edits[layer] = edit
    return score(slow, edits)


def score(slow: AnswerOracle, edits: dict[int, Edit]) -> float:
    return float(log_odds(slow.joint.run(edits).logits[0, slow.read], slow.token))


def test_p_counts_the_controls_that_do_at_least_as_much(bridge_of: BridgeOf) -> None:
    stack = case_of(bridge_of("gpt2", "float64"), "pre", ["standard"], "float64")
    found = ready(stack.model, PROMPT)
    unit = measured(found, chain(found), controls=CONTROLS)
    for null in unit.nulls:
        lower = sum(score <= unit.ablated.nats for score in null.scores)
        assert null.p == (1 + lower) / (1 + len(null.scores))
    assert unit.keep_only is not None
    kept: Null = unit.keep_only.null
    higher = sum(score >= unit.keep_only.score.nats for score in kept.scores)
    assert kept.p == (1 + higher) / (1 + len(kept.scores))
