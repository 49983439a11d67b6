"""Time of the effects on the answer: every feature at every token, beside a full pass for each.

- `pass`: one full forward pass with a plain hook that ablates one feature at one token;
- `ours`: the effects of all of them, or of one in so many, scaled up;
- `floor`: the bare multiplications of `ours`: the blocks' products, and those of the
  unembedding; norms, activation functions, masks and the scores are not counted.

Ablated is to the feature's mean over reference text, or to zero in models of random weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

import sae_graphs as sg
from benchmarks.measure import Method, Run, interleaved
from benchmarks.plan import Answered
from benchmarks.shapes import Shapes, Sizes, prepare
from benchmarks.work import Ran
from sae_graphs.effects.ablations import Ablations, ablations_of
from sae_graphs.effects.answer.measure import Asked, effects_on_answer
from sae_graphs.effects.exact import changed_rows, packs
from sae_graphs.features.reference import mean_intervention, references_of
from sae_graphs.model.answer import answer_of
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import ZERO, Intervention
from sae_graphs.model.replay import Replay, Step
from sae_graphs.model.rows import ENCODED_ROWS, Rows
from sae_graphs.model.run import Run as LanguageRun

DEMO = Sizes(n_layers=6, d_model=128, n_heads=4, n_features=1024, vocabulary=2048, context=128)


class Case(NamedTuple):
    """A prompt's answer, the ablations of each layer, and in all how many there are of these."""

    name: str
    sizes: Sizes
    asked: Asked
    ablations: Sequence[Ablations]
    total: int

    @property
    def n(self) -> int:
        """How many are measured."""
        return sum(map(len, self.ablations))


def bundled_case(prompt: str) -> Case:
    """All features at all tokens of a prompt, on the bundled model."""
    model = sg.load("demo")
    means = mean_intervention(model, references_of(model))
    return _case("bundled model", DEMO, model, prompt, means, 1)


def shaped_case(shapes: Shapes, plan: Answered) -> Case:
    """One in so many features at tokens, with random weights of the plan's shapes."""
    workload = prepare(shapes, plan.tokens, plan.active)
    model = InstrumentedModel(shapes.bridge, shapes.saes, name="random")
    name = f"{shapes.sizes.n_layers} blocks of {shapes.sizes.d_model}"
    return _case(name, shapes.sizes, model, workload.prompt.text, ZERO, plan.of)


@torch.no_grad()
def time_answer(case: Case, plan: Answered) -> dict[str, Any]:
    """Seconds of all three, scaled up to all features at tokens; medians and more."""
    run, floor, one = ours(case), floor_run(case), passes(case)
    timings = interleaved(
        [
            Method("floor", floor, floor),
            Method("ours", run, run),
            Method("pass", one, one, plan.passes),
        ],
        budget=plan.budget,
    )
    scale = case.total / case.n
    seconds = {name: timing.median for name, timing in timings.items()}
    return {
        "name": case.name,
        "tokens": len(case.asked.clean),
        "features_at_tokens": case.total,
        "measured": case.n,
        "rounds": timings["ours"].runs,
        "seconds": {
            "floor": scale * seconds["floor"],
            "ours": scale * seconds["ours"],
            "passes": case.total * seconds["pass"],
        },
        "timings": {name: timing._asdict() for name, timing in timings.items()},
        "faster_than_passes": case.n * seconds["pass"] / seconds["ours"],
        "ours_to_floor": seconds["ours"] / seconds["floor"],
    }


def ours(case: Case) -> Run:
    """The effects on the answer, as in every answer graph."""
    return lambda: [effects_on_answer(case.asked, found) for found in case.ablations]


