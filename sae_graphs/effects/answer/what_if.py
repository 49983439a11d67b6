"""The next token's distribution without each drawn feature, and without all of them together.

One pass of as many copies as there are drawn features, beside the thousands that were measured.

Letters: `N` sets of features, `V` vocabulary, `K` tokens that are listed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_graphs.effects.answer.circuit import Circuit, Spot
from sae_graphs.effects.answer.drawn import Names
from sae_graphs.effects.answer.experiment import Measured
from sae_graphs.effects.answer.flows import selected
from sae_graphs.effects.answer.measure import Asked, logits_after
from sae_graphs.effects.rounding import above
from sae_graphs.graph.what_if import Outcome, WhatIf
from sae_graphs.model.joint import run_sets
from sae_graphs.model.next_token import Question, top_tokens

ALONE = 128  # drawn features that are ablated alone, those of the largest effect first
LIKELIEST = 3  # next tokens of each that are listed
TOKENS = 40  # next tokens that are listed at most


@torch.no_grad()
def what_if_of(found: Measured, shape: Circuit, names: Names) -> WhatIf:
    """What comes of ablating each drawn feature, all kept ones, and these with their relays.

    As the run ablates; scores in nats, as the effects on the answer have them.
    """
    asked, table = found.asked, found.table
    drawn = sorted((*shape.kept, *shape.relays), key=lambda spot: -abs(table.effect(spot)))[:ALONE]
    wholes = [tuple(shape.kept), (*shape.kept, *shape.relays)]
    together = [spots for spots in dict.fromkeys(wholes) if len(spots) > 1]
    logits = torch.cat([_alone(found, drawn), _together(found, together)])  # [N, V]
    before = asked.clean.logits[asked.read]
    tokens = _listed(
        asked, before, logits, [output.token_id for output in found.experiment.outputs]
    )
    change = above(asked.answer.score(logits) - asked.answer.score(before), asked.floor)
    return WhatIf(
        tokens=tuple(asked.model.token_string(token) for token in tokens),
        token_ids=tuple(tokens),
        clean=tuple(_probabilities(before[None], tokens)[0]),
        outcomes=tuple(
            Outcome(tuple(str(names.of(spot)) for spot in spots), score, tuple(probabilities))
            for spots, score, probabilities in zip(
                [*((spot,) for spot in drawn), *together],
                (asked.score + change.double()).tolist(),
                _probabilities(logits, tokens),
                strict=True,
            )
        ),
    )


def _alone(found: Measured, spots: Sequence[Spot]) -> Tensor:
    """The logits `[N, V]` after each of some features is ablated alone, in their order."""
    place = {spot: number for number, spot in enumerate(spots)}
    asked = found.asked
    logits = asked.clean.logits[asked.read].repeat(len(spots), 1)
    for depth in sorted({spot.depth for spot in spots}):
        here = [spot for spot in spots if spot.depth == depth]
        after = torch.cat(list(logits_after(asked, found.table.of(here))))
        logits[[place[spot] for spot in here]] = after
    return logits


def _together(found: Measured, sets: Sequence[Sequence[Spot]]) -> Tensor:
    """The same after each set of features is ablated together."""
    asked = found.asked
    model, clean, read = asked.model, asked.clean, asked.read
    chosen = selected(sets, len(clean), clean.logits.device)
    if not chosen:
        return clean.logits[:0]
    intervention = found.experiment.intervention
    return run_sets(model, clean, chosen, len(sets), read, intervention=intervention)[0]


def _listed(asked: Asked, before: Tensor, logits: Tensor, outputs: Sequence[int]) -> list[int]:
    """The tokens `[K]` whose probabilities are told; what is named or likely when clean first."""
    answer, other = asked.answer
    first = [answer, *([] if other is None else [other]), *outputs]
    first += top_tokens(Question(before, answer))
    top = logits.topk(min(LIKELIEST, logits.shape[-1]))
    odds = (top.values - logits.logsumexp(-1, keepdim=True)).flatten()
    order = odds.argsort(descending=True, stable=True)
    return list(dict.fromkeys([*first, *top.indices.flatten()[order].tolist()]))[:TOKENS]


def _probabilities(logits: Tensor, tokens: Sequence[int]) -> list[list[float]]:
    """Those of some tokens, `[N, K]`, of logits `[N, V]`."""
    total = torch.cat([part.double().logsumexp(-1) for part in logits.split(1)])
    chosen = logits[:, list(tokens)].double()
    found: list[list[float]] = (chosen - total[:, None]).exp().clamp(max=1).tolist()
    return found
