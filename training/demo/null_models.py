"""Where nothing should be found: SAEs whose decoders are mixed up, prompts out of order.

1. Each SAE's decoder directions change places: the features fire as before (their activations
change by the norms of these directions, as sae-lens scales them), and ablating one takes another
feature's direction from the stream. 2. The tokens between the first and the last
change places: where the answer was decided, nothing need decide the new one. The same strongest
features, hits, ablations and validation as of the intact model, on the first of its prompts.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from training.demo.asked import NODES, OTHERS, Question, Ruled, ranked, ruled, validated
from training.demo.truth import chance

if TYPE_CHECKING:
    from sae_graphs.model.instrument import InstrumentedModel

INTACT = "as they are"  # beside which the null models stand
NULL_MODELS = (INTACT, "permuted decoders", "scrambled prompts")
CASES = 12  # prompts of each phenomenon
TRIES = 200  # orders of a prompt, of which the first that the tokenizer gives back is taken


@dataclass(frozen=True)
class Nulled:
    """What is found of a prompt where nothing should be; `which` of the null models it is.

    `lost` and `random_lost` are the shares of the score, of what
    is lost with all rarely-on features, that are lost without the 16 strongest, and without as many
    others of the same layers and tokens.
    """

    which: str
    prompt: str
    score: float
    chance: float
    chance_of_three: float
    lost: float | None
    random_lost: float | None
    ruled: Ruled


class Scrambled(NamedTuple):
    """A prompt in another order, and where its deciding tokens have gone."""

    prompt: str
    deciding: tuple[int, ...]


def permuted(model: InstrumentedModel, seed: int) -> InstrumentedModel:
    """The model with SAEs whose features have each other's decoder directions."""
    import torch

    from sae_graphs.model.instrument import InstrumentedModel

    generator = torch.Generator().manual_seed(seed)
    saes: list[Any] = []
    for layer in model.stack.layers:
        sae = copy.deepcopy(layer.sae)
        order = torch.randperm(len(sae.W_dec), generator=generator)
        sae.W_dec.data = sae.W_dec.data[order]
        saes.append(sae)
    return InstrumentedModel(model.model, saes, name=model.name)


def scrambled(model: InstrumentedModel, question: Question, seed: int) -> Scrambled | None:
    """The prompt with the tokens between the first and the last in another order.

    None where no order was found that the tokenizer reads as these tokens.
    """
    ids = list(model.clean_run(question.prompt).token_ids)
    drawn = random.Random(f"{seed} {question.prompt}")
    inner = list(range(1, len(ids) - 1))
    for _ in range(TRIES):
        order = drawn.sample(inner, len(inner))
        if order == inner:
            continue
        mixed = [ids[0], *(ids[at] for at in order), ids[-1]]
        text = model.tokenizer.decode(mixed[1:])
        if list(model.tokenize(text)) == mixed:
            deciding = [new for new, old in enumerate(order, 1) if old in question.deciding]
            return Scrambled(text, tuple(deciding))
    return None


def nulled(model: InstrumentedModel, question: Question, which: str, seed: int) -> Nulled | None:
    """What is found of one prompt; None where it cannot be put in another order.

    `model` is the intact one: its features' means are those of the other, too.
    """
    import torch

    from sae_graphs.effects.answer.build import graph_of
    from sae_graphs.effects.answer.experiment import measure_answer
    from sae_graphs.effects.settings import GraphSettings
    from sae_graphs.features.reference import references_of

    references = references_of(model)
    if which == "permuted decoders":
        model = permuted(model, seed)
    elif which != INTACT:
        mixed = scrambled(model, question, seed)
        if mixed is None:
            return None
        question = question._replace(prompt=mixed.prompt, deciding=mixed.deciding)
    with torch.no_grad():
        found = measure_answer(model, question.prompt, GraphSettings(), references=references)
        spots = ranked(model, found, "answer")
        graph = graph_of(found, spots[:NODES])
        answer = graph.run.answer
        assert answer is not None and answer.coverage is not None
        unit = validated(model, graph, OTHERS, references).units[0]
        what = ruled(found, question, "answer", spots, unit)
    return Nulled(
        which=which,
        prompt=question.prompt,
        score=found.asked.score,
        chance=chance(question.deciding, question.tokens),
        chance_of_three=chance(question.deciding, question.tokens, first=3),
        lost=answer.coverage.lost,
        random_lost=answer.coverage.random_lost,
        ruled=what,
    )