def passes(case: Case) -> Run:
    """One full pass at a time, going round the layers and their ablations.

    The hook puts back what the ablation leaves of the stream's row, worked out before.
    """
    asked = case.asked
    model, clean, answer, read = asked
    tokens = torch.tensor([clean.token_ids])
    turns = cycle(_changed(case))

    def run() -> Tensor:
        hook, position, row = next(turns)

        def ablate(stream: Tensor, hook: Any) -> Tensor:
            stream = stream.clone()
            stream[0, position] = row
            return stream

        logits = model.model.run_with_hooks(tokens, fwd_hooks=[(hook, ablate)])
        return answer.score(logits[0, read])

    return run


def floor_run(case: Case) -> Run:
    """The products that `ours` needs: rows that change, through each block, and the logits.

    All rows as far as their keys and values, to the end those that go on; each attends to as many
    keys as the prompt has tokens.
    """
    with _steps() as work:
        ours(case)()
    width, heads = case.sizes.d_model, case.sizes.n_heads
    tokens, depth = len(case.asked.clean), width // heads
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[-2] ** 0.5

    most = max(done.kept + done.read for done in work)
    qkv, out = random(width, 3 * width), random(width, width)
    up, down = random(width, 4 * width), random(4 * width, width)
    keys, values = random(heads, depth, tokens), random(heads, tokens, depth)
    unembedding, streams = random(width, case.sizes.vocabulary), random(most, width)
    counts = [len(pack) for found in case.ablations for pack in _packs(case.asked, found)]
    ends = [len(part) for n in counts for part in torch.arange(n).split(ENCODED_ROWS)]

    def run() -> None:
        for done in work:
            rows = streams[: done.kept + done.read]
            queries = torch.mm(rows, qkv)[: done.read, :width]
            scores = torch.bmm(queries.view(done.read, heads, depth).transpose(0, 1), keys)
            mixed = torch.bmm(scores, values).transpose(0, 1).reshape(done.read, width)
            torch.mm(torch.mm(torch.mm(mixed, out), up), down)
        for n in ends:
            torch.mm(streams[:n] if n <= most else random(n, width), unembedding)

    return run


# -- inside ----------------------------------------------------------------------------------------


def _case(
    name: str,
    sizes: Sizes,
    model: InstrumentedModel,
    prompt: str,
    intervention: Intervention,
    of: int,
) -> Case:
    clean = model.clean_run(prompt)
    read = len(clean) - 1
    asked = Asked(model, clean, answer_of(model, clean, read), read)
    every = [
        ablations_of(clean, depth, asked.places, intervention) for depth in range(len(clean.points))
    ]
    some = [found.part(0, -(-len(found) // of)) for found in every]
    return Case(name, sizes, asked, some, sum(map(len, every)))


def _changed(case: Case) -> list[tuple[str, int, Tensor]]:
    """For each ablation the hook, the position and the row `[D]` that it leaves, layers in turn."""
    model, clean, _, _ = case.asked
    found: list[list[tuple[str, int, Tensor]]] = []
    for ablations in case.ablations:
        rows = changed_rows(model, clean, ablations)
        hook = clean.points[ablations.depth].hook_name
        positions = rows.where.positions.tolist()
        found.append([(hook, at, row) for at, row in zip(positions, rows.streams, strict=True)])
    longest = max(map(len, found))
    return [layer[turn % len(layer)] for turn in range(longest) for layer in found if layer]


@contextmanager
def _steps() -> Iterator[list[Ran]]:
    """The rows that each block is asked for, in order: those attended to alone, and the others."""
    seen: list[Ran] = []
    step = Replay.step

    def watched(
        self: Replay, run: LanguageRun, at: Step, rows: Rows, wanted: Tensor, n_copies: int
    ) -> Tensor:
        read = int(wanted.sum())
        seen.append(Ran(len(rows.where) - read, read))
        return step(self, run, at, rows, wanted, n_copies)

    with patch.object(Replay, "step", watched):
        yield seen


def _packs(asked: Asked, ablations: Ablations) -> Iterator[Ablations]:
    for _, pack in packs(asked.model, asked.clean, ablations, asked.places, asked.model.end):
        yield pack
