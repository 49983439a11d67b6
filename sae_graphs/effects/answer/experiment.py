"""What a run of an answer graph measures: a prompt, its answer, and every effect on it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sae_graphs.bars import Progress
from sae_graphs.effects.ablations import ablations_of, inactive_pin, read_at
from sae_graphs.effects.answer.circuit import Spot
from sae_graphs.effects.answer.measure import Asked
from sae_graphs.effects.answer.probe import Table
from sae_graphs.effects.answer.table import Shortlist, measured_table
from sae_graphs.effects.experiment import (
    Experiment,
    chosen_intervention,
    in_scope,
    output_token,
)
from sae_graphs.effects.partial import Partial
from sae_graphs.effects.saving import key_of
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.reference import Reference, mean_intervention, references_of
from sae_graphs.model.answer import answer_of
from sae_graphs.model.instrument import InstrumentedModel, with_saes
from sae_graphs.model.interventions import Intervention


class Measured(NamedTuple):
    """A prompt's effects on its answer, and what they were measured with."""

    asked: Asked
    experiment: Experiment
    table: Table
    references: Sequence[Reference]
    shortlist: Shortlist


class Prepared(NamedTuple):
    """What is going to be measured: by depth also which ablations `[S]` are of dense features."""

    asked: Asked
    experiment: Experiment
    references: Sequence[Reference]
    dense: tuple[Tensor, ...]


@torch.no_grad()
def measure_answer(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    settings: GraphSettings,
    intervention: Intervention | str | None = None,
    progress: Progress | None = None,
    references: Sequence[Reference] | None = None,
    partial: Partial | None = None,
) -> Measured:
    """Every active feature's effect on the answer, at each token but the first, in nats.

    Raises `SaeGraphsError` where the settings do not fit the prompt or the stack.
    """
    asked, experiment, references, dense = prepare_answer(
        model, prompt, settings, intervention, references
    )
    if partial is not None:
        key = functools.partial(key_of, experiment, references)
        partial.begin(key, range(len(experiment.ablations)))
    table, shortlist = measured_table(asked, experiment, dense, progress, partial)
    return Measured(asked, experiment, table, references, shortlist)


def prepare_answer(
    model: InstrumentedModel,
    prompt: str | Sequence[int],
    settings: GraphSettings,
    intervention: Intervention | str | None = None,
    references: Sequence[Reference] | None = None,
) -> Prepared:
    """Run the prompt, and see what is asked of it; see `measure_answer`."""
    model = with_saes(model)
    settings = settings.located({x.label: x.neuronpedia_id for x in model.stack.layers})
    scope = in_scope(model, settings)
    clean = scope.clean_run(prompt, prepend_bos=settings.prepend_bos)
    read = _read_of(len(clean), settings)
    target = settings.target[0] if settings.target else None
    answer = answer_of(scope, clean, read, target=target, contrast=settings.contrast)
    asked = Asked(scope, clean, answer, read)
    if references is None:
        references = references_of(scope)
    if intervention is None or intervention == "mean":
        used = mean_intervention(scope, references)
    else:
        used = chosen_intervention(scope, intervention, clean, settings)
    places = asked.places._replace(reads=torch.arange(read + 1, device=clean.logits.device))
    ablations = tuple(
        ablations_of(clean, depth, places, used) for depth in range(len(scope.stack.layers))
    )
    output = output_token(scope, clean.logits[read], answer.token_id, answer.contrast)
    experiment = Experiment(scope, clean, places, ablations, (output,), used, settings)
    dense = tuple(
        references[depth].dense.to(found.features.device)[found.features]
        for depth, found in enumerate(ablations)
    )
    return Prepared(asked, experiment, references, dense)


def kept_of(found: Measured) -> list[Spot]:
    """The strongest features at tokens, and those that are pinned."""
    settings = found.experiment.settings
    strongest = found.table.strongest(settings.nodes or 1, dense=settings.dense)
    return list(dict.fromkeys([*strongest, *pinned_spots(found)]))


def pinned_spots(found: Measured) -> list[Spot]:
    """The features at tokens that the settings pin; raises where one is inactive."""
    settings, labels = found.experiment.settings, found.experiment.labels
    pinned: list[Spot] = []
    for pin in settings.pins:
        ablations = found.table.ablations[labels.index(pin.layer)]
        rows = ablations.features == pin.index
        if pin.position is not None:
            rows &= ablations.positions == pin.position
        if not rows.any():
            raise inactive_pin(pin)
        pinned += [found.table.spot(ablations.depth, row) for row in rows.nonzero()[:, 0].tolist()]
    return pinned


# -- inside ----------------------------------------------------------------------------------------


def _read_of(n_tokens: int, settings: GraphSettings) -> int:
    """The position whose next token is asked for; raises where no token before it is ablated."""
    assert isinstance(settings.read, int), "settings of an answer graph have seen to it"
    read = read_at(settings.read, n_tokens)
    if read == 0:
        raise SaeGraphsError(
            "the token that is read is the first, and there no feature is ablated: give a longer "
            "prompt, or read another token, or select='effect' (--select effect)"
        )
    return read
